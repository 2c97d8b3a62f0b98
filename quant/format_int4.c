/* format_int4.c - BF16 rows to INT4 blocks and back.
 *
 * The search for a scale is a kernel (kernels_scalar.c defines it) and gives the same bits on every
 * machine, so all ranks draft with the same weights.  Requantization follows every update of the
 * policy: tests/bench/bench_kernels.c measures it.
 */
#include "quant/format_int4.h"

#include "quant/bf16.h"

size_t int4_bytes(int n, int k)
{
	return (size_t)panels(n) * (size_t)int4_blocks(k) * sizeof(struct int4_block);
}

/* One block of weights, widened and transposed; zeros beyond the matrix. */
static void block_load(float w[INT4_GROUP][PANEL], const uint16_t *rows, int n, int k, int row, int first)
{
	for (int o = 0; o < PANEL; o++) {
		int inputs = row + o >= n ? 0 : k - first < INT4_GROUP ? k - first : INT4_GROUP;
		const uint16_t *from = rows + (size_t)(row + o) * (size_t)k + (size_t)first;
		for (int i = 0; i < inputs; i++) w[i][o] = bf16_to_f32(from[i]);
		for (int i = inputs; i < INT4_GROUP; i++) w[i][o] = 0.0f;
	}
}

void int4_quantize(struct int4_block *dst, const uint16_t *rows, int n, int k, int panel_begin, int panel_end)
{
	const struct kernels *kernels = kernels_best();
	int blocks = int4_blocks(k);
	float w[INT4_GROUP][PANEL];
	for (int p = panel_begin; p < panel_end; p++) {
		for (int b = 0; b < blocks; b++) {
			block_load(w, rows, n, k, p * PANEL, b * INT4_GROUP);
			kernels->int4_quantize_block(&dst[(size_t)p * (size_t)blocks + (size_t)b],
			                             (const float(*)[PANEL])w);
		}
	}
}

void int4_dequantize(float *out, const struct int4_block *src, int n, int k)
{
	for (int o = 0; o < n; o++) {
		const struct int4_block *panel = src + (size_t)(o / PANEL) * (size_t)int4_blocks(k);
		for (int i = 0; i < k; i++) {
			const struct int4_block *block = &panel[i / INT4_GROUP];
			float scale = bf16_to_f32(block->scale[o % PANEL]);
			out[(size_t)o * (size_t)k + (size_t)i] =
				(float)int4_get(block, o % PANEL, i % INT4_GROUP) * scale;
		}
	}
}
