/* matmul_q_avx512.h - the planes of all formats as registers: a panel in one. */
#ifndef QUANT_MATMUL_Q_AVX512_H
#define QUANT_MATMUL_Q_AVX512_H

#include "quant/avx512.h"
#include "quant/matmul_q.h"

INLINE __m512i load512(const void *p) { return _mm512_loadu_si512(p); }

/* The unsigned integers of step s of a block, or a part of their bits: 4 inputs of 16 outputs. */
INLINE __m512i step_load(const struct panel *w, int b, int s, enum part part, const struct traits t)
{
	__m512i nibble = _mm512_set1_epi8(15), q = nibble, low = nibble;
	if (part != LOW_BITS) {
		q = load512(w->q + b * Q_BYTES + s / 2 * 64);
		q = _mm512_and_si512(s % 2 ? _mm512_srli_epi16(q, 4) : q, nibble);
		if (t.e2m1) return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(e2m1_unsigned()), q);
		if (!t.low_bits || part == HIGH_BITS) return q;
	}
	int fields = 8 / t.low_bits;
	low = load512(w->low + (b * t.low_bits + s / fields) * Q_LINE);
	low = _mm512_srli_epi16(low, (unsigned)(t.low_bits * (s % fields)));
	low = _mm512_and_si512(low, _mm512_set1_epi8((char)((1 << t.low_bits) - 1)));
	return part == LOW_BITS ? low : _mm512_or_si512(_mm512_slli_epi16(q, (unsigned)t.low_bits), low);
}

/* FP32 scales of a group, as format_scale. */
INLINE __m512 scale_load(const struct panel *w, size_t at, const struct traits t)
{
	if (t.scale == SCALE_BF16) {
		__m512 scale = widen16((const uint16_t *)(const void *)w->scale + at);
		return t.low_bits ? _mm512_mul_ps(scale, _mm512_set1_ps(1.0f / (float)(1 << t.low_bits))) : scale;
	}
	__m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(w->scale + at));
	if (t.scale == SCALE_E8M0) {
		__m512i e = _mm512_cvtepu8_epi32(bytes), one = _mm512_set1_epi32(1);
		__m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
		__mmask16 tiny = _mm512_cmple_epi32_mask(e, one);
		return _mm512_castsi512_ps(_mm512_mask_slli_epi32(normal, tiny, _mm512_add_epi32(e, one), 21));
	}
	/* E4M3 shifted into a half is 2^-8 of it, denormals included. */
	__m256i half = _mm256_and_si256(_mm256_cvtepu8_epi16(bytes), _mm256_set1_epi16(0x7f));
	__m512 e4m3 = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_slli_epi16(half, 7)), _mm512_set1_ps(256.0f));
	return _mm512_mul_ps(_mm512_mul_ps(e4m3, _mm512_set1_ps(w->tensor_scale)), _mm512_set1_ps(0.5f));
}

#endif
