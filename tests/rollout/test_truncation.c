/* test_truncation.c - cuts in rows up to a whole vocabulary against a full sort: the very entry, with
 * masses added as whole numbers; the kept set against double precision; on rows that are smooth,
 * peaked, coarse, equal, partly masked, and made to mislead the search. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "configs/err.h"
#include "rollout/sampling/row_kernels.h"
#include "rollout/sampling/truncation.h"
#include "tests/support/ugly.h"

enum { VOCAB_MAX = 151936 };

/* Largest error of log(mass) against double precision. */
#define LOG_MASS_ERROR_MAX 3e-7

enum kind {
	SMOOTH, FLAT, PEAKED, COARSE, EQUAL, MASKED, TWO_VALUES, SPIKED_SAMPLE, SUNK_SAMPLE, EVEN, N_KINDS
};

static void fill(float *x, int32_t n, enum kind kind, struct ugly *u)
{
	for (int32_t i = 0; i < n; i++) {
		float normal = ugly_normal(u);
		bool sampled = (int64_t)i * 256 / n != (int64_t)(i - 1) * 256 / n; /* about where the search looks */
		switch (kind) {
		case SMOOTH: x[i] = 2.5f * normal; break;
		case FLAT: x[i] = 0.3f * normal; break;
		case PEAKED: x[i] = 2.0f * normal + (ugly_below(u, n) < 30 ? 15.0f : 0.0f); break;
		case COARSE: x[i] = rintf(2.0f * normal); break;
		case EQUAL: x[i] = -2.5f; break;
		case MASKED: x[i] = ugly_below(u, 20) ? -INFINITY : 3.0f * normal; break;
		case TWO_VALUES: x[i] = ugly_below(u, 2) ? 1.0f : -0.0f; break;
		case SPIKED_SAMPLE: x[i] = normal + (sampled ? 9.0f : 0.0f); break;
		case SUNK_SAMPLE: x[i] = normal - (sampled ? 50.0f : 0.0f); break;
		default: x[i] = -200.0f * (float)ugly_below(u, n) / (float)n; break;
		}
	}
	if (kind == MASKED) x[n / 2] = 1.0f;
}

static int by_rank(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	return ranked_before(*x, *y) ? -1 : ranked_before(*y, *x);
}

struct case_of {
	int32_t n, k;
	float top_p, log2_scale, least; /* least: -INFINITY for none */
};

/* The last kept entry of a sorted row, and its mass; integers throughout. */
static int32_t reference_length(const struct ranked *order, const struct case_of *c, struct row_scale scale,
                                uint64_t *mass)
{
	uint64_t total = 0, wanted;
	int32_t n = c->n, kept = 0;

	while (n > 0 && order[n - 1].logit == -INFINITY) n--;
	if (c->k > 0 && c->k < n) n = c->k;
	for (int32_t i = 0; i < n; i++) total += mass_of(order[i].logit, scale);
	wanted = c->top_p < 1.0f ? (uint64_t)ceil((double)c->top_p * (double)total) : UINT64_MAX;
	for (*mass = 0; kept < n && (kept == 0 || *mass < wanted); kept++) {
		if (order[kept].logit < c->least) break;
		*mass += mass_of(order[kept].logit, scale);
	}
	return kept;
}

/* The mass in double precision, and that it passes top_p just there. */
static void check_in_double(const struct ranked *order, const struct case_of *c, struct row_scale scale,
                            int32_t kept, uint64_t mass)
{
	double total = 0, sum = 0, last = 0;
	int32_t n = c->k > 0 && c->k < c->n ? c->k : c->n;

	for (int32_t i = 0; i < n; i++) {
		double p = exp2(((double)order[i].logit - (double)scale.max) * (double)scale.log2_scale);
		total += p;
		if (i < kept) sum += last = p;
	}
	assert_true(fabs(log(sum) - log((double)mass / (double)MASS_ONE)) <= LOG_MASS_ERROR_MAX);
	if (!(c->top_p < 1.0f) || c->least > -INFINITY) return;
	assert_true(sum >= (double)c->top_p * total * (1 - 1e-6));
	assert_true(kept == 1 || sum - last < (double)c->top_p * total * (1 + 1e-6));
}

static void check(struct truncation *t, const struct row_kernels *kernels, const float *x,
                  const struct ranked *order, const struct case_of *c)
{
	float *peaks = xmalloc((size_t)row_chunks(c->n) * sizeof *peaks);
	struct row_scale scale = {kernels->peaks(peaks, x, c->n), c->log2_scale};
	struct truncation_row row = {x, peaks, c->n};
	uint64_t mass, expected;
	struct ranked cut = truncation_cut(t, &row, &scale, c->k, c->top_p, c->least, &mass);
	int32_t kept = reference_length(order, c, scale, &expected);

	assert_true(mass == expected);
	assert_true(cut_keeps(cut, order[kept - 1].logit, order[kept - 1].id));
	if (kept < c->n && order[kept].logit > -INFINITY)
		if (cut_keeps(cut, order[kept].logit, order[kept].id))
			fail_msg("n %d, k %d, p %g: more than %d kept", c->n, c->k, (double)c->top_p, kept);
	check_in_double(order, c, scale, kept, mass);
	free(peaks);
}

/* order: the row, sorted; a third of the cases keep only what reaches one of its entries, or lies just above it. */
static struct case_of random_case(const struct ranked *order, int32_t n, struct ugly *u)
{
	static const float masses[] = {1.0f, 0.95f, 0.5f, 0.01f, 0.9999f, 0.999999f, 1e-6f};
	static const float scales[] = {1.442695f, 1.442695f, 2.4f, 144.0f, 0.3f};
	static const int32_t ks[] = {0, 0, 1, 2, 50, 1000, 1024, 5000};
	struct case_of c = {n, ks[ugly_below(u, 8)], masses[ugly_below(u, 7)], scales[ugly_below(u, 5)], -INFINITY};
	if (ugly_below(u, 8) == 0) c.k = 1 + ugly_below(u, n);
	if (ugly_below(u, 3) == 0) {
		c.least = order[ugly_below(u, ugly_below(u, 2) ? n : n < 40 ? n : 40)].logit;
		if (ugly_below(u, 3) == 0 && c.least < order[0].logit) c.least = nextafterf(c.least, INFINITY);
	}
	return c;
}

static void check_table(const char *name, int32_t n_max, int rows)
{
	const struct row_kernels *kernels = row_kernels_named(name);
	struct ugly u = {17};
	if (!kernels) {
		print_message("skipped: %s is not supported by this CPU\n", name);
		return;
	}
	struct ranked *order = xmalloc((size_t)n_max * sizeof *order);
	struct truncation *t = truncation_open(kernels, n_max);

	for (int r = 0; r < rows; r++) {
		int32_t n = r % 4 == 0 ? n_max : 1 + ugly_below(&u, r % 4 == 1 ? 40 : n_max);
		float *x = xmalloc((size_t)n * sizeof *x);
		fill(x, n, r % N_KINDS, &u);
		for (int32_t i = 0; i < n; i++) order[i] = (struct ranked){x[i], i};
		qsort(order, (size_t)n, sizeof *order, by_rank);
		for (int i = 0; i < 12; i++) {
			struct case_of c = random_case(order, n, &u);
			check(t, kernels, x, order, &c);
		}
		free(x);
	}
	truncation_close(t);
	free(order);
}

static void scalar_cuts(void **state)
{
	(void)state;
	check_table("scalar", 6000, 60);
}

static void vector_cuts(void **state)
{
	(void)state;
	check_table("avx2", 6000, 120);
	check_table("avx512", 6000, 120);
}

static void cuts_in_a_vocabulary(void **state)
{
	(void)state;
	check_table(row_kernels_best()->name, VOCAB_MAX, 2 * N_KINDS);
}

/* More chunks than are sorted at once. */
static void cuts_in_a_huge_row(void **state)
{
	(void)state;
	check_table(row_kernels_best()->name, 600000, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scalar_cuts), cmocka_unit_test(vector_cuts), cmocka_unit_test(cuts_in_a_vocabulary),
		cmocka_unit_test(cuts_in_a_huge_row),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
