/* test_observe.c - the hidden state that the quality head reads is the same bits whatever the engine does: random batches,
 * chunks, threads, drafters, budgets, samples put aside and resumed, against one sample alone, a row at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "configs/config.h"
#include "rollout/engine.h"
#include "rollout/sampling/noise.h"
#include "rollout/sampling/sampling.h"
#include "tests/support/random_model.h"

enum { DIM = 32, CONTEXT = 96, N_GROUPS = 6, GROUP_SIZE = 4, N_SAMPLES = N_GROUPS * GROUP_SIZE, VERSIONS = 2, CASES = 24, AT_MAX = 20 };

static struct {
	struct policy *policies[VERSIONS];
	struct trajectory *fresh[N_SAMPLES], *expected[N_SAMPLES];
	float hidden[N_SAMPLES][AT_MAX + 1][DIM]; /* after so many response tokens, under version 0 */
	uint64_t rng;
} world;

static int below(int n) { return (int)(random_bits(&world.rng) % (uint64_t)n); }

/* One sample, a row at a time: after[k] is what the row saw that had read k response tokens; all under the version. */
static void hidden_alone(const struct trajectory *t, int version, float after[AT_MAX + 1][DIM])
{
	const struct model_config *config = &world.policies[0]->config;
	size_t stride = forward_logits_stride(config);
	float *logits = xaligned(stride * sizeof *logits);
	struct forward *forward = forward_open(config, 1, 1);
	struct kv_cache *cache;
	struct kv_seq seq;
	struct err err;

	assert_int_equal(kv_cache_open(&cache, config, KV_BF16, 1 << 20, &err), 0);
	kv_seq_open(&seq, cache);
	for (int i = 0; i < t->n_tokens && i < t->n_prompt + AT_MAX; i++) {
		struct forward_row row = {&seq, i, t->tokens[i], 0};
		assert_int_equal(kv_seq_reserve(&seq, i, i + 1), 0);
		forward_run(forward, world.policies[version], PART_TARGET, &row, 1, logits, stride);
		if (i >= t->n_prompt - 1) memcpy(after[i + 1 - t->n_prompt], forward_hidden(forward, 0), DIM * sizeof(float));
	}
	kv_seq_close(&seq);
	kv_cache_close(cache);
	forward_close(forward);
	free(logits);
}

static struct engine *open_engine(int observe_at, int version, bool alone)
{
	struct engine_options o = { .mode = alone ? ROLLOUT_EXACT : below(3) ? ROLLOUT_SPECULATIVE : ROLLOUT_EXACT,
		.drafter = alone ? 0 : below(3), .draft_length = alone ? 0 : 1 + below(6), .draft_length_max = 8, .suffix_tokens = 4096,
		.max_active = alone ? 1 : 1 + below(12), .prefill_chunk = 4 + below(40), .n_threads = alone ? 1 : 1 + below(2),
		.kv_type = KV_BF16, .kv_bytes = 1 << 20, .stop_token = -1, .observe_at = observe_at };
	struct engine *engine;
	struct err err;

	assert_int_equal(engine_open(&engine, world.policies[version], &o, CONTEXT, &err), 0);
	return engine;
}

static int world_open(void **state)
{
	(void)state;
	struct model_config config = random_model_config(DIM, 2, 2, 1, 64, 61, CONTEXT);
	struct err err;

	world.rng = 31;
	for (int v = 0; v < VERSIONS; v++) {
		struct weights weights;
		random_model(&weights, &config, 7 + (uint64_t)v);
		assert_int_equal(policy_create(&world.policies[v], &weights, v, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, 1, &err), 0);
		weights_free(&weights);
	}
	for (int i = 0; i < N_SAMPLES; i++) {
		static int32_t prompt[CONTEXT], n_prompt;
		if (i % GROUP_SIZE == 0) {
			n_prompt = 1 + below(40);
			for (int k = 0; k < n_prompt; k++) prompt[k] = 3 + below(58);
		}
		struct trajectory *t = trajectory_new(prompt, n_prompt, 5 + below(40));
		t->group_id = (uint64_t)(i / GROUP_SIZE) + 1;
		t->sample = i % GROUP_SIZE;
		t->group_size = GROUP_SIZE;
		t->id = trajectory_id(t->group_id, t->sample);
		t->prompt_id = xstrdup("p");
		t->seed = noise_key(t->group_id, t->prompt_id, 0, t->sample);
		t->sampling = (struct sampling_options){ .temperature = 1, .top_p = 1 };
		t->eval = i == 5;
		world.fresh[i] = t;
		struct engine *alone = open_engine(0, 0, true);
		engine_add(alone, trajectory_copy(t));
		while (engine_pending(alone)) engine_round(alone);
		world.expected[i] = engine_take_finished(alone);
		engine_close(alone);
		hidden_alone(world.expected[i], 0, world.hidden[i]);
	}
	return 0;
}

static int world_close(void **state)
{
	(void)state;
	for (int i = 0; i < N_SAMPLES; i++) {
		trajectory_free(world.fresh[i]);
		trajectory_free(world.expected[i]);
	}
	for (int v = 0; v < VERSIONS; v++) policy_free(world.policies[v]);
	return 0;
}

struct seen {
	int times[N_SAMPLES];
	int32_t version[N_SAMPLES];
	float hidden[N_SAMPLES][DIM];
};

static void each(void *context, const struct trajectory *t, const float *hidden, int dim, int32_t version)
{
	struct seen *seen = context;
	int i = (int)(t->group_id - 1) * GROUP_SIZE + t->sample;

	assert_int_equal(dim, DIM);
	seen->times[i]++;
	seen->version[i] = version;
	memcpy(seen->hidden[i], hidden, sizeof seen->hidden[i]);
}

static void test_same_whatever_the_engine_does(void **state)
{
	(void)state;
	int n_seen = 0;

	for (int c = 0; c < CASES; c++) {
		int at = 1 + below(AT_MAX), finished = 0, moves = 8;
		struct engine *engine = open_engine(at, 0, false);
		struct seen seen = {{0}, {0}, {{0}}};
		for (int i = 0; i < N_SAMPLES; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
		while (finished < N_SAMPLES) {
			engine_round(engine);
			engine_each_observed(engine, each, &seen);
			for (struct trajectory *t; (t = engine_take_finished(engine)); finished++) trajectory_free(t);
			struct trajectory *aside = moves > 0 && below(6) == 0 ? engine_withdraw(engine, 0) : NULL;
			moves -= aside != NULL;
			if (aside && below(2)) { /* goes on elsewhere */
				struct engine *other = open_engine(at, 0, false);
				engine_add(other, aside);
				engine_round(other);
				engine_each_observed(other, each, &seen);
				aside = engine_withdraw(other, 0);
				for (struct trajectory *t; (t = engine_take_finished(other)); finished++) trajectory_free(t);
				engine_close(other);
			}
			if (aside) engine_add(engine, aside);
		}
		for (int i = 0; i < N_SAMPLES; i++) {
			const struct trajectory *t = world.expected[i];
			bool gets_there = trajectory_response_length(t) > at && !t->eval;
			assert_int_equal(seen.times[i], gets_there);
			if (!gets_there) continue;
			n_seen++;
			if (memcmp(world.hidden[i][at], seen.hidden[i], sizeof seen.hidden[i])) fail_msg("case %d, sample %d: another hidden state after %d tokens", c, i, at);
		}
		engine_close(engine);
	}
	assert_in_range(n_seen, 200, UINT32_MAX);
}

/* New weights before it: the state of the newer version over the tokens of the older. */
static void test_new_weights(void **state)
{
	(void)state;
	enum { AT = 6 };
	struct engine *engine = open_engine(AT, 0, false);
	struct seen seen = {{0}, {0}, {{0}}};
	struct trajectory *t = trajectory_copy(world.fresh[0]);
	static float after[AT_MAX + 1][DIM];

	t->max_tokens = AT; /* to its limit alone, then further under other weights */
	struct engine *alone = open_engine(0, 0, true);
	engine_add(alone, t);
	while (engine_pending(alone)) engine_round(alone);
	t = engine_take_finished(alone);
	engine_close(alone);
	assert_int_equal(trajectory_response_length(t), AT);
	struct trajectory *first = trajectory_copy(t);
	t->finish = FINISH_NONE;
	t->max_tokens = 20;
	engine_set_policy(engine, world.policies[1], false);
	engine_add(engine, t);
	while (engine_pending(engine)) {
		engine_round(engine);
		engine_each_observed(engine, each, &seen);
	}
	assert_int_equal(seen.times[0], 1);
	assert_int_equal(seen.version[0], 1);
	hidden_alone(first, 1, after);
	assert_memory_equal(after[AT], seen.hidden[0], sizeof seen.hidden[0]);
	trajectory_free(first);
	trajectory_free(engine_take_finished(engine));
	engine_close(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_whatever_the_engine_does), cmocka_unit_test(test_new_weights),
	};
	return cmocka_run_group_tests(tests, world_open, world_close);
}
