/* test_sampling.c - kept sets, draws and log-probabilities against plain references: a full sort,
 * the definition of the draw one entry at a time, log-sum-exp in double precision; frequencies at
 * 5 sigma with fixed keys; and every instruction set the same bits.  Cuts in whole vocabularies are in
 * test_truncation.c, the passes over a row in test_row_kernels.c. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rollout/sampling/noise.h"
#include "rollout/sampling/row_kernels.h"
#include "rollout/sampling/sampling.h"
#include "tests/support/random_model.h"

/* Largest error of a log-probability against double precision, times 1 + its distance from 0. */
#define LOGPROB_ERROR_MAX 1e-6

enum { VOCAB_MAX = 700, LARGE_MAX = 20000 };

static float random_unit(uint64_t *rng)
{
	return (float)(random_bits(rng) >> 40) * 0x1p-24f;
}

/* Rows of every kind: smooth, coarse (many ties), peaked, with entries at -infinity. */
static void random_row(float *logits, int n, uint64_t *rng)
{
	int kind = (int)(random_bits(rng) % 4);

	for (int i = 0; i < n; i++) {
		float normal = random_unit(rng) + random_unit(rng) + random_unit(rng) - 1.5f;
		logits[i] = normal * (kind == 2 ? 40.0f : 4.0f);
		if (kind == 1) logits[i] = rintf(logits[i]);
		if (kind == 3 && random_bits(rng) % 3 == 0) logits[i] = -INFINITY;
	}
	if (logits[0] < -100.0f) logits[0] = 0.0f;
}

static struct sampling_options random_options(int n, uint64_t *rng)
{
	static const float temperatures[] = {1.0f, 0.7f, 0.05f, 3.0f};
	static const float masses[] = {1.0f, 0.95f, 0.5f, 0.01f, 0.9999f};
	static const float shares[] = {0.0f, 0.0f, 0.0f, 1.0f, 0.3f, 0.05f, 1e-6f, 1e-30f};
	return (struct sampling_options){
		.temperature = temperatures[random_bits(rng) % 4],
		.top_p = masses[random_bits(rng) % 5],
		.top_k = random_bits(rng) % 2 ? 0 : (int32_t)(random_bits(rng) % (uint64_t)(n + 3)),
		.min_p = shares[random_bits(rng) % 8],
	};
}

/* ---- reference: sort everything, add in double precision ---- */

static int by_rank(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	return ranked_before(*x, *y) ? -1 : ranked_before(*y, *x);
}

struct reference {
	struct ranked order[VOCAB_MAX];
	int n_kept;
	double log_sum;  /* of the kept set, relative to the largest logit */
	bool borderline; /* top_p is reached, or min_p missed, within rounding of an entry's edge */
};

static void reference_of(struct reference *r, const float *logits, int n,
                         const struct sampling_options *options)
{
	double inv_t = 1.0 / (double)options->temperature, total = 0, mass = 0;

	for (int i = 0; i < n; i++) r->order[i] = (struct ranked){logits[i], i};
	qsort(r->order, (size_t)n, sizeof *r->order, by_rank);
	int k = options->top_k > 0 && options->top_k < n ? options->top_k : n;
	double max = (double)r->order[0].logit;
	for (int i = 0; i < k; i++) total += exp(((double)r->order[i].logit - max) * inv_t);
	r->n_kept = k;
	r->borderline = false;
	if (options->top_p < 1.0f) {
		for (r->n_kept = 0; r->n_kept < k; r->n_kept++) {
			mass += exp(((double)r->order[r->n_kept].logit - max) * inv_t);
			r->borderline |= fabs(mass - (double)options->top_p * total) < 1e-5 * total;
			if (mass < (double)options->top_p * total) continue;
			r->n_kept++;
			break;
		}
		total = mass;
	}
	if (options->min_p > 0) {
		double kept = 0;
		int n_kept = 0;
		for (; n_kept < r->n_kept; n_kept++) {
			double p = exp(((double)r->order[n_kept].logit - max) * inv_t); /* of the likeliest's */
			r->borderline |= p < 1 && fabs(log(p / (double)options->min_p)) < 1e-5 * (1 + fabs(max * inv_t));
			if (p < (double)options->min_p) break;
			kept += p;
		}
		r->n_kept = n_kept;
		total = kept;
	}
	r->log_sum = log(total);
}

static bool reference_keeps(const struct reference *r, int32_t token)
{
	for (int i = 0; i < r->n_kept; i++)
		if (r->order[i].id == token) return true;
	return false;
}

static void kept_sets_and_logprobs(void **state)
{
	(void)state;
	static float logits[VOCAB_MAX];
	static struct reference reference;
	uint64_t rng = 11;
	int n_checked = 0, n_outside = 0;

	for (int round = 0; round < 1500; round++) {
		int n = 1 + (int)(random_bits(&rng) % (round % 2 ? 40 : VOCAB_MAX));
		struct sampling_options options = random_options(n, &rng);
		random_row(logits, n, &rng);
		reference_of(&reference, logits, n, &options);
		if (reference.borderline) continue;
		struct sampler *sampler = sampler_open(n);
		for (int probe = 0; probe < 8; probe++) {
			int32_t token = probe < 4 && probe < n ? reference.order[(reference.n_kept - 1 + probe) % n].id
			                                       : (int32_t)(random_bits(&rng) % (uint64_t)n);
			float found = sampler_score(sampler, logits, &options, token);
			if (!reference_keeps(&reference, token)) {
				assert_true(found == -INFINITY);
				n_outside++;
				continue;
			}
			double scaled =
				((double)logits[token] - (double)reference.order[0].logit) / (double)options.temperature;
			double expected = scaled - reference.log_sum;
			if (isinf(expected)) assert_true(found == -INFINITY);
			else assert_true(fabs((double)found - expected) <= LOGPROB_ERROR_MAX * (1 + fabs(expected)));
			n_checked++;
		}
		sampler_close(sampler);
	}
	assert_true(n_checked > 3000 && n_outside > 500);
}

/* ---- the draw ---- */

static int32_t draw_by_definition(const struct reference *r, float inv_t, uint64_t key, int32_t position)
{
	float best_score = -INFINITY;
	int32_t best = -1;

	for (int i = 0; i < r->n_kept; i++) {
		int32_t id = r->order[i].id;
		float score = (r->order[i].logit - r->order[0].logit) * inv_t + noise_gumbel(key, position, id);
		if (score > best_score || (score == best_score && id < best)) best_score = score, best = id;
	}
	return best;
}

static void draws_follow_the_definition(void **state)
{
	(void)state;
	static float logits[VOCAB_MAX];
	static struct reference reference;
	uint64_t rng = 12;

	for (int round = 0; round < 1500; round++) {
		int n = 1 + (int)(random_bits(&rng) % (round % 2 ? 70 : VOCAB_MAX));
		struct sampling_options options = random_options(n, &rng);
		uint64_t key = random_bits(&rng);
		int32_t position = (int32_t)(random_bits(&rng) % 100000);
		random_row(logits, n, &rng);
		reference_of(&reference, logits, n, &options);
		struct sampler *sampler = sampler_open(n);
		float logprob;
		int32_t token = sampler_draw(sampler, logits, &options, key, position, &logprob);
		assert_true(token >= 0 && token < n);
		if (!reference.borderline)
			assert_int_equal(token,
			                 draw_by_definition(&reference, 1.0f / options.temperature, key, position));
		assert_int_equal(token, sampler_draw_token(sampler, logits, &options, key, position));
		float scored = sampler_score(sampler, logits, &options, token);
		assert_memory_equal(&scored, &logprob, sizeof logprob);
		sampler_close(sampler);
	}
}

static struct sampler *sampler_for(const char *cpu, int n)
{
	setenv("DRUMROLL_CPU", cpu, 1);
	struct sampler *sampler = sampler_open(n);
	unsetenv("DRUMROLL_CPU");
	return sampler;
}

/* Bits of draw and log-probability, on rows that may hold anything. */
static void agrees_with_scalar(const char *cpu)
{
	if (!row_kernels_named(cpu)) {
		print_message("skipped: %s is not supported by this CPU\n", cpu);
		return;
	}
	static float logits[LARGE_MAX];
	uint64_t rng = 13;

	for (int round = 0; round < 3000; round++) {
		int n = 1 + (int)(random_bits(&rng) % (round % 100 == 2 ? LARGE_MAX : round % 2 ? 70 : VOCAB_MAX));
		struct sampling_options options = random_options(n, &rng);
		uint64_t key = random_bits(&rng);
		float logprob[2];
		random_row(logits, n, &rng);
		if (round % 10 == 0) logits[random_bits(&rng) % (uint64_t)n] = NAN;
		if (round % 10 == 5) logits[random_bits(&rng) % (uint64_t)n] = INFINITY;
		struct sampler *best = sampler_for(cpu, n), *scalar = sampler_for("scalar", n);
		int32_t token = sampler_draw(best, logits, &options, key, round, &logprob[0]);
		assert_int_equal(token, sampler_draw(scalar, logits, &options, key, round, &logprob[1]));
		if (isnan(logprob[0])) assert_true(isnan(logprob[1]));
		else assert_memory_equal(&logprob[0], &logprob[1], sizeof logprob[0]);
		sampler_close(best);
		sampler_close(scalar);
	}
}

static void instruction_sets_agree(void **state)
{
	(void)state;
	agrees_with_scalar("avx2");
	agrees_with_scalar("avx512");
}

/* A row that is no distribution: the likeliest entry that is a number, and NaN as its log-probability. */
static void broken_rows(void **state)
{
	(void)state;
	static const float rows[][5] = {
		{1, NAN, 3, 2, 3}, {NAN, NAN, NAN, NAN, NAN}, {0, 1, INFINITY, 2, INFINITY},
		{-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY}, {-INFINITY, NAN, -INFINITY, -7, NAN},
	};
	static const int32_t likeliest[] = {2, 0, 2, 0, 3};
	static const struct sampling_options options[] = {
		{1.0f, 1.0f, 0}, {0.0f, 1.0f, 0}, {0.7f, 0.9f, 0}, {1.0f, 1.0f, 2}, {1.0f, 0.5f, 3},
	};
	struct sampler *sampler = sampler_open(5);

	for (int r = 0; r < 5; r++) {
		for (int o = 0; o < 5; o++) {
			float logprob = 0;
			assert_int_equal(sampler_draw(sampler, rows[r], &options[o], 1, r, &logprob), likeliest[r]);
			assert_true(isnan(logprob));
			assert_true(isnan(sampler_score(sampler, rows[r], &options[o], 3)));
		}
	}
	sampler_close(sampler);
}

/* Near temperature 0 the draw is the argmax, and of equals any; the log-probability stays finite. */
static void tiny_temperatures(void **state)
{
	(void)state;
	static const float temperatures[] = {1e-3f, 1e-10f, 1e-37f, FLT_MIN};
	float logits[300];
	uint64_t rng = 14;
	struct sampler *sampler = sampler_open(300);

	for (int i = 0; i < 300; i++) logits[i] = 20.0f * random_unit(&rng);
	logits[41] = logits[250] = 21.0f;
	for (int32_t position = 0; position < 40; position++) {
		struct sampling_options options = {temperatures[position % 4], position % 3 ? 1.0f : 0.9f, 0};
		float logprob;
		int32_t token = sampler_draw(sampler, logits, &options, 3, position, &logprob);
		assert_true(token == 41 || token == 250);
		assert_true(fabsf(logprob + 0.693147f) < 1e-6f);
	}
	sampler_close(sampler);
}

static void ties_go_to_the_lowest_id(void **state)
{
	(void)state;
	const float logits[6] = {1, 3, 2, 3, 3, 0};
	struct sampler *sampler = sampler_open(6);
	struct sampling_options greedy = {.temperature = 0.0f, .top_p = 1.0f};
	float logprob = 1;

	assert_int_equal(sampler_draw(sampler, logits, &greedy, 1, 1, &logprob), 1);
	assert_true(logprob == 0.0f);
	assert_true(sampler_score(sampler, logits, &greedy, 1) == 0.0f);
	assert_true(sampler_score(sampler, logits, &greedy, 3) == -INFINITY);

	struct sampling_options top_2 = {.temperature = 1.0f, .top_p = 1.0f, .top_k = 2};
	for (int32_t position = 0; position < 50; position++) {
		int32_t token = sampler_draw(sampler, logits, &top_2, 9, position, &logprob);
		assert_true(token == 1 || token == 3);
		assert_true(fabsf(logprob + 0.693147f) < 1e-6f);
	}
	/* min_p 1 keeps what ties with the largest; with top-k, or a mass that ends among them, the first of these. */
	struct sampling_options equals = {.temperature = 0.5f, .top_p = 1.0f, .min_p = 1.0f};
	for (int32_t i = 0; i < 6; i++)
		assert_true((sampler_score(sampler, logits, &equals, i) > -INFINITY) == (logits[i] == 3));
	assert_true(fabsf(sampler_score(sampler, logits, &equals, 4) + 1.098612f) < 1e-6f);
	equals.top_k = 2;
	assert_true(sampler_score(sampler, logits, &equals, 3) > -INFINITY);
	assert_true(sampler_score(sampler, logits, &equals, 4) == -INFINITY);
	equals.temperature = 0.0f;
	assert_int_equal(sampler_draw(sampler, logits, &equals, 1, 1, &logprob), 1);
	/* exp(-1) of the largest: entries 1 below it stay at 0.36, and go at 0.37. */
	struct sampling_options share = {.temperature = 1.0f, .top_p = 1.0f, .min_p = 0.36f};
	assert_true(sampler_score(sampler, logits, &share, 2) > -INFINITY);
	assert_true(sampler_score(sampler, logits, &share, 0) == -INFINITY);
	share.min_p = 0.37f;
	assert_true(sampler_score(sampler, logits, &share, 2) == -INFINITY);
	/* Three equals of mass 0.289 each: 0.3 takes two of them. */
	struct sampling_options mass = {.temperature = 1.0f, .top_p = 0.3f};
	assert_true(sampler_score(sampler, logits, &mass, 3) > -INFINITY);
	assert_true(sampler_score(sampler, logits, &mass, 4) == -INFINITY);
	sampler_close(sampler);
}

/* Counts of 100,000 draws against the distribution, after temperature and truncation. */
static void assert_frequencies(const struct sampling_options *options, uint64_t key)
{
	enum { N = 37, DRAWS = 100000 };
	float logits[N];
	int count[N] = {0};
	uint64_t rng = key;
	struct sampler *sampler = sampler_open(N);

	for (int i = 0; i < N; i++) logits[i] = 6.0f * random_unit(&rng);
	for (int32_t position = 0; position < DRAWS; position++)
		count[sampler_draw_token(sampler, logits, options, key, position)]++;
	for (int i = 0; i < N; i++) {
		double p = exp((double)sampler_score(sampler, logits, options, i));
		double sigma = sqrt(DRAWS * p * (1 - p));
		if (fabs(count[i] - DRAWS * p) > 5 * sigma + 1e-9)
			fail_msg("entry %d: expected %.1f of %d (sigma %.1f), found %d", i, DRAWS * p, DRAWS, sigma,
			         count[i]);
	}
	sampler_close(sampler);
}

static void frequencies_match_probabilities(void **state)
{
	(void)state;
	assert_frequencies(&(struct sampling_options){.temperature = 1.0f, .top_p = 1.0f}, 101);
	assert_frequencies(&(struct sampling_options){.temperature = 0.6f, .top_p = 1.0f}, 102);
	assert_frequencies(&(struct sampling_options){.temperature = 1.0f, .top_p = 0.8f}, 103);
	assert_frequencies(&(struct sampling_options){.temperature = 1.5f, .top_p = 1.0f, .top_k = 7}, 104);
	assert_frequencies(&(struct sampling_options){.temperature = 1.0f, .top_p = 0.9f, .top_k = 20}, 105);
	assert_frequencies(&(struct sampling_options){.temperature = 1.2f, .top_p = 1.0f, .min_p = 0.2f}, 106);
	assert_frequencies(&(struct sampling_options){.temperature = 1.0f, .top_p = 0.9f, .top_k = 20, .min_p = 0.05f}, 107);
}

/* Acceptance of a coupled draft is at least (1 - d) / (1 + d) at total variation d (Daliri et al.). */
static void coupling_bound(void **state)
{
	(void)state;
	enum { N = 50, DRAWS = 20000 };
	struct sampling_options options = {.temperature = 1.0f, .top_p = 1.0f};
	struct sampler *sampler = sampler_open(N);
	uint64_t rng = 21;

	for (int pair = 0; pair < 6; pair++) {
		float target[N], drafter[N];
		double distance = 0;
		int equal = 0;
		for (int i = 0; i < N; i++) {
			target[i] = 5.0f * random_unit(&rng);
			drafter[i] = target[i] + (float)pair * 0.4f * (random_unit(&rng) - 0.5f);
		}
		for (int i = 0; i < N; i++)
			distance += 0.5 * fabs(exp((double)sampler_score(sampler, target, &options, i)) -
			                       exp((double)sampler_score(sampler, drafter, &options, i)));
		for (int32_t position = 0; position < DRAWS; position++)
			equal += sampler_draw_token(sampler, target, &options, 5, position) ==
			         sampler_draw_token(sampler, drafter, &options, 5, position);
		double bound = (1 - distance) / (1 + distance);
		assert_true(equal >= DRAWS * bound - 5 * sqrt(DRAWS * bound * (1 - bound)) - 1e-6);
		assert_true(pair > 0 || equal == DRAWS);
		assert_true(equal <= DRAWS * (1 - distance) + 5 * sqrt(DRAWS * distance * (1 - distance)) + 1e-6);
	}
	sampler_close(sampler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kept_sets_and_logprobs), cmocka_unit_test(draws_follow_the_definition),
		cmocka_unit_test(instruction_sets_agree), cmocka_unit_test(ties_go_to_the_lowest_id),
		cmocka_unit_test(broken_rows), cmocka_unit_test(tiny_temperatures),
		cmocka_unit_test(frequencies_match_probabilities), cmocka_unit_test(coupling_bound),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
