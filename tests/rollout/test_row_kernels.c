/* test_row_kernels.c - every table against the scalar one, bit for bit, on rows of all lengths with
 * ties, infinities, NaN, denormals and nothing but equals; and mass against powers of two in double
 * precision. */
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
#include "rollout/sampling/noise.h"
#include "rollout/sampling/row_kernels.h"
#include "tests/support/ugly.h"

/* Largest relative error of a mass above 2^-16, where rounding to whole numbers does not show. */
#define MASS_ERROR_MAX 2e-7

enum { ROUNDS = 1500, N_KINDS = 7 };

static const char *const names[] = {"avx2", "avx512"};

/* An exactly sized row, so that the address sanitizer sees every read beyond its end. */
static float *row_of(struct ugly *u, int32_t n, int kind)
{
	float *x = ugly_floats(u, (size_t)n);

	for (int32_t i = 0; i < n; i++) {
		if (kind == 1) x[i] = rintf(4.0f * ugly_normal(u));
		if (kind == 2) x[i] = 30.0f * ugly_normal(u);
		if (kind == 3 && ugly_below(u, 3) == 0) x[i] = -INFINITY;
		if (kind == 4) x[i] = 1.5f;
		if (kind == 5) x[i] = i < n - 1 ? -INFINITY : 7.0f;
		if (kind == 6) x[i] = 3.0f * ugly_normal(u);
	}
	return x;
}

static int32_t length_of(struct ugly *u, int round)
{
	static const int32_t edges[] = {1,  2,  7,  8,   9,   15,  16,  17,  31,  33,
	                                63, 64, 65, 127, 255, 256, 257, 511, 513, 151936};
	enum { N_EDGES = sizeof edges / sizeof *edges };
	if (round < N_EDGES) return edges[round];
	return 1 + ugly_below(u, round % 50 == 0 ? 30000 : 1200);
}

struct subject {
	const struct row_kernels *scalar, *kernels;
	float *x, *peaks;
	int32_t n;
	struct row_scale scale;
};

static void same_peaks(const struct subject *s, struct ugly *u)
{
	size_t bytes = (size_t)row_chunks(s->n) * sizeof(float);
	float *found = xmalloc(bytes), kept;
	float max = s->scalar->peaks(s->peaks, s->x, s->n);

	assert_true(s->kernels->peaks(found, s->x, s->n) == max);
	for (int32_t c = 0; c < row_chunks(s->n); c++) assert_true(found[c] == s->peaks[c]);
	int32_t at = ugly_below(u, s->n);
	kept = s->x[at], s->x[at] = NAN;
	assert_true(isnan(s->scalar->peaks(found, s->x, s->n)) && isnan(s->kernels->peaks(found, s->x, s->n)));
	s->x[at] = kept;
	free(found);
}

static void same_mass(const struct subject *s, struct ugly *u)
{
	int32_t at = ugly_below(u, s->n);
	uint64_t mass = s->scalar->mass(s->x, NULL, s->n, s->scale);

	assert_true(s->kernels->mass(s->x, NULL, s->n, s->scale) == mass);
	assert_true(s->kernels->mass(s->x, s->peaks, s->n, s->scale) == mass);
	float kept = s->x[at];
	s->x[at] = NAN;
	mass = s->scalar->mass(s->x, NULL, s->n, s->scale);
	assert_true(s->kernels->mass(s->x, NULL, s->n, s->scale) == mass);
	s->x[at] = kept;
}

static void same_split(const struct subject *s, struct ugly *u)
{
	float *band[2], a = s->x[ugly_below(u, s->n)], b = s->x[ugly_below(u, s->n)];
	float low = fmaxf(fminf(a, b), -FLT_MAX), high = ugly_below(u, 4) ? fmaxf(a, b) : INFINITY;
	uint64_t above[2], total[2] = {0, 0};
	int32_t n_band[2];

	for (int i = 0; i < 2; i++) band[i] = xmalloc((size_t)(s->n + ROW_PAD) * sizeof(float));
	for (int variant = 0; variant < 4; variant++) {
		const float *peaks = variant & 1 ? s->peaks : NULL;
		for (int i = 0; i < 2; i++) {
			const struct row_kernels *kernels = i ? s->kernels : s->scalar;
			n_band[i] = kernels->split(band[i], &above[i], variant & 2 ? &total[i] : NULL, s->x, peaks, s->n,
			                           s->scale, low, high);
		}
		assert_int_equal(n_band[0], n_band[1]);
		assert_true(above[0] == above[1] && total[0] == total[1]);
		if (n_band[0]) assert_memory_equal(band[0], band[1], (size_t)n_band[0] * sizeof(float));
	}
	free(band[0]);
	free(band[1]);
}

static void same_draw(const struct subject *s, struct ugly *u)
{
	struct gumbel_row row = {.logits = s->x, .peaks = s->peaks, .n = s->n, .max = s->scale.max,
	                         .inv_t = ugly_below(u, 2) ? 1.0f : 0.3f * (float)(1 + ugly_below(u, 9)), .cut = CUT_NONE,
	                         .key = ugly_next(u) * 0x100000001u, .position = ugly_below(u, 1 << 20)};
	while (s->x[row.max_at] < row.max) row.max_at++;
	if (ugly_below(u, 2)) {
		int32_t id = ugly_below(u, s->n);
		row.cut = (struct ranked){s->x[id], id};
	}
	int32_t token = s->scalar->gumbel_argmax(&row);
	assert_int_equal(s->kernels->gumbel_argmax(&row), token);
	assert_true(cut_keeps(row.cut, s->x[token], token));
}

/* A row's shares under a random cut; its mass by the definition. */
static struct row_shares shares_of(const float *x, int32_t n, struct row_scale scale, struct ugly *u)
{
	struct row_shares row = {x, scale, CUT_NONE, 0};
	int32_t id = ugly_below(u, n);
	uint64_t mass = 0;

	if (ugly_below(u, 2)) row.cut = (struct ranked){x[id], ugly_below(u, 3) ? id : INT32_MAX};
	for (int32_t i = 0; i < n; i++) mass += cut_keeps(row.cut, x[i], i) ? mass_of(x[i], scale) : 0;
	row.of_mass = 0x1p50 / (double)(mass > 0 ? mass : 1);
	return row;
}

/* Sums by chunk of two tables, and that a residual over nothing is all there is. */
static void same_residual(const struct subject *s, struct ugly *u)
{
	size_t bytes = (size_t)row_chunks(s->n) * sizeof(uint64_t);
	uint64_t *sums[2] = {xmalloc(bytes), xmalloc(bytes)}, total;
	float *other = row_of(u, s->n, ugly_below(u, N_KINDS)), max = -INFINITY;

	for (int32_t i = 0; i < s->n; i++) {
		if (ugly_below(u, 2)) other[i] = s->x[i] + 0.1f * ugly_normal(u);
		max = other[i] > max ? other[i] : max;
	}
	struct row_shares p = shares_of(s->x, s->n, s->scale, u);
	struct row_shares q = shares_of(other, s->n, (struct row_scale){max, s->scale.log2_scale}, u);
	for (int with_q = 0; with_q < 2; with_q++) {
		total = s->scalar->residual(sums[0], &p, with_q ? &q : NULL, s->peaks, s->n);
		assert_true(s->kernels->residual(sums[1], &p, with_q ? &q : NULL, s->peaks, s->n) == total);
		assert_memory_equal(sums[0], sums[1], bytes);
		if (!with_q) assert_true(fabs((double)total * 0x1p-50 - 1) < 1e-9);
	}
	total = s->scalar->residual(sums[0], &p, &p, s->peaks, s->n);
	assert_true(total == 0);
	free(sums[0]);
	free(sums[1]);
	free(other);
}

static void tables_equal_the_scalar_one(void **state)
{
	(void)state;
	for (size_t t = 0; t < sizeof names / sizeof *names; t++) {
		struct subject s = {.scalar = row_kernels_named("scalar"), .kernels = row_kernels_named(names[t])};
		struct ugly u = {t + 1};
		if (!s.kernels) {
			print_message("skipped: %s is not supported by this CPU\n", names[t]);
			continue;
		}
		for (int round = 0; round < ROUNDS; round++) {
			s.n = length_of(&u, round);
			s.x = row_of(&u, s.n, round % N_KINDS);
			s.peaks = xmalloc((size_t)row_chunks(s.n) * sizeof(float));
			same_peaks(&s, &u);
			s.scale = (struct row_scale){s.scalar->peaks(s.peaks, s.x, s.n), ugly_below(&u, 5) ? 1.4427f : 0.0f};
			if (s.scale.max > -INFINITY) {
				same_mass(&s, &u);
				same_split(&s, &u);
				same_draw(&s, &u);
				if (isfinite(s.scale.max) && s.scale.log2_scale > 0) same_residual(&s, &u);
			}
			free(s.x);
			free(s.peaks);
		}
	}
}

static void mass_is_accurate(void **state)
{
	(void)state;
	struct row_scale scale = {3.0f, 1.44269504f};
	struct ugly u = {5};

	assert_true(mass_of(3.0f, scale) == MASS_ONE);
	assert_true(mass_of(-INFINITY, scale) == 0 && mass_of(NAN, scale) == 0 && mass_of(-FLT_MAX, scale) == 0);
	assert_true(mass_of(-FLT_MAX, (struct row_scale){3.0f, 0.0f}) == MASS_ONE);
	for (int i = 0; i < 200000; i++) {
		float logit = 3.0f - 32.0f * (float)(ugly_next(&u) >> 8) * 0x1p-24f;
		double exact = exp2((double)((logit - scale.max) * scale.log2_scale)) * (double)MASS_ONE;
		double found = (double)mass_of(logit, scale);
		double bound = exact > (double)MASS_ONE * 0x1p-16 ? MASS_ERROR_MAX * exact : 0.5 + MASS_ERROR_MAX * exact;
		if (!(fabs(found - exact) <= bound))
			fail_msg("logit %.9g: expected %.17g, found %.17g", (double)logit, exact, found);
	}
}

static void names_find_tables(void **state)
{
	(void)state;
	assert_string_equal(row_kernels_named("scalar")->name, "scalar");
	assert_null(row_kernels_named("mmx"));
	setenv("DRUMROLL_CPU", "scalar", 1);
	assert_string_equal(row_kernels_best()->name, "scalar");
	unsetenv("DRUMROLL_CPU");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_equal_the_scalar_one), cmocka_unit_test(mass_is_accurate),
		cmocka_unit_test(names_find_tables),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
