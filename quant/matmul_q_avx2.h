/* matmul_q_avx2.h - the planes of all formats as registers: half a panel in one. */
#ifndef QUANT_MATMUL_Q_AVX2_H
#define QUANT_MATMUL_Q_AVX2_H

#include "quant/avx2.h"
#include "quant/matmul_q.h"

INLINE __m256i load256(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* The unsigned integers of step s of a block, or a part of their bits: 4 inputs of 8 outputs, the first
 * (side 0) or last of the panel. */
INLINE __m256i step_load8(const struct panel *w, int b, int s, int side, enum part part, const struct traits t)
{
	__m256i nibble = _mm256_set1_epi8(15), q = nibble, low = nibble;
	if (part != LOW_BITS) {
		q = load256(w->q + b * Q_BYTES + s / 2 * 64 + 32 * side);
		q = _mm256_and_si256(s % 2 ? _mm256_srli_epi16(q, 4) : q, nibble);
		if (t.e2m1) return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(e2m1_unsigned()), q);
		if (!t.low_bits || part == HIGH_BITS) return q;
	}
	int fields = 8 / t.low_bits;
	low = load256(w->low + (b * t.low_bits + s / fields) * Q_LINE + 32 * side);
	low = _mm256_srli_epi16(low, t.low_bits * (s % fields));
	low = _mm256_and_si256(low, _mm256_set1_epi8((char)((1 << t.low_bits) - 1)));
	return part == LOW_BITS ? low : _mm256_or_si256(_mm256_slli_epi16(q, t.low_bits), low);
}

/* FP32 scales of 8 outputs, as format_scale. */
INLINE __m256 scale_load8(const struct panel *w, size_t at, const struct traits t)
{
	if (t.scale == SCALE_BF16) {
		__m256 scale = widen8((const uint16_t *)(const void *)w->scale + at);
		return t.low_bits ? _mm256_mul_ps(scale, _mm256_set1_ps(1.0f / (float)(1 << t.low_bits))) : scale;
	}
	__m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(w->scale + at));
	if (t.scale == SCALE_E8M0) {
		__m256i e = _mm256_cvtepu8_epi32(bytes), one = _mm256_set1_epi32(1);
		__m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
		__m256i tiny = _mm256_slli_epi32(_mm256_add_epi32(e, one), 21);
		return _mm256_castsi256_ps(_mm256_blendv_epi8(tiny, normal, _mm256_cmpgt_epi32(e, one)));
	}
	/* E4M3 shifted into a half is 2^-8 of it, denormals included. */
	__m128i half = _mm_slli_epi16(_mm_and_si128(_mm_cvtepu8_epi16(bytes), _mm_set1_epi16(0x7f)), 7);
	__m256 e4m3 = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
	return _mm256_mul_ps(_mm256_mul_ps(e4m3, _mm256_set1_ps(w->tensor_scale)), _mm256_set1_ps(0.5f));
}

#endif
