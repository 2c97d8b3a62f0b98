/* matmul_q32_avx2.c - quantized weights, FP32 activations: half a panel in one register. */
#include "quant/matmul_q_avx2.h"

enum { FEW_ROWS = 6, TILE_ROWS = 6, MANY_PANELS = 1 }; /* 12 accumulators, 2 of weights, 1 of x */

#include "quant/matmul_q32.h"

INLINE int few_panels(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

/* Byte i of each lane, less zero. */
INLINE __m256 value_of(__m256i in, int i, int zero)
{
	in = _mm256_and_si256(_mm256_srli_epi32(in, 8 * i), _mm256_set1_epi32(255));
	return _mm256_cvtepi32_ps(_mm256_sub_epi32(in, _mm256_set1_epi32(zero)));
}

INLINE void unpack(float (*out)[PANEL], const struct panel *w, int b, const struct traits t)
{
	for (int side = 0; side < 2; side++) {
		Q_UNROLL for (int s = 0; s < Q_STEPS; s++) {
			size_t group = group_at(b, s * dots_of(t) / Q_STEPS, t) + 8 * (size_t)side;
			__m256 scale = scale_load8(w, group, t);
			__m256i in = step_load8(w, b, s, side, ALL_BITS, t);
			Q_UNROLL for (int i = 0; i < 4; i++) {
				__m256 v = value_of(in, i, zero_of(t));
				_mm256_store_ps(out[4 * s + i] + 8 * side, t.min ? _mm256_fmadd_ps(v, scale, widen8(w->min + group))
				                                                 : _mm256_mul_ps(v, scale));
			}
		}
	}
}

/* R rows of P panels. */
INLINE void tile(float *chain, const float *x, size_t x_stride, const weights *w, int n, bool begins, const int R,
                 const int P)
{
	__m256 acc[TILE_ROWS][2 * PANELS_MAX];
	for (int r = 0; r < R; r++)
		for (int c = 0; c < 2 * P; c++)
			acc[r][c] = begins ? _mm256_setzero_ps() : _mm256_load_ps(chain + r * P * PANEL + 8 * c);
	for (int i = 0; i < n; i++) {
		for (int p = 0; p < P; p++) {
			__m256 low = _mm256_load_ps(w[p][i]), high = _mm256_load_ps(w[p][i] + 8);
			for (int r = 0; r < R; r++) {
				__m256 in = _mm256_broadcast_ss(x + (size_t)r * x_stride + i);
				acc[r][2 * p] = _mm256_fmadd_ps(in, low, acc[r][2 * p]);
				acc[r][2 * p + 1] = _mm256_fmadd_ps(in, high, acc[r][2 * p + 1]);
			}
		}
	}
	for (int r = 0; r < R; r++)
		for (int c = 0; c < 2 * P; c++) _mm256_store_ps(chain + r * P * PANEL + 8 * c, acc[r][c]);
}

#define TILE(R, P) \
	case R: tile(chain, x, x_stride, w, n, begins, R, P); return;

static void tiles(float *chain, const float *x, size_t x_stride, const weights *w, int n, bool begins, int rows,
                  int n_panels)
{
	if (n_panels == 1) {
		switch (rows) { TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) }
	}
	switch (rows) { TILE(1, 4) TILE(2, 2) TILE(3, 2) }
}

void matmul_q32_avx2(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const struct qmatrix *w,
                     int panel_begin, int panel_end)
{
	matmul_q32(y, y_stride, x, x_stride, m, w, panel_begin, panel_end);
}
