/* matmul_q32_avx512.c - quantized weights, FP32 activations: a panel in one register. */
#include "quant/matmul_q_avx512.h"

enum { FEW_ROWS = 6, TILE_ROWS = 12, MANY_PANELS = 2 }; /* 24 accumulators, 2 of weights, 1 of x */

#include "quant/matmul_q32.h"

INLINE int few_panels(int rows) { return rows <= 2 ? 4 : 2; }

INLINE void unpack(float (*out)[PANEL], const struct panel *w, int b, const struct traits t)
{
	const __m512i steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m512i e2m1 = _mm512_setr_epi32(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
	const __m512i zero = _mm512_set1_epi32(zero_of(t));
	const __m512 values = _mm512_cvtepi32_ps(t.e2m1 ? e2m1 : _mm512_sub_epi32(steps, zero)); /* of 4-bit codes */
	Q_UNROLL for (int s = 0; s < Q_STEPS; s++) {
		size_t group = group_at(b, s * dots_of(t) / Q_STEPS, t);
		__m512 scale = scale_load(w, group, t);
		__m512i in = t.low_bits ? step_load(w, b, s, ALL_BITS, t) : load512(w->q + b * Q_BYTES + s / 2 * 64);
		Q_UNROLL for (int i = 0; i < 4; i++) {
			__m512i code = _mm512_srli_epi32(in, (unsigned)(8 * i + (t.low_bits ? 0 : 4 * (s % 2))));
			__m512 v = _mm512_permutexvar_ps(code, values); /* by the lowest 4 bits */
			if (t.low_bits) {
				code = _mm512_and_si512(code, _mm512_set1_epi32(255));
				v = _mm512_cvtepi32_ps(_mm512_sub_epi32(code, zero));
			}
			_mm512_store_ps(out[4 * s + i], t.min ? _mm512_fmadd_ps(v, scale, widen16(w->min + group))
			                                      : _mm512_mul_ps(v, scale));
		}
	}
}

/* R rows of P panels. */
INLINE void tile(float *chain, const float *x, size_t x_stride, const weights *w, int n, bool begins, const int R,
                 const int P)
{
	__m512 acc[TILE_ROWS][PANELS_MAX];
	for (int r = 0; r < R; r++)
		for (int p = 0; p < P; p++)
			acc[r][p] = begins ? _mm512_setzero_ps() : _mm512_load_ps(chain + (r * P + p) * PANEL);
	for (int i = 0; i < n; i++) {
		__m512 weight[PANELS_MAX];
		for (int p = 0; p < P; p++) weight[p] = _mm512_load_ps(w[p][i]);
		for (int r = 0; r < R; r++) {
			__m512 in = _mm512_set1_ps(x[(size_t)r * x_stride + (size_t)i]);
			for (int p = 0; p < P; p++) acc[r][p] = _mm512_fmadd_ps(in, weight[p], acc[r][p]);
		}
	}
	for (int r = 0; r < R; r++)
		for (int p = 0; p < P; p++) _mm512_store_ps(chain + (r * P + p) * PANEL, acc[r][p]);
}

#define TILE(R, P) \
	case R: tile(chain, x, x_stride, w, n, begins, R, P); return;

static void tiles(float *chain, const float *x, size_t x_stride, const weights *w, int n, bool begins, int rows,
                  int n_panels)
{
	if (n_panels == 1) {
		switch (rows) {
			TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(7, 1) TILE(8, 1) TILE(9, 1)
			TILE(10, 1) TILE(11, 1) TILE(12, 1)
		}
	}
	switch (rows) {
		TILE(1, 4) TILE(2, 4) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2) TILE(9, 2)
		TILE(10, 2) TILE(11, 2) TILE(12, 2)
	}
}

void matmul_q32_avx512(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const struct qmatrix *w,
                       int panel_begin, int panel_end)
{
	matmul_q32(y, y_stride, x, x_stride, m, w, panel_begin, panel_end);
}
