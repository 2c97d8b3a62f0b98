/* quantize_avx2.c - activations to INT8 and weights to INT4.
 *
 * INT8: lanes are the inputs of one group.  INT4: lanes are outputs, so that the search of
 * kernels_scalar.c needs no reduction across lanes, and four inputs of eight outputs shift together
 * into the bytes that format_int4.h wants.
 */
#include <math.h>
#include <string.h>

#include "quant/avx2.h"
#include "quant/format_int4.h"

/* 32 values; the tail of a row is padded with zeros by the caller. */
static void quantize_group(struct q8_block *out, const float *x)
{
	const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
	__m256 v[4], largest = _mm256_setzero_ps();
	for (int i = 0; i < 4; i++) {
		v[i] = _mm256_loadu_ps(x + 8 * i);
		largest = _mm256_max_ps(_mm256_and_ps(v[i], magnitude), largest);
	}
	__m128 by4 = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
	__m128 by2 = _mm_max_ps(by4, _mm_movehl_ps(by4, by4));
	float most = _mm_cvtss_f32(_mm_max_ss(by2, _mm_movehdup_ps(by2)));

	__m256 inverse = _mm256_set1_ps(most > Q8_TINY ? 127.0f / most : 0.0f);
	__m256i q[4];
	for (int i = 0; i < 4; i++) {
		__m256 rounded = _mm256_add_ps(_mm256_mul_ps(v[i], inverse), _mm256_set1_ps(EXACT_ROUND));
		q[i] = _mm256_and_si256(_mm256_castps_si256(rounded), _mm256_set1_epi32(0xff));
	}
	/* Packing works within 128-bit halves; the permutation puts the groups of four back in order. */
	__m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(q[0], q[1]), _mm256_packus_epi32(q[2], q[3]));
	bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
	_mm256_storeu_si256((__m256i *)(void *)out->q, bytes);

	__m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
	__m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
	__m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
	sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
	sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
	out->sum = _mm_cvtsi128_si32(sum);
	out->scale = most > Q8_TINY ? most / 127.0f : 0.0f;
}

void quantize_q8_avx2(struct q8_block *out, const float *x, int k)
{
	int k0 = 0;
	for (; k0 + INT4_GROUP <= k; k0 += INT4_GROUP) quantize_group(out++, x + k0);
	if (k0 < k) {
		float padded[INT4_GROUP] = {0};
		memcpy(padded, x + k0, (size_t)(k - k0) * sizeof(float));
		quantize_group(out, padded);
	}
}

/* bf16_to_f32(bf16_from_f32(x)) for finite x. */
INLINE __m256 round_bf16(__m256 x)
{
	__m256i u = _mm256_castps_si256(x);
	__m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
	u = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
	return _mm256_castsi256_ps(_mm256_and_si256(u, _mm256_set1_epi32((int)0xffff0000)));
}

INLINE __m256 level8(__m256 w, __m256 inverse)
{
	__m256 round = _mm256_set1_ps(EXACT_ROUND);
	__m256 q = _mm256_sub_ps(_mm256_add_ps(_mm256_mul_ps(w, inverse), round), round);
	q = _mm256_min_ps(q, _mm256_set1_ps(INT4_MAX));
	return _mm256_max_ps(q, _mm256_set1_ps(INT4_MIN));
}

INLINE __m256 inverse8(__m256 scale) { return _mm256_div_ps(_mm256_set1_ps(1.0f), scale); }

static __m256 squared_error(const float *w, __m256 scale)
{
	__m256 inverse = inverse8(scale), sum = _mm256_setzero_ps();
	for (int i = 0; i < INT4_GROUP; i++) {
		__m256 v = _mm256_loadu_ps(w + i * PANEL);
		__m256 d = _mm256_fnmadd_ps(level8(v, inverse), scale, v);
		sum = _mm256_fmadd_ps(d, d, sum);
	}
	return sum;
}

static __m256 fitted_scale(const float *w, __m256 scale)
{
	__m256 inverse = inverse8(scale), wq = _mm256_setzero_ps(), qq = wq;
	for (int i = 0; i < INT4_GROUP; i++) {
		__m256 v = _mm256_loadu_ps(w + i * PANEL), q = level8(v, inverse);
		wq = _mm256_fmadd_ps(v, q, wq);
		qq = _mm256_fmadd_ps(q, q, qq);
	}
	return round_bf16(_mm256_div_ps(wq, qq));
}

/* Scales of 8 outputs; 0 where all weights are (nearly) 0. */
static __m256 searched_scale(const float *w)
{
	static const float levels[] = {INT4_LEVELS};
	const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
	__m256 largest = _mm256_setzero_ps();
	for (int i = 0; i < INT4_GROUP; i++) {
		__m256 v = _mm256_loadu_ps(w + i * PANEL);
		__m256 of_largest = _mm256_and_ps(largest, magnitude);
		__m256 greater = _mm256_cmp_ps(_mm256_and_ps(v, magnitude), of_largest, _CMP_GT_OQ);
		largest = _mm256_blendv_ps(largest, v, greater);
	}

	__m256 best = _mm256_setzero_ps(), least = _mm256_set1_ps(INFINITY);
	for (int c = 0; c <= INT4_N_LEVELS; c++) {
		__m256 scale = c < INT4_N_LEVELS ? round_bf16(_mm256_div_ps(largest, _mm256_set1_ps(levels[c])))
		                                 : fitted_scale(w, best);
		__m256 error = squared_error(w, scale);
		__m256 better = _mm256_cmp_ps(error, least, _CMP_LT_OQ);
		best = _mm256_blendv_ps(best, scale, better);
		least = _mm256_blendv_ps(least, error, better);
	}
	__m256 tiny = _mm256_cmp_ps(_mm256_and_ps(largest, magnitude), _mm256_set1_ps(Q8_TINY), _CMP_LT_OQ);
	return _mm256_andnot_ps(tiny, best);
}

/* Inputs 4s .. 4s+3 of 8 outputs: a nibble in each byte. */
INLINE __m256i step_nibbles(const float *w, __m256 inverse)
{
	__m256i bytes = _mm256_setzero_si256();
	for (int i = INT4_STEP - 1; i >= 0; i--) {
		__m256i q = _mm256_cvtps_epi32(level8(_mm256_loadu_ps(w + i * PANEL), inverse));
		q = _mm256_add_epi32(q, _mm256_set1_epi32(INT4_ZERO));
		bytes = _mm256_or_si256(_mm256_slli_epi32(bytes, 8), q);
	}
	return bytes;
}

void int4_quantize_block_avx2(struct int4_block *block, const float w[INT4_GROUP][PANEL])
{
	__m256 inverse[2];
	for (int h = 0; h < 2; h++) {
		__m256 scale = searched_scale(&w[0][8 * h]);
		__m256 zero = _mm256_cmp_ps(scale, _mm256_setzero_ps(), _CMP_EQ_OQ);
		inverse[h] = _mm256_andnot_ps(zero, inverse8(scale));
		__m256i upper = _mm256_srli_epi32(_mm256_castps_si256(scale), 16);
		__m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
		_mm_storeu_si128((__m128i *)(void *)&block->scale[8 * h], packed);
	}
	for (int s = 0; s < INT4_STEPS; s++) {
		__m256i low = step_nibbles(&w[s * INT4_STEP][0], inverse[0]);
		__m256i high = step_nibbles(&w[s * INT4_STEP][8], inverse[1]);
		_mm256_storeu_si256((__m256i *)(void *)block->q[s], _mm256_or_si256(low, _mm256_slli_epi32(high, 4)));
	}
}
