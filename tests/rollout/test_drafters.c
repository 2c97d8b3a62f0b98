/* test_drafters.c - whoever drafts, from whatever copy of the weights, however long the drafts: tokens and
 * log-probabilities are those of exact decoding.  Thousands of random settings on a tiny model whose drafters
 * are of every format, quantizer and head. */
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

enum { CONTEXT = 64, VOCABULARY = 61, N_SAMPLES = 24, N_POLICIES = 3 * N_FORMATS, CASES = 2500 };

static struct {
	struct policy *policies[N_POLICIES]; /* of the same weights */
	struct trajectory *fresh[N_SAMPLES], *expected[N_KV_TYPES][N_SAMPLES];
	uint64_t rng;
} world;

static int below(int n) { return (int)(random_bits(&world.rng) % (uint64_t)n); }

static struct engine *engine_with(const struct policy *policy, const struct engine_options *options)
{
	struct engine *engine;
	struct err err;
	if (engine_open(&engine, policy, options, CONTEXT, &err)) fail_msg("%s", err.text);
	return engine;
}

static void run_to_end(struct engine *engine)
{
	for (int i = 0; engine_pending(engine); i++) {
		assert_true(engine_round(engine) > 0);
		assert_true(i < 100000);
	}
}

/* A little of everything: each format by itself, with another head, and where it is nested its int4 part too. */
static void make_policies(const struct weights *weights)
{
	struct err err;

	for (int i = 0; i < N_POLICIES; i++) {
		enum format format = (enum format)(i % N_FORMATS);
		struct draft_options draft = {
			.format = format, .head_format = i < N_FORMATS ? format : (enum format)below(N_FORMATS + 1),
			.quantizer = i % 2 ? QUANTIZE_RTN : QUANTIZE_SEARCH, .fp32_activations = i >= N_FORMATS && below(2),
			.choose = i >= N_FORMATS && format_info(format)->low_bits > 0,
		};
		if (policy_create(&world.policies[i], weights, 0, &draft, 1, &err)) fail_msg("%s", err.text);
	}
}

/* Prompts of few different words, so that there is something to be found again. */
static struct trajectory *make_sample(int i)
{
	static const struct sampling_options settings[] = {
		{.temperature = 1, .top_p = 1}, {.temperature = 0, .top_p = 1}, {.temperature = 0.6f, .top_p = 0.9f},
		{.temperature = 1.4f, .top_p = 1, .top_k = 7}, {.temperature = 0.2f, .top_p = 1},
	};
	int32_t prompt[CONTEXT], n_prompt = 1 + below(40);
	struct trajectory *t;

	for (int k = 0; k < n_prompt; k++) prompt[k] = 3 + (i / 2 + k % 5 + below(2)) % 58;
	t = trajectory_new(prompt, n_prompt, 1 + below(CONTEXT));
	t->id = t->group_id = (uint64_t)i + 1;
	t->prompt_id = xstrdup("p");
	t->seed = noise_key((uint64_t)i, t->prompt_id, 0, 0);
	t->sampling = settings[i % 5];
	return t;
}

static int world_open(void **state)
{
	(void)state;
	struct model_config config = random_model_config(32, 2, 2, 1, 64, VOCABULARY, CONTEXT);
	struct weights weights;

	world.rng = 99;
	random_model(&weights, &config, 5);
	make_policies(&weights);
	weights_free(&weights);
	for (int i = 0; i < N_SAMPLES; i++) world.fresh[i] = make_sample(i);
	for (int kv = 0; kv < N_KV_TYPES; kv++) {
		struct engine_options exact = {
			.mode = ROLLOUT_EXACT, .max_active = 1, .prefill_chunk = 7, .n_threads = 1, .kv_type = (enum kv_type)kv,
			.kv_bytes = 1 << 22, .stop_token = -1,
		};
		struct engine *engine = engine_with(world.policies[0], &exact);
		for (int i = 0; i < N_SAMPLES; i++) engine_add(engine, trajectory_copy(world.fresh[i]));
		run_to_end(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine));) world.expected[kv][t->id - 1] = t;
		engine_close(engine);
	}
	return 0;
}

static int world_close(void **state)
{
	(void)state;
	for (int i = 0; i < N_SAMPLES; i++) {
		trajectory_free(world.fresh[i]);
		for (int kv = 0; kv < N_KV_TYPES; kv++) trajectory_free(world.expected[kv][i]);
	}
	for (int i = 0; i < N_POLICIES; i++) policy_free(world.policies[i]);
	return 0;
}

static void check(const struct trajectory *t, const struct trajectory *expected)
{
	size_t n = (size_t)expected->n_tokens;
	assert_int_equal(t->n_tokens, expected->n_tokens);
	assert_memory_equal(t->tokens, expected->tokens, n * sizeof *t->tokens);
	assert_memory_equal(t->logprobs, expected->logprobs, n * sizeof *t->logprobs);
	assert_int_equal(t->finish, expected->finish);
}

/* Seconds that are nothing but numbers: the controller may conclude what it likes from them. */
static double random_clock(void)
{
	static double now;
	static uint64_t rng = 1;
	now += 1e-4 * (double)(1 + random_bits(&rng) % 1000);
	return now;
}

static void any_draft_gives_the_same_bits(void **state)
{
	(void)state;
	uint64_t drafted = 0, accepted = 0;

	for (int c = 0; c < CASES; c++) {
		const struct policy *policy = world.policies[below(N_POLICIES)];
		struct engine_options options = {
			.mode = ROLLOUT_SPECULATIVE, .drafter = below(3), .draft_length = below(3) ? 0 : 1 + below(32),
			.draft_length_max = 1 + below(32), .suffix_tokens = 1 << (6 + below(8)), .max_active = 1 + below(8),
			.prefill_chunk = 1 + below(40), .n_threads = 1 + (c % 50 == 0), .kv_type = (enum kv_type)below(N_KV_TYPES),
			.kv_bytes = 1 << 20, .stop_token = -1, .clock = below(2) ? random_clock : NULL,
		};
		struct engine *engine = engine_with(policy, &options);
		struct engine_stats stats;
		int n = 1 + below(6), first = below(N_SAMPLES);
		for (int i = 0; i < n; i++) engine_add(engine, trajectory_copy(world.fresh[(first + i) % N_SAMPLES]));
		run_to_end(engine);
		engine_stats_read(engine, &stats);
		drafted += stats.drafted;
		accepted += stats.accepted;
		for (struct trajectory *t; (t = engine_take_finished(engine)); trajectory_free(t), n--)
			check(t, world.expected[options.kv_type][t->id - 1]);
		assert_int_equal(n, 0);
		engine_close(engine);
	}
	print_message("%llu drafted, %llu accepted\n", (unsigned long long)drafted, (unsigned long long)accepted);
	assert_true(drafted > 10 * CASES && accepted > drafted / 10 && accepted < drafted); /* both happened */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(any_draft_gives_the_same_bits)};
	return cmocka_run_group_tests(tests, world_open, world_close);
}
