/* test_engine.c - whatever the engine does, a sample is the same bits: hundreds of random cases
 * (batch, chunks, threads, budget, speculation, joining, leaving, resuming, new weights) against a
 * reference that generates one sample alone, one row at a time. */
#include <math.h>
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
#include "rollout/sampling/sampling.h"
#include "rollout/score.h"
#include "tests/support/random_model.h"

enum { N_VERSIONS = 2, N_GROUPS = 8, GROUP_SIZE = 4, N_SAMPLES = N_GROUPS * GROUP_SIZE };
enum { CONTEXT = 96, CASES = 250 };

static struct {
	struct policy *policies[N_VERSIONS];
	struct trajectory *fresh[N_SAMPLES];
	struct trajectory *expected[N_SAMPLES]; /* under version 0 */
	uint64_t rng;
} world;

static int below(int n) { return (int)(random_bits(&world.rng) % (uint64_t)n); }

/* ---- the reference ---- */

/* Continue t to its end: the token at index i is drawn under the policy that version_at names. */
static void generate_alone(struct trajectory *t, int (*version_at)(const void *context, int32_t index),
                           const void *context, int32_t stop_token)
{
	const struct model_config *config = &world.policies[0]->config;
	size_t stride = forward_logits_stride(config);
	float *logits = xaligned(stride * sizeof *logits);
	struct forward *forward = forward_open(config, 1, 1);
	struct sampler *sampler = sampler_open(config->vocab_size);
	struct kv_cache *cache;
	struct kv_seq seq;
	struct err err;
	int computed = 0, version = -1;

	assert_int_equal(kv_cache_open(&cache, config, KV_BF16, 1 << 24, &err), 0);
	kv_seq_open(&seq, cache);
	while (t->finish == FINISH_NONE) {
		int now = version_at ? version_at(context, t->n_tokens) : 0;
		float logprob;
		if (now != version) computed = 0;
		version = now;
		for (; computed < t->n_tokens; computed++) {
			struct forward_row row = {&seq, computed, t->tokens[computed], 0};
			assert_int_equal(kv_seq_reserve(&seq, computed, computed + 1), 0);
			forward_run(forward, world.policies[version], PART_TARGET, &row, 1, logits, stride);
		}
		int32_t token = sampler_draw(sampler, logits, &t->sampling, t->seed, t->n_tokens, &logprob);
		trajectory_append(t, token, logprob, version, 0, ROLLOUT_EXACT);
		if (token == config->eos_ids[0] || token == stop_token) t->finish = FINISH_STOP;
		else if (t->n_tokens - t->n_prompt == t->max_tokens || t->n_tokens == CONTEXT)
			t->finish = FINISH_LENGTH;
	}
	kv_seq_close(&seq);
	kv_cache_close(cache);
	sampler_close(sampler);
	forward_close(forward);
	free(logits);
}

static void assert_same(const struct trajectory *found, const struct trajectory *expected)
{
	size_t n = (size_t)expected->n_tokens;
	assert_int_equal(found->n_tokens, expected->n_tokens);
	assert_memory_equal(found->tokens, expected->tokens, n * sizeof *found->tokens);
	assert_memory_equal(found->logprobs, expected->logprobs, n * sizeof *found->logprobs);
	assert_memory_equal(found->versions, expected->versions, n * sizeof *found->versions);
	assert_int_equal(found->finish, expected->finish);
	assert_true(trajectory_checksum(found) == trajectory_checksum(expected));
}

/* ---- the world: two versions, groups of samples with all kinds of settings ---- */

static int world_open(void **state)
{
	(void)state;
	static const struct sampling_options settings[] = {
		{1.0f, 1.0f, 0}, {0.7f, 0.9f, 0}, {1.3f, 1.0f, 12, 0.02f}, {0.0f, 1.0f, 0, 0.1f},
	};
	struct model_config config = random_model_config(32, 2, 2, 1, 64, 61, CONTEXT);
	struct err err;

	world.rng = 2024;
	for (int v = 0; v < N_VERSIONS; v++) {
		struct weights weights;
		random_model(&weights, &config, 7 + (uint64_t)v);
		assert_int_equal(policy_create(&world.policies[v], &weights, v, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, 1, &err), 0);
		weights_free(&weights);
	}
	for (int g = 0; g < N_GROUPS; g++) {
		int32_t prompt[CONTEXT], n_prompt = g == 0 ? 1 : g == 1 ? CONTEXT - 3 : g == 2 ? 33 : 1 + below(40);
		for (int i = 0; i < n_prompt; i++) prompt[i] = 3 + below(58);
		for (int s = 0; s < GROUP_SIZE; s++) {
			struct trajectory *t = trajectory_new(prompt, n_prompt, g == 3 ? 1 : 5 + below(50));
			t->group_id = (uint64_t)g + 1;
			t->sample = s;
			t->group_size = GROUP_SIZE;
			t->id = trajectory_id(t->group_id, s);
			t->prompt_id = xstrdup("p");
			t->seed = noise_key((uint64_t)g, t->prompt_id, 0, s);
			t->sampling = settings[g % 4];
			world.fresh[g * GROUP_SIZE + s] = t;
			world.expected[g * GROUP_SIZE + s] = trajectory_copy(t);
			generate_alone(world.expected[g * GROUP_SIZE + s], NULL, NULL, -1);
		}
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
	for (int v = 0; v < N_VERSIONS; v++) policy_free(world.policies[v]);
	return 0;
}

static const struct trajectory *expected_of(const struct trajectory *t)
{
	return world.expected[(t->group_id - 1) * GROUP_SIZE + (uint64_t)t->sample];
}

static size_t page_bytes(void)
{
	struct kv_cache *cache;
	struct err err;
	assert_int_equal(kv_cache_open(&cache, &world.policies[0]->config, KV_BF16, 1 << 24, &err), 0);
	size_t bytes = kv_cache_page_bytes(cache);
	kv_cache_close(cache);
	return bytes;
}

static struct engine_options plain_options(int mode)
{
	return (struct engine_options){
		.mode = mode, .drafter = DRAFTER_KIND_QUANT, .draft_length = 4, .draft_length_max = 8, .suffix_tokens = 4096, .max_active = 8, .prefill_chunk = 16,
		.n_threads = 1, .kv_bytes = 1 << 22, .stop_token = -1,
	};
}

static struct engine *engine_with(const struct engine_options *options)
{
	struct engine *engine;
	struct err err;
	int rc = engine_open(&engine, world.policies[0], options, CONTEXT, &err);
	if (rc) fail_msg("%s", err.text);
	return engine;
}

static void run_to_end(struct engine *engine)
{
	for (int i = 0; engine_pending(engine); i++) {
		assert_true(engine_round(engine) > 0);
		assert_true(i < 100000);
	}
}

/* ---- cases ---- */

/* Samples join at random rounds and are put aside and resumed at random rounds. */
static void random_case(const struct engine_options *options)
{
	struct engine *engine = engine_with(options);
	struct trajectory *outside[N_SAMPLES];
	int n_outside = 0, n_finished = 0, n_wanted = 1 + below(N_SAMPLES), first = below(N_SAMPLES);
	int leaving = below(3) == 0 ? 10 : 0; /* percent per round */

	for (int i = 0; i < n_wanted; i++)
		outside[n_outside++] = trajectory_copy(world.fresh[(first + i) % N_SAMPLES]);
	while (n_finished < n_wanted) {
		struct trajectory *t;
		while (n_outside > 0 && below(3) > 0) {
			int pick = below(n_outside);
			engine_add(engine, outside[pick]);
			outside[pick] = outside[--n_outside];
		}
		engine_round(engine);
		if (below(100) < leaving && (t = engine_withdraw(engine, 0))) outside[n_outside++] = t;
		while ((t = engine_take_finished(engine))) {
			assert_same(t, expected_of(t));
			trajectory_free(t);
			n_finished++;
		}
	}
	struct engine_stats stats;
	engine_stats_read(engine, &stats);
	assert_int_equal(stats.active + stats.queued, 0);
	assert_int_equal(stats.kv_pages_used, 0);
	engine_close(engine);
}

static void random_cases_are_the_same_bits(void **state)
{
	(void)state;
	size_t page = page_bytes();
	int pages_least = (CONTEXT + 15) / 16;

	for (int i = 0; i < CASES; i++) {
		struct engine_options options = {
			.mode = below(4) ? ROLLOUT_SPECULATIVE : ROLLOUT_EXACT,
			.drafter = below(3),
			.draft_length = below(9),
			.draft_length_max = 1 + below(16),
			.suffix_tokens = 1 << (8 + below(8)),
			.max_active = 1 + below(9),
			.prefill_chunk = 1 + below(40),
			.n_threads = 1 + (i % 16 == 0), /* seldom: other tests run beside this one */
			.kv_bytes = page * (size_t)(pages_least + (below(2) ? below(12) : 200)),
			.stop_token = -1,
		};
		random_case(&options);
	}
}

/* What each version made is told by the segments; the reference changes weights at the same places. */
static int version_by_segment(const void *context, int32_t index)
{
	const struct trajectory *t = context;
	for (int i = 0; i < t->n_segments; i++)
		if (index < t->segments[i].start + t->segments[i].length) return t->segments[i].version;
	return -1;
}

static void new_weights_in_flight(void **state)
{
	(void)state;
	int n_mixed = 0;

	for (int i = 0; i < 30; i++) {
		struct engine_options options = plain_options(i % 3 ? ROLLOUT_SPECULATIVE : ROLLOUT_EXACT);
		options.draft_length = 1 + i % 8;
		options.max_active = 1 + below(9);
		struct engine *engine = engine_with(&options);
		int rounds = below(25);
		for (int s = 0; s < N_SAMPLES; s++) engine_add(engine, trajectory_copy(world.fresh[s]));
		for (int r = 0; r < rounds; r++) engine_round(engine);
		engine_set_policy(engine, world.policies[1], false);
		run_to_end(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t)) {
			const struct trajectory *fresh =
				world.fresh[(t->group_id - 1) * GROUP_SIZE + (uint64_t)t->sample];
			struct trajectory *expected = trajectory_copy(fresh);
			generate_alone(expected, version_by_segment, t, -1);
			assert_same(t, expected);
			assert_true(t->n_segments == 1 || (t->n_segments == 2 && t->segments[1].version == 1));
			n_mixed += t->n_segments == 2;
			trajectory_free(expected);
		}
		engine_close(engine);
	}
	assert_true(n_mixed > 20);
}

/* The same, for a reference that may get longer than t. */
static int version_by_segment_then_newest(const void *context, int32_t index)
{
	return index < ((const struct trajectory *)context)->n_tokens ? version_by_segment(context, index) : 1;
}

/* Index of the first token that was drawn over kept keys and values, or n_tokens. */
static int32_t first_kept(const struct trajectory *t)
{
	for (int i = 0; i < t->n_segments; i++)
		if (t->segments[i].mode & SEGMENT_KV_KEPT) return t->segments[i].start;
	return t->n_tokens;
}

/* scheduler.kv: keep.  What decodes goes on over its old keys and values and is marked; up to there, and for samples
 * that were not decoding or come later, the bits are those of recomputing. */
static void kept_keys_and_values_are_marked(void **state)
{
	(void)state;
	int n_marked = 0, n_differ = 0, n_exact = 0;

	for (int i = 0; i < 30; i++) {
		struct engine_options options = plain_options(i % 3 ? ROLLOUT_SPECULATIVE : ROLLOUT_EXACT);
		options.draft_length = 1 + i % 8;
		options.max_active = 1 + below(9);
		struct engine *engine = engine_with(&options);
		for (int s = 0; s < N_SAMPLES; s++) engine_add(engine, trajectory_copy(world.fresh[s]));
		for (int r = below(25); r > 0; r--) engine_round(engine);
		engine_set_policy(engine, world.policies[1], true);
		run_to_end(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t)) {
			struct trajectory *expected =
				trajectory_copy(world.fresh[(t->group_id - 1) * GROUP_SIZE + (uint64_t)t->sample]);
			int32_t kept = first_kept(t);
			generate_alone(expected, version_by_segment_then_newest, t, -1);
			if (kept == t->n_tokens) {
				assert_same(t, expected);
				n_exact += t->versions[t->n_tokens - 1] == 1;
			} else {
				assert_int_equal(t->versions[kept], 1);
				assert_memory_equal(t->tokens, expected->tokens, (size_t)kept * sizeof *t->tokens);
				assert_memory_equal(t->logprobs, expected->logprobs, (size_t)kept * sizeof *t->logprobs);
				n_marked++;
				n_differ += t->logprobs[kept] != expected->logprobs[kept];
			}
			trajectory_free(expected);
		}
		engine_close(engine);
	}
	assert_true(n_marked > 20 && n_differ > n_marked / 2 && n_exact > 20);
}

/* Another version of the same weights: keeping or not is the same, and marked all the same. */
static void kept_keys_and_values_of_equal_weights(void **state)
{
	(void)state;
	struct weights weights;
	struct policy *again;
	struct err err;
	int n_marked = 0;

	random_model(&weights, &world.policies[0]->config, 7);
	assert_int_equal(policy_create(&again, &weights, 5, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, 1, &err), 0);
	weights_free(&weights);
	for (int i = 0; i < 6; i++) {
		struct engine_options options = plain_options(i % 2 ? ROLLOUT_SPECULATIVE : ROLLOUT_EXACT);
		struct engine *engine = engine_with(&options);
		for (int s = 0; s < N_SAMPLES; s++) engine_add(engine, trajectory_copy(world.fresh[s]));
		for (int r = 0; r < 6 + 4 * i; r++) engine_round(engine);
		engine_set_policy(engine, again, true);
		run_to_end(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t)) {
			const struct trajectory *expected = expected_of(t);
			assert_int_equal(t->n_tokens, expected->n_tokens);
			assert_memory_equal(t->tokens, expected->tokens, (size_t)t->n_tokens * sizeof *t->tokens);
			assert_memory_equal(t->logprobs, expected->logprobs, (size_t)t->n_tokens * sizeof *t->logprobs);
			n_marked += first_kept(t) < t->n_tokens;
		}
		engine_close(engine);
	}
	policy_free(again);
	assert_true(n_marked > 6);
}

static void scores_equal_records(void **state)
{
	(void)state;
	struct scorer *scorers[2] = {scorer_open(world.policies[0], KV_BF16, 1), scorer_open(world.policies[0], KV_BF16, 2)};
	for (int i = 0; i < N_SAMPLES; i++) {
		const struct trajectory *t = world.expected[i];
		float logprobs[CONTEXT];
		struct err err;
		assert_int_equal(score_tokens(scorers[i % 8 == 0], t->tokens, t->n_prompt, t->n_tokens, &t->sampling, logprobs, &err), 0);
		assert_memory_equal(logprobs + t->n_prompt, t->logprobs + t->n_prompt,
		                    (size_t)trajectory_response_length(t) * sizeof *logprobs);
	}
	for (int i = 0; i < 2; i++) scorer_close(scorers[i]);
}

static void scores_refuse_bad_tokens(void **state)
{
	(void)state;
	int32_t tokens[CONTEXT + 1] = {5, 61, 5};
	struct sampling_options sampling = {1.0f, 1.0f, 0};
	float logprobs[CONTEXT + 1];
	struct err err;
	struct scorer *scorer = scorer_open(world.policies[0], KV_BF16, 1);
	assert_int_equal(score_tokens(scorer, tokens, 1, 3, &sampling, logprobs, &err), ERR_INVALID);
	assert_int_equal(score_tokens(scorer, tokens, 0, 1, &sampling, logprobs, &err), ERR_INVALID);
	assert_int_equal(score_tokens(scorer, tokens, 1, CONTEXT + 1, &sampling, logprobs, &err), ERR_TOO_BIG);
	scorer_close(scorer);
}

/* Three samples fit at first and not in the end: the newest is put back, and still the same bits. */
static void preemption_under_a_tight_budget(void **state)
{
	(void)state;
	enum { N = 6 };
	int32_t prompt[2] = {5, 6};
	struct trajectory *fresh[N], *expected[N];

	for (int i = 0; i < N; i++) {
		fresh[i] = trajectory_new(prompt, 2, CONTEXT - 2);
		fresh[i]->id = fresh[i]->group_id = (uint64_t)i + 1;
		fresh[i]->seed = 50 + (uint64_t)i;
		fresh[i]->sampling.temperature = 2.0f; /* seldom draws the end token */
		expected[i] = trajectory_copy(fresh[i]);
		generate_alone(expected[i], NULL, NULL, -1);
	}
	for (int mode = ROLLOUT_EXACT; mode <= ROLLOUT_SPECULATIVE; mode++) {
		struct engine_options options = plain_options(mode);
		struct engine_stats stats;
		options.kv_bytes = page_bytes() * 12;
		struct engine *engine = engine_with(&options);
		for (int i = 0; i < N; i++) engine_add(engine, trajectory_copy(fresh[i]));
		run_to_end(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t))
			assert_same(t, expected[t->id - 1]);
		engine_stats_read(engine, &stats);
		assert_true(stats.preemptions > 0);
		assert_int_equal(stats.kv_pages_max, 12);
		engine_close(engine);
	}
	for (int i = 0; i < N; i++) {
		trajectory_free(fresh[i]);
		trajectory_free(expected[i]);
	}
}

static void budget_for_less_than_one_sequence_is_refused(void **state)
{
	(void)state;
	struct engine_options options = plain_options(ROLLOUT_EXACT);
	struct engine *engine;
	struct err err;
	options.kv_bytes = page_bytes() * 5;
	assert_int_equal(engine_open(&engine, world.policies[0], &options, CONTEXT, &err), ERR_MEMORY);
	assert_int_equal(engine_open(&engine, world.policies[0], &options, 80, &err), 0);
	/* 93 prompt tokens and more do not fit 80 positions: an error on the sample, the engine goes on. */
	engine_add(engine, trajectory_copy(world.fresh[GROUP_SIZE]));
	struct trajectory *t = engine_take_finished(engine);
	assert_int_equal(t->finish, FINISH_ERROR);
	assert_non_null(strstr(t->error, "80"));
	trajectory_free(t);
	engine_close(engine);
}

static void bad_samples_are_errors(void **state)
{
	(void)state;
	struct engine_options options = plain_options(ROLLOUT_EXACT);
	struct engine *engine = engine_with(&options);
	struct trajectory *t;
	int32_t prompt[CONTEXT + 1];

	for (int i = 0; i <= CONTEXT; i++) prompt[i] = 3;
	engine_add(engine, trajectory_new(prompt, CONTEXT + 1, 4));
	engine_add(engine, trajectory_new(prompt, 0, 4));
	prompt[1] = 61;
	engine_add(engine, trajectory_new(prompt, 2, 4));
	prompt[1] = -1;
	engine_add(engine, trajectory_new(prompt, 2, 4));
	assert_int_equal(engine_pending(engine), 0);
	for (int i = 0; i < 4; i++) {
		t = engine_take_finished(engine);
		assert_int_equal(t->finish, FINISH_ERROR);
		assert_non_null(t->error);
		trajectory_free(t);
	}
	engine_add(engine, trajectory_new(prompt, 1, 0));
	t = engine_take_finished(engine);
	assert_int_equal(t->finish, FINISH_LENGTH);
	trajectory_free(t);
	assert_null(engine_take_finished(engine));
	engine_close(engine);
}

static void group_prompts_are_computed_once(void **state)
{
	(void)state;
	struct engine_options options = plain_options(ROLLOUT_EXACT);
	struct engine *engine = engine_with(&options);
	struct engine_stats stats;

	for (int i = 0; i < GROUP_SIZE; i++) engine_add(engine, trajectory_copy(world.fresh[2 * GROUP_SIZE + i]));
	run_to_end(engine);
	engine_stats_read(engine, &stats);
	assert_int_equal(stats.prefill_rows, 32); /* 33 tokens: the last one is each sample's own */
	assert_int_equal(stats.prefix_shared_tokens, 3 * 32);
	assert_int_equal(stats.decode_rows, stats.tokens);
	engine_close(engine); /* with finished samples in it */
}

static void stop_token_ends_a_sample(void **state)
{
	(void)state;
	int n_stopped = 0;

	for (int mode = ROLLOUT_EXACT; mode <= ROLLOUT_SPECULATIVE; mode++) {
		struct engine_options options = plain_options(mode);
		options.stop_token =
			world.expected[4 * GROUP_SIZE]->tokens[world.expected[4 * GROUP_SIZE]->n_prompt + 2];
		struct engine *engine = engine_with(&options);
		for (int i = 0; i < N_SAMPLES; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
		run_to_end(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t)) {
			struct trajectory *expected =
				trajectory_copy(world.fresh[(t->group_id - 1) * GROUP_SIZE + (uint64_t)t->sample]);
			generate_alone(expected, NULL, NULL, options.stop_token);
			assert_same(t, expected);
			bool stopped = t->finish == FINISH_STOP && t->tokens[t->n_tokens - 1] == options.stop_token;
			if (stopped) assert_int_equal(t->loss_mask[t->n_tokens - 1], 1);
			n_stopped += stopped;
			trajectory_free(expected);
		}
		engine_close(engine);
	}
	assert_true(n_stopped >= 2);
}

static void speculation_counts(void **state)
{
	(void)state;
	struct engine_options options = plain_options(ROLLOUT_SPECULATIVE);
	struct engine *engine = engine_with(&options);
	struct engine_stats stats;
	uint64_t drafted = 0, accepted = 0, tokens = 0;

	for (int i = 0; i < N_SAMPLES; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
	run_to_end(engine);
	for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t)) {
		assert_true(t->accepted <= t->drafted && t->verify_calls <= trajectory_response_length(t));
		drafted += (uint64_t)t->drafted;
		accepted += (uint64_t)t->accepted;
		tokens += (uint64_t)trajectory_response_length(t);
		assert_int_equal(t->segments[0].mode, ROLLOUT_SPECULATIVE);
		assert_int_equal(t->segments[0].start, t->n_prompt);
	}
	engine_stats_read(engine, &stats);
	assert_int_equal(stats.drafted, drafted);
	assert_int_equal(stats.accepted, accepted);
	assert_int_equal(stats.tokens, tokens);
	assert_true(accepted > drafted / 4); /* the INT4 copy of this model is not that bad */
	engine_close(engine);
}

/* What is thrown away leaves no KV behind, and the others are what they would have been. */
static void discard_by_id(void **state)
{
	(void)state;
	struct engine_options options = plain_options(ROLLOUT_SPECULATIVE);
	struct engine_stats stats;
	int n = 0;
	options.max_active = 5;
	struct engine *engine = engine_with(&options);

	for (int i = 16; i < 24; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
	for (int i = 0; i < 4; i++) engine_round(engine);
	engine_discard(engine, 999999);
	for (int i = 16; i < 24; i += 2) engine_discard(engine, world.fresh[i]->id);
	run_to_end(engine);
	for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t), n++) assert_same(t, expected_of(t));
	assert_in_range(n, 4, 7);
	engine_stats_read(engine, &stats);
	assert_int_equal(stats.kv_pages_used, 0);
	engine_close(engine);
}

static void withdraw_by_id(void **state)
{
	(void)state;
	struct engine_options options = plain_options(ROLLOUT_SPECULATIVE);
	options.max_active = 4;
	struct engine *engine = engine_with(&options);

	for (int i = 16; i < 24; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
	for (int i = 0; i < 4; i++) engine_round(engine);
	assert_null(engine_withdraw(engine, 999999));
	for (int i = 16; i < 24; i++) {
		struct trajectory *t = engine_withdraw(engine, world.fresh[i]->id);
		if (!t) continue; /* finished already */
		assert_true(t->id == world.fresh[i]->id && t->finish == FINISH_NONE && t->deferrals == 0);
		size_t n = (size_t)t->n_tokens;
		assert_memory_equal(t->tokens, expected_of(t)->tokens, n * sizeof *t->tokens);
		assert_memory_equal(t->logprobs, expected_of(t)->logprobs, n * sizeof *t->logprobs);
		trajectory_free(t);
	}
	assert_int_equal(engine_pending(engine), 0);
	engine_close(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_cases_are_the_same_bits),
		cmocka_unit_test(new_weights_in_flight),
		cmocka_unit_test(kept_keys_and_values_are_marked),
		cmocka_unit_test(kept_keys_and_values_of_equal_weights),
		cmocka_unit_test(scores_equal_records),
		cmocka_unit_test(scores_refuse_bad_tokens),
		cmocka_unit_test(preemption_under_a_tight_budget),
		cmocka_unit_test(budget_for_less_than_one_sequence_is_refused),
		cmocka_unit_test(bad_samples_are_errors),
		cmocka_unit_test(group_prompts_are_computed_once),
		cmocka_unit_test(stop_token_ends_a_sample),
		cmocka_unit_test(speculation_counts),
		cmocka_unit_test(withdraw_by_id),
		cmocka_unit_test(discard_by_id),
	};
	return cmocka_run_group_tests(tests, world_open, world_close);
}
