/* kernels_avx2.c - the AVX2 table, and the kernels that are one pass over a vector.
 *
 * Tails that do not fill a vector run the scalar sequence of exact_math.h, or are padded with what
 * leaves a lane of a reduction as it was.
 */
#include <math.h>
#include <string.h>

#include "quant/avx2.h"
#include "quant/bf16.h"

/* The last n < LANES values, padded. */
INLINE void load_tail(float tail[LANES], const float *x, int n, float pad)
{
	for (int i = 0; i < LANES; i++) tail[i] = pad;
	memcpy(tail, x, (size_t)n * sizeof(float));
}

void rmsnorm_avx2(float *y, const float *x, const uint16_t *weight, int n, float eps)
{
	__m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
	float tail[LANES];
	int full = n / LANES * LANES;
	load_tail(tail, x + full, n - full, 0.0f);
	for (int i = 0; i < n; i += LANES) {
		const float *in = i < full ? x + i : tail;
		for (int h = 0; h < 2; h++) {
			__m256 v = _mm256_loadu_ps(in + 8 * h);
			sum[h] = _mm256_fmadd_ps(v, v, sum[h]);
		}
	}
	float scale = 1.0f / sqrtf(lanes_sum16(sum[0], sum[1]) / (float)n + eps);

	int i = 0;
	for (; i + 8 <= n; i += 8) {
		__m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale));
		_mm256_storeu_ps(y + i, _mm256_mul_ps(v, widen8(weight + i)));
	}
	for (; i < n; i++) y[i] = x[i] * scale * bf16_to_f32(weight[i]);
}

void silu_mul_avx2(float *y, const float *gate, const float *up, int n)
{
	int i = 0;
	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(y + i, _mm256_mul_ps(silu8(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
	for (; i < n; i++) y[i] = exact_silu(gate[i]) * up[i];
}

void add_avx2(float *y, const float *x, int n)
{
	int i = 0;
	for (; i + 8 <= n; i += 8)
		_mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
	for (; i < n; i++) y[i] += x[i];
}

void rope_avx2(float *x, const float *cos, const float *sin, int head_dim)
{
	int half = head_dim / 2, i = 0;
	for (; i + 8 <= half; i += 8) {
		__m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + half);
		__m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
		_mm256_storeu_ps(x + i, _mm256_sub_ps(_mm256_mul_ps(a, c), _mm256_mul_ps(b, s)));
		_mm256_storeu_ps(x + i + half, _mm256_add_ps(_mm256_mul_ps(b, c), _mm256_mul_ps(a, s)));
	}
	for (; i < half; i++) {
		float a = x[i], b = x[i + half];
		x[i] = a * cos[i] - b * sin[i];
		x[i + half] = b * cos[i] + a * sin[i];
	}
}

void argmax_avx2(const float *x, int n, float *max, int *index)
{
	__m256 most = _mm256_set1_ps(-INFINITY);
	__m256i most_at = _mm256_setzero_si256(), at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	int full = n / 8 * 8;
	for (int i = 0; i < full; i += 8) {
		__m256 v = _mm256_loadu_ps(x + i);
		__m256 greater = _mm256_cmp_ps(v, most, _CMP_GT_OQ);
		most = _mm256_blendv_ps(most, v, greater);
		most_at = _mm256_blendv_epi8(most_at, at, _mm256_castps_si256(greater));
		at = _mm256_add_epi32(at, _mm256_set1_epi32(8));
	}

	float value[8];
	int32_t where[8];
	_mm256_storeu_ps(value, most);
	_mm256_storeu_si256((__m256i *)(void *)where, most_at);
	*max = value[0];
	*index = where[0];
	for (int l = 1; l < 8; l++) {
		if (value[l] > *max || (value[l] == *max && where[l] < *index)) {
			*max = value[l];
			*index = where[l];
		}
	}
	for (int i = full; i < n; i++) {
		if (x[i] > *max) {
			*max = x[i];
			*index = i;
		}
	}
}

float sum_exp_avx2(const float *x, int n, float max, float inv_t)
{
	__m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
	float tail[LANES];
	int full = n / LANES * LANES;
	load_tail(tail, x + full, n - full, -INFINITY);
	for (int i = 0; i < n; i += LANES) {
		const float *in = i < full ? x + i : tail;
		for (int h = 0; h < 2; h++) {
			__m256 above = _mm256_sub_ps(_mm256_loadu_ps(in + 8 * h), _mm256_set1_ps(max));
			sum[h] = _mm256_add_ps(sum[h], exp8(_mm256_mul_ps(above, _mm256_set1_ps(inv_t))));
		}
	}
	return lanes_sum16(sum[0], sum[1]);
}

const struct kernels kernels_avx2 = {
	.name = "avx2",
	.matmul_bf16 = matmul_bf16_avx2,
	.matmul_q8 = matmul_q8_avx2,
	.matmul_q32 = matmul_q32_avx2,
	.quantize = quantize_avx2,
	.quantize_q8 = quantize_q8_avx2,
	.rmsnorm = rmsnorm_avx2,
	.silu_mul = silu_mul_avx2,
	.add = add_avx2,
	.rope = rope_avx2,
	.attend = {attend_bf16_avx2, attend_f32_avx2},
	.argmax = argmax_avx2,
	.sum_exp = sum_exp_avx2,
};
