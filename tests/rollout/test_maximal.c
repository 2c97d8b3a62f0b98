/* test_maximal.c - the maximal coupling keeps the target's distribution: whole sequences over a vocabulary of six,
 * with invented targets and drafters that depend on the prefix, against every sequence's exact probability.
 * Drafts stand as often as total variation allows; instruction sets agree; what is broken is told. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rollout/sampling/row_kernels.h"
#include "rollout/speculation/verify_maximal.h"
#include "tests/support/counts.h"
#include "tests/support/random_model.h"

/* ---- the reference: probabilities in double precision, by sorting ---- */

static void probabilities_of(double *p, const float *logits, int n, const struct sampling_options *o)
{
	int order[64], kept = 0;
	double total = 0, sum = 0;

	for (int i = 0; i < n; i++) {
		int at = i;
		for (; at > 0 && logits[order[at - 1]] < logits[i]; at--) order[at] = order[at - 1];
		order[at] = i;
		p[i] = 0;
	}
	double max = (double)logits[order[0]], t = (double)o->temperature;
	int most = o->temperature == 0 ? 1 : o->top_k > 0 && o->top_k < n ? o->top_k : n;
	for (int i = 0; i < most; i++) total += t > 0 ? exp(((double)logits[order[i]] - max) / t) : 1;
	for (; kept < most && (kept == 0 || o->top_p >= 1 || sum < (double)o->top_p * total); kept++) {
		double weight = t > 0 ? exp(((double)logits[order[kept]] - max) / t) : 1;
		if (weight < (double)o->min_p) break;
		sum += p[order[kept]] = weight;
	}
	for (int i = 0; i < n; i++) p[i] /= sum;
}

/* ---- sequences of an invented target and drafter ---- */

enum { V = 6, LENGTH = 4, SEQUENCES = V * V * V * V, PREFIXES = 1 + V + V * V + V * V * V };
enum { SEEDS = 20000, VERSION = 3, N_PROMPT = 5 };

enum drafter_of_test { NEAR, FAR, SAME, DISJOINT, TIES, FOUND };

static struct {
	float p[PREFIXES][V], q[PREFIXES][V]; /* logits */
	int32_t found[PREFIXES];
} invented;

/* Prefixes by length, then as numbers of base V. */
static int prefix_index(const int32_t *tokens, int n)
{
	int first = 0, at = 0;

	for (int i = 0, size = 1; i < n; i++, size *= V) {
		first += size;
		at = at * V + tokens[i];
	}
	return first + at;
}

static float random_unit(uint64_t *rng) { return (float)(random_bits(rng) >> 40) * 0x1p-24f; }

static void invent(enum drafter_of_test kind, uint64_t seed)
{
	uint64_t rng = seed;

	for (int i = 0; i < PREFIXES; i++) {
		for (int v = 0; v < V; v++) {
			float a = random_unit(&rng), b = random_unit(&rng);
			invented.p[i][v] = 4 * a;
			invented.q[i][v] = kind == NEAR ? 4 * a + b : kind == FAR ? 4 * b : 4 * a;
			if (kind == TIES) invented.p[i][v] = rintf(2 * a), invented.q[i][v] = rintf(2 * b);
			if (kind == DISJOINT) *(v % 2 ? &invented.p[i][v] : &invented.q[i][v]) = -INFINITY;
		}
		invented.found[i] = (int32_t)(random_bits(&rng) % V);
	}
}

struct sequences {
	struct sampling_options options;
	enum drafter_of_test kind;
	int length; /* of drafts; LEAKY: chosen by what the last round drafted in vain */
};

enum { LEAKY = -1 };

/* One sample as the engine would make it; returns its number among all sequences. */
static int make_sequence(struct sampler *sampler, const struct sequences *c, uint64_t key)
{
	int32_t tokens[2 * LENGTH];
	struct distribution q[LENGTH];
	struct proposal drafts[LENGTH];
	int n = 0, length = c->length == LEAKY ? 2 : c->length;

	while (n < LENGTH) {
		int begun = n, n_draft = length < LENGTH - n ? length : LENGTH - n;
		for (int i = 0; i < n_draft; i++) {
			int row = prefix_index(tokens, n + i);
			drafts[i] = (struct proposal){.token = invented.found[row]};
			if (c->kind != FOUND) {
				uint64_t draft_key = maximal_draft_key(key, VERSION, N_PROMPT + begun);
				sampler_distribution(sampler, invented.q[row], &c->options, &q[i]);
				int32_t token = sampler_draw_from(sampler, invented.q[row], &q[i], draft_key, N_PROMPT + n + i);
				drafts[i] = (struct proposal){token, invented.q[row], &q[i]};
			}
			tokens[n + i] = drafts[i].token;
		}
		bool hit = true;
		for (int i = 0; hit && n < LENGTH; i++) {
			float logprob;
			const struct proposal *draft = i < n_draft ? &drafts[i] : NULL;
			int32_t token = maximal_draw(sampler, invented.p[prefix_index(tokens, n)], &c->options,
			                             maximal_target_key(key, VERSION), N_PROMPT + n, draft, &logprob);
			assert_true(isfinite(logprob));
			hit = draft && token == draft->token;
			tokens[n++] = token;
		}
		/* What was drafted in vain for the next position decides whether that is drafted for again. */
		if (c->length == LEAKY) length = n - begun < n_draft && drafts[n - begun].token % 2 ? 0 : 2;
	}
	return prefix_index(tokens, LENGTH) - PREFIXES;
}

static void assert_sequences(const struct sequences *c, uint64_t seed)
{
	static double expected[SEQUENCES];
	static int count[SEQUENCES];
	double p[PREFIXES][V];
	struct sampler *sampler = sampler_open(V);
	char what[100];

	invent(c->kind, seed);
	memset(count, 0, sizeof count);
	for (int i = 0; i < PREFIXES; i++) probabilities_of(p[i], invented.p[i], V, &c->options);
	for (int s = 0; s < SEQUENCES; s++) {
		int32_t tokens[LENGTH];
		for (int i = LENGTH - 1, left = s; i >= 0; i--, left /= V) tokens[i] = left % V;
		expected[s] = SEEDS;
		for (int i = 0; i < LENGTH; i++) expected[s] *= p[prefix_index(tokens, i)][tokens[i]];
	}
	for (int i = 0; i < SEEDS; i++) count[make_sequence(sampler, c, random_bits(&seed))]++;
	snprintf(what, sizeof what, "drafter %d, length %d, T %g, top-p %g, top-k %d, min-p %g", c->kind, c->length,
	         (double)c->options.temperature, (double)c->options.top_p, c->options.top_k, (double)c->options.min_p);
	assert_distributed(expected, count, SEQUENCES, what);
	sampler_close(sampler);
}

static void sequences_have_the_target_distribution(void **state)
{
	(void)state;
	static const struct sequences cases[] = {
		{{1.0f, 1.0f, 0, 0}, NEAR, 0}, {{1.0f, 1.0f, 0, 0}, NEAR, 1}, {{1.0f, 1.0f, 0, 0}, NEAR, 2},
		{{1.0f, 1.0f, 0, 0}, NEAR, 4}, {{1.0f, 1.0f, 0, 0}, NEAR, LEAKY}, {{1.0f, 1.0f, 0, 0}, FAR, 1},
		{{1.0f, 1.0f, 0, 0}, FAR, 4}, {{1.0f, 1.0f, 0, 0}, FAR, LEAKY}, {{2.0f, 1.0f, 0, 0}, FAR, LEAKY},
		{{1.0f, 1.0f, 0, 0}, SAME, 3},
		{{1.0f, 1.0f, 0, 0}, DISJOINT, 2}, {{1.0f, 1.0f, 0, 0}, DISJOINT, LEAKY}, {{1.0f, 1.0f, 0, 0}, FOUND, 1},
		{{1.0f, 1.0f, 0, 0}, FOUND, 4}, {{0.5f, 1.0f, 0, 0}, NEAR, 3}, {{2.0f, 1.0f, 0, 0}, FAR, 2},
		{{1.0f, 0.7f, 0, 0}, NEAR, 3}, {{1.0f, 0.3f, 0, 0}, FAR, 2}, {{1.0f, 0.7f, 0, 0}, FOUND, 2},
		{{1.0f, 1.0f, 2, 0}, NEAR, 3}, {{1.0f, 1.0f, 1, 0}, FAR, 3}, {{1.0f, 1.0f, 3, 0}, FOUND, 3},
		{{1.0f, 1.0f, 0, 0.2f}, NEAR, 3}, {{1.3f, 1.0f, 0, 0.4f}, FAR, 2}, {{1.0f, 1.0f, 0, 1.0f}, TIES, 3},
		{{1.0f, 1.0f, 3, 0}, TIES, 2}, {{0.8f, 0.9f, 4, 0.1f}, NEAR, 3}, {{0.8f, 0.9f, 4, 0.1f}, FAR, LEAKY},
		{{1e-3f, 1.0f, 0, 0}, NEAR, 3}, {{1e-3f, 1.0f, 0, 0}, FAR, 3}, {{0.0f, 1.0f, 0, 0}, FAR, 3},
		{{0.0f, 1.0f, 0, 0}, FOUND, 2}, {{0.0f, 1.0f, 0, 0}, TIES, 2},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_sequences(&cases[i], 1000 + i);
}

/* ---- acceptance ---- */

/* Over rows of many chunks too, by the definition of total variation. */
static void drafts_stand_as_often_as_total_variation_allows(void **state)
{
	(void)state;
	enum { N_MAX = 700, DRAWS = 20000 };
	static const struct sampling_options settings[] = {
		{1.0f, 1.0f, 0, 0}, {0.7f, 1.0f, 0, 0}, {1.0f, 0.9f, 0, 0}, {1.0f, 1.0f, 20, 0}, {1.0f, 1.0f, 0, 0.05f},
	};
	static const int sizes[] = {7, 50, N_MAX};
	uint64_t rng = 31;

	for (int round = 0; round < 15; round++) {
		const struct sampling_options *options = &settings[round % 5];
		int n = sizes[round % 3], stands = 0, stands_found = 0;
		struct sampler *sampler = sampler_open(n);
		float target[N_MAX], drafter[N_MAX], logprob;
		struct distribution q;
		double both = 0;
		for (int i = 0; i < n; i++) {
			target[i] = 5 * random_unit(&rng);
			drafter[i] = target[i] + (float)(round % 4) * 0.5f * (random_unit(&rng) - 0.5f);
		}
		for (int i = 0; i < n; i++)
			both += fmin(exp((double)sampler_score(sampler, target, options, i)),
			             exp((double)sampler_score(sampler, drafter, options, i)));
		int32_t likely = sampler_draw_token(sampler, target, options, 1, 1);
		for (int32_t position = 0; position < DRAWS; position++) {
			sampler_distribution(sampler, drafter, options, &q);
			struct proposal draft = {sampler_draw_from(sampler, drafter, &q, 6, position), drafter, &q};
			struct proposal found = {.token = likely};
			stands += maximal_draw(sampler, target, options, 7, position, &draft, &logprob) == draft.token;
			if (position % 4) continue;
			int32_t token = maximal_draw(sampler, target, options, 8, position, &found, &logprob);
			stands_found += token == likely;
			assert_true(logprob == sampler_score(sampler, target, options, token));
		}
		assert_rate(stands, DRAWS, fmin(both, 1), "acceptance");
		double of_found = exp((double)sampler_score(sampler, target, options, likely));
		assert_rate(stands_found, DRAWS / 4, of_found, "acceptance of a found draft");
		if (round % 4 == 0) assert_int_equal(stands, DRAWS);
		sampler_close(sampler);
	}
}

/* ---- bits ---- */

static struct sampler *sampler_for(const char *cpu, int n)
{
	setenv("DRUMROLL_CPU", cpu, 1);
	struct sampler *sampler = sampler_open(n);
	unsetenv("DRUMROLL_CPU");
	return sampler;
}

static void instruction_sets_agree(void **state)
{
	(void)state;
	enum { N_MAX = 1500 };
	static float target[N_MAX], drafter[N_MAX];
	static const char *const names[] = {"avx2", "avx512"};

	for (int t = 0; t < 2; t++) {
		uint64_t rng = 41;
		if (!row_kernels_named(names[t])) {
			print_message("skipped: %s is not supported by this CPU\n", names[t]);
			continue;
		}
		for (int round = 0; round < 1500; round++) {
			int n = 1 + (int)(random_bits(&rng) % (round % 2 ? 70 : N_MAX));
			struct sampling_options options = {round % 3 ? 1.0f : 0.6f, round % 5 ? 1.0f : 0.9f, round % 7 ? 0 : 9,
			                                   round % 4 ? 0 : 0.01f};
			struct sampler *samplers[2] = {sampler_for("scalar", n), sampler_for(names[t], n)};
			int32_t token[2];
			float logprob[2];
			for (int i = 0; i < n; i++) {
				target[i] = rintf((float)(random_bits(&rng) >> 40) * 0x1p-20f) * (round % 6 ? 0.37f : 1.0f);
				drafter[i] = random_bits(&rng) % 3 ? target[i] : (float)(random_bits(&rng) >> 40) * 0x1p-20f;
			}
			for (int i = 0; i < 2; i++) {
				struct distribution q;
				sampler_distribution(samplers[i], drafter, &options, &q);
				struct proposal draft = {sampler_draw_from(samplers[i], drafter, &q, 9, round), drafter, &q};
				if (round % 8 == 0) draft.logits = NULL, draft.distribution = NULL;
				token[i] = maximal_draw(samplers[i], target, &options, 10, round, &draft, &logprob[i]);
				sampler_close(samplers[i]);
			}
			assert_int_equal(token[0], token[1]);
			assert_memory_equal(&logprob[0], &logprob[1], sizeof *logprob);
		}
	}
}

/* A target without a distribution has no log-probability; its draft does not matter. */
static void broken_targets_are_told(void **state)
{
	(void)state;
	const float target[4] = {1, NAN, 2, 0}, drafter[4] = {3, 0, 1, 2};
	struct sampling_options options = {1.0f, 1.0f, 0, 0};
	struct sampler *sampler = sampler_open(4);
	struct distribution q;
	float logprob = 0;

	sampler_distribution(sampler, drafter, &options, &q);
	struct proposal drafts[] = {{0, drafter, &q}, {.token = 1}};
	for (int i = 0; i < 2; i++) {
		maximal_draw(sampler, target, &options, 1, 1, &drafts[i], &logprob);
		assert_true(isnan(logprob));
	}
	/* The only entry that is kept, as a draft: nothing is left beside it, and it stands. */
	struct sampling_options one = {1.0f, 1.0f, 1, 0};
	struct proposal only = {.token = 0};
	assert_int_equal(maximal_draw(sampler, drafter, &one, 1, 1, &only, &logprob), 0);
	assert_true(logprob == 0);
	sampler_close(sampler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sequences_have_the_target_distribution),
		cmocka_unit_test(drafts_stand_as_often_as_total_variation_allows),
		cmocka_unit_test(instruction_sets_agree),
		cmocka_unit_test(broken_targets_are_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
