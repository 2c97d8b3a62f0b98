/* test_formats.c - the layout of quantized weights against a reader of its own, and what each format
 * loses: on normal weights within named bounds, on its own grid nothing, on ugly weights a step. */
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
#include "tests/support/quantized.h"
#include "tests/support/ugly.h"

/* Relative RMS error on normal weights: measured, and two percent.  RTN of int4 puts the largest of 32
 * weights, 2.4 standard deviations here, at -8: steps of 0.3, and 0.3 / sqrt(12) = 0.087. */
static const struct bound {
	enum format format;
	double rtn, search;
} bounds[] = {
	{FORMAT_INT4, 0.0863, 0.0819},  {FORMAT_INT4_G64, 0.0949, 0.0904},  {FORMAT_INT4_G128, 0.1026, 0.0967},
	{FORMAT_INT4M, 0.0790, 0.0730}, {FORMAT_INT4M_G64, 0.0902, 0.0843}, {FORMAT_INT4M_G128, 0.0999, 0.0932},
	{FORMAT_INT5, 0.0419, 0.0401},  {FORMAT_INT6, 0.0206, 0.0202},      {FORMAT_INT8, 0.0052, 0.0051},
	{FORMAT_MXFP4, 0.1155, 0.1130}, {FORMAT_NVFP4, 0.0974, 0.0843},
};

/* The int4 view of a nested format.  With few low bits its values are off the centre of what they stand
 * for, by 1/2 - (2^low - 1) / 2 / 2^low of a step: a quarter in int5. */
static const struct bound nested_bounds[] = {
	{FORMAT_INT5, 0.1116, 0.1105}, {FORMAT_INT6, 0.0923, 0.0922}, {FORMAT_INT8, 0.0856, 0.0856},
};

enum { N_BOUNDS = sizeof bounds / sizeof *bounds, N_NESTED = sizeof nested_bounds / sizeof *nested_bounds };
_Static_assert((int)N_BOUNDS == (int)N_FORMATS, "every format has a bound");

static struct quantized made(enum format format, enum quantizer quantizer, const uint16_t *rows, int n, int k)
{
	return quantized_make(kernels_best(), format, quantizer, NULL, rows, n, k);
}

static void sizes_and_bits(void **state)
{
	(void)state;
	static const double bits[N_FORMATS] = {4.5, 4.25, 4.125, 5, 4.5, 4.25, 5.5, 6.5, 8.5, 4.25, 4.5};
	for (int f = 0; f < N_FORMATS; f++) {
		assert_true(format_bits(f) == bits[f]);
		assert_int_equal(format_by_name(format_info(f)->name), f);
		assert_true((double)qmatrix_bytes(f, 4096, 4096) * 8 == bits[f] * 4096 * 4096);
	}
	assert_true(format_bits(FORMAT_BF16) == 16);
	assert_int_equal(format_by_name("bf16"), FORMAT_BF16);
	assert_int_equal(format_by_name("int3"), FORMAT_UNKNOWN);
	/* One output of 33 inputs: a panel, two blocks, scales of two groups (of one where they are larger). */
	assert_int_equal(qmatrix_bytes(FORMAT_INT4, 1, 33), 2 * 256 + 2 * 32);
	assert_int_equal(qmatrix_bytes(FORMAT_INT4_G64, 1, 33), 2 * 256 + 64);
	assert_int_equal(qmatrix_bytes(FORMAT_INT4M_G128, 1, 33), 4 * 256 + 64 + 64);
	assert_int_equal(qmatrix_bytes(FORMAT_INT8, 1, 33), 2 * 256 + 2 * 256 + 2 * 32);
	assert_int_equal(qmatrix_bytes(FORMAT_NVFP4, 1, 33), 2 * 256 + 4 * 16);
}

/* ---- layout ---- */

/* The planes as the picture of format.h has them, and nothing of format.c. */
struct picture {
	const uint8_t *q, *low, *scale, *min;
	size_t blocks, groups; /* per panel */
	int group, bits;
};

static struct picture picture_of(const struct quantized *made, int group, int bits, int scale_bytes, bool min)
{
	size_t panels_n = (size_t)(made->matrix.n + 15) / 16, span = group > 32 ? (size_t)group : 32;
	size_t inputs = ((size_t)made->matrix.k + span - 1) / span * span;
	struct picture p = {.blocks = inputs / 32, .groups = inputs / (size_t)group, .group = group, .bits = bits};
	size_t q = panels_n * p.blocks * 256, low = panels_n * p.blocks * 64 * (size_t)bits;
	size_t scale = (panels_n * p.groups * 16 * (size_t)scale_bytes + 63) / 64 * 64;
	p.q = made->matrix.q;
	p.low = p.q + q;
	p.scale = p.low + low;
	p.min = p.scale + scale;
	assert_int_equal(made->bytes, q + low + scale + (min ? scale : 0));
	return p;
}

static int picture_code(const struct picture *p, int output, int input)
{
	size_t block = (size_t)(output / 16) * p->blocks + (size_t)(input / 32);
	int at = input % 32, i = at % 4, o = output % 16;
	int code = p->q[block * 256 + (size_t)(at / 8 * 64 + 4 * o + i)] >> (at % 8 < 4 ? 0 : 4) & 15;
	if (!p->bits) return code;
	int fields = 8 / p->bits, per_vector = 4 * fields;
	const uint8_t *vectors = p->low + block * 64 * (size_t)p->bits;
	int low = vectors[at / per_vector * 64 + 4 * o + i] >> p->bits * (at % per_vector / 4);
	return code << p->bits | (low & ((1 << p->bits) - 1));
}

static size_t picture_group(const struct picture *p, int output, int input)
{
	return ((size_t)(output / 16) * p->groups + (size_t)(input / p->group)) * 16 + (size_t)(output % 16);
}

static double picture_bf16(const uint8_t *plane, size_t at)
{
	return (double)bf16_to_f32((uint16_t)(plane[2 * at] | plane[2 * at + 1] << 8));
}

/* OCP MX v1.0: E2M1 has bias 1, E8M0 is 2^(byte - 127); OCP 8-bit floats: E4M3 has bias 7. */
static double minifloat(int bits, int exponent_bits, int mantissa_bits, int bias)
{
	int mantissa = bits & ((1 << mantissa_bits) - 1), exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
	double magnitude = exponent ? ldexp(1.0 + mantissa / (double)(1 << mantissa_bits), exponent - bias)
	                            : ldexp(mantissa / (double)(1 << mantissa_bits), 1 - bias);
	return bits >> (mantissa_bits + exponent_bits) & 1 ? -magnitude : magnitude;
}

static double picture_weight(const struct quantized *made, const struct picture *p, int output, int input)
{
	int code = picture_code(p, output, input);
	size_t at = picture_group(p, output, input);
	switch (made->matrix.format) {
	case FORMAT_MXFP4: return minifloat(code, 2, 1, 1) * ldexp(1.0, p->scale[at] - 127);
	case FORMAT_NVFP4: return minifloat(code, 2, 1, 1) * minifloat(p->scale[at], 4, 3, 7) * (double)made->matrix.tensor_scale;
	case FORMAT_INT4M:
	case FORMAT_INT4M_G64:
	case FORMAT_INT4M_G128: return code * picture_bf16(p->scale, at) + picture_bf16(p->min, at);
	case FORMAT_INT5: return (code - 17) * picture_bf16(p->scale, at) / 2;
	case FORMAT_INT6: return (code - 34) * picture_bf16(p->scale, at) / 4;
	case FORMAT_INT8: return (code - 136) * picture_bf16(p->scale, at) / 16;
	default: return (code - 8) * picture_bf16(p->scale, at);
	}
}

static void layout_is_the_picture(void **state)
{
	(void)state;
	static const struct {
		int group, bits, scale_bytes;
		bool min;
	} shapes[N_FORMATS] = {{32, 0, 2, 0}, {64, 0, 2, 0}, {128, 0, 2, 0}, {32, 0, 2, 1}, {64, 0, 2, 1}, {128, 0, 2, 1},
	                       {32, 1, 2, 0}, {32, 2, 2, 0}, {32, 4, 2, 0},  {32, 0, 1, 0}, {16, 0, 1, 0}};
	static const int sizes[][2] = {{1, 1}, {17, 33}, {40, 200}, {16, 16}};
	struct ugly u = {21};
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		int n = sizes[s][0], k = sizes[s][1];
		uint16_t *rows = normal_bf16(&u, (size_t)n * (size_t)k, 0.02f);
		for (int f = 0; f < N_FORMATS; f++) {
			struct quantized m = made(f, QUANTIZE_SEARCH, rows, n, k);
			struct picture p = picture_of(&m, shapes[f].group, shapes[f].bits, shapes[f].scale_bytes, shapes[f].min);
			for (int i = 0; i < n * k; i++) {
				assert_int_equal(format_code(&m.matrix, i / k, i % k), picture_code(&p, i / k, i % k));
				double want = picture_weight(&m, &p, i / k, i % k), got = (double)format_weight(&m.matrix, i / k, i % k);
				assert_true(fabs(got - want) <= 2e-7 * fabs(want) + 1e-9);
			}
			quantized_free(&m);
		}
		free(rows);
	}
}

static void a_code_is_set_alone(void **state)
{
	(void)state;
	enum { N = 33, K = 130 };
	struct ugly u = {22};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f);
	for (int f = 0; f < N_FORMATS; f++) {
		struct quantized m = made(f, QUANTIZE_RTN, rows, N, K);
		int top = 16 << format_info(f)->low_bits, codes[N * K];
		for (int i = 0; i < N * K; i++) format_set_code(&m.matrix, i / K, i % K, codes[i] = ugly_below(&u, top));
		for (int i = 0; i < N * K; i++) assert_int_equal(format_code(&m.matrix, i / K, i % K), codes[i]);
		quantized_free(&m);
	}
	free(rows);
}

/* ---- errors ---- */

static void normal_weights_within_the_bounds(void **state)
{
	(void)state;
	enum { N = 256, K = 1024 };
	struct ugly u = {23};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f);
	for (int f = 0; f < N_FORMATS; f++) {
		assert_int_equal(bounds[f].format, f);
		for (int quantizer = 0; quantizer < 2; quantizer++) {
			struct quantized m = made(f, (enum quantizer)quantizer, rows, N, K);
			struct format_error error = format_error(&m.matrix, m.packed);
			double bound = quantizer == QUANTIZE_RTN ? bounds[f].rtn : bounds[f].search;
			print_message("%-10s %-6s error %.4f, largest %.3f\n", format_info(f)->name,
			              quantizer == QUANTIZE_RTN ? "rtn" : "search", error.relative, error.largest);
			assert_true(error.relative <= bound && error.relative > 0.9 * bound);
			assert_true(error.relative == format_relative_error(&m.matrix, m.packed));
			quantized_free(&m);
		}
	}
	free(rows);
}

/* One buffer, two drafters: the planes of the view are those of the matrix, its integers the upper four
 * bits, and its error is about that of int4. */
static void nested_view_is_int4(void **state)
{
	(void)state;
	enum { N = 64, K = 1024 };
	struct ugly u = {24};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f);
	for (int b = 0; b < N_NESTED; b++) {
		enum format f = nested_bounds[b].format;
		for (int quantizer = 0; quantizer < 2; quantizer++) {
			struct quantized m = made(f, (enum quantizer)quantizer, rows, N, K);
			struct qmatrix view = qmatrix_int4(&m.matrix);
			assert_ptr_equal(view.q, m.matrix.q);
			assert_ptr_equal(view.scale, m.matrix.scale);
			for (int i = 0; i < N * K; i++) {
				assert_int_equal(format_code(&view, i / K, i % K), format_code(&m.matrix, i / K, i % K) >> format_info(f)->low_bits);
				double step = fabs((double)format_scale(&view, i / K, i % K / 32));
				assert_true(fabs((double)format_weight(&view, i / K, i % K) - (double)format_weight(&m.matrix, i / K, i % K)) <= 0.5 * step);
			}
			double error = format_relative_error(&view, m.packed);
			print_message("%s %s as int4: error %.4f\n", format_info(f)->name, quantizer ? "search" : "rtn", error);
			assert_true(error <= (quantizer ? nested_bounds[b].search : nested_bounds[b].rtn));
			quantized_free(&m);
		}
	}
	free(rows);
}

/* An error on weights that are 0, and none. */
static void error_of_zeros(void **state)
{
	(void)state;
	enum { N = 16, K = 32 };
	uint16_t rows[N * K] = {0};
	struct quantized m = made(FORMAT_INT4, QUANTIZE_RTN, rows, N, K);
	assert_true(format_relative_error(&m.matrix, m.packed) == 0.0);
	((uint16_t *)m.matrix.scale)[3] = bf16_from_f32(1.0f);
	format_set_code(&m.matrix, 3, 7, 9);
	assert_true(isinf(format_relative_error(&m.matrix, m.packed)));
	quantized_free(&m);
}

/* ---- exactness ---- */

/* Weights on a format's own grid, each group using its whole range. */
static void fill_grid(struct ugly *u, enum format format, uint16_t *rows, int n)
{
	const struct format_info *info = format_info(format);
	int top = (16 << info->low_bits) - 1, sign = 1;
	for (int i = 0; i < n; i++) {
		bool extreme = i % info->group == 5, other = i % info->group == 9;
		if (i % info->group == 0) sign = ugly_below(u, 2) ? 1 : -1;
		int code = extreme ? 0 : other ? top : ugly_below(u, top + 1);
		float v = (float)(code - info->zero);
		if (info->e2m1) v = extreme ? 12.0f : (float)e2m1_doubled[ugly_below(u, 16)];
		if (info->min) v = (float)code * 0.5f - 3.0f;
		rows[i] = bf16_from_f32((float)sign * v * 0x1p-7f);
	}
}

static void weights_on_the_grid_are_exact(void **state)
{
	(void)state;
	enum { N = 21, K = 256 };
	struct ugly u = {25};
	uint16_t rows[N * K];
	for (int f = 0; f < N_FORMATS; f++) {
		for (int quantizer = 0; quantizer < 2; quantizer++) {
			fill_grid(&u, f, rows, N * K);
			struct quantized m = made(f, (enum quantizer)quantizer, rows, N, K);
			for (int i = 0; i < N * K; i++) {
				double w = (double)bf16_to_f32(rows[i]), got = (double)format_weight(&m.matrix, i / K, i % K);
				/* the FP32 tensor scale of nvfp4 is rounded */
				assert_true(fabs(got - w) <= (f == FORMAT_NVFP4 ? 2e-7 * fabs(w) : 0.0));
			}
			quantized_free(&m);
		}
	}
}

/* RTN puts the largest at -8; a symmetric grid, -7 .. 7, is found by the search. */
static void search_finds_a_symmetric_grid(void **state)
{
	(void)state;
	enum { N = 16, K = 128 };
	struct ugly u = {26};
	uint16_t rows[N * K];
	for (int i = 0; i < N * K; i++)
		rows[i] = bf16_from_f32((float)(i % 32 == 3 ? 7 : i % 32 == 4 ? -7 : ugly_below(&u, 15) - 7) * 0.01f);
	for (int f = FORMAT_INT4; f <= FORMAT_INT4_G128; f++) {
		struct quantized rtn = made(f, QUANTIZE_RTN, rows, N, K), search = made(f, QUANTIZE_SEARCH, rows, N, K);
		assert_true(format_relative_error(&rtn.matrix, rtn.packed) > 0.02);
		assert_true(format_relative_error(&search.matrix, search.packed) < 0.004); /* BF16 */
		quantized_free(&rtn);
		quantized_free(&search);
	}
}

static void equal_weights_are_exact(void **state)
{
	(void)state;
	enum { N = 16, K = 128 };
	static const float values[N] = {1.0f, -1.0f, 0.0f, -0.0f, 0.0123f, -3e20f, 1e-20f, 5.0f, -0.3f, 1e-35f, -1e-40f};
	uint16_t rows[N * K];
	for (int i = 0; i < N * K; i++) rows[i] = bf16_from_f32(values[i / K]);
	for (int f = 0; f < N_FORMATS; f++) {
		for (int quantizer = 0; quantizer < 2; quantizer++) {
			struct quantized m = made(f, (enum quantizer)quantizer, rows, N, K);
			for (int i = 0; i < N * K; i++) {
				double w = (double)bf16_to_f32(rows[i]), got = (double)format_weight(&m.matrix, i / K, i % K);
				double most = format_info(f)->min ? 0.0 : 0.005; /* a BF16 scale; clipping of low bits */
				if (format_info(f)->e2m1) most = f == FORMAT_MXFP4 ? 0.25 : 1.0;
				if (fabs(w) < Q8_TINY && !format_info(f)->min) assert_true(got == 0.0);
				else if (fabs(got - w) > most * fabs(w)) fail_msg("%s: expected %g, found %g", format_info(f)->name, w, got);
			}
			quantized_free(&m);
		}
	}
}

/* ---- ugly weights ---- */

/* Errors of a weight over the largest magnitude of its group that RTN cannot exceed: half a step, or the
 * clipping of the side opposite to the largest, which int4 lets reach 7 of 8; and BF16's half of 2^-8.
 * E2M1: half the gap from 4 to 6, over 4 (a power of two above which mxfp4 clips: 8 becomes 6). */
static double rtn_step(enum format format)
{
	static const double steps[N_FORMATS] = {1 / 8., 1 / 8., 1 / 8., 1 / 15., 1 / 15., 1 / 15., 1 / 29., 1 / 59., 1 / 238., 1 / 4., 1 / 6.};
	return steps[format] + 1 / 256.;
}

/* E4M3 scales below 2^-6 lose their digits: the smallest, 2^-9 of 448, is the step there. */
static void ugly_weights_stay_within_a_step(void **state)
{
	(void)state;
	static const int sizes[][2] = {{1, 1}, {3, 31}, {16, 32}, {17, 33}, {40, 100}, {64, 257}};
	struct ugly u = {27};
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		int n = sizes[s][0], k = sizes[s][1];
		uint16_t *rows = ugly_bf16(&u, (size_t)n * (size_t)k);
		for (int f = 0; f < N_FORMATS; f++) {
			struct quantized m = made(f, QUANTIZE_RTN, rows, n, k);
			double floor = f == FORMAT_NVFP4 ? 6 * 0x1p-9 * (double)m.matrix.tensor_scale : 1e-30;
			for (int i = 0; i < n * k; i++) {
				int o = i / k, group = format_info(f)->group, first = i % k / group * group;
				double largest = 0.0, w = (double)bf16_to_f32(rows[i]);
				for (int j = first; j < k && j < first + group; j++)
					largest = fmax(largest, fabs((double)bf16_to_f32(rows[o * k + j])));
				double range = format_info(f)->min ? 2 * largest : largest;
				double error = fabs((double)format_weight(&m.matrix, o, i % k) - w);
				if (error > range * rtn_step(f) + floor)
					fail_msg("%s: error %g of a group up to %g", format_info(f)->name, error, largest);
			}
			quantized_free(&m);
		}
		free(rows);
	}
}

static void padding_quantizes_to_zero(void **state)
{
	(void)state;
	enum { N = 5, K = 40 };
	uint16_t rows[N * K];
	for (int i = 0; i < N * K; i++) rows[i] = bf16_from_f32(i < K ? 0.0f : 1.0f);
	for (int f = 0; f < N_FORMATS; f++) {
		const struct format_info *info = format_info(f);
		struct quantized m = made(f, QUANTIZE_SEARCH, rows, N, K);
		for (int o = 0; o < PANEL; o++)
			for (int i = 0; i < format_blocks(info, K) * Q_BLOCK; i++)
				if (o == 0 || o >= N || (i >= K && !info->min)) assert_true(format_weight(&m.matrix, o, i) == 0.0f);
		quantized_free(&m);
	}
}

/* Shared exponents of the specification's own rule, floor(log2(largest)) - 2, and saturation. */
static void mxfp4_is_ocp(void **state)
{
	(void)state;
	static const struct {
		float largest;
		int exponent;
		float becomes;
	} cases[] = {{6.0f, 0, 6.0f}, {4.0f, 0, 4.0f}, {7.5f, 0, 6.0f}, {3.5f, -1, 3.0f}, {8.0f, 1, 8.0f}, {5.0f, 0, 4.0f}, {0.75f, -3, 0.75f}};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		uint16_t rows[32] = {0};
		rows[3] = bf16_from_f32(-cases[c].largest);
		struct quantized m = made(FORMAT_MXFP4, QUANTIZE_RTN, rows, 1, 32);
		assert_int_equal(((const uint8_t *)m.matrix.scale)[0], 127 + cases[c].exponent);
		assert_true(format_weight(&m.matrix, 0, 3) == -cases[c].becomes);
		quantized_free(&m);
	}
}

/* The largest of the matrix is 6 times 448 times the tensor scale; a group of half of it gets half. */
static void nvfp4_scales(void **state)
{
	(void)state;
	uint16_t rows[64] = {0};
	rows[1] = bf16_from_f32(-2.0f);
	rows[17] = bf16_from_f32(1.0f);
	rows[33] = bf16_from_f32(0.25f);
	struct quantized m = made(FORMAT_NVFP4, QUANTIZE_RTN, rows, 1, 64);
	const uint8_t *scale = m.matrix.scale;
	assert_true(fabs((double)m.matrix.tensor_scale * 2688 - 2) < 1e-6);
	assert_int_equal(scale[0], 0x7e);  /* 448 */
	assert_int_equal(scale[16], 0x76); /* 224 */
	assert_int_equal(scale[32], 0x66); /* 56 */
	assert_true(fabs((double)format_weight(&m.matrix, 0, 1) + 2) < 1e-6);
	quantized_free(&m);
	for (int byte = 0; byte < 0x7f; byte++)
		assert_true((double)e4m3_to_f32((uint8_t)byte) == minifloat(byte, 4, 3, 7));
}

static void tensor_scale_from_parts(void **state)
{
	(void)state;
	enum { N = 70, K = 51 };
	struct ugly u = {28};
	uint16_t *rows = normal_bf16(&u, N * K, 0.02f), largest = 0;
	rows[40 * K + 50] = bf16_from_f32(-0.5f);
	struct quantized m = made(FORMAT_NVFP4, QUANTIZE_RTN, rows, N, K);
	float whole = m.matrix.tensor_scale;
	for (int panel = 0; panel < panels(N); panel++) {
		uint16_t part = qmatrix_largest(&m.matrix, m.packed, panel, panel + 1);
		assert_true(panel == 2 ? part == bf16_from_f32(0.5f) : part < bf16_from_f32(0.5f));
		largest = part > largest ? part : largest;
	}
	qmatrix_set_largest(&m.matrix, largest);
	assert_true(m.matrix.tensor_scale == whole && whole == 0.5f / 2688);
	quantized_free(&m);
	free(rows);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_and_bits),
		cmocka_unit_test(layout_is_the_picture),
		cmocka_unit_test(a_code_is_set_alone),
		cmocka_unit_test(normal_weights_within_the_bounds),
		cmocka_unit_test(nested_view_is_int4),
		cmocka_unit_test(error_of_zeros),
		cmocka_unit_test(weights_on_the_grid_are_exact),
		cmocka_unit_test(search_finds_a_symmetric_grid),
		cmocka_unit_test(equal_weights_are_exact),
		cmocka_unit_test(ugly_weights_stay_within_a_step),
		cmocka_unit_test(padding_quantizes_to_zero),
		cmocka_unit_test(mxfp4_is_ocp),
		cmocka_unit_test(nvfp4_scales),
		cmocka_unit_test(tensor_scale_from_parts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
