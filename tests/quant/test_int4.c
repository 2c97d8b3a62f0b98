/* test_int4.c - the INT4 format: error on normal weights within stated bounds, exact where it can be,
 * odd sizes, and the same bytes from every table however the panels are shared out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/bf16.h"
#include "quant/format_int4.h"
#include "tests/support/ugly.h"

/* Root of (squared error / squared weights) on normal weights. */
#define INT4_RELATIVE_ERROR_MAX 0.0815 /* measured 0.081; plain rounding at amax/8 0.086, at amax/7 0.097 */

/* Any weight, of its group's largest: a weight opposite to the largest is clipped at 7 steps when the
 * largest is put at -8.8; the rest is for the rounding of the scale and its refinement. */
#define INT4_WEIGHT_ERROR_MAX (1.8 / 8.8 + 0.01)

static struct int4_block *quantized(const uint16_t *rows, int n, int k)
{
	struct int4_block *blocks = aligned_alloc(64, (int4_bytes(n, k) + 63) / 64 * 64);
	int4_quantize(blocks, rows, n, k, 0, panels(n));
	return blocks;
}

static void normal_weights_within_the_bound(void **state)
{
	(void)state;
	enum { N = 256, K = 1024 };
	struct ugly u = {1};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f);
	struct int4_block *blocks = quantized(rows, N, K);
	float *back = malloc(sizeof(float) * N * K);
	int4_dequantize(back, blocks, N, K);
	double error = 0.0, power = 0.0;
	for (int i = 0; i < N * K; i++) {
		double w = (double)bf16_to_f32(rows[i]), d = w - (double)back[i];
		error += d * d;
		power += w * w;
	}
	print_message("relative error %.4f\n", sqrt(error / power));
	assert_true(sqrt(error / power) <= INT4_RELATIVE_ERROR_MAX);
	free(rows);
	free(blocks);
	free(back);
}

/* Outliers, denormals and zeros: every weight stays within its group's step. */
static void every_weight_within_its_group(void **state)
{
	(void)state;
	static const int sizes[][2] = {{1, 1}, {3, 31}, {16, 32}, {17, 33}, {40, 100}, {64, 257}};
	struct ugly u = {2};
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		int n = sizes[s][0], k = sizes[s][1];
		uint16_t *rows = ugly_bf16(&u, (size_t)(n * k));
		struct int4_block *blocks = quantized(rows, n, k);
		float *back = malloc(sizeof(float) * (size_t)(n * k));
		int4_dequantize(back, blocks, n, k);
		for (int o = 0; o < n; o++) {
			for (int i = 0; i < k; i++) {
				int first = i / INT4_GROUP * INT4_GROUP;
				float most = 0.0f;
				for (int j = first; j < k && j < first + INT4_GROUP; j++)
					most = fmaxf(most, fabsf(bf16_to_f32(rows[o * k + j])));
				double error = fabs((double)back[o * k + i] - (double)bf16_to_f32(rows[o * k + i]));
				if (most < Q8_TINY) error = back[o * k + i] == 0.0f ? 0.0 : 1.0;
				assert_true(error <= (double)most * INT4_WEIGHT_ERROR_MAX);
			}
		}
		free(rows);
		free(blocks);
		free(back);
	}
}

/* Weights that are already INT4 with a full-range value come back as they were. */
static void representable_weights_are_exact(void **state)
{
	(void)state;
	enum { N = 21, K = 96 };
	struct ugly u = {3};
	uint16_t rows[N * K];
	float back[N * K];
	for (int i = 0; i < N * K; i++) {
		int sign = i / INT4_GROUP % 2 ? 1 : -1;
		int level = i % INT4_GROUP == 5 ? -8 : ugly_below(&u, 16) - 8;
		rows[i] = bf16_from_f32((float)(sign * level) * 0x1p-7f);
	}
	struct int4_block *blocks = quantized(rows, N, K);
	int4_dequantize(back, blocks, N, K);
	for (int i = 0; i < N * K; i++) assert_true(back[i] == bf16_to_f32(rows[i]));
	free(blocks);
}

static void padding_and_zeros_quantize_to_zero(void **state)
{
	(void)state;
	enum { N = 5, K = 40 };
	uint16_t rows[N * K];
	for (int i = 0; i < N * K; i++) rows[i] = i < K ? 0 : bf16_from_f32(1.0f);
	assert_int_equal(int4_bytes(N, K), 2 * sizeof(struct int4_block));
	struct int4_block *blocks = quantized(rows, N, K);
	for (int o = 0; o < PANEL; o++) {
		for (int i = 0; i < 2 * INT4_GROUP; i++) {
			bool inside = o > 0 && o < N && i < K;
			const struct int4_block *block = &blocks[i / INT4_GROUP];
			float w = (float)int4_get(block, o, i % INT4_GROUP) * bf16_to_f32(block->scale[o]);
			assert_true(inside ? w == 1.0f : w == 0.0f);
		}
	}
	free(blocks);
}

static void panels_may_be_shared_out(void **state)
{
	(void)state;
	enum { N = 100, K = 70 };
	struct ugly u = {4};
	uint16_t *rows = ugly_bf16(&u, N * K);
	struct int4_block *whole = quantized(rows, N, K), *split = canary_bytes(int4_bytes(N, K));
	int4_quantize(split, rows, N, K, 3, panels(N));
	int4_quantize(split, rows, N, K, 0, 1);
	int4_quantize(split, rows, N, K, 1, 3);
	assert_memory_equal(split, whole, int4_bytes(N, K));
	free(rows);
	free(whole);
	free(split);
}

static void tables_agree(void **state)
{
	const struct kernels *kernels = kernels_named(*state), *scalar = kernels_named("scalar");
	if (!kernels) {
		print_message("skipped: this CPU has no %s\n", (const char *)*state);
		skip();
	}
	struct ugly u = {5};
	for (int round = 0; round < 300; round++) {
		float w[INT4_GROUP][PANEL];
		for (int i = 0; i < INT4_GROUP; i++)
			for (int o = 0; o < PANEL; o++)
				w[i][o] = bf16_to_f32(bf16_from_f32(round % 2 ? ugly_float(&u) : ugly_normal(&u)));
		for (int i = 0; i < INT4_GROUP; i++) w[i][3] = 0.0f;
		struct int4_block want, got;
		scalar->int4_quantize_block(&want, (const float(*)[PANEL])w);
		kernels->int4_quantize_block(&got, (const float(*)[PANEL])w);
		assert_memory_equal(&got, &want, sizeof got);
	}
}

/* W4A8 differs from the product with the dequantized weights by at most half a step of each activation. */
static void matmul_error_is_that_of_the_activations(void **state)
{
	(void)state;
	enum { N = 33, K = 200, Y = 48 };
	struct ugly u = {6};
	uint16_t *rows = normal_bf16(&u, N * K, 0.05f);
	float *x = normal_floats(&u, K), *back = malloc(sizeof(float) * N * K), y[Y];
	struct int4_block *blocks = quantized(rows, N, K);
	struct q8_block q[(K + INT4_GROUP - 1) / INT4_GROUP];
	int4_dequantize(back, blocks, N, K);
	kernels_best()->quantize_q8(q, x, K);
	kernels_best()->matmul_int4(y, Y, q, (size_t)int4_blocks(K), 1, blocks, K, 0, panels(N));
	for (int o = 0; o < N; o++) {
		double want = 0.0, bound = 1e-5;
		for (int i = 0; i < K; i++) {
			want += (double)back[o * K + i] * (double)x[i];
			bound += fabs((double)back[o * K + i]) * (double)q[i / INT4_GROUP].scale * 0.5001;
		}
		assert_true(fabs((double)y[o] - want) <= bound);
	}
	free(rows);
	free(x);
	free(back);
	free(blocks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(normal_weights_within_the_bound),
		cmocka_unit_test(every_weight_within_its_group),
		cmocka_unit_test(representable_weights_are_exact),
		cmocka_unit_test(padding_and_zeros_quantize_to_zero),
		cmocka_unit_test(panels_may_be_shared_out),
		cmocka_unit_test(matmul_error_is_that_of_the_activations),
		{"tables_agree/avx2", tables_agree, NULL, NULL, (void *)(uintptr_t)"avx2"},
		{"tables_agree/avx512", tables_agree, NULL, NULL, (void *)(uintptr_t)"avx512"},
	};
	return cmocka_run_group_tests_name("int4", tests, NULL, NULL);
}
