/* formats_scalar.c - the definition of quantized products, one weight at a time.
 *
 * Never optimised: every vector table equals it bit for bit.
 */
#include <math.h>
#include <string.h>

#include "quant/bf16.h"
#include "quant/exact_math.h"
#include "quant/kernels_tables.h"

/* dot of one group, or of the half of a block, with the integers of the weights. */
static int32_t group_dot(const struct qmatrix *w, const struct q8_block *x, int output, int first, int n)
{
	const struct format_info *info = format_info(w->format);
	int32_t dot = 0;
	for (int i = 0; i < n; i++) {
		int code = format_code(w, output, first + i);
		dot += x->q[(first + i) % Q_BLOCK] * (info->e2m1 ? e2m1_doubled[code] : code - info->zero);
	}
	return dot;
}

static float output_q8(const struct qmatrix *w, const struct q8_block *x, int output)
{
	const struct format_info *info = format_info(w->format);
	int step = info->group < Q_BLOCK ? info->group : Q_BLOCK, n = (w->k + Q_BLOCK - 1) / Q_BLOCK * Q_BLOCK;
	float y = 0.0f;
	for (int i = 0; i < n; i += step) {
		const struct q8_block *in = &x[i / Q_BLOCK];
		float scale = format_scale(w, output, i / info->group);
		y = fmaf((float)group_dot(w, in, output, i, step), in->scale * scale, y);
		if (info->min)
			y = fmaf((float)(in->sum[0] + in->sum[1]), in->scale * format_min(w, output, i / info->group), y);
	}
	return y;
}

void matmul_q8_scalar(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
                      const struct qmatrix *w, int panel_begin, int panel_end)
{
	for (int row = 0; row < m; row++)
		for (int o = panel_begin * PANEL; o < panel_end * PANEL; o++)
			y[(size_t)row * y_stride + (size_t)o] = output_q8(w, x + (size_t)row * x_stride, o);
}

static float output_q32(const struct qmatrix *w, const float *x, int output)
{
	float sum = 0.0f;
	for (int k0 = 0; k0 < w->k; k0 += K_BLOCK) {
		int k1 = w->k - k0 < K_BLOCK ? w->k : k0 + K_BLOCK;
		float chain = 0.0f;
		for (int i = k0; i < k1; i++) chain = fmaf(x[i], format_weight(w, output, i), chain);
		sum = k0 == 0 ? chain : sum + chain;
	}
	return sum;
}

void matmul_q32_scalar(float *y, size_t y_stride, const float *x, size_t x_stride, int m,
                       const struct qmatrix *w, int panel_begin, int panel_end)
{
	for (int row = 0; row < m; row++)
		for (int o = panel_begin * PANEL; o < panel_end * PANEL; o++)
			y[(size_t)row * y_stride + (size_t)o] = output_q32(w, x + (size_t)row * x_stride, o);
}
