/* avx512.h - inside the AVX-512 files only: sixteen lanes of bf16.h. */
#ifndef QUANT_AVX512_H
#define QUANT_AVX512_H

#include "quant/avx2.h"

INLINE __m512 widen16_of(__m256i halves)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

INLINE __m512 widen16(const uint16_t *bf16)
{
	return widen16_of(_mm256_loadu_si256((const __m256i *)(const void *)bf16));
}

/* Lanes outside the mask are 0 and are not read. */
INLINE __m512 widen16_masked(__mmask16 mask, const uint16_t *bf16)
{
	return widen16_of(_mm256_maskz_loadu_epi16(mask, bf16));
}

/* The tree of kernels.h over 16 lanes. */
INLINE float lanes_sum512(__m512 sum)
{
	return lanes_sum16(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
}

#define HORNER16(c, x) p = _mm512_add_ps(_mm512_mul_ps(p, x), _mm512_set1_ps(c));

INLINE __m512 exp16(__m512 x)
{
	__m512 round = _mm512_set1_ps(EXACT_ROUND);
	__m512 v = _mm512_min_ps(_mm512_set1_ps(EXACT_EXP_MAX), x);
	__m512 t = _mm512_add_ps(_mm512_mul_ps(v, _mm512_set1_ps(EXACT_LOG2E)), round);
	__m512 n = _mm512_sub_ps(t, round);
	__m512 r = _mm512_sub_ps(v, _mm512_mul_ps(n, _mm512_set1_ps(EXACT_LN2_HI)));
	r = _mm512_sub_ps(r, _mm512_mul_ps(n, _mm512_set1_ps(EXACT_LN2_LO)));
	__m512 p = _mm512_setzero_ps();
	EXACT_EXP_POLY(HORNER16, r)
	p = _mm512_add_ps(_mm512_mul_ps(p, _mm512_mul_ps(r, r)), r);
	p = _mm512_add_ps(p, _mm512_set1_ps(1.0f));
	__m512i power = _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(t), 23), _mm512_set1_epi32(0x3f800000));
	p = _mm512_mul_ps(p, _mm512_castsi512_ps(power));
	return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(EXACT_EXP_MIN), _CMP_NLT_UQ), p);
}

#undef HORNER16

INLINE __m512 silu16(__m512 x)
{
	__m512 e = exp16(_mm512_or_ps(x, _mm512_set1_ps(-0.0f)));
	__mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
	return _mm512_div_ps(_mm512_mask_mul_ps(x, negative, x, e), _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

/* The members of kernels_avx512 that are not those of kernels_avx2. */
void matmul_bf16_avx512(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
                        int k, int panel_begin, int panel_end);
void matmul_q8_avx512(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
                      const struct qmatrix *w, int panel_begin, int panel_end);
void quantize_avx512(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer, const float *importance,
                     int panel_begin, int panel_end);
void matmul_q8_avx512vnni(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
                          const struct qmatrix *w, int panel_begin, int panel_end);
void matmul_q32_avx512(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const struct qmatrix *w,
                       int panel_begin, int panel_end);
ATTEND_FUNCTION(attend_bf16_avx512);
ATTEND_FUNCTION(attend_f32_avx512);

#endif
