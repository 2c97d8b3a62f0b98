/* test_quantized.c - quantized mode: the quantized copy's samples equal a reference that makes one alone, a row
 * at a time; the target's log-probabilities beside them equal what score.c gives under the version of each
 * segment, over random schedules, tight budgets, withdrawals and new weights; and importance weights have mean 1. */
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

enum { N_VERSIONS = 3, N_GROUPS = 8, GROUP_SIZE = 4, N_SAMPLES = N_GROUPS * GROUP_SIZE };
enum { CONTEXT = 96, PAGES_LEAST = (CONTEXT + 15) / 16, CASES = 80 };

static struct {
	struct model_config config;
	struct policy *policies[N_VERSIONS]; /* of versions 0, 1, 2 */
	struct scorer *scorers[N_VERSIONS];
	struct trajectory *fresh[N_SAMPLES];
	size_t page_bytes;
	uint64_t rng;
	int n_outside; /* tokens seen that the target would not have drawn */
} world;

static int below(int n) { return (int)(random_bits(&world.rng) % (uint64_t)n); }

static struct policy *make_policy(int version, const struct draft_options *draft)
{
	struct weights weights;
	struct policy *policy;
	struct err err;

	random_model(&weights, &world.config, 7 + (uint64_t)version);
	assert_int_equal(policy_create(&policy, &weights, version, draft, 1, &err), 0);
	weights_free(&weights);
	return policy;
}

static struct trajectory *make_sample(int group, int sample, const int32_t *prompt, int32_t n_prompt,
                                      int32_t max_tokens)
{
	struct trajectory *t = trajectory_new(prompt, n_prompt, max_tokens);

	t->group_id = (uint64_t)group + 1;
	t->sample = sample;
	t->group_size = GROUP_SIZE;
	t->id = trajectory_id(t->group_id, sample);
	t->prompt_id = xstrdup("p");
	t->seed = noise_key((uint64_t)group, t->prompt_id, 0, sample);
	return t;
}

static int world_open(void **state)
{
	(void)state;
	static const struct sampling_options settings[] = {
		{1.0f, 1.0f, 0}, {0.7f, 0.9f, 0}, {1.3f, 1.0f, 5}, {0.0f, 1.0f, 0},
	};
	struct kv_cache *cache;
	struct err err;

	world.rng = 77;
	world.config = random_model_config(32, 2, 2, 1, 64, 61, CONTEXT);
	for (int v = 0; v < N_VERSIONS; v++) {
		world.policies[v] = make_policy(v, &(struct draft_options){.quantizer = QUANTIZE_SEARCH});
		world.scorers[v] = scorer_open(world.policies[v], KV_BF16, 1);
	}
	for (int g = 0; g < N_GROUPS; g++) {
		int32_t prompt[CONTEXT], n_prompt = g == 0 ? 1 : g == 1 ? CONTEXT - 3 : g == 2 ? 33 : 1 + below(40);
		for (int i = 0; i < n_prompt; i++) prompt[i] = 3 + below(58);
		for (int s = 0; s < GROUP_SIZE; s++) {
			struct trajectory *t = make_sample(g, s, prompt, n_prompt, g == 3 ? 1 : 5 + below(50));
			t->sampling = settings[g % 4];
			world.fresh[g * GROUP_SIZE + s] = t;
		}
	}
	assert_int_equal(kv_cache_open(&cache, &world.config, KV_BF16, 1 << 24, &err), 0);
	world.page_bytes = kv_cache_page_bytes(cache);
	kv_cache_close(cache);
	return 0;
}

static int world_close(void **state)
{
	(void)state;
	for (int i = 0; i < N_SAMPLES; i++) trajectory_free(world.fresh[i]);
	for (int v = 0; v < N_VERSIONS; v++) {
		scorer_close(world.scorers[v]);
		policy_free(world.policies[v]);
	}
	return 0;
}

/* ---- the reference ---- */

/* Draw t's n_tokens again, each under the version that it says, by one-row calls of that part. */
static void assert_drawn_by(enum policy_part part, struct policy *const *policies, const struct trajectory *t)
{
	size_t stride = forward_logits_stride(&world.config);
	float *logits = xaligned(stride * sizeof *logits), logprob;
	struct forward *forward = forward_open(&world.config, 1, 1);
	struct sampler *sampler = sampler_open(world.config.vocab_size);
	struct kv_cache *cache;
	struct kv_seq seq;
	struct err err;
	int computed = 0, version = -1;

	assert_int_equal(kv_cache_open(&cache, &world.config, KV_BF16, 1 << 24, &err), 0);
	kv_seq_open(&seq, cache);
	for (int32_t i = t->n_prompt; i < t->n_tokens; i++) {
		if (t->versions[i] != version) computed = 0;
		version = t->versions[i];
		for (; computed < i; computed++) {
			struct forward_row row = {&seq, computed, t->tokens[computed], 0};
			assert_int_equal(kv_seq_reserve(&seq, computed, computed + 1), 0);
			forward_run(forward, policies[version], part, &row, 1, logits, stride);
		}
		assert_int_equal(sampler_draw(sampler, logits, &t->sampling, t->seed, i, &logprob), t->tokens[i]);
		assert_memory_equal(&logprob, &t->logprobs[i], sizeof logprob);
	}
	kv_seq_close(&seq);
	kv_cache_close(cache);
	sampler_close(sampler);
	forward_close(forward);
	free(logits);
}

/* target_logprobs: those of the scorer of each token's version. */
static void assert_rescored(struct scorer *const *scorers, const struct trajectory *t)
{
	float logprobs[CONTEXT];
	struct err err;

	assert_non_null(t->target_logprobs);
	for (int i = 0; i < t->n_prompt; i++) assert_true(t->target_logprobs[i] == 0.0f);
	for (int i = 0; i < t->n_segments; i++) {
		const struct segment *s = &t->segments[i];
		assert_int_equal(score_tokens(scorers[s->version], t->tokens, s->start, s->start + s->length, &t->sampling,
		                              logprobs, &err), 0);
		assert_memory_equal(t->target_logprobs + s->start, logprobs + s->start, (size_t)s->length * sizeof *logprobs);
	}
	for (int i = t->n_prompt; i < t->n_tokens; i++) world.n_outside += t->target_logprobs[i] == -INFINITY;
}

static void assert_right(const struct trajectory *t)
{
	for (int i = 0; i < t->n_segments; i++) assert_int_equal(t->segments[i].mode, ROLLOUT_QUANTIZED);
	assert_true(t->finish == FINISH_NONE || t->finish == FINISH_STOP || t->finish == FINISH_LENGTH);
	assert_int_equal(t->finish == FINISH_STOP, t->n_tokens > t->n_prompt && t->tokens[t->n_tokens - 1] == 2);
	assert_drawn_by(PART_DRAFT, world.policies, t);
	assert_rescored(world.scorers, t);
	assert_int_equal(t->drafted, 0);
}

static struct engine_options plain_options(void)
{
	return (struct engine_options){
		.mode = ROLLOUT_QUANTIZED, .max_active = 8, .prefill_chunk = 16, .n_threads = 1, .kv_bytes = 1 << 22,
		.stop_token = -1,
	};
}

static struct engine *engine_with(const struct engine_options *options, const struct policy *policy)
{
	struct engine *engine;
	struct err err;
	int rc = engine_open(&engine, policy, options, CONTEXT, &err);
	if (rc) fail_msg("%s", err.text);
	return engine;
}

static void run_to_end(struct engine *engine)
{
	for (int i = 0; engine_pending(engine); i++) {
		engine_round(engine);
		assert_true(i < 100000);
	}
}

/* ---- cases ---- */

/* Samples join, are put aside and resumed, and weights change, at random rounds. */
static void random_case(const struct engine_options *options)
{
	struct engine *engine = engine_with(options, world.policies[0]);
	struct trajectory *outside[N_SAMPLES], *t;
	int n_outside = 0, n_finished = 0, n_wanted = 1 + below(N_SAMPLES), first = below(N_SAMPLES), version = 0;
	int leaving = below(2) ? 12 : 0, updating = below(2) ? 4 : 0; /* percent per round */
	struct engine_stats stats;

	for (int i = 0; i < n_wanted; i++) outside[n_outside++] = trajectory_copy(world.fresh[(first + i) % N_SAMPLES]);
	while (n_finished < n_wanted) {
		while (n_outside > 0 && below(3) > 0) {
			int pick = below(n_outside);
			engine_add(engine, outside[pick]);
			outside[pick] = outside[--n_outside];
		}
		engine_round(engine);
		if (below(100) < updating) engine_set_policy(engine, world.policies[version = (version + 1) % N_VERSIONS], false);
		if (below(100) < leaving && (t = engine_withdraw(engine, 0))) {
			assert_right(t);
			outside[n_outside++] = t;
		}
		while ((t = engine_take_finished(engine))) {
			assert_right(t);
			trajectory_free(t);
			n_finished++;
		}
		engine_stats_read(engine, &stats);
		assert_true(stats.kv_pages_used <= stats.kv_pages_max);
	}
	assert_int_equal(stats.rescored_tokens, stats.tokens);
	assert_int_equal(stats.kv_pages_used, 0);
	engine_close(engine);
}

static void random_schedules_are_right(void **state)
{
	(void)state;

	for (int i = 0; i < CASES; i++) {
		struct engine_options options = plain_options();
		options.max_active = 1 + below(9);
		options.prefill_chunk = 1 + below(40);
		options.n_threads = 1 + (i % 16 == 0); /* seldom: other tests run beside this one */
		options.kv_bytes = world.page_bytes * (size_t)(PAGES_LEAST + (below(2) ? below(12) : 200));
		random_case(&options);
	}
	assert_true(world.n_outside > 20); /* truncation leaves out what the other policy keeps */
}

/* The budget holds one sequence, to the page; whoever ends or leaves is rescored all the same. */
static void the_smallest_budget_is_enough(void **state)
{
	(void)state;
	struct engine_options options = plain_options();
	struct trajectory *t;
	int32_t prompt[40];

	for (int i = 0; i < 40; i++) prompt[i] = 3 + below(58);
	options.kv_bytes = world.page_bytes * PAGES_LEAST;
	for (int round = 1; round < 60; round += 4) {
		struct engine *engine = engine_with(&options, world.policies[0]);
		struct engine_stats stats;
		for (int s = 0; s < GROUP_SIZE; s++) {
			t = make_sample(20, s, prompt, 40, CONTEXT);
			t->sampling.temperature = 2.0f; /* seldom draws the end token */
			engine_add(engine, t);
		}
		for (int r = 0; r < round; r++) engine_round(engine);
		if (round % 3 == 0) engine_set_policy(engine, world.policies[1], false);
		for (int s = 1; s < GROUP_SIZE; s++)
			if ((t = engine_withdraw(engine, trajectory_id(21, s)))) {
				assert_right(t);
				trajectory_free(t);
			}
		run_to_end(engine);
		for (; (t = engine_take_finished(engine)); trajectory_free(t)) assert_right(t);
		engine_stats_read(engine, &stats);
		assert_int_equal(stats.kv_pages_max, PAGES_LEAST);
		assert_int_equal(stats.rescored_tokens, stats.tokens);
		engine_close(engine);
	}
}

/* Samples that are short at first and long in the end, some of one group: decoding and rescoring put others back. */
static void preemption_under_tight_budgets(void **state)
{
	(void)state;
	uint64_t preemptions = 0;
	const int32_t prompt[16] = {9, 8, 7, 6, 5, 4, 3, 9, 8, 7, 6, 5, 4, 3, 9, 8};

	for (int i = 0; i < 40; i++) {
		int pages = PAGES_LEAST + 1 + i % 12;
		struct engine_options options = plain_options();
		struct engine_stats stats;
		options.kv_bytes = world.page_bytes * (size_t)pages;
		struct engine *engine = engine_with(&options, world.policies[0]);
		for (int s = 0; s < 9; s++) {
			struct trajectory *t = make_sample(3 * i + s % 3, s, prompt, 2 + 7 * (s % 3), CONTEXT - 8 * (s % 4));
			t->sampling.temperature = 3.0f; /* seldom draws the end token */
			engine_add(engine, t);
		}
		uint64_t seen = 0;
		int version = 0;
		while (engine_pending(engine)) {
			engine_round(engine);
			engine_stats_read(engine, &stats);
			if (stats.preemptions == seen) continue;
			seen = stats.preemptions; /* new weights while one waits that has been put back */
			engine_set_policy(engine, world.policies[version = (version + 1) % N_VERSIONS], false);
		}
		for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t)) assert_right(t);
		engine_stats_read(engine, &stats);
		assert_int_equal(stats.rescored_tokens, stats.tokens);
		preemptions += stats.preemptions;
		engine_close(engine);
	}
	assert_true(preemptions > 5);
}

/* Two samples share 4 pages of prompt and have 2 each, of 10.  One leaves: what it had is not enough for the
 * target's 6 pages beside the other's, which is put back, and goes on as if nothing had been. */
static void rescoring_puts_others_back(void **state)
{
	(void)state;
	int32_t prompt[65];
	int n_tried = 0;

	for (int i = 0; i < 65; i++) prompt[i] = 3 + below(58);
	for (int group = 0; group < 24; group++) {
		struct engine_options options = plain_options();
		struct engine_stats stats;
		struct trajectory *t = NULL;
		options.kv_bytes = world.page_bytes * 10;
		options.max_active = 2;
		struct engine *engine = engine_with(&options, world.policies[0]);
		for (int s = 0; s < 2; s++) engine_add(engine, make_sample(group, s, prompt, 65, 30));
		for (int r = 0; r < 25; r++) engine_round(engine);
		if (engine_pending(engine) == 2) {
			t = engine_withdraw(engine, trajectory_id((uint64_t)group + 1, 0));
			assert_right(t);
			assert_true(t->n_tokens > 81);
			engine_stats_read(engine, &stats);
			assert_int_equal(stats.preemptions, 1);
			assert_int_equal(stats.kv_pages_used, 0);
			engine_add(engine, t);
			n_tried++;
		}
		run_to_end(engine);
		for (; (t = engine_take_finished(engine)); trajectory_free(t)) assert_right(t);
		engine_close(engine);
	}
	assert_true(n_tried > 5);
}

static void every_format_draws_its_own(void **state)
{
	(void)state;
	static const struct draft_options drafts[] = {
		{.format = FORMAT_MXFP4, .head_format = FORMAT_INT8, .quantizer = QUANTIZE_RTN},
		{.format = FORMAT_NVFP4, .head_format = FORMAT_BF16, .quantizer = QUANTIZE_SEARCH, .fp32_activations = true},
		{.format = FORMAT_INT8, .head_format = FORMAT_INT8, .quantizer = QUANTIZE_RTN},
	};
	struct engine_options options = plain_options();
	uint64_t checksums[3] = {0};

	for (int f = 0; f < 3; f++) {
		struct policy *policy = make_policy(0, &drafts[f]);
		struct engine *engine = engine_with(&options, policy);
		for (int i = 0; i < N_SAMPLES; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
		run_to_end(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t)) {
			assert_drawn_by(PART_DRAFT, (struct policy *const[]){policy}, t);
			assert_rescored(world.scorers, t); /* the same target */
			checksums[f] += trajectory_checksum(t);
		}
		engine_close(engine);
		policy_free(policy);
	}
	assert_true(checksums[0] != checksums[1] && checksums[1] != checksums[2]);
}

static void group_prompts_are_rescored_once(void **state)
{
	(void)state;
	struct engine_options options = plain_options();
	struct engine *engine = engine_with(&options, world.policies[0]);
	struct engine_stats stats;
	uint64_t rows = 32; /* of 33 prompt tokens */

	for (int i = 0; i < GROUP_SIZE; i++) engine_add(engine, trajectory_copy(world.fresh[2 * GROUP_SIZE + i]));
	run_to_end(engine);
	for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t))
		rows += (uint64_t)(t->n_tokens - 1 - 32);
	engine_stats_read(engine, &stats);
	assert_int_equal(stats.rescore_rows, rows);
	assert_int_equal(stats.kv_pages_used, 0);
	engine_close(engine);
}

/* Some tokens by the target, the others by the copy: where the target drew, the two log-probabilities are one. */
static void partials_cross_modes(void **state)
{
	(void)state;
	int n_mixed = 0;

	for (int i = 0; i < 2 * N_SAMPLES; i++) {
		struct engine_options options = plain_options();
		struct trajectory *t;
		int first = i % 2 ? ROLLOUT_EXACT : ROLLOUT_QUANTIZED;
		options.mode = first;
		struct engine *engine = engine_with(&options, world.policies[0]);
		engine_add(engine, trajectory_copy(world.fresh[i / 2]));
		for (int r = 0; r < 8; r++) engine_round(engine);
		t = engine_withdraw(engine, 0);
		engine_close(engine);
		if (!t) continue;
		assert_int_equal(t->target_logprobs != NULL, first == ROLLOUT_QUANTIZED);
		options.mode = first == ROLLOUT_EXACT ? ROLLOUT_QUANTIZED : ROLLOUT_EXACT;
		engine = engine_with(&options, world.policies[1]);
		engine_add(engine, t);
		run_to_end(engine);
		t = engine_take_finished(engine);
		assert_rescored(world.scorers, t);
		for (int s = 0; s < t->n_segments; s++)
			if (t->segments[s].mode == ROLLOUT_EXACT)
				assert_memory_equal(t->target_logprobs + t->segments[s].start, t->logprobs + t->segments[s].start,
				                    (size_t)t->segments[s].length * sizeof(float));
		n_mixed += t->n_segments == 2;
		trajectory_free(t);
		engine_close(engine);
	}
	assert_true(n_mixed > 10);
}

static void evaluations_are_not_rescored(void **state)
{
	(void)state;
	struct engine_options options = plain_options();
	struct engine *engine = engine_with(&options, world.policies[0]);
	struct trajectory *t = trajectory_copy(world.fresh[0]);
	struct engine_stats stats;

	t->eval = true;
	engine_add(engine, t);
	run_to_end(engine);
	t = engine_take_finished(engine);
	assert_null(t->target_logprobs);
	assert_drawn_by(PART_DRAFT, world.policies, t);
	engine_stats_read(engine, &stats);
	assert_int_equal(stats.rescored_tokens, 0);
	trajectory_free(t);
	engine_close(engine);
}

/* At temperature 1 without truncation E[target / behaviour] = 1 at each token, whatever came before: the
 * weights minus 1 are martingale differences, and their sum is within 5 sigma of 0.  The other way round,
 * E[behaviour / target] = 1 + chi-square: the same sums must tell the two policies apart. */
static void importance_weights_have_mean_one(void **state)
{
	(void)state;
	enum { SAMPLES = 2000, LENGTH = 12 };
	struct engine_options options = plain_options();
	const int32_t prompt[2] = {5, 6};
	double sum = 0, squares = 0, reverse_sum = 0, reverse_squares = 0;

	options.max_active = 64;
	struct engine *engine = engine_with(&options, world.policies[0]);
	for (int i = 0; i < SAMPLES; i++) engine_add(engine, make_sample(i, 0, prompt, 2, LENGTH));
	run_to_end(engine);
	for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t))
		for (int i = t->n_prompt; i < t->n_tokens; i++) {
			double gap = (double)t->target_logprobs[i] - (double)t->logprobs[i];
			sum += expm1(gap), squares += expm1(gap) * expm1(gap);
			reverse_sum += expm1(-gap), reverse_squares += expm1(-gap) * expm1(-gap);
		}
	engine_close(engine);
	print_message("importance weights: %.2f sigma from mean 1, the reverse %.1f\n", sum / sqrt(squares),
	              reverse_sum / sqrt(reverse_squares));
	assert_true(fabs(sum) < 5 * sqrt(squares));
	assert_true(reverse_sum > 5 * sqrt(reverse_squares));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_schedules_are_right),
		cmocka_unit_test(the_smallest_budget_is_enough),
		cmocka_unit_test(preemption_under_tight_budgets),
		cmocka_unit_test(rescoring_puts_others_back),
		cmocka_unit_test(every_format_draws_its_own),
		cmocka_unit_test(group_prompts_are_rescored_once),
		cmocka_unit_test(partials_cross_modes),
		cmocka_unit_test(evaluations_are_not_rescored),
		cmocka_unit_test(importance_weights_have_mean_one),
	};
	return cmocka_run_group_tests(tests, world_open, world_close);
}
