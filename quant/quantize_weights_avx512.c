/* quantize_weights_avx512.c - BF16 panels to any format, a panel per register. */
#include <math.h>
#include <string.h>

#include "quant/avx512.h"

typedef __m512 f32s;
typedef __m512i words;
typedef __mmask16 mask;

INLINE f32s f32s_set(float x) { return _mm512_set1_ps(x); }
INLINE f32s f32s_load(const float *x) { return _mm512_loadu_ps(x); }
INLINE void f32s_store(float *to, f32s x) { _mm512_storeu_ps(to, x); }
INLINE f32s f32s_add(f32s a, f32s b) { return _mm512_add_ps(a, b); }
INLINE f32s f32s_sub(f32s a, f32s b) { return _mm512_sub_ps(a, b); }
INLINE f32s f32s_mul(f32s a, f32s b) { return _mm512_mul_ps(a, b); }
INLINE f32s f32s_div(f32s a, f32s b) { return _mm512_div_ps(a, b); }
INLINE f32s f32s_fma(f32s a, f32s b, f32s c) { return _mm512_fmadd_ps(a, b, c); }
INLINE f32s f32s_fnma(f32s a, f32s b, f32s c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE f32s f32s_min(f32s a, f32s b) { return _mm512_min_ps(a, b); }
INLINE f32s f32s_max(f32s a, f32s b) { return _mm512_max_ps(a, b); }
INLINE f32s f32s_cast(words a) { return _mm512_castsi512_ps(a); }
INLINE f32s f32s_of(words a) { return _mm512_cvtepi32_ps(a); }
INLINE mask f32s_less(f32s a, f32s b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE f32s f32s_select(mask m, f32s yes, f32s no) { return _mm512_mask_blend_ps(m, no, yes); }

INLINE words words_cast(f32s a) { return _mm512_castps_si512(a); }
INLINE words words_of(f32s a) { return _mm512_cvtps_epi32(a); } /* ties to even */
INLINE words words_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void words_stream(void *to, words a) { _mm512_stream_si512(to, a); } /* to: aligned */
INLINE words words_select(mask m, words yes, words no) { return _mm512_mask_blend_epi32(m, no, yes); }
INLINE words words_and(words a, words b) { return _mm512_and_si512(a, b); }
INLINE words words_or(words a, words b) { return _mm512_or_si512(a, b); }
INLINE words words_xor(words a, words b) { return _mm512_xor_si512(a, b); }
INLINE words set8(uint8_t x) { return _mm512_set1_epi8((char)x); }
INLINE words set16(uint16_t x) { return _mm512_set1_epi16((short)x); }
INLINE words set32(uint32_t x) { return _mm512_set1_epi32((int)x); }
INLINE words shl16(words a, int n) { return _mm512_slli_epi16(a, (unsigned)n); }
INLINE words shr16(words a, int n) { return _mm512_srli_epi16(a, (unsigned)n); }
INLINE words sra16(words a, int n) { return _mm512_srai_epi16(a, (unsigned)n); }
INLINE words shl32(words a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
INLINE words shr32(words a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
INLINE words add32(words a, words b) { return _mm512_add_epi32(a, b); }
INLINE words sub32(words a, words b) { return _mm512_sub_epi32(a, b); }
INLINE words add16(words a, words b) { return _mm512_add_epi16(a, b); }
INLINE words subs_u16(words a, words b) { return _mm512_subs_epu16(a, b); }
INLINE words sub32_where(mask m, words a, words b) { return _mm512_mask_sub_epi32(a, m, a, b); } /* a elsewhere */
INLINE words adds_s16(words a, words b) { return _mm512_adds_epi16(a, b); }
INLINE words min_s16(words a, words b) { return _mm512_min_epi16(a, b); }
INLINE words max_s16(words a, words b) { return _mm512_max_epi16(a, b); }
INLINE words max_u16(words a, words b) { return _mm512_max_epu16(a, b); }
INLINE words min_u8(words a, words b) { return _mm512_min_epu8(a, b); }
INLINE words pack_s16(words a, words b) { return _mm512_packs_epi32(a, b); }
INLINE words pack_s8(words a, words b) { return _mm512_packs_epi16(a, b); }
INLINE words pack_u8(words a, words b) { return _mm512_packus_epi16(a, b); }
INLINE words shuffle8(words a, words at) { return _mm512_shuffle_epi8(a, at); }

/* sum, and 1 more where a > b. */
INLINE words count_more16(words sum, words a, words b)
{
	return _mm512_mask_sub_epi16(sum, _mm512_cmpgt_epi16_mask(a, b), sum, _mm512_set1_epi16(-1));
}

/* From two packs of inputs a, b, c, d of four outputs: a0 a1 a2 a3 b0 .. d3 to a0 b0 c0 d0 a1 .. d3. */
INLINE words side_by_side(void)
{
	return _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
}

/* The same from a0 b0 a1 b1 a2 b2 a3 b3 c0 d0 .. d3. */
INLINE words pairs_side_by_side(void)
{
	return _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
}

/* From E2M1 codes to themselves, but -0 to 0. */
INLINE words no_negative_zero(void)
{
	return _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15));
}

INLINE void store_upper16(uint16_t *to, f32s x)
{
	_mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(shr32(words_cast(x), 16)));
}

INLINE void store_lower8(uint8_t *to, words a) { _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(a)); }

#include "quant/quantize_weights_lanes.h"

void quantize_avx512(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer, const float *importance,
                     int panel_begin, int panel_end)
{
	quantize(dst, packed, quantizer, importance, panel_begin, panel_end);
}
