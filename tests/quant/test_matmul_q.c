/* test_matmul_q.c - products with quantized weights: every table equals the scalar definition bit for
 * bit in every format, and the definition is the product in double precision but for rounding.
 *
 * Matrices are random bytes under finite scales, so nothing here leans on a quantizer; each plane has
 * an exactly sized allocation of its own, so that the address sanitizer sees every read beyond one. */
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
#include "quant/kernels.h"
#include "tests/support/kernel_cases.h"
#include "tests/support/ugly.h"

static const struct shape q_shapes[] = {{1, 1},    {31, 16},  {32, 17},  {33, 33},  {127, 16}, {129, 49},
                                        {257, 20}, {300, 80}, {513, 65}, {640, 32}, {1100, 17}};
enum { N_Q_SHAPES = sizeof q_shapes / sizeof q_shapes[0] };

/* What a matrix is filled with. */
enum filling { RANDOM, LOWEST, HIGHEST, ALTERNATING, ZERO_SCALES, N_FILLINGS };

static void *plane(size_t bytes)
{
	void *memory = NULL;
	if (bytes && posix_memalign(&memory, 64, bytes)) abort();
	return memory;
}

static uint16_t random_scale(struct ugly *u)
{
	switch (ugly_below(u, 12)) {
	case 0: return 0;
	case 1: return 0x8000;
	case 2: return (uint16_t)ugly_below(u, 128); /* denormal */
	default: return bf16_from_f32(ugly_normal(u) * 0.01f);
	}
}

static uint8_t random_e8m0(struct ugly *u)
{
	return (uint8_t)(ugly_below(u, 8) ? 110 + ugly_below(u, 20) : ugly_below(u, 4));
}

static void fill_codes(struct qmatrix *w, struct ugly *u, enum filling filling, size_t q_bytes, size_t low_bytes)
{
	static const uint8_t lowest[] = {0x00, 0xff}, e2m1_ends[] = {0xff, 0x77}; /* -12 and 12, doubled */
	bool e2m1 = format_info(w->format)->e2m1;
	for (size_t i = 0; i < q_bytes + low_bytes; i++) {
		uint8_t *byte = i < q_bytes ? &w->q[i] : &w->low[i - q_bytes];
		int end = filling == ALTERNATING ? ugly_below(u, 2) : filling == HIGHEST;
		bool random = filling == RANDOM || filling == ZERO_SCALES;
		*byte = random ? (uint8_t)ugly_below(u, 256) : e2m1 ? e2m1_ends[end] : lowest[end];
	}
}

/* An [n][k] matrix with planes of their own; matrix_free. */
static struct qmatrix matrix_make(struct ugly *u, enum format format, int n, int k, enum filling filling)
{
	const struct format_info *info = format_info(format);
	size_t blocks = (size_t)panels(n) * (size_t)format_blocks(info, k);
	size_t scales = blocks * Q_BLOCK / (size_t)info->group * PANEL;
	size_t q_bytes = blocks * 256, low_bytes = blocks * 64 * (size_t)info->low_bits;
	struct qmatrix w = {.format = format, .n = n, .k = k, .tensor_scale = 1.0f};
	w.q = plane(q_bytes);
	w.low = plane(low_bytes);
	w.scale = plane(scales * (info->scale == SCALE_BF16 ? 2 : 1));
	w.min = plane(info->min ? scales * 2 : 0);
	fill_codes(&w, u, filling, q_bytes, low_bytes);
	if (info->scale == SCALE_E4M3) w.tensor_scale = 0.003f * (float)(1 + ugly_below(u, 100));
	for (size_t i = 0; i < scales; i++) {
		bool zero = filling == ZERO_SCALES;
		if (info->scale == SCALE_BF16) ((uint16_t *)w.scale)[i] = zero ? 0 : random_scale(u);
		if (info->scale == SCALE_E8M0) ((uint8_t *)w.scale)[i] = zero ? 0 : random_e8m0(u);
		if (info->scale == SCALE_E4M3) ((uint8_t *)w.scale)[i] = zero ? 0 : (uint8_t)ugly_below(u, 256);
		if (info->min) w.min[i] = zero ? 0 : random_scale(u);
	}
	return w;
}

static void matrix_free(struct qmatrix *w)
{
	free(w->q);
	free(w->low);
	free(w->scale);
	free(w->min);
}

/* One row of activations; at the ends of INT8 unless the filling is random. */
static void activations(struct q8_block *x, struct ugly *u, int blocks, enum filling filling)
{
	for (int b = 0; b < blocks; b++) {
		int side = ugly_below(u, 2) ? 127 : -127;
		x[b] = (struct q8_block){.scale = ugly_below(u, 9) ? fabsf(ugly_normal(u)) : 0.0f};
		for (int i = 0; i < Q_BLOCK; i++) {
			int value = filling == RANDOM ? ugly_below(u, 255) - 127 : side;
			if (filling == ALTERNATING) value = ugly_below(u, 2) ? 127 : -127;
			x[b].q[i] = (int8_t)value;
			x[b].sum[i / 16] = (int16_t)(x[b].sum[i / 16] + value);
		}
	}
}

static int q8_blocks(int k) { return (k + Q_BLOCK - 1) / Q_BLOCK; }

struct q_case {
	struct qmatrix w;
	int m;
	size_t q8_stride, x_stride, y_stride, y_bytes;
	struct q8_block *q8; /* [m][q8_stride], the last row exactly ceil(k / 32) */
	float *x;            /* [m][x_stride], the last row exactly k */
};

static struct q_case case_make(struct ugly *u, enum format format, int m, int n, int k, enum filling filling)
{
	struct q_case c = {matrix_make(u, format, n, k, filling), m};
	int blocks = q8_blocks(k);
	c.q8_stride = (size_t)blocks + 1;
	c.x_stride = (size_t)k + 3;
	c.y_stride = (size_t)panels(n) * PANEL + 5;
	c.y_bytes = (size_t)m * c.y_stride * sizeof(float);
	c.q8 = malloc(((size_t)(m - 1) * c.q8_stride + (size_t)blocks) * sizeof *c.q8);
	for (int row = 0; row < m; row++) activations(c.q8 + (size_t)row * c.q8_stride, u, blocks, filling);
	c.x = normal_floats(u, (size_t)(m - 1) * c.x_stride + (size_t)k);
	return c;
}

static void case_free(struct q_case *c)
{
	matrix_free(&c->w);
	free(c->q8);
	free(c->x);
}

/* The last `rows` rows of a case, so that reads beyond the end are seen; y has all rows. */
static void run(const struct kernels *kernels, const struct q_case *c, const struct qmatrix *w, bool q8, int rows,
                float *y, int begin, int end)
{
	size_t first = (size_t)(c->m - rows);
	float *out = y + first * c->y_stride;
	if (q8)
		kernels->matmul_q8(out, c->y_stride, c->q8 + first * c->q8_stride, c->q8_stride, rows, w, begin, end);
	else
		kernels->matmul_q32(out, c->y_stride, c->x + first * c->x_stride, c->x_stride, rows, w, begin, end);
}

/* Rows 1 .. m of a case, then panel ranges, against the definition run once on all of it. */
static void check_case(const struct kernels *kernels, struct ugly *u, const struct q_case *c, const struct qmatrix *w,
                       bool q8)
{
	int all = panels(w->n);
	float *want = canary_bytes(c->y_bytes), *untouched = canary_bytes(c->y_bytes);
	run(scalar(), c, w, q8, c->m, want, 0, all);
	for (int rows = 1; rows <= c->m; rows += rows < ROWS_MAX ? 1 : 31) {
		float *got = canary_bytes(c->y_bytes);
		int begin = rows % 2 ? 0 : ugly_below(u, all), end = rows % 2 ? all : begin + 1 + ugly_below(u, all - begin);
		run(kernels, c, w, q8, rows, got, begin, end);
		for (int row = 0; row < c->m; row++) {
			size_t at = (size_t)row * c->y_stride, from = (size_t)begin * PANEL, to = (size_t)end * PANEL;
			const float *expected = row < c->m - rows ? untouched : want;
			assert_memory_equal(got + at, untouched + at, from * sizeof *got);
			assert_memory_equal(got + at + from, expected + at + from, (to - from) * sizeof *got);
			assert_memory_equal(got + at + to, untouched + at + to, (c->y_stride - to) * sizeof *got);
		}
		free(got);
	}
	free(want);
	free(untouched);
}

static void check_formats(void **state, bool q8)
{
	const struct kernels *kernels = table(state);
	struct ugly u = {21};
	for (int format = 0; format < N_FORMATS; format++) {
		for (int s = 0; s < N_Q_SHAPES; s++) {
			struct q_case c = case_make(&u, (enum format)format, ROWS_MAX, q_shapes[s].n, q_shapes[s].k, RANDOM);
			check_case(kernels, &u, &c, &c.w, q8);
			case_free(&c);
		}
		struct q_case c = case_make(&u, (enum format)format, 131, 40, 290, RANDOM);
		check_case(kernels, &u, &c, &c.w, q8);
		case_free(&c);
	}
}

static void q8_equals_scalar(void **state) { check_formats(state, true); }
static void q32_equals_scalar(void **state) { check_formats(state, false); }

/* Whatever saturates does so where weights and activations are all at an end of their range. */
static void ends_of_the_range_equal_scalar(void **state)
{
	const struct kernels *kernels = table(state);
	struct ugly u = {22};
	for (int format = 0; format < N_FORMATS; format++) {
		for (int filling = LOWEST; filling < N_FILLINGS; filling++) {
			struct q_case c = case_make(&u, (enum format)format, 19, 33, 257, (enum filling)filling);
			check_case(kernels, &u, &c, &c.w, true);
			check_case(kernels, &u, &c, &c.w, false);
			case_free(&c);
		}
	}
}

/* The int4 matrix inside a longer format, by its own kernels. */
static void nested_int4_equals_scalar(void **state)
{
	static const enum format nesting[] = {FORMAT_INT5, FORMAT_INT6, FORMAT_INT8};
	const struct kernels *kernels = table(state);
	struct ugly u = {23};
	for (int i = 0; i < 3; i++) {
		struct q_case c = case_make(&u, nesting[i], 17, 50, 225, RANDOM);
		struct qmatrix nested = qmatrix_int4(&c.w);
		check_case(kernels, &u, &c, &nested, true);
		check_case(kernels, &u, &c, &nested, false);
		case_free(&c);
	}
}

/* A row's result does not depend on the rows beside it. */
static void rows_may_be_split(void **state)
{
	const struct kernels *kernels = table(state);
	struct ugly u = {24};
	for (int format = 0; format < N_FORMATS; format++) {
		struct q_case c = case_make(&u, (enum format)format, 45, 33, 200, RANDOM);
		float *whole = canary_bytes(c.y_bytes), *split = canary_bytes(c.y_bytes);
		kernels->matmul_q8(whole, c.y_stride, c.q8, c.q8_stride, c.m, &c.w, 0, panels(c.w.n));
		for (int row = 0, m = 1; row < c.m; row += m, m++) {
			m = row + m > c.m ? c.m - row : m;
			for (int p = 0; p < panels(c.w.n); p++)
				kernels->matmul_q8(split + (size_t)row * c.y_stride, c.y_stride, c.q8 + (size_t)row * c.q8_stride,
				                   c.q8_stride, m, &c.w, p, p + 1);
		}
		assert_memory_equal(split, whole, c.y_bytes);
		free(whole);
		free(split);
		case_free(&c);
	}
}

/* Activations as the definition of q8_block has them, in double precision. */
static double activation(const struct q_case *c, bool q8, int row, int i)
{
	if (!q8) return (double)c->x[(size_t)row * c->x_stride + (size_t)i];
	const struct q8_block *block = &c->q8[(size_t)row * c->q8_stride + (size_t)(i / Q_BLOCK)];
	return (double)block->scale * (double)block->q[i % Q_BLOCK];
}

/* The definition against double precision.  q8: a chain over the groups whose integers are exact, three
 * roundings each (to FP32, of the scales' product, of the sum); q32: as matmul_bf16, and one rounding per
 * weight with a minimum. */
static void definition_is_a_product(void **state)
{
	(void)state;
	enum { M = 2, K = 417, N = 37 };
	struct ugly u = {25};
	for (int i = 0; i < 2 * N_FORMATS; i++) {
		bool q8 = i % 2;
		struct q_case c = case_make(&u, (enum format)(i / 2), M, N, K, RANDOM);
		const struct format_info *info = format_info(c.w.format);
		float *y = canary_bytes(c.y_bytes);
		run(scalar(), &c, &c.w, q8, M, y, 0, panels(N));
		for (int o = 0; o < M * N; o++) {
			double sum = 0.0, magnitude = 1e-30;
			int last = q8 ? q8_blocks(K) * Q_BLOCK : K;
			for (int k = 0; k < last; k++) {
				double scale = (double)format_scale(&c.w, o % N, k / info->group);
				double code = format_code(&c.w, o % N, k), min = info->min ? (double)format_min(&c.w, o % N, k / info->group) : 0.0;
				double v = info->e2m1 ? e2m1_doubled[(int)code] : code - info->zero;
				double x = activation(&c, q8, o / N, k);
				sum += x * (v * scale + min);
				magnitude += fabs(x) * (fabs(v * scale) + fabs(min));
			}
			double roundings = q8 ? 3.0 + 2.0 * K / 16 : 2.0 + K_BLOCK;
			double error = fabs((double)y[(size_t)(o / N) * c.y_stride + (size_t)(o % N)] - sum);
			assert_true(error <= magnitude * roundings * 0x1p-24);
		}
		free(y);
		case_free(&c);
	}
}

/* The tables that differ in these products. */
#define PER_PRODUCT(test) \
	PER_TABLE(test), {#test "/avx512vnni", test, NULL, NULL, (void *)(uintptr_t)"avx512vnni"}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(definition_is_a_product),
		PER_PRODUCT(q8_equals_scalar),
		PER_TABLE(q32_equals_scalar),
		PER_PRODUCT(ends_of_the_range_equal_scalar),
		PER_PRODUCT(nested_int4_equals_scalar),
		PER_PRODUCT(rows_may_be_split),
	};
	return cmocka_run_group_tests_name("matmul_q", tests, NULL, NULL);
}
