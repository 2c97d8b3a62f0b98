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

/* The members of kernels_avx512 that are not those of kernels_avx2. */
void matmul_bf16_avx512(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
                        int k, int panel_begin, int panel_end);
void matmul_int4_avx512(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
                        const struct int4_block *w, int k, int panel_begin, int panel_end);
void attend_avx512(float *out, const float *q, int n_q, int head_dim, const uint16_t *const *pages,
                   size_t k_offset, size_t v_offset, int n_positions, float scale, float *scores);

#endif
