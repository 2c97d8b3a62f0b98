/* avx2.h - inside the AVX2 files only: eight lanes of what bf16.h, exact_math.h and
 * kernels_tables.h do one at a time. */
#ifndef QUANT_AVX2_H
#define QUANT_AVX2_H

#include <immintrin.h>
#include <stddef.h>

#include "quant/exact_math.h"
#include "quant/kernels_tables.h"

#define INLINE static inline __attribute__((always_inline))

/* Fetch what lies so many bytes after p into L1; past the end of an array is harmless. */
INLINE void prefetch(const void *p, size_t ahead)
{
	_mm_prefetch((const char *)((uintptr_t)p + ahead), _MM_HINT_T0);
}

/* What a tile of a product prefetches: a line at `at`, which moves by `step` bytes per pair of inputs, and
 * once, at input `cut`, by `jump`. */
struct ahead {
	uintptr_t at;
	size_t step, jump;
	int cut;
};

/* For inputs [k0, ..) of a group of panels that is streamed through once: what is needed `distance` bytes
 * later, behind the end of these panels in the next ones. */
INLINE struct ahead ahead_stream(const uint16_t *w, int k, int k0, size_t distance, int group)
{
	int even = k + k % 2, inputs = (int)(distance / (size_t)group / (PANEL * sizeof *w)) / 2 * 2;
	size_t jump = (size_t)(group - 1) * packed_panel_elements(k) * sizeof *w;
	if (inputs > even) inputs = even;
	struct ahead ahead = {(uintptr_t)w + (size_t)(k0 + inputs) * PANEL * sizeof *w, 2 * PANEL * sizeof *w, jump,
	                      even - inputs - k0};
	if (ahead.cut < 0) ahead.at += jump;
	return ahead;
}

/* The outputs that a tile adds to: many rows lie on as many pages and have left the near caches since the
 * last K block. */
INLINE void prefetch_lines(const float *p, int n)
{
	for (int i = 0; i < n; i++) prefetch(p + 16 * i, 0);
}

/* c += a * b, as _mm256_fmadd_ps; left to itself gcc forms the product in place of a factor when
 * registers are short, and then moves and spills. */
INLINE void fma8(__m256 *c, __m256 a, __m256 b) { __asm__("vfmadd231ps %2, %1, %0" : "+x"(*c) : "x"(a), "x"(b)); }

#define UNROLL _Pragma("GCC unroll 32")

INLINE __m256 widen8(const uint16_t *bf16)
{
	__m128i half = _mm_loadu_si128((const __m128i *)(const void *)bf16);
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* lanes_sum of lanes 0..7 and 8..15. */
INLINE float lanes_sum16(__m256 low, __m256 high)
{
	__m256 by8 = _mm256_add_ps(low, high);
	__m128 by4 = _mm_add_ps(_mm256_castps256_ps128(by8), _mm256_extractf128_ps(by8, 1));
	__m128 by2 = _mm_add_ps(by4, _mm_movehl_ps(by4, by4));
	return _mm_cvtss_f32(_mm_add_ss(by2, _mm_movehdup_ps(by2)));
}

#define HORNER8(c, x) p = _mm256_add_ps(_mm256_mul_ps(p, x), _mm256_set1_ps(c));

INLINE __m256 exp8(__m256 x)
{
	__m256 round = _mm256_set1_ps(EXACT_ROUND);
	__m256 v = _mm256_min_ps(_mm256_set1_ps(EXACT_EXP_MAX), x);
	__m256 t = _mm256_add_ps(_mm256_mul_ps(v, _mm256_set1_ps(EXACT_LOG2E)), round);
	__m256 n = _mm256_sub_ps(t, round);
	__m256 r = _mm256_sub_ps(v, _mm256_mul_ps(n, _mm256_set1_ps(EXACT_LN2_HI)));
	r = _mm256_sub_ps(r, _mm256_mul_ps(n, _mm256_set1_ps(EXACT_LN2_LO)));
	__m256 p = _mm256_setzero_ps();
	EXACT_EXP_POLY(HORNER8, r)
	p = _mm256_add_ps(_mm256_mul_ps(p, _mm256_mul_ps(r, r)), r);
	p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
	__m256i power = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
	power = _mm256_add_epi32(power, _mm256_set1_epi32(0x3f800000));
	p = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
	return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(EXACT_EXP_MIN), _CMP_LT_OQ), p);
}

#undef HORNER8

INLINE __m256 silu8(__m256 x)
{
	__m256 e = exp8(_mm256_or_ps(x, _mm256_set1_ps(-0.0f)));
	__m256 negative = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
	__m256 above = _mm256_blendv_ps(x, _mm256_mul_ps(x, e), negative);
	return _mm256_div_ps(above, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

/* The members of kernels_avx2, by file. */
void matmul_bf16_avx2(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
                      int k, int panel_begin, int panel_end);
void matmul_q8_avx2(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
                    const struct qmatrix *w, int panel_begin, int panel_end);
void matmul_q32_avx2(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const struct qmatrix *w,
                     int panel_begin, int panel_end);
void quantize_q8_avx2(struct q8_block *out, const float *x, int k);
void quantize_avx2(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer, const float *importance,
                   int panel_begin, int panel_end);
ATTEND_FUNCTION(attend_bf16_avx2);
ATTEND_FUNCTION(attend_f32_avx2);

void rmsnorm_avx2(float *y, const float *x, const uint16_t *weight, int n, float eps);
void silu_mul_avx2(float *y, const float *gate, const float *up, int n);
void add_avx2(float *y, const float *x, int n);
void rope_avx2(float *x, const float *cos, const float *sin, int head_dim);
void argmax_avx2(const float *x, int n, float *max, int *index);
float sum_exp_avx2(const float *x, int n, float max, float inv_t);

#endif
