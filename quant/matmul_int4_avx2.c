/* matmul_int4_avx2.c - INT4 weights, INT8 activations (W4A8): integer sums within a group, FP32 over groups.
 *
 * The nibbles are used as they are stored, 0..15, as the unsigned side of vpmaddubsw: a pair gives at
 * most 2 * 15 * 127 = 3810, so the 8 steps of a group add up in 16 bits (30480) and widen once.  The
 * offset of 8 is taken off at the end of the group by 8 times the sum of its activations.
 */
#include <string.h>

#include "quant/avx2.h"
#include "quant/format_int4.h"

enum { TILE_ROWS = 4, AHEAD_BYTES = 8 * sizeof(struct int4_block) };

_Static_assert(INT4_STEPS * 2 * 15 * 127 <= INT16_MAX, "a group's sum must fit 16 bits");

/* R rows, one panel, all of K. */
INLINE void tile(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride,
                 const struct int4_block *w, int blocks, const int R)
{
	const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
	__m256 out[TILE_ROWS][2];
	for (int r = 0; r < R; r++) out[r][0] = out[r][1] = _mm256_setzero_ps();

	for (int b = 0; b < blocks; b++) {
		__m256i acc[TILE_ROWS][2];
		for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
		for (int s = 0; s < INT4_STEPS; s++) {
			if (s % 2 == 0) prefetch(w[b].q[s], AHEAD_BYTES);
			__m256i both = _mm256_loadu_si256((const __m256i *)(const void *)w[b].q[s]);
			__m256i low = _mm256_and_si256(both, nibble);
			__m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
			for (int r = 0; r < R; r++) {
				int32_t four;
				memcpy(&four, x[(size_t)r * x_stride + (size_t)b].q + s * INT4_STEP, sizeof four);
				__m256i in = _mm256_set1_epi32(four);
				acc[r][0] = _mm256_add_epi16(acc[r][0], _mm256_maddubs_epi16(low, in));
				acc[r][1] = _mm256_add_epi16(acc[r][1], _mm256_maddubs_epi16(high, in));
			}
		}
		__m256 w_scale[2] = {widen8(w[b].scale), widen8(w[b].scale + 8)};
		for (int r = 0; r < R; r++) {
			const struct q8_block *in = &x[(size_t)r * x_stride + (size_t)b];
			__m256i offset = _mm256_set1_epi32(INT4_ZERO * in->sum);
			__m256 x_scale = _mm256_broadcast_ss(&in->scale);
			for (int h = 0; h < 2; h++) {
				__m256i dot = _mm256_sub_epi32(_mm256_madd_epi16(acc[r][h], ones), offset);
				__m256 scale = _mm256_mul_ps(x_scale, w_scale[h]);
				out[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, out[r][h]);
			}
		}
	}

	for (int r = 0; r < R; r++)
		for (int h = 0; h < 2; h++) _mm256_storeu_ps(y + (size_t)r * y_stride + 8 * h, out[r][h]);
}

void matmul_int4_avx2(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
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
			case 4: tile(out, y_stride, in, x_stride, weight, blocks, 4); break;
			case 3: tile(out, y_stride, in, x_stride, weight, blocks, 3); break;
			case 2: tile(out, y_stride, in, x_stride, weight, blocks, 2); break;
			default: tile(out, y_stride, in, x_stride, weight, blocks, 1); break;
			}
			row += rows;
		}
	}
}
