/* kernels_scalar.c - the definition of every kernel, one operation at a time.
 *
 * Never optimised: each line is what the vector tables must equal bit for bit (kernels.h states the
 * order of operations in words).  fmaf is a true fused multiply-add, rounded once, whether libm uses
 * the instruction or integers.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/bf16.h"
#include "quant/exact_math.h"
#include "quant/kernels_tables.h"

static void matmul_bf16(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
                        int k, int panel_begin, int panel_end)
{
	for (int row = 0; row < m; row++) {
		for (int o = panel_begin * PANEL; o < panel_end * PANEL; o++) {
			const float *in = x + (size_t)row * x_stride;
			float sum = 0.0f;
			for (int k0 = 0; k0 < k; k0 += K_BLOCK) {
				int k1 = k - k0 < K_BLOCK ? k : k0 + K_BLOCK;
				float chain = 0.0f;
				for (int i = k0; i < k1; i++)
					chain = fmaf(in[i], bf16_to_f32(w[packed_bf16_at(k, o, i)]), chain);
				sum = k0 == 0 ? chain : sum + chain;
			}
			y[(size_t)row * y_stride + (size_t)o] = sum;
		}
	}
}

static void quantize_q8(struct q8_block *out, const float *x, int k)
{
	for (int k0 = 0; k0 < k; k0 += Q_BLOCK, out++) {
		int n = k - k0 < Q_BLOCK ? k - k0 : Q_BLOCK;
		float largest = 0.0f;
		for (int i = 0; i < n; i++) largest = fabsf(x[k0 + i]) > largest ? fabsf(x[k0 + i]) : largest;
		float inverse = largest > Q8_TINY ? 127.0f / largest : 0.0f;
		out->scale = largest > Q8_TINY ? largest / 127.0f : 0.0f;
		out->sum[0] = out->sum[1] = 0;
		for (int i = 0; i < Q_BLOCK; i++) {
			float rounded = i < n ? x[k0 + i] * inverse + EXACT_ROUND : EXACT_ROUND;
			out->q[i] = (int8_t)(float_bits(rounded) & 0xff);
			int16_t *sum = &out->sum[i / (Q_BLOCK / 2)];
			*sum = (int16_t)(*sum + out->q[i]);
		}
	}
}

static void rmsnorm(float *y, const float *x, const uint16_t *weight, int n, float eps)
{
	float lane[LANES] = {0};
	for (int i = 0; i < n; i++) lane[i % LANES] = fmaf(x[i], x[i], lane[i % LANES]);
	float scale = 1.0f / sqrtf(lanes_sum(lane) / (float)n + eps);
	for (int i = 0; i < n; i++) y[i] = x[i] * scale * bf16_to_f32(weight[i]);
}

static void silu_mul(float *y, const float *gate, const float *up, int n)
{
	for (int i = 0; i < n; i++) y[i] = exact_silu(gate[i]) * up[i];
}

static void add(float *y, const float *x, int n)
{
	for (int i = 0; i < n; i++) y[i] += x[i];
}

static void rope(float *x, const float *cos, const float *sin, int head_dim)
{
	int half = head_dim / 2;
	for (int i = 0; i < half; i++) {
		float a = x[i], b = x[i + half];
		x[i] = a * cos[i] - b * sin[i];
		x[i + half] = b * cos[i] + a * sin[i];
	}
}

/* Element i of a page. */
static float kv_value(const void *page, size_t i, enum kv_type type)
{
	return type == KV_F32 ? ((const float *)page)[i] : bf16_to_f32(((const uint16_t *)page)[i]);
}

static void attend_head(float *out, const float *q, int head_dim, const void *const *pages, size_t k_offset,
                        size_t v_offset, int n_positions, float scale, float *scores, enum kv_type type)
{
	float max = -INFINITY;
	for (int p = 0; p < n_positions; p++) {
		size_t key = k_offset + (size_t)(p % KV_TILE);
		float chain = 0.0f;
		for (int d = 0; d < head_dim; d++)
			chain = fmaf(q[d], kv_value(pages[p / KV_TILE], key + (size_t)d * KV_TILE, type), chain);
		scores[p] = chain * scale;
		max = scores[p] > max ? scores[p] : max;
	}
	float lane[LANES] = {0};
	for (int p = 0; p < n_positions; p++) {
		scores[p] = exact_exp(scores[p] - max);
		lane[p % LANES] += scores[p];
	}
	float sum = lanes_sum(lane);
	for (int d = 0; d < head_dim; d++) {
		float chain = 0.0f;
		for (int p = 0; p < n_positions; p++) {
			size_t value = v_offset + (size_t)(p % KV_TILE) * (size_t)head_dim + (size_t)d;
			chain = fmaf(scores[p], kv_value(pages[p / KV_TILE], value, type), chain);
		}
		out[d] = chain / sum;
	}
}

#define ATTEND(kv, type) \
	ATTEND_FUNCTION(attend_##kv##_scalar) \
	{ \
		size_t stride = (size_t)((n_positions + KV_TILE - 1) / KV_TILE * KV_TILE), d = (size_t)head_dim; \
		for (size_t h = 0; h < (size_t)n_q; h++) \
			attend_head(out + h * d, q + h * d, head_dim, pages, k_offset, v_offset, n_positions, scale, \
			            scores + h * stride, type); \
	}

ATTEND(bf16, KV_BF16)
ATTEND(f32, KV_F32)

static void argmax(const float *x, int n, float *max, int *index)
{
	assert(n >= 1);
	*max = -INFINITY;
	*index = 0;
	for (int i = 0; i < n; i++) {
		if (x[i] > *max) {
			*max = x[i];
			*index = i;
		}
	}
}

static float sum_exp(const float *x, int n, float max, float inv_t)
{
	float lane[LANES] = {0};
	for (int i = 0; i < n; i++) lane[i % LANES] += exact_exp((x[i] - max) * inv_t);
	return lanes_sum(lane);
}

const struct kernels kernels_scalar = {
	.name = "scalar",
	.matmul_bf16 = matmul_bf16,
	.matmul_q8 = matmul_q8_scalar,
	.matmul_q32 = matmul_q32_scalar,
	.quantize = quantize_scalar,
	.quantize_q8 = quantize_q8,
	.rmsnorm = rmsnorm,
	.silu_mul = silu_mul,
	.add = add,
	.rope = rope,
	.attend = {attend_bf16_scalar, attend_f32_scalar},
	.argmax = argmax,
	.sum_exp = sum_exp,
};
