/* test_engine_kv.c - samples that move between engines: with their keys and values or without, the same bits;
 * and what is computed twice is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "configs/config.h"
#include "rollout/engine.h"
#include "rollout/sampling/noise.h"
#include "tests/support/random_model.h"

enum { N_GROUPS = 6, GROUP_SIZE = 4, N_SAMPLES = N_GROUPS * GROUP_SIZE, CONTEXT = 160, CASES = 120, N_MODES = 3 };

static struct {
	struct policy *policies[2];
	struct trajectory *fresh[N_SAMPLES];
	struct trajectory *expected[N_MODES][N_SAMPLES]; /* one engine, from start to end; quantized draws its own */
	uint64_t rng;
} world;

static int below(int n) { return (int)(random_bits(&world.rng) % (uint64_t)n); }

static struct engine_options options_of(int mode)
{
	return (struct engine_options){
		.mode = mode, .drafter = DRAFTER_KIND_COMBINED, .draft_length = mode == ROLLOUT_SPECULATIVE ? 3 : 0,
		.draft_length_max = 8, .suffix_tokens = 4096, .max_active = 8, .prefill_chunk = 16, .n_threads = 1,
		.kv_bytes = 1 << 22, .stop_token = -1,
	};
}

static struct engine *engine_with(const struct engine_options *options)
{
	struct engine *engine;
	struct err err;
	if (engine_open(&engine, world.policies[0], options, CONTEXT, &err)) fail_msg("%s", err.text);
	return engine;
}

static int index_of(const struct trajectory *t) { return (int)(t->group_id - 1) * GROUP_SIZE + t->sample; }

static int world_open(void **state)
{
	(void)state;
	struct model_config config = random_model_config(32, 2, 2, 1, 64, 61, CONTEXT);
	struct draft_options draft = {.quantizer = QUANTIZE_SEARCH};
	struct err err;

	world.rng = 99;
	for (int v = 0; v < 2; v++) {
		struct weights weights;
		random_model(&weights, &config, 7 + (uint64_t)v);
		assert_int_equal(policy_create(&world.policies[v], &weights, v, &draft, 1, &err), 0);
		weights_free(&weights);
	}
	for (int i = 0; i < N_SAMPLES; i++) {
		int32_t prompt[64], n_prompt = 1 + (i / GROUP_SIZE * 13) % 50;
		for (int k = 0; k < n_prompt; k++) prompt[k] = 3 + (k * 7 + i / GROUP_SIZE) % 58;
		struct trajectory *t = trajectory_new(prompt, n_prompt, 100);
		t->group_id = (uint64_t)(i / GROUP_SIZE) + 1;
		t->sample = i % GROUP_SIZE;
		t->group_size = GROUP_SIZE;
		t->id = trajectory_id(t->group_id, t->sample);
		t->prompt_id = xstrdup("p");
		t->seed = noise_key(1, "p", i / GROUP_SIZE, i % GROUP_SIZE);
		t->sampling = (struct sampling_options){1.6f, 1.0f, 0, 0};
		world.fresh[i] = t;
	}
	for (int mode = 0; mode < N_MODES; mode++) {
		struct engine_options options = options_of(mode);
		struct engine *engine = engine_with(&options);
		for (int i = 0; i < N_SAMPLES; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
		while (engine_pending(engine)) engine_round(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine));) world.expected[mode][index_of(t)] = t;
		engine_close(engine);
	}
	return 0;
}

static int world_close(void **state)
{
	(void)state;
	for (int i = 0; i < N_SAMPLES; i++) {
		trajectory_free(world.fresh[i]);
		for (int mode = 0; mode < N_MODES; mode++) trajectory_free(world.expected[mode][i]);
	}
	policy_free(world.policies[0]);
	policy_free(world.policies[1]);
	return 0;
}

/* Takes what ended; returns how many. */
static int collect(struct engine *engine, int mode)
{
	int n = 0;
	for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t), n++) {
		const struct trajectory *expected = world.expected[mode][index_of(t)];
		size_t bytes = (size_t)expected->n_tokens * sizeof *t->logprobs;
		assert_int_equal(t->n_tokens, expected->n_tokens);
		assert_memory_equal(t->logprobs, expected->logprobs, bytes);
		if (mode == ROLLOUT_QUANTIZED) assert_memory_equal(t->target_logprobs, expected->target_logprobs, bytes);
		assert_true(trajectory_checksum(t) == trajectory_checksum(expected));
	}
	return n;
}

/* Samples go to and fro between two engines of different shape, in any state. */
static void moving_samples_keep_every_bit(void **state)
{
	(void)state;
	uint64_t imported = 0, drafted = 0;
	size_t page = 0;

	for (int i = 0; i < CASES; i++) {
		int mode = i % N_MODES, n_done = 0;
		struct engine *engines[2];
		for (int k = 0; k < 2; k++) {
			struct engine_options options = options_of(mode);
			options.max_active = 1 + below(8);
			options.prefill_chunk = 1 + below(40);
			options.n_threads = 1 + (i % 16 == 0 && k);
			options.rank = k;
			if (below(2)) options.kv_bytes = 2 * CONTEXT * 2 * 16 * 2 * 2; /* two of the longest: layers, head, K and V, BF16 */
			engines[k] = engine_with(&options);
			page = engine_kv_bytes(engines[k], 1);
		}
		for (int s = 0; s < N_SAMPLES; s++) engine_add(engines[below(2)], trajectory_copy(world.fresh[s]));
		while (n_done < N_SAMPLES) {
			int from = below(2);
			engine_round(engines[0]);
			engine_round(engines[1]);
			uint64_t id = below(3) ? engine_least_progress(engines[from]) : trajectory_id(1 + (uint64_t)below(N_GROUPS), below(GROUP_SIZE));
			struct kv_parcel parcel;
			struct trajectory *t = below(4) ? NULL : engine_withdraw_with_kv(engines[from], id, &parcel);
			if (t) {
				assert_true(!parcel.bytes || parcel.n_bytes % page == 0);
				if (below(8) == 0) parcel.version++; /* of other weights: ignored */
				else if (below(8) == 0) parcel.n_bytes -= page; /* not what its positions take */
				else if (below(8) == 0) parcel.n_positions = t->n_tokens;
				engine_add_with_kv(engines[below(2)], t, &parcel);
				kv_parcel_free(&parcel);
			}
			for (int k = 0; k < 2; k++) {
				struct engine_stats stats;
				engine_stats_read(engines[k], &stats);
				assert_true(stats.kv_pages_used <= stats.kv_pages_max);
				n_done += collect(engines[k], mode);
			}
		}
		for (int k = 0; k < 2; k++) {
			struct engine_stats stats;
			engine_stats_read(engines[k], &stats);
			assert_int_equal(stats.kv_pages_used, 0);
			imported += stats.imported_tokens;
			drafted += stats.drafted;
			engine_close(engines[k]);
		}
	}
	assert_true(imported > 1000 && drafted > 1000);
}

/* With its KV a sample goes on without a prefill; without, all of it but the prompt's sharing is done again. */
static void what_is_computed_again_is_counted(void **state)
{
	(void)state;
	for (int ship = 0; ship < 2; ship++) {
		struct engine_options options = options_of(ROLLOUT_EXACT);
		struct engine *a = engine_with(&options), *b = engine_with(&options);
		struct engine_stats first, second;
		struct kv_parcel parcel;
		int n_prompt = world.fresh[2 * GROUP_SIZE]->n_prompt;

		for (int i = 0; i < GROUP_SIZE; i++) engine_add(a, trajectory_copy(world.fresh[2 * GROUP_SIZE + i]));
		for (int i = 0; i < 12; i++) engine_round(a);
		struct trajectory *t = engine_withdraw_with_kv(a, engine_least_progress(a), &parcel);
		int begun = t->n_tokens;
		assert_true(begun > n_prompt + 4 && parcel.n_positions == begun - 1);
		if (ship) engine_add_with_kv(b, t, &parcel);
		else engine_add(b, t);
		kv_parcel_free(&parcel);
		while (engine_pending(a)) engine_round(a);
		while (engine_pending(b)) engine_round(b);
		engine_stats_read(a, &first);
		engine_stats_read(b, &second);
		assert_int_equal(first.prompt_tokens, n_prompt - 1);
		assert_int_equal(first.recomputed_tokens, 0);
		assert_int_equal(second.prompt_tokens, 0);
		assert_int_equal(second.recomputed_tokens, ship ? 0 : begun - 1);
		assert_int_equal(second.imported_tokens, ship ? begun - 1 : 0);
		assert_int_equal(collect(a, ROLLOUT_EXACT) + collect(b, ROLLOUT_EXACT), GROUP_SIZE);
		engine_close(a);
		engine_close(b);
	}
}

/* Parcels that wait in the queue are forgotten with the weights that made them. */
static void new_weights_make_parcels_worthless(void **state)
{
	(void)state;
	struct engine_options options = options_of(ROLLOUT_EXACT);
	struct engine *a = engine_with(&options);
	options.max_active = 1;
	struct engine *b = engine_with(&options);
	struct engine_stats stats;
	struct trajectory *t;
	struct kv_parcel parcel;

	for (int i = 0; i < 4; i++) engine_add(a, trajectory_copy(world.fresh[i]));
	for (int i = 0; i < 8; i++) engine_round(a);
	for (uint64_t id; (id = engine_least_progress(a)); kv_parcel_free(&parcel)) {
		t = engine_withdraw_with_kv(a, id, &parcel);
		engine_add_with_kv(b, t, &parcel);
	}
	engine_set_policy(b, world.policies[1], false);
	while (engine_pending(b)) engine_round(b);
	engine_stats_read(b, &stats);
	assert_int_equal(stats.imported_tokens, 0);
	assert_true(stats.recomputed_tokens > 0);
	for (; (t = engine_take_finished(b)); trajectory_free(t)) assert_int_equal(t->versions[t->n_tokens - 1], 1);
	engine_close(a);
	engine_close(b);
}

/* Many sessions, drafts and rescoring in the least budget that is taken: never a page more. */
static void the_budget_holds(void **state)
{
	(void)state;
	for (int mode = 0; mode < N_MODES; mode++)
		for (int extra = 0; extra < 6; extra++) {
			struct engine_options options = options_of(mode);
			struct engine_stats stats;
			struct engine *engine = engine_with(&options);
			size_t page = engine_kv_bytes(engine, 1);
			int n_pages = (int)(engine_kv_bytes(engine, CONTEXT) / page) + extra, n_done = 0;
			engine_close(engine);
			options.kv_bytes = (page + 64) * (size_t)n_pages;
			options.max_active = 24;
			options.draft_length = mode == ROLLOUT_SPECULATIVE ? 8 : 0;
			engine = engine_with(&options);
			for (int i = 0; i < N_SAMPLES; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
			for (int round = 0; n_done < N_SAMPLES; round++) {
				engine_round(engine);
				engine_stats_read(engine, &stats);
				assert_int_equal(stats.kv_pages_max, n_pages);
				assert_true(stats.kv_pages_used <= n_pages);
				n_done += collect(engine, mode);
				assert_true(round < 100000);
			}
			assert_true(stats.preemptions > 0 && (mode != ROLLOUT_QUANTIZED || stats.rescored_tokens > 0));
			engine_close(engine);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(moving_samples_keep_every_bit),
		cmocka_unit_test(what_is_computed_again_is_counted),
		cmocka_unit_test(new_weights_make_parcels_worthless),
		cmocka_unit_test(the_budget_holds),
	};
	return cmocka_run_group_tests(tests, world_open, world_close);
}
