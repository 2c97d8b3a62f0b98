/* test_kernels.c - every table of kernels equals the scalar definition bit for bit, on shapes and
 * values chosen to be awkward; and the definition itself agrees with plain double precision.
 *
 * Each case runs once per table; a table that this CPU lacks is reported as skipped. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "quant/bf16.h"
#include "quant/kernels.h"
#include "tests/support/kernel_cases.h"
#include "tests/support/ugly.h"

/* ---- matmul_bf16 ---- */

static void check_matmul_bf16(const struct kernels *kernels, struct ugly *u, int m, int k, int n)
{
	size_t x_stride = (size_t)k + 3, y_stride = (size_t)panels(n) * PANEL + 5;
	size_t x_size = (size_t)(m - 1) * x_stride + (size_t)k, y_bytes = (size_t)m * y_stride * sizeof(float);
	uint16_t *rows = ugly_bf16(u, (size_t)n * (size_t)k);
	uint16_t *packed = malloc(packed_bf16_elements(n, k) * sizeof *packed);
	float *x = ugly_floats(u, x_size), *want = canary_bytes(y_bytes), *got = canary_bytes(y_bytes);

	int begin = ugly_below(u, panels(n)), end = begin + 1 + ugly_below(u, panels(n) - begin);
	pack_bf16(packed, rows, n, k, 0, panels(n));
	scalar()->matmul_bf16(want, y_stride, x, x_stride, m, packed, k, begin, end);
	kernels->matmul_bf16(got, y_stride, x, x_stride, m, packed, k, begin, end);
	assert_memory_equal(got, want, y_bytes);

	free(rows);
	free(packed);
	free(x);
	free(want);
	free(got);
}

static void matmul_bf16_equals_scalar(void **state)
{
	const struct kernels *kernels = table(state);
	struct ugly u = {1};
	for (int s = 0; s < N_SHAPES; s++)
		for (int m = 1; m <= ROWS_MAX; m++) check_matmul_bf16(kernels, &u, m, shapes[s].k, shapes[s].n);
	check_matmul_bf16(kernels, &u, 97, 520, 40);
	check_matmul_bf16(kernels, &u, 200, 70, 20);
	check_matmul_bf16(kernels, &u, 1, 2050, 16 * 9);
}

/* A row's result depends neither on the rows beside it nor on how panels are shared out. */
static void matmul_bf16_splits(void **state)
{
	const struct kernels *kernels = table(state);
	enum { M = 23, K = 600, N = 16 * 11 };
	struct ugly u = {2};
	uint16_t *rows = normal_bf16(&u, N * K, 1.0f);
	uint16_t *packed = malloc(packed_bf16_elements(N, K) * sizeof *packed);
	float *x = ugly_floats(&u, M * K), *whole = canary_bytes(sizeof(float) * M * N);
	float *split = canary_bytes(sizeof(float) * M * N);
	pack_bf16(packed, rows, N, K, 0, 5);
	pack_bf16(packed, rows, N, K, 5, panels(N));

	kernels->matmul_bf16(whole, N, x, K, M, packed, K, 0, panels(N));
	for (int first = 0; first < panels(N); first += 3)
		kernels->matmul_bf16(split, N, x, K, M, packed, K, first,
		                     first + 3 < panels(N) ? first + 3 : panels(N));
	assert_memory_equal(split, whole, sizeof(float) * M * N);
	for (int row = 0, m = 1; row < M; row += m, m++) {
		m = row + m > M ? M - row : m;
		kernels->matmul_bf16(split + row * N, N, x + row * K, K, m, packed, K, 0, panels(N));
	}
	assert_memory_equal(split, whole, sizeof(float) * M * N);

	free(rows);
	free(packed);
	free(x);
	free(whole);
	free(split);
}

/* The definition against double precision: FP32 chains of K_BLOCK err by at most about K_BLOCK / 2 ulp. */
static void matmul_bf16_is_a_product(void **state)
{
	(void)state;
	enum { M = 3, K = 700, N = 37, Y = 48 };
	struct ugly u = {3};
	uint16_t *rows = normal_bf16(&u, N * K, 0.05f);
	uint16_t *packed = malloc(packed_bf16_elements(N, K) * sizeof *packed);
	float *x = normal_floats(&u, M * K), y[M * Y];
	pack_bf16(packed, rows, N, K, 0, panels(N));
	scalar()->matmul_bf16(y, Y, x, K, M, packed, K, 0, panels(N));
	for (int m = 0; m < M; m++) {
		for (int o = 0; o < N; o++) {
			double sum = 0.0, magnitude = 0.0;
			for (int i = 0; i < K; i++) {
				double term = (double)x[m * K + i] * (double)bf16_to_f32(rows[o * K + i]);
				sum += term;
				magnitude += fabs(term);
			}
			assert_true(fabs((double)y[m * Y + o] - sum) <= magnitude * (K_BLOCK + K / K_BLOCK) * 0x1p-24);
		}
		for (int o = N; o < Y; o++) assert_true(y[m * Y + o] == 0.0f);
	}
	free(rows);
	free(packed);
	free(x);
}

/* ---- vectors ---- */

static void vectors_equal_scalar(void **state)
{
	const struct kernels *kernels = table(state);
	struct ugly u = {5};
	for (int n = 1; n <= 200; n += n < 70 ? 1 : 13) {
		size_t bytes = (size_t)n * sizeof(float);
		float *a = ugly_floats(&u, (size_t)n), *b = ugly_floats(&u, (size_t)n);
		uint16_t *weight = ugly_bf16(&u, (size_t)n);
		float *want = malloc(bytes), *got = malloc(bytes);

		scalar()->rmsnorm(want, a, weight, n, 1e-5f);
		kernels->rmsnorm(got, a, weight, n, 1e-5f);
		assert_memory_equal(got, want, bytes);
		memcpy(got, a, bytes);
		kernels->rmsnorm(got, got, weight, n, 1e-5f);
		assert_memory_equal(got, want, bytes);

		scalar()->silu_mul(want, a, b, n);
		memcpy(got, a, bytes);
		kernels->silu_mul(got, got, b, n);
		assert_memory_equal(got, want, bytes);

		memcpy(want, a, bytes);
		memcpy(got, a, bytes);
		scalar()->add(want, b, n);
		kernels->add(got, b, n);
		assert_memory_equal(got, want, bytes);

		float inv_t = 0.25f + (float)ugly_below(&u, 8), max, max_want;
		int index, index_want;
		scalar()->argmax(a, n, &max_want, &index_want);
		kernels->argmax(a, n, &max, &index);
		assert_memory_equal(&max, &max_want, sizeof max);
		assert_int_equal(index, index_want);
		float sum_want = scalar()->sum_exp(a, n, max, inv_t), sum = kernels->sum_exp(a, n, max, inv_t);
		assert_memory_equal(&sum, &sum_want, sizeof sum);

		free(a);
		free(b);
		free(weight);
		free(want);
		free(got);
	}
}

static void rope_equals_scalar(void **state)
{
	const struct kernels *kernels = table(state);
	struct ugly u = {6};
	for (int d = 2; d <= 256; d += d < 64 ? 2 : 16) {
		size_t n = (size_t)d;
		float *want = ugly_floats(&u, n), *got = malloc(n * sizeof *got);
		float *cos = normal_floats(&u, n / 2), *sin = normal_floats(&u, n / 2);
		memcpy(got, want, n * sizeof *got);
		scalar()->rope(want, cos, sin, d);
		kernels->rope(got, cos, sin, d);
		assert_memory_equal(got, want, n * sizeof *got);
		free(want);
		free(got);
		free(cos);
		free(sin);
	}
}

static void argmax_takes_the_first(void **state)
{
	const struct kernels *kernels = table(state);
	for (int n = 1; n < 70; n++) {
		float x[70], max;
		int index;
		for (int first = 0; first < n; first++) {
			for (int i = 0; i < n; i++) x[i] = i % 3 == first % 3 && i >= first ? 2.5f : -1.0f;
			kernels->argmax(x, n, &max, &index);
			assert_int_equal(index, first);
			assert_true(max == 2.5f);
		}
		for (int i = 0; i < n; i++) x[i] = i == n - 1 ? -7.0f : NAN;
		kernels->argmax(x, n, &max, &index);
		assert_int_equal(index, n - 1);
		for (int i = 0; i < n; i++) x[i] = i % 2 ? -INFINITY : NAN;
		kernels->argmax(x, n, &max, &index);
		assert_int_equal(index, 0);
		assert_true(max == -INFINITY);
	}
}

/* ---- attend ---- */

struct attend_case {
	int n_q, head_dim, n_positions, n_pages;
	uint16_t **pages;
	float **wide; /* the same pages in FP32, with bits that BF16 does not hold */
	float *q;
	size_t k_offset, v_offset;
};

/* Pages carry a foreign head before this one, and NaN where nothing was written yet. */
static struct attend_case attend_case_make(struct ugly *u, int n_q, int head_dim, int n_positions)
{
	size_t tile = (size_t)head_dim * KV_TILE;
	struct attend_case c = {n_q, head_dim, n_positions, (n_positions + KV_TILE - 1) / KV_TILE};
	c.k_offset = 2 * tile;
	c.v_offset = 3 * tile;
	c.q = normal_floats(u, (size_t)(n_q * head_dim));
	c.pages = malloc((size_t)c.n_pages * sizeof *c.pages);
	for (int page = 0; page < c.n_pages; page++) {
		c.pages[page] = normal_bf16(u, 4 * tile, 1.0f);
		for (int slot = 0; slot < KV_TILE; slot++) {
			if (page * KV_TILE + slot < n_positions) continue;
			for (int d = 0; d < head_dim; d++) {
				c.pages[page][c.k_offset + (size_t)(d * KV_TILE + slot)] = 0x7fc0;
				c.pages[page][c.v_offset + (size_t)(slot * head_dim + d)] = 0x7fc0;
			}
		}
	}
	c.wide = malloc((size_t)c.n_pages * sizeof *c.wide);
	for (int page = 0; page < c.n_pages; page++) {
		c.wide[page] = malloc(4 * tile * sizeof **c.wide);
		for (size_t i = 0; i < 4 * tile; i++) c.wide[page][i] = bf16_to_f32(c.pages[page][i]) * 1.0001f;
	}
	return c;
}

static void attend_case_free(struct attend_case *c)
{
	for (int page = 0; page < c->n_pages; page++) {
		free(c->pages[page]);
		free(c->wide[page]);
	}
	free(c->pages);
	free(c->wide);
	free(c->q);
}

static float *attend_run(const struct kernels *kernels, const struct attend_case *c, enum kv_type type)
{
	const void *const *pages = type == KV_F32 ? (const void *const *)c->wide : (const void *const *)c->pages;
	float *out = canary_bytes((size_t)(c->n_q * c->head_dim) * sizeof(float));
	float *scores = malloc((size_t)(c->n_q * c->n_pages * KV_TILE) * sizeof(float));
	kernels->attend[type](out, c->q, c->n_q, c->head_dim, pages, c->k_offset, c->v_offset, c->n_positions, 0.3f,
	                      scores);
	free(scores);
	return out;
}

static void attend_equals_scalar(void **state)
{
	static const int head_dims[] = {2, 8, 14, 16, 32, 40, 64, 80, 96, 100, 128};
	static const int positions[] = {1, 2, 15, 16, 17, 31, 33, 64, 79, 100};
	const struct kernels *kernels = table(state);
	struct ugly u = {7};
	for (size_t d = 0; d < sizeof head_dims / sizeof *head_dims; d++) {
		for (size_t p = 0; p < sizeof positions / sizeof *positions; p++) {
			for (int n_q = 1; n_q <= 9; n_q++) {
				struct attend_case c = attend_case_make(&u, n_q, head_dims[d], positions[p]);
				for (enum kv_type type = KV_BF16; type < N_KV_TYPES; type++) {
					float *want = attend_run(scalar(), &c, type), *got = attend_run(kernels, &c, type);
					assert_memory_equal(got, want, (size_t)(n_q * c.head_dim) * sizeof *got);
					free(want);
					free(got);
				}
				attend_case_free(&c);
			}
		}
	}
}

/* The definition against a softmax in double precision. */
static void attend_is_attention(void **state)
{
	(void)state;
	enum { D = 24, P = 53 };
	struct ugly u = {8};
	struct attend_case c = attend_case_make(&u, 2, D, P);
	float *got = attend_run(scalar(), &c, KV_BF16);
	for (int h = 0; h < c.n_q; h++) {
		double weight[P], sum = 0.0;
		for (int p = 0; p < P; p++) {
			const uint16_t *key = c.pages[p / KV_TILE] + c.k_offset + p % KV_TILE;
			double dot = 0.0;
			for (int d = 0; d < D; d++) dot += (double)c.q[h * D + d] * (double)bf16_to_f32(key[d * KV_TILE]);
			sum += weight[p] = exp(dot * (double)0.3f);
		}
		for (int d = 0; d < D; d++) {
			double want = 0.0;
			for (int p = 0; p < P; p++) {
				const uint16_t *value = c.pages[p / KV_TILE] + c.v_offset + p % KV_TILE * D;
				want += weight[p] / sum * (double)bf16_to_f32(value[d]);
			}
			assert_true(fabs((double)got[h * D + d] - want) < 1e-5);
		}
	}
	free(got);
	attend_case_free(&c);
}

/* ---- dispatch ---- */

static void environment_picks_a_table(void **state)
{
	(void)state;
	setenv("DRUMROLL_CPU", "scalar", 1);
	assert_ptr_equal(kernels_best(), scalar());
	setenv("DRUMROLL_CPU", "", 1);
	assert_non_null(kernels_best());
	assert_null(kernels_named("sse9"));

	setenv("DRUMROLL_CPU", "sse9", 1);
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		if (!freopen("/dev/null", "w", stderr)) abort();
		kernels_best();
		_exit(0);
	}
	int status;
	assert_true(waitpid(child, &status, 0) == child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE);
	unsetenv("DRUMROLL_CPU");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matmul_bf16_is_a_product),
		cmocka_unit_test(attend_is_attention),
		cmocka_unit_test(environment_picks_a_table),
		PER_TABLE(matmul_bf16_equals_scalar),
		PER_TABLE(matmul_bf16_splits),
		PER_TABLE(vectors_equal_scalar),
		PER_TABLE(rope_equals_scalar),
		PER_TABLE(argmax_takes_the_first),
		PER_TABLE(attend_equals_scalar),
	};
	return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
