/* test_quantize.c - the quantizers of every table against the definition, bit for bit, and what SEARCH
 * and importance promise. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/bf16.h"
#include "quant/format_error.h"
#include "tests/support/kernel_cases.h"
#include "tests/support/quantized.h"
#include "tests/support/ugly.h"

/* A few inputs matter a thousand times as much as others, some not at all. */
static float *uneven_importance(struct ugly *u, int k)
{
	float *importance = malloc((size_t)k * sizeof *importance);
	for (int i = 0; i < k; i++) {
		float x = ugly_normal(u);
		importance[i] = x * x * (ugly_below(u, 8) ? 1.0f : ugly_below(u, 3) ? 1000.0f : 0.0f);
	}
	return importance;
}

static uint16_t *some_weights(struct ugly *u, int kind, size_t n)
{
	switch (kind) {
	case 0: return ugly_bf16(u, n);
	case 1: return normal_bf16(u, n, 0.02f);
	default: break;
	}
	uint16_t *rows = malloc(n * sizeof *rows); /* few values: many ties */
	for (size_t i = 0; i < n; i++) rows[i] = bf16_from_f32((float)(ugly_below(u, 33) - 16) * 0.0625f);
	return rows;
}

static void assert_same(const struct quantized *got, const struct quantized *want, const char *what)
{
	const uint8_t *a = got->matrix.q, *b = want->matrix.q;
	for (size_t i = 0; i < got->bytes; i++)
		if (a[i] != b[i])
			fail_msg("%s: byte %zu of %zu (scales begin at %zu): expected %02x, found %02x", what, i, got->bytes,
			         (size_t)((const uint8_t *)want->matrix.scale - b), b[i], a[i]);
}

static void equals_scalar(void **state)
{
	const struct kernels *kernels = table(state);
	struct ugly u = {11};
	for (int s = 0; s < N_SHAPES; s++) {
		int n = shapes[s].n, k = shapes[s].k;
		float *importance = uneven_importance(&u, k);
		for (int kind = 0; kind < 3; kind++) {
			uint16_t *rows = some_weights(&u, kind, (size_t)n * (size_t)k);
			for (int f = 0; f < N_FORMATS; f++) {
				for (int how = 0; how < 3; how++) {
					enum quantizer quantizer = how ? QUANTIZE_SEARCH : QUANTIZE_RTN;
					const float *h = how == 2 ? importance : NULL;
					struct quantized want = quantized_make(scalar(), f, quantizer, h, rows, n, k);
					struct quantized got = quantized_make(kernels, f, quantizer, h, rows, n, k);
					char what[96];
					snprintf(what, sizeof what, "%s, [%d][%d], weights %d, quantizer %d", format_info(f)->name, n, k,
					         kind, how);
					assert_same(&got, &want, what);
					quantized_free(&want);
					quantized_free(&got);
				}
			}
			free(rows);
		}
		free(importance);
	}
}

static void panels_may_be_shared_out(void **state)
{
	const struct kernels *kernels = table(state);
	enum { N = 100, K = 70 };
	struct ugly u = {12};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f);
	float *importance = uneven_importance(&u, K);
	for (int f = 0; f < N_FORMATS; f++) {
		struct quantized whole = quantized_make(kernels, f, QUANTIZE_SEARCH, importance, rows, N, K);
		struct quantized split = quantized_make(kernels, f, QUANTIZE_RTN, NULL, rows, N, K);
		kernels->quantize(&split.matrix, split.packed, QUANTIZE_SEARCH, importance, 3, panels(N));
		kernels->quantize(&split.matrix, split.packed, QUANTIZE_SEARCH, importance, 0, 1);
		kernels->quantize(&split.matrix, split.packed, QUANTIZE_SEARCH, importance, 1, 3);
		assert_same(&split, &whole, format_info(f)->name);
		quantized_free(&whole);
		quantized_free(&split);
	}
	free(rows);
	free(importance);
}

/* Panels that were not asked for keep their bytes. */
static void other_panels_are_untouched(void **state)
{
	const struct kernels *kernels = table(state);
	enum { N = 48, K = 200 };
	struct ugly u = {13};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f);
	for (int f = 0; f < N_FORMATS; f++) {
		struct quantized all = quantized_make(kernels, f, QUANTIZE_RTN, NULL, rows, N, K);
		struct quantized one = quantized_make(kernels, f, QUANTIZE_RTN, NULL, rows, N, K);
		memset(one.matrix.q, 0xa5, one.bytes);
		kernels->quantize(&one.matrix, one.packed, QUANTIZE_RTN, NULL, 1, 2);
		for (int i = 0; i < N * K; i++) {
			int output = i / K, code = format_code(&one.matrix, output, i % K);
			if (output / PANEL == 1) assert_int_equal(code, format_code(&all.matrix, output, i % K));
			else assert_int_equal(code >> format_info(f)->low_bits, i % 8 < 4 ? 0x5 : 0xa);
		}
		const uint8_t *scale = one.matrix.scale;
		size_t bytes = format_info(f)->scale == SCALE_BF16 ? 2 : 1;
		for (int o = 0; o < N; o++)
			if (o / PANEL != 1) assert_int_equal(scale[format_group_at(&one.matrix, o, 0) * bytes], 0xa5);
		quantized_free(&all);
		quantized_free(&one);
	}
	free(rows);
}

/* E2M1 where a product with the inverse of the scale meets a bound between codes: magnitudes next to every bound,
 * under scales at random, powers of two, the largest, too small for any code but 0, and a few units in the last
 * place beside those whose products with a bound are BF16. */
static void bounds_of_e2m1_equal_scalar(void **state)
{
	const struct kernels *kernels = table(state);
	enum { N = 16, K = 512, ROUNDS = 400 };
	static const float bounds[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 7.0f}; /* 7: would be the next */
	static const float scales[] = {1.0f, 0x1p-12f, 1e-31f, 2e-30f, 1e33f, 0.0f};
	struct ugly u = {15};
	for (int round = 0; round < ROUNDS; round++) {
		int pick = ugly_below(&u, 12);
		float tensor_scale = pick < 6 ? scales[pick] : fabsf(ugly_normal(&u)) * 1e-4f;
		if (pick > 8) tensor_scale = (float)(1 + ugly_below(&u, 7)) * (0x1p-12f + (float)(ugly_below(&u, 5) - 2) * 0x1p-36f);
		uint16_t rows[N * K];
		float largest = 0.0f;
		for (int i = 0; i < N * K; i++) {
			if (i % 16 == 0) { /* the scale of the group is a sixth of it, or its power of two */
				largest = (tensor_scale > 0.0f ? tensor_scale : 1.0f) * (0.5f + (float)ugly_below(&u, 3000));
				if (ugly_below(&u, 2)) largest = ldexpf(1.0f, ilogbf(largest)) * 1.5f;
			}
			float bound = bounds[ugly_below(&u, 8)], part = largest / 6.0f;
			if (round % 2) part = ldexpf(1.0f, ilogbf(part));
			int bits = bf16_from_f32(i % 16 ? bound * part : largest) + (i % 16 ? ugly_below(&u, 5) - 2 : 0);
			rows[i] = (uint16_t)((bits < 0 ? 0 : bits) | ugly_below(&u, 2) << 15);
		}
		for (int f = FORMAT_MXFP4; f <= FORMAT_NVFP4; f++) {
			struct quantized want = quantized_make(scalar(), f, QUANTIZE_RTN, NULL, rows, N, K);
			struct quantized got = quantized_make(kernels, f, QUANTIZE_RTN, NULL, rows, N, K);
			for (int how = QUANTIZE_RTN; how <= QUANTIZE_SEARCH; how++) {
				if (f == FORMAT_NVFP4) want.matrix.tensor_scale = got.matrix.tensor_scale = tensor_scale;
				scalar()->quantize(&want.matrix, want.packed, (enum quantizer)how, NULL, 0, 1);
				kernels->quantize(&got.matrix, got.packed, (enum quantizer)how, NULL, 0, 1);
				assert_same(&got, &want, format_info((enum format)f)->name);
			}
			quantized_free(&want);
			quantized_free(&got);
		}
	}
}

/* NaN would compare unequal to itself and pass for equal bytes. */
static void extreme_weights_stay_finite(void **state)
{
	const struct kernels *kernels = table(state);
	enum { N = 16, K = 128 };
	static const float extremes[] = {1e37f, -1e37f, 1e-38f, -1e-40f, 0.0f, -0.0f, 1.0f, 1e30f, -1e-29f, 2e19f};
	struct ugly u = {14};
	uint16_t rows[N * K];
	for (int i = 0; i < N * K; i++) {
		int row = i / K, pick = row < 10 && i % 3 ? row : ugly_below(&u, 10);
		rows[i] = bf16_from_f32(extremes[pick]);
	}
	for (int f = 0; f < N_FORMATS; f++) {
		for (int quantizer = 0; quantizer < 2; quantizer++) {
			struct quantized made = quantized_make(kernels, f, (enum quantizer)quantizer, NULL, rows, N, K);
			struct quantized want = quantized_make(scalar(), f, (enum quantizer)quantizer, NULL, rows, N, K);
			assert_same(&made, &want, format_info(f)->name);
			for (int i = 0; i < N * K; i++) assert_true(isfinite(format_weight(&made.matrix, i / K, i % K)));
			quantized_free(&made);
			quantized_free(&want);
		}
	}
}

/* What the rounding of scales and minimums to BF16 may add to the relative error of a group that a search
 * minimised before: 2^-9 of every weight, and of a minimum, some 8 steps off, and 15 steps above it. */
#define SEARCH_SLACK 0.002
#define SEARCH_SLACK_MIN 0.006

static void search_is_not_worse_in_any_group(void **state)
{
	const struct kernels *kernels = table(state);
	enum { N = 64, K = 512 };
	struct ugly u = {15};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f);
	float *importance = uneven_importance(&u, K);
	for (int f = 0; f < N_FORMATS; f++) {
		int group = format_info(f)->group;
		struct quantized rtn = quantized_make(kernels, f, QUANTIZE_RTN, NULL, rows, N, K);
		for (int weighed = 0; weighed < 2; weighed++) {
			const float *h = weighed ? importance : NULL;
			struct quantized search = quantized_make(kernels, f, QUANTIZE_SEARCH, h, rows, N, K);
			for (int at = 0; at < N * K; at += group) {
				double error[2] = {0}, power = 0;
				for (int i = at; i < at + group; i++) {
					double w = (double)bf16_to_f32(rows[i]), weight = weighed ? (double)h[i % K] : 1.0;
					error[0] += weight * pow(w - (double)format_weight(&rtn.matrix, i / K, i % K), 2);
					error[1] += weight * pow(w - (double)format_weight(&search.matrix, i / K, i % K), 2);
					power += weight * w * w;
				}
				double slack = format_info(f)->min ? SEARCH_SLACK_MIN : SEARCH_SLACK;
				assert_true(sqrt(error[1]) <= sqrt(error[0]) + slack * sqrt(power));
			}
			quantized_free(&search);
		}
		quantized_free(&rtn);
	}
	free(rows);
	free(importance);
}

/* Weighed error under weighed search / under plain search, where importance spreads over three decades;
 * mxfp4 has only two scales to choose from. */
#define IMPORTANCE_GAIN_MAX 0.9
#define IMPORTANCE_GAIN_MXFP4 0.99

static void importance_lowers_the_weighed_error(void **state)
{
	const struct kernels *kernels = table(state);
	enum { N = 64, K = 1024 };
	struct ugly u = {16};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f);
	float *importance = uneven_importance(&u, K);
	for (int f = 0; f < N_FORMATS; f++) {
		struct quantized plain = quantized_make(kernels, f, QUANTIZE_SEARCH, NULL, rows, N, K);
		struct quantized weighed = quantized_make(kernels, f, QUANTIZE_SEARCH, importance, rows, N, K);
		double before = format_relative_error_weighed(&plain.matrix, plain.packed, importance);
		double after = format_relative_error_weighed(&weighed.matrix, weighed.packed, importance);
		print_message("%-10s weighed error %.4f plain, %.4f weighed\n", format_info(f)->name, before, after);
		assert_true(after <= before * (f == FORMAT_MXFP4 ? IMPORTANCE_GAIN_MXFP4 : IMPORTANCE_GAIN_MAX));
		quantized_free(&plain);
		quantized_free(&weighed);
	}
	free(rows);
	free(importance);
}

#define EVERY_TABLE(test) {#test "/scalar", test, NULL, NULL, (void *)(uintptr_t)"scalar"}, PER_TABLE(test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PER_TABLE(equals_scalar),
		PER_TABLE(bounds_of_e2m1_equal_scalar),
		EVERY_TABLE(panels_may_be_shared_out),
		EVERY_TABLE(other_panels_are_untouched),
		EVERY_TABLE(extreme_weights_stay_finite),
		{"search_is_not_worse_in_any_group", search_is_not_worse_in_any_group, NULL, NULL, (void *)(uintptr_t)"scalar"},
		{"importance_lowers_the_weighed_error", importance_lowers_the_weighed_error, NULL, NULL, (void *)(uintptr_t)"scalar"},
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
