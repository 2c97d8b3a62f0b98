/* matmul_int4_avx512.c - INT4 weights, INT8 activations (W4A8), a panel in one register.
 *
 * As matmul_int4_avx2.c: unsigned nibbles, 16-bit sums within a group, the offset taken off at its end.
 */
#include <string.h>

#include "quant/avx512.h"
#include "quant/format_int4.h"

enum { TILE_ROWS = 8, AHEAD_BYTES = 8 * sizeof(struct int4_block) };

/* The nibbles of a step: outputs 0..7 in the lower half, 8..15 in the upper. */
INLINE __m512i step_load(const uint8_t *q)
{
	__m256i both = _mm256_loadu_si256((const __m256i *)(const void *)q);
	__m512i wide = _mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1);
	return _mm512_and_si512(wide, _mm512_set1_epi8(15));
}

/* R rows, one panel, all of K. */
INLINE void tile(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride,
                 const struct int4_block *w, int blocks, const int R)
{
	__m512 out[TILE_ROWS];
	for (int r = 0; r < R; r++) out[r] = _mm512_setzero_ps();

	for (int b = 0; b < blocks; b++) {
		__m512i acc[TILE_ROWS];
		for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_si512();
		for (int s = 0; s < INT4_STEPS; s++) {
			if (s % 2 == 0) prefetch(w[b].q[s], AHEAD_BYTES);
			__m512i weight = step_load(w[b].q[s]);
			for (int r = 0; r < R; r++) {
				int32_t four;
				memcpy(&four, x[(size_t)r * x_stride + (size_t)b].q + s * INT4_STEP, sizeof four);
				acc[r] = _mm512_add_epi16(acc[r], _mm512_maddubs_epi16(weight, _mm512_set1_epi32(four)));
			}
		}
		__m512 w_scale = widen16(w[b].scale);
		for (int r = 0; r < R; r++) {
			const struct q8_block *in = &x[(size_t)r * x_stride + (size_t)b];
			__m512i offset = _mm512_set1_epi32(INT4_ZERO * in->sum);
			__m512i dot = _mm512_sub_epi32(_mm512_madd_epi16(acc[r], _mm512_set1_epi16(1)), offset);
			__m512 scale = _mm512_mul_ps(_mm512_set1_ps(in->scale), w_scale);
			out[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, out[r]);
		}
	}

	for (int r = 0; r < R; r++) _mm512_storeu_ps(y + (size_t)r * y_stride, out[r]);
}

void matmul_int4_avx512(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
                        const struct int4_block *w, int k, int panel_begin, int panel_end)
{
	int blocks = int4_blocks(k);
	for (int p = panel_begin; p < panel_end; p++) {
		const struct int4_block *weight = w + (size_t)p * (size_t)blocks;
		for (int row = 0; row < m;) {
			int rows = group_rows(m - row, TILE_ROWS);
			float *out = y + (size_t)row * y_stride + p * PANEL;
			const struct q8_block *in = x + (size_t)row * x_stride;
			switch (rows) {
			case 8: tile(out, y_stride, in, x_stride, weight, blocks, 8); break;
			case 7: tile(out, y_stride, in, x_stride, weight, blocks, 7); break;
			case 6: tile(out, y_stride, in, x_stride, weight, blocks, 6); break;
			case 5: tile(out, y_stride, in, x_stride, weight, blocks, 5); break;
			case 4: tile(out, y_stride, in, x_stride, weight, blocks, 4); break;
			case 3: tile(out, y_stride, in, x_stride, weight, blocks, 3); break;
			case 2: tile(out, y_stride, in, x_stride, weight, blocks, 2); break;
			default: tile(out, y_stride, in, x_stride, weight, blocks, 1); break;
			}
			row += rows;
		}
	}
}
