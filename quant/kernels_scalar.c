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
#include "quant/format_int4.h"
#include "quant/kernels_tables.h"

static void matmul_bf16(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
                        int k, int panel_begin, int panel_end)
{
	for (int row = 0; row < m; row++) {
		for (int o = panel_begin * PANEL; o < panel_end * PANEL; o++) {
			const float *in = x + (size_t)row * x_stride;
			const uint16_t *weight = w + (size_t)(o / PANEL) * (size_t)k * PANEL + o % PANEL;
			float sum = 0.0f;
			for (int k0 = 0; k0 < k; k0 += K_BLOCK) {
				int k1 = k - k0 < K_BLOCK ? k : k0 + K_BLOCK;
				float chain = 0.0f;
				for (int i = k0; i < k1; i++)
					chain = fmaf(in[i], bf16_to_f32(weight[(size_t)i * PANEL]), chain);
				sum = k0 == 0 ? chain : sum + chain;
			}
			y[(size_t)row * y_stride + (size_t)o] = sum;
		}
	}
}

static void matmul_int4(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
                        const struct int4_block *w, int k, int panel_begin, int panel_end)
{
	int blocks = int4_blocks(k);
	for (int row = 0; row < m; row++) {
		for (int o = panel_begin * PANEL; o < panel_end * PANEL; o++) {
			const struct q8_block *in = x + (size_t)row * x_stride;
			const struct int4_block *weight = w + (size_t)(o / PANEL) * (size_t)blocks;
			float sum = 0.0f;
			for (int b = 0; b < blocks; b++) {
				int32_t dot = 0;
				for (int i = 0; i < INT4_GROUP; i++) dot += in[b].q[i] * int4_get(&weight[b], o % PANEL, i);
				float scale = in[b].scale * bf16_to_f32(weight[b].scale[o % PANEL]);
				sum = fmaf((float)dot, scale, sum);
			}
			y[(size_t)row * y_stride + (size_t)o] = sum;
		}
	}
}

static void quantize_q8(struct q8_block *out, const float *x, int k)
{
	for (int k0 = 0; k0 < k; k0 += INT4_GROUP, out++) {
		int n = k - k0 < INT4_GROUP ? k - k0 : INT4_GROUP;
		float largest = 0.0f;
		for (int i = 0; i < n; i++) largest = fabsf(x[k0 + i]) > largest ? fabsf(x[k0 + i]) : largest;
		float inverse = largest > Q8_TINY ? 127.0f / largest : 0.0f;
		out->scale = largest > Q8_TINY ? largest / 127.0f : 0.0f;
		out->sum = 0;
		for (int i = 0; i < INT4_GROUP; i++) {
			float rounded = i < n ? x[k0 + i] * inverse + EXACT_ROUND : EXACT_ROUND;
			out->q[i] = (int8_t)(float_bits(rounded) & 0xff);
			out->sum += out->q[i];
		}
	}
}

static float int4_level(float w, float inverse)
{
	float q = w * inverse + EXACT_ROUND - EXACT_ROUND;
	q = q < INT4_MAX ? q : INT4_MAX;
	return q > INT4_MIN ? q : INT4_MIN;
}

static float int4_error(const float w[INT4_GROUP], float scale)
{
	float sum = 0.0f;
	for (int i = 0; i < INT4_GROUP; i++) {
		float d = fmaf(-int4_level(w[i], 1.0f / scale), scale, w[i]);
		sum = fmaf(d, d, sum);
	}
	return sum;
}

static float int4_fitted_scale(const float w[INT4_GROUP], float scale)
{
	float wq = 0.0f, qq = 0.0f;
	for (int i = 0; i < INT4_GROUP; i++) {
		float q = int4_level(w[i], 1.0f / scale);
		wq = fmaf(w[i], q, wq);
		qq = fmaf(q, q, qq);
	}
	return bf16_to_f32(bf16_from_f32(wq / qq));
}

static float int4_searched_scale(const float w[INT4_GROUP])
{
	static const float levels[INT4_N_LEVELS] = {INT4_LEVELS};
	float largest = 0.0f, best = 0.0f, least = INFINITY;
	for (int i = 0; i < INT4_GROUP; i++) largest = fabsf(w[i]) > fabsf(largest) ? w[i] : largest;
	if (fabsf(largest) < Q8_TINY) return 0.0f;
	for (int c = 0; c <= INT4_N_LEVELS; c++) {
		float scale = c < INT4_N_LEVELS ? bf16_to_f32(bf16_from_f32(largest / levels[c]))
		                                : int4_fitted_scale(w, best);
		float error = int4_error(w, scale);
		best = error < least ? scale : best;
		least = error < least ? error : least;
	}
	return best;
}

static void int4_quantize_block(struct int4_block *block, const float w[INT4_GROUP][PANEL])
{
	memset(block, 0, sizeof *block);
	for (int o = 0; o < PANEL; o++) {
		float column[INT4_GROUP];
		for (int i = 0; i < INT4_GROUP; i++) column[i] = w[i][o];
		float scale = int4_searched_scale(column);
		block->scale[o] = bf16_from_f32(scale);
		for (int i = 0; i < INT4_GROUP; i++) {
			int nibble = (scale != 0.0f ? (int)int4_level(column[i], 1.0f / scale) : 0) + INT4_ZERO;
			uint8_t *byte = &block->q[i / INT4_STEP][o % 8 * INT4_STEP + i % INT4_STEP];
			*byte = (uint8_t)(*byte | nibble << (o < 8 ? 0 : 4));
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

static void attend_head(float *out, const float *q, int head_dim, const uint16_t *const *pages,
                        size_t k_offset, size_t v_offset, int n_positions, float scale, float *scores)
{
	float max = -INFINITY;
	for (int p = 0; p < n_positions; p++) {
		const uint16_t *key = pages[p / KV_TILE] + k_offset + p % KV_TILE;
		float chain = 0.0f;
		for (int d = 0; d < head_dim; d++) chain = fmaf(q[d], bf16_to_f32(key[(size_t)d * KV_TILE]), chain);
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
			const uint16_t *value = pages[p / KV_TILE] + v_offset + (size_t)(p % KV_TILE) * (size_t)head_dim;
			chain = fmaf(scores[p], bf16_to_f32(value[d]), chain);
		}
		out[d] = chain / sum;
	}
}

static void attend(float *out, const float *q, int n_q, int head_dim, const uint16_t *const *pages,
                   size_t k_offset, size_t v_offset, int n_positions, float scale, float *scores)
{
	size_t stride = (size_t)((n_positions + KV_TILE - 1) / KV_TILE * KV_TILE);
	for (int h = 0; h < n_q; h++)
		attend_head(out + (size_t)h * (size_t)head_dim, q + (size_t)h * (size_t)head_dim, head_dim, pages,
		            k_offset, v_offset, n_positions, scale, scores + (size_t)h * stride);
}

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
	.matmul_int4 = matmul_int4,
	.quantize_q8 = quantize_q8,
	.int4_quantize_block = int4_quantize_block,
	.rmsnorm = rmsnorm,
	.silu_mul = silu_mul,
	.add = add,
	.rope = rope,
	.attend = attend,
	.argmax = argmax,
	.sum_exp = sum_exp,
};
