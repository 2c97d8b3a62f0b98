/* attention_train.c - attention by whole score matrices: n^2 * (H * D) multiply-adds per product, two
 * products forward and five backward, each head a strided view of the packed rows. */
#include "trainer_bridge/trainer/attention_train.h"

#include <math.h>
#include <string.h>

#include "trainer_bridge/trainer/blas.h"

size_t attention_train_scratch(int n)
{
	return 2 * (size_t)n * (size_t)n;
}

/* p [n][n] = causal softmax(q k^T / sqrt(D)); zero above the diagonal. */
static void probabilities(float *p, const float *q, int q_stride, const float *k, int k_stride, int n,
                          int head_dim)
{
	blas_matmul(p, n, q, q_stride, BLAS_PLAIN, k, k_stride, BLAS_TRANSPOSED, n, n, head_dim,
	            1.0f / sqrtf((float)head_dim), 0.0f);
	for (int i = 0; i < n; i++) {
		float *row = p + (size_t)i * n, max = row[0], sum = 0;
		for (int j = 1; j <= i; j++) max = row[j] > max ? row[j] : max;
		for (int j = 0; j <= i; j++) {
			row[j] = expf(row[j] - max);
			sum += row[j];
		}
		for (int j = 0; j <= i; j++) row[j] /= sum;
		memset(row + i + 1, 0, (size_t)(n - i - 1) * sizeof *row);
	}
}

/* dp [n][n], gradient of the probabilities, becomes that of the scores before scaling. */
static void softmax_backward(float *dp, const float *p, int n)
{
	for (int i = 0; i < n; i++) {
		float *drow = dp + (size_t)i * n, dot = 0;
		const float *row = p + (size_t)i * n;
		for (int j = 0; j <= i; j++) dot += drow[j] * row[j];
		for (int j = 0; j <= i; j++) drow[j] = row[j] * (drow[j] - dot);
		memset(drow + i + 1, 0, (size_t)(n - i - 1) * sizeof *drow);
	}
}

void attention_train_forward(float *out, const float *q, const float *k, const float *v,
                             const struct attention_shape *shape, float *scratch)
{
	int n = shape->n, d = shape->head_dim, q_dim = shape->n_heads * d, kv_dim = shape->n_kv_heads * d;
	for (int h = 0; h < shape->n_heads; h++) {
		int kv = h / (shape->n_heads / shape->n_kv_heads) * d;
		probabilities(scratch, q + h * d, q_dim, k + kv, kv_dim, n, d);
		blas_matmul(out + h * d, q_dim, scratch, n, BLAS_PLAIN, v + kv, kv_dim, BLAS_PLAIN, n, d, n, 1, 0);
	}
}

void attention_train_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                              const float *k, const float *v, const struct attention_shape *shape,
                              float *scratch)
{
	int n = shape->n, d = shape->head_dim, q_dim = shape->n_heads * d, kv_dim = shape->n_kv_heads * d;
	int share = shape->n_heads / shape->n_kv_heads;
	float scale = 1.0f / sqrtf((float)d);
	float *p = scratch, *dp = scratch + (size_t)n * n;
	for (int h = 0; h < shape->n_heads; h++) {
		int kv = h / share * d;
		float beta = h % share ? 1.0f : 0.0f;
		const float *dout_h = dout + h * d;
		probabilities(p, q + h * d, q_dim, k + kv, kv_dim, n, d);
		blas_matmul(dv + kv, kv_dim, p, n, BLAS_TRANSPOSED, dout_h, q_dim, BLAS_PLAIN, n, d, n, 1.0f, beta);
		blas_matmul(dp, n, dout_h, q_dim, BLAS_PLAIN, v + kv, kv_dim, BLAS_TRANSPOSED, n, n, d, 1.0f, 0.0f);
		softmax_backward(dp, p, n);
		blas_matmul(dq + h * d, q_dim, dp, n, BLAS_PLAIN, k + kv, kv_dim, BLAS_PLAIN, n, d, n, scale, 0.0f);
		blas_matmul(dk + kv, kv_dim, dp, n, BLAS_TRANSPOSED, q + h * d, q_dim, BLAS_PLAIN, n, d, n,
		            scale, beta);
	}
}
