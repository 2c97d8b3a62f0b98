/* quantize_q8_avx2.c - activations to INT8; lanes are the inputs of one block. */
#include <string.h>

#include "quant/avx2.h"

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
	__m256i half = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4e));
	half = _mm256_add_epi32(half, _mm256_shuffle_epi32(half, 0xb1));
	out->sum[0] = (int16_t)_mm256_extract_epi32(half, 0);
	out->sum[1] = (int16_t)_mm256_extract_epi32(half, 4);
	out->scale = most > Q8_TINY ? most / 127.0f : 0.0f;
}

void quantize_q8_avx2(struct q8_block *out, const float *x, int k)
{
	int k0 = 0;
	for (; k0 + Q_BLOCK <= k; k0 += Q_BLOCK) quantize_group(out++, x + k0);
	if (k0 < k) {
		float padded[Q_BLOCK] = {0};
		memcpy(padded, x + k0, (size_t)(k - k0) * sizeof(float));
		quantize_group(out, padded);
	}
}
