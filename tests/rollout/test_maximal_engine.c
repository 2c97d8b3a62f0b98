/* test_maximal_engine.c - the maximal coupling through the engine, with a small model: the target's exact distribution
 * over all sequences, its log-probabilities on the record, the same bits where draft lengths are given, and
 * coupled verification as the default. */
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
#include "rollout/score.h"
#include "rollout/speculation/verify_maximal.h"
#include "tests/support/counts.h"
#include "tests/support/random_model.h"

enum { WORDS = 7, MADE = 3, ENGINE_SEQUENCES = WORDS * WORDS * WORDS, CONTEXT = 64 };
static const int32_t prompt[] = {3, 5, 4, 6, 3, 5};
enum { PROMPT_TOKENS = sizeof prompt / sizeof *prompt };

static struct policy *policy;

static int policy_open(void **state)
{
	(void)state;
	struct model_config config = random_model_config(32, 1, 2, 1, 64, WORDS, CONTEXT);
	struct weights weights;
	struct err err;

	config.n_eos = 0;
	random_model(&weights, &config, 17);
	assert_int_equal(policy_create(&policy, &weights, 4, &(struct draft_options){.quantizer = QUANTIZE_RTN}, 1, &err), 0);
	weights_free(&weights);
	return 0;
}

static int policy_close(void **state)
{
	(void)state;
	policy_free(policy);
	return 0;
}

static struct engine_options options_of(int coupling)
{
	return (struct engine_options){
		.mode = ROLLOUT_SPECULATIVE, .drafter = DRAFTER_KIND_QUANT, .coupling = coupling, .draft_length = 2,
		.draft_length_max = 4, .suffix_tokens = 4096, .max_active = 32, .prefill_chunk = 64, .n_threads = 1,
		.kv_bytes = 1 << 24, .stop_token = -1,
	};
}

static struct trajectory *sample_of(int i, int32_t max_tokens, struct sampling_options sampling)
{
	struct trajectory *t = trajectory_new(prompt, PROMPT_TOKENS, max_tokens);
	t->id = (uint64_t)i + 1;
	t->group_id = 1 + (uint64_t)i / 8;
	t->seed = noise_key(77, "p", 0, i);
	t->sampling = sampling;
	return t;
}

/* n samples, by id; owned by the caller. */
static struct trajectory **run_samples(const struct engine_options *options, int n, int32_t max_tokens,
                                       struct sampling_options sampling, struct engine_stats *stats)
{
	struct trajectory **ended = xcalloc((size_t)n, sizeof *ended);
	struct engine *engine;
	struct err err;
	int added = 0;

	if (engine_open(&engine, policy, options, CONTEXT, &err)) fail_msg("%s", err.text);
	while (added < n || engine_pending(engine)) {
		while (added < n && engine_pending(engine) < 2 * options->max_active)
			engine_add(engine, sample_of(added, max_tokens, sampling)), added++;
		engine_round(engine);
		for (struct trajectory *t; (t = engine_take_finished(engine));) ended[t->id - 1] = t;
	}
	if (stats) engine_stats_read(engine, stats);
	engine_close(engine);
	return ended;
}

static void free_samples(struct trajectory **samples, int n)
{
	for (int i = 0; i < n; i++) trajectory_free(samples[i]);
	free(samples);
}

/* Number of a sequence of MADE tokens. */
static int sequence_of(const int32_t *tokens)
{
	int at = 0;
	for (int i = 0; i < MADE; i++) at = at * WORDS + tokens[i];
	return at;
}

/* Every sequence's probability, and the log-probabilities that a record of it must hold. */
static void enumerate(struct sampling_options sampling, double *expected, float (*logprobs)[MADE])
{
	struct scorer *scorer = scorer_open(policy, KV_BF16, 1);

	for (int s = 0; s < ENGINE_SEQUENCES; s++) {
		int32_t tokens[PROMPT_TOKENS + MADE];
		float scores[PROMPT_TOKENS + MADE];
		struct err err;
		memcpy(tokens, prompt, sizeof prompt);
		for (int i = MADE - 1, left = s; i >= 0; i--, left /= WORDS) tokens[PROMPT_TOKENS + i] = left % WORDS;
		assert_int_equal(score_tokens(scorer, tokens, PROMPT_TOKENS, PROMPT_TOKENS + MADE, &sampling, scores, &err), 0);
		expected[s] = 1;
		for (int i = 0; i < MADE; i++) {
			logprobs[s][i] = scores[PROMPT_TOKENS + i];
			expected[s] *= exp((double)logprobs[s][i]);
		}
	}
	scorer_close(scorer);
}

static void engine_samples_have_the_target_distribution(void **state)
{
	(void)state;
	enum { N = 10000 };
	static double expected[ENGINE_SEQUENCES];
	static float logprobs[ENGINE_SEQUENCES][MADE];
	static const struct { int drafter, length; struct sampling_options sampling; } cases[] = {
		{DRAFTER_KIND_QUANT, 2, {1.0f, 1.0f, 0, 0}}, {DRAFTER_KIND_COMBINED, 0, {1.0f, 1.0f, 0, 0}},
		{DRAFTER_KIND_SUFFIX, 2, {1.3f, 0.9f, 0, 0.02f}},
	};

	for (int c = 0; c < 3; c++) {
		struct engine_options options = options_of(COUPLING_MAXIMAL);
		struct engine_stats stats;
		static int count[ENGINE_SEQUENCES];
		options.drafter = cases[c].drafter;
		options.draft_length = cases[c].length;
		enumerate(cases[c].sampling, expected, logprobs);
		struct trajectory **samples = run_samples(&options, N, MADE, cases[c].sampling, &stats);
		memset(count, 0, sizeof count);
		for (int i = 0; i < N; i++) {
			assert_int_equal(samples[i]->finish, FINISH_LENGTH);
			int s = sequence_of(samples[i]->tokens + PROMPT_TOKENS);
			count[s]++;
			assert_memory_equal(samples[i]->logprobs + PROMPT_TOKENS, logprobs[s], sizeof logprobs[s]);
		}
		for (int s = 0; s < ENGINE_SEQUENCES; s++) expected[s] *= N;
		assert_distributed(expected, count, ENGINE_SEQUENCES, "engine");
		if (cases[c].length > 0) assert_true(stats.drafted > N && stats.accepted > 0 && stats.accepted < stats.drafted);
		free_samples(samples, N);
	}
}

static void assert_same_samples(struct trajectory **a, struct trajectory **b, int n)
{
	for (int i = 0; i < n; i++) {
		size_t tokens = (size_t)a[i]->n_tokens;
		assert_int_equal(b[i]->n_tokens, a[i]->n_tokens);
		assert_memory_equal(a[i]->tokens, b[i]->tokens, tokens * sizeof *a[i]->tokens);
		assert_memory_equal(a[i]->logprobs, b[i]->logprobs, tokens * sizeof *a[i]->logprobs);
	}
}

/* Given lengths and the quantized drafter: whatever the batch, chunk and threads. */
static void fixed_lengths_are_the_same_bits(void **state)
{
	(void)state;
	enum { N = 24, LONG = 40 };
	const struct sampling_options sampling = {1.0f, 1.0f, 0, 0}, greedy = {0.0f, 1.0f, 0, 0};
	struct engine_options options = options_of(COUPLING_MAXIMAL), exact = options_of(COUPLING_COUPLED);
	struct trajectory **first = run_samples(&options, N, LONG, sampling, NULL);

	for (int i = 0; i < 5; i++) {
		struct engine_options other = options_of(COUPLING_MAXIMAL);
		other.n_threads = 1 + i % 2;
		other.max_active = (int[]){32, 24, 1, 5, 8}[i];
		other.prefill_chunk = (int[]){64, 64, 3, 7, 1}[i];
		struct trajectory **again = run_samples(&other, N, LONG, sampling, NULL);
		assert_same_samples(first, again, N);
		free_samples(again, N);
	}
	free_samples(first, N);
	/* At temperature 0 there is only one sequence. */
	exact.mode = ROLLOUT_EXACT;
	struct trajectory **one = run_samples(&exact, N, LONG, greedy, NULL);
	struct trajectory **other = run_samples(&options, N, LONG, greedy, NULL);
	assert_same_samples(one, other, N);
	free_samples(one, N);
	free_samples(other, N);
}

static void coupled_is_the_default(void **state)
{
	(void)state;
	enum { N = 24, LONG = 40 };
	const struct sampling_options sampling = {1.0f, 1.0f, 0, 0};
	struct engine_options exact = options_of(COUPLING_COUPLED), plain = options_of(COUPLING_COUPLED);
	struct engine_options maximal = options_of(COUPLING_MAXIMAL);
	struct config config;
	struct err err;
	int differ = 0;

	config_defaults(&config);
	assert_int_equal(config.speculation.coupling, COUPLING_COUPLED);
	assert_int_equal(config_set(&config, "speculation.coupling=maximal", &err), 0);
	assert_int_equal(config.speculation.coupling, COUPLING_MAXIMAL);
	config_free(&config);
	assert_int_equal((struct engine_options){.mode = ROLLOUT_EXACT}.coupling, COUPLING_COUPLED);
	exact.mode = ROLLOUT_EXACT;
	struct trajectory **a = run_samples(&exact, N, LONG, sampling, NULL);
	struct trajectory **b = run_samples(&plain, N, LONG, sampling, NULL);
	struct trajectory **c = run_samples(&maximal, N, LONG, sampling, NULL);
	assert_same_samples(a, b, N);
	for (int i = 0; i < N; i++)
		differ += memcmp(a[i]->tokens, c[i]->tokens, sizeof(int32_t) * (PROMPT_TOKENS + LONG)) != 0;
	assert_true(differ > N / 2);
	free_samples(a, N);
	free_samples(b, N);
	free_samples(c, N);
}

/* The drafter's rows may be anything: its draft ends where they are no distribution. */
static void broken_drafters_draft_nothing(void **state)
{
	(void)state;
	struct engine_options options = options_of(COUPLING_MAXIMAL);
	struct prefix_table prefixes = {0};
	struct workspace w;
	struct kv_cache *cache;
	struct err err;

	assert_int_equal(kv_cache_open(&cache, &policy->config, KV_BF16, 1 << 22, &err), 0);
	prefixes.cache = cache;
	workspace_open(&w, policy, &options, 8);
	struct session *s = session_open(sample_of(0, 20, (struct sampling_options){1.0f, 1.0f, 0, 0}), PART_TARGET, &prefixes, CONTEXT);
	for (int broken = 0; broken < 3; broken++) {
		s->n_draft = 4;
		maximal_begin(&w, &s, 1);
		for (int step = 0; step < s->n_draft; step++) {
			for (int v = 0; v < WORDS; v++) workspace_logits(&w, 0)[v] = (float)v;
			if (step == broken) workspace_logits(&w, 0)[step] = step % 2 ? INFINITY : NAN;
			s->logits_row = 0;
			maximal_propose(&w, w.samplers[0], s, step);
		}
		assert_int_equal(s->n_draft, broken);
		assert_int_equal(s->n_kept, broken);
	}
	trajectory_free(session_close(s, &prefixes));
	workspace_close(&w);
	kv_cache_close(cache);
}

/* A diverged policy: an error on the sample, as in coupled verification. */
static void diverged_weights_are_an_error(void **state)
{
	(void)state;
	struct engine_options options = options_of(COUPLING_MAXIMAL);

	for (int i = 0; i < policy->config.dim; i++) policy->final_norm[i] ^= 0x4000; /* 1 becomes 1e38 */
	struct trajectory **samples = run_samples(&options, 4, 10, (struct sampling_options){1.0f, 1.0f, 0, 0}, NULL);
	for (int i = 0; i < policy->config.dim; i++) policy->final_norm[i] ^= 0x4000;
	for (int i = 0; i < 4; i++) {
		assert_int_equal(samples[i]->finish, FINISH_ERROR);
		assert_non_null(samples[i]->error);
		assert_int_equal(trajectory_response_length(samples[i]), 0);
	}
	free_samples(samples, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(engine_samples_have_the_target_distribution),
		cmocka_unit_test(fixed_lengths_are_the_same_bits),
		cmocka_unit_test(coupled_is_the_default),
		cmocka_unit_test(broken_drafters_draft_nothing),
		cmocka_unit_test(diverged_weights_are_an_error),
	};
	return cmocka_run_group_tests(tests, policy_open, policy_close);
}
