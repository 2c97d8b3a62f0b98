/* quantize_weights_avx2.c - BF16 panels to any format, a panel per pair of registers. */
#include <math.h>
#include <string.h>

#include "quant/avx2.h"

typedef struct {
	__m256 a, b; /* outputs 0..7 and 8..15 */
} f32s;
typedef struct {
	__m256i a, b;
} words;
typedef f32s mask;

#define F32S(f) (f32s){_mm256_##f(x.a, y.a), _mm256_##f(x.b, y.b)}
#define WORDS(f) (words){_mm256_##f(x.a, y.a), _mm256_##f(x.b, y.b)}

INLINE f32s f32s_set(float x) { return (f32s){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE f32s f32s_load(const float *x) { return (f32s){_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
INLINE f32s f32s_add(f32s x, f32s y) { return F32S(add_ps); }
INLINE f32s f32s_sub(f32s x, f32s y) { return F32S(sub_ps); }
INLINE f32s f32s_mul(f32s x, f32s y) { return F32S(mul_ps); }
INLINE f32s f32s_div(f32s x, f32s y) { return F32S(div_ps); }
INLINE f32s f32s_min(f32s x, f32s y) { return F32S(min_ps); }
INLINE f32s f32s_max(f32s x, f32s y) { return F32S(max_ps); }
INLINE f32s f32s_cast(words x) { return (f32s){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
INLINE f32s f32s_of(words x) { return (f32s){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }

INLINE void f32s_store(float *to, f32s x)
{
	_mm256_storeu_ps(to, x.a);
	_mm256_storeu_ps(to + 8, x.b);
}

INLINE f32s f32s_fma(f32s x, f32s y, f32s z)
{
	return (f32s){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

INLINE f32s f32s_fnma(f32s x, f32s y, f32s z)
{
	return (f32s){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}

INLINE mask f32s_less(f32s x, f32s y)
{
	return (mask){_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}

INLINE f32s f32s_select(mask m, f32s yes, f32s no)
{
	return (f32s){_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}

INLINE words words_cast(f32s x) { return (words){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
INLINE words words_of(f32s x) { return (words){_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; } /* ties to even */
INLINE words words_and(words x, words y) { return WORDS(and_si256); }
INLINE words words_or(words x, words y) { return WORDS(or_si256); }
INLINE words words_xor(words x, words y) { return WORDS(xor_si256); }
INLINE words set8(uint8_t x) { return (words){_mm256_set1_epi8((char)x), _mm256_set1_epi8((char)x)}; }
INLINE words set16(uint16_t x) { return (words){_mm256_set1_epi16((short)x), _mm256_set1_epi16((short)x)}; }
INLINE words set32(uint32_t x) { return (words){_mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x)}; }
INLINE words shl16(words x, int n) { return (words){_mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n)}; }
INLINE words shr16(words x, int n) { return (words){_mm256_srli_epi16(x.a, n), _mm256_srli_epi16(x.b, n)}; }
INLINE words sra16(words x, int n) { return (words){_mm256_srai_epi16(x.a, n), _mm256_srai_epi16(x.b, n)}; }
INLINE words shl32(words x, int n) { return (words){_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)}; }
INLINE words shr32(words x, int n) { return (words){_mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n)}; }
INLINE words add32(words x, words y) { return WORDS(add_epi32); }
INLINE words sub32(words x, words y) { return WORDS(sub_epi32); }
INLINE words add16(words x, words y) { return WORDS(add_epi16); }
INLINE words subs_u16(words x, words y) { return WORDS(subs_epu16); }
INLINE words adds_s16(words x, words y) { return WORDS(adds_epi16); }
INLINE words min_s16(words x, words y) { return WORDS(min_epi16); }
INLINE words max_s16(words x, words y) { return WORDS(max_epi16); }
INLINE words max_u16(words x, words y) { return WORDS(max_epu16); }
INLINE words min_u8(words x, words y) { return WORDS(min_epu8); }
INLINE words pack_s16(words x, words y) { return WORDS(packs_epi32); }
INLINE words pack_s8(words x, words y) { return WORDS(packs_epi16); }
INLINE words pack_u8(words x, words y) { return WORDS(packus_epi16); }
INLINE words shuffle8(words x, words y) { return WORDS(shuffle_epi8); }

/* sum, and 1 more where x > y. */
INLINE words count_more16(words sum, words x, words y)
{
	words more = WORDS(cmpgt_epi16);
	return (words){_mm256_sub_epi16(sum.a, more.a), _mm256_sub_epi16(sum.b, more.b)};
}

#undef F32S
#undef WORDS

INLINE words words_select(mask m, words yes, words no)
{
	return words_cast(f32s_select(m, f32s_cast(yes), f32s_cast(no)));
}

/* x - y where m, else x. */
INLINE words sub32_where(mask m, words x, words y) { return sub32(x, words_and(words_cast(m), y)); }

INLINE words words_load(const void *p)
{
	const __m256i *from = p;
	return (words){_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
}

INLINE void words_stream(void *p, words x) /* p: aligned */
{
	__m256i *to = p;
	_mm256_stream_si256(to, x.a);
	_mm256_stream_si256(to + 1, x.b);
}

INLINE words each16(__m128i x) { return (words){_mm256_broadcastsi128_si256(x), _mm256_broadcastsi128_si256(x)}; }

/* From two packs of inputs a, b, c, d of four outputs: a0 a1 a2 a3 b0 .. d3 to a0 b0 c0 d0 a1 .. d3. */
INLINE words side_by_side(void)
{
	return each16(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
}

/* The same from a0 b0 a1 b1 a2 b2 a3 b3 c0 d0 .. d3. */
INLINE words pairs_side_by_side(void)
{
	return each16(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
}

/* From E2M1 codes to themselves, but -0 to 0. */
INLINE words no_negative_zero(void)
{
	return each16(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15));
}

/* 16 integers of at most 16 bits. */
INLINE __m256i lower16(words x)
{
	return _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), 0xd8);
}

INLINE void store_upper16(uint16_t *to, f32s x)
{
	_mm256_storeu_si256((__m256i *)(void *)to, lower16(shr32(words_cast(x), 16)));
}

INLINE void store_lower8(uint8_t *to, words x)
{
	__m256i halves = lower16(x);
	__m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
	_mm_storeu_si128((__m128i *)(void *)to, bytes);
}

#include "quant/quantize_weights_lanes.h"

void quantize_avx2(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer, const float *importance,
                   int panel_begin, int panel_end)
{
	quantize(dst, packed, quantizer, importance, panel_begin, panel_end);
}
