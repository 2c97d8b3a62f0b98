/* matmul_bf16_avx512.c - BF16 weights, FP32 arithmetic, one exact chain per output.
 *
 * The plan of matmul_bf16_avx2.c with a panel in one register: 32 registers hold up to 12 rows by 2
 * panels.
 */
#include <string.h>

#include "quant/avx512.h"

enum {
	FEW_ROWS = 6,
	TILE_ROWS = 12, /* by 2 panels: 24 accumulators, 2 of weights, 1 of x */
	TILE_PANELS = 8,
	CHUNK_ROWS = 96,
	COPY_STRIDE = K_BLOCK + 16,
	AHEAD_BYTES = 4096
};

/* y (+)= the chains of inputs [0, n) for R rows and P panels.  w: this K block of the first panel;
 * panels are w_stride elements apart; what lies `ahead` bytes after each weight is prefetched. */
INLINE void tile(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w,
                 size_t w_stride, int n, size_t ahead, bool first, const int R, const int P)
{
	__m512 acc[TILE_ROWS][TILE_PANELS];
	for (int r = 0; r < R; r++)
		for (int p = 0; p < P; p++) acc[r][p] = _mm512_setzero_ps();

	for (int i = 0; i < n; i++) {
		__m512 weight[TILE_PANELS];
		for (int p = 0; p < P; p++) {
			const uint16_t *at = w + (size_t)p * w_stride + (size_t)i * PANEL;
			prefetch(at, ahead);
			weight[p] = widen16(at);
		}
		for (int r = 0; r < R; r++) {
			__m512 in = _mm512_set1_ps(x[(size_t)r * x_stride + (size_t)i]);
			for (int p = 0; p < P; p++) acc[r][p] = _mm512_fmadd_ps(in, weight[p], acc[r][p]);
		}
	}

	for (int r = 0; r < R; r++) {
		for (int p = 0; p < P; p++) {
			float *out = y + (size_t)r * y_stride + p * PANEL;
			_mm512_storeu_ps(out, first ? acc[r][p] : _mm512_add_ps(_mm512_loadu_ps(out), acc[r][p]));
		}
	}
}

/* All K blocks of P panels for R <= FEW_ROWS rows. */
INLINE void stream(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w, int k,
                   const int R, const int P)
{
	for (int k0 = 0; k0 < k; k0 += K_BLOCK)
		tile(y, y_stride, x + k0, x_stride, w + (size_t)k0 * PANEL, (size_t)k * PANEL,
		     k - k0 < K_BLOCK ? k - k0 : K_BLOCK, AHEAD_BYTES / (size_t)P, k0 == 0, R, P);
}

#define FEW(R, P) \
	static void few_##R(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w, \
	                    int k, int panel, int panel_end) \
	{ \
		size_t panel_size = (size_t)k * PANEL; \
		for (; panel + (P) <= panel_end; panel += (P)) \
			stream(y + panel * PANEL, y_stride, x, x_stride, w + (size_t)panel * panel_size, k, R, P); \
		for (; panel < panel_end; panel++) \
			stream(y + panel * PANEL, y_stride, x, x_stride, w + (size_t)panel * panel_size, k, R, 1); \
	}

FEW(1, 8)
FEW(2, 4)
FEW(3, 4)
FEW(4, 2)
FEW(5, 2)
FEW(6, 2)

/* P panels, one K block, rows that lie COPY_STRIDE apart. */
INLINE void copied_rows(float *y, size_t y_stride, const float *x, int m, const uint16_t *w, size_t w_stride,
                        int n, bool first, const int P)
{
	size_t ahead = (size_t)P * w_stride * sizeof *w;
	for (int row = 0; row < m;) {
		int rows = group_rows(m - row, TILE_ROWS);
		float *out = y + (size_t)row * y_stride;
		const float *in = x + (size_t)row * COPY_STRIDE;
		switch (rows) {
		case 12: tile(out, y_stride, in, COPY_STRIDE, w, w_stride, n, ahead, first, 12, P); break;
		case 11: tile(out, y_stride, in, COPY_STRIDE, w, w_stride, n, ahead, first, 11, P); break;
		case 10: tile(out, y_stride, in, COPY_STRIDE, w, w_stride, n, ahead, first, 10, P); break;
		case 9: tile(out, y_stride, in, COPY_STRIDE, w, w_stride, n, ahead, first, 9, P); break;
		case 8: tile(out, y_stride, in, COPY_STRIDE, w, w_stride, n, ahead, first, 8, P); break;
		case 7: tile(out, y_stride, in, COPY_STRIDE, w, w_stride, n, ahead, first, 7, P); break;
		default: tile(out, y_stride, in, COPY_STRIDE, w, w_stride, n, ahead, first, 6, P); break;
		}
		row += rows;
	}
}

static void many(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w, int k,
                 int panel_begin, int panel_end)
{
	float copy[CHUNK_ROWS * COPY_STRIDE];
	size_t panel_size = (size_t)k * PANEL;
	for (int k0 = 0; k0 < k; k0 += K_BLOCK) {
		int n = k - k0 < K_BLOCK ? k - k0 : K_BLOCK, p = panel_begin;
		const uint16_t *block = w + (size_t)k0 * PANEL;
		for (int r = 0; r < m; r++)
			memcpy(copy + r * COPY_STRIDE, x + (size_t)r * x_stride + k0, (size_t)n * sizeof(float));
		for (; p + 2 <= panel_end; p += 2)
			copied_rows(y + p * PANEL, y_stride, copy, m, block + (size_t)p * panel_size, panel_size, n,
			            k0 == 0, 2);
		if (p < panel_end)
			copied_rows(y + p * PANEL, y_stride, copy, m, block + (size_t)p * panel_size, panel_size, n,
			            k0 == 0, 1);
	}
}

void matmul_bf16_avx512(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
                        int k, int panel_begin, int panel_end)
{
	switch (m) {
	case 1: few_1(y, y_stride, x, x_stride, w, k, panel_begin, panel_end); return;
	case 2: few_2(y, y_stride, x, x_stride, w, k, panel_begin, panel_end); return;
	case 3: few_3(y, y_stride, x, x_stride, w, k, panel_begin, panel_end); return;
	case 4: few_4(y, y_stride, x, x_stride, w, k, panel_begin, panel_end); return;
	case 5: few_5(y, y_stride, x, x_stride, w, k, panel_begin, panel_end); return;
	case 6: few_6(y, y_stride, x, x_stride, w, k, panel_begin, panel_end); return;
	}
	for (int row = 0; row < m;) {
		int rows = group_rows(m - row, CHUNK_ROWS);
		many(y + (size_t)row * y_stride, y_stride, x + (size_t)row * x_stride, x_stride, rows, w, k,
		     panel_begin, panel_end);
		row += rows;
	}
}
