/* matmul_bf16_avx2.c - BF16 weights, FP32 arithmetic, one exact chain per output.
 *
 * Few rows (M <= TILE_ROWS) stream the weights once, panel by panel: bound by memory, so what matters
 * is enough panels in flight to hide the latency of the chains, and prefetching across pages.  Many
 * rows are bound by arithmetic: rows of one K block are copied side by side (rows a power of two
 * apart would share cache sets), then every panel's K block of weights meets all of them while it is
 * in L1, and the next panel's is fetched meanwhile.
 *
 * A tile is R rows by P panels, 2 R P accumulators, each one chain of kernels.h; how rows are
 * shared out over tiles changes no bit.
 */
#include <string.h>

#include "quant/avx2.h"

enum {
	TILE_ROWS = 6, /* 12 accumulators, 2 of weights, 1 of x: what 16 registers hold */
	TILE_PANELS = 4,
	CHUNK_ROWS = 96, /* rows copied at a time: 102 KiB, within L2 */
	COPY_STRIDE = K_BLOCK + 16,
	AHEAD_BYTES = 4096 /* prefetch distance of few rows, all panels together */
};

/* acc += x[0..R) * w for one input.  One panel: both halves of the weights are held and the inputs
 * pass by.  More panels: one half is held and the inputs stay, which saves the registers that R
 * inputs and 2 P halves would need. */
INLINE void tile_step(__m256 acc[TILE_ROWS][TILE_PANELS][2], const float *x, size_t x_stride,
                      const uint16_t *w, size_t w_stride, const int R, const int P)
{
	if (P == 1) {
		__m256 low = widen8(w), high = widen8(w + 8);
		for (int r = 0; r < R; r++) {
			__m256 in = _mm256_broadcast_ss(x + (size_t)r * x_stride);
			acc[r][0][0] = _mm256_fmadd_ps(in, low, acc[r][0][0]);
			acc[r][0][1] = _mm256_fmadd_ps(in, high, acc[r][0][1]);
		}
		return;
	}
	for (int h = 0; h < 2 * P; h++) {
		__m256 half = widen8(w + (size_t)(h / 2) * w_stride + 8 * (h % 2));
		for (int r = 0; r < R; r++) {
			__m256 in = _mm256_broadcast_ss(x + (size_t)r * x_stride);
			acc[r][h / 2][h % 2] = _mm256_fmadd_ps(in, half, acc[r][h / 2][h % 2]);
		}
	}
}

/* y (+)= the chains of inputs [0, n) for R rows and P panels.  w: this K block of the first panel;
 * panels are w_stride elements apart; what lies `ahead` bytes after each weight is prefetched. */
INLINE void tile(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w,
                 size_t w_stride, int n, size_t ahead, bool first, const int R, const int P)
{
	__m256 acc[TILE_ROWS][TILE_PANELS][2];
	for (int r = 0; r < R; r++)
		for (int p = 0; p < P; p++) acc[r][p][0] = acc[r][p][1] = _mm256_setzero_ps();

	for (int i = 0; i < n; i++) {
		const uint16_t *weight = w + (size_t)i * PANEL;
		for (int p = 0; p < P; p++) prefetch(weight + (size_t)p * w_stride, ahead);
		tile_step(acc, x + i, x_stride, weight, w_stride, R, P);
	}

	for (int r = 0; r < R; r++) {
		for (int h = 0; h < 2 * P; h++) {
			float *out = y + (size_t)r * y_stride + 8 * h;
			__m256 sum = acc[r][h / 2][h % 2];
			_mm256_storeu_ps(out, first ? sum : _mm256_add_ps(_mm256_loadu_ps(out), sum));
		}
	}
}

/* All K blocks of P panels for R <= TILE_ROWS rows. */
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

FEW(1, 4)
FEW(2, 3)
FEW(3, 2)
FEW(4, 1)
FEW(5, 1)
FEW(6, 1)

/* One panel, one K block, rows that lie COPY_STRIDE apart. */
static void copied_rows(float *y, size_t y_stride, const float *x, int m, const uint16_t *w, int n,
                        size_t ahead, bool first)
{
	for (int row = 0; row < m;) {
		int rows = group_rows(m - row, TILE_ROWS);
		float *out = y + (size_t)row * y_stride;
		const float *in = x + (size_t)row * COPY_STRIDE;
		switch (rows) {
		case 6: tile(out, y_stride, in, COPY_STRIDE, w, 0, n, ahead, first, 6, 1); break;
		case 5: tile(out, y_stride, in, COPY_STRIDE, w, 0, n, ahead, first, 5, 1); break;
		case 4: tile(out, y_stride, in, COPY_STRIDE, w, 0, n, ahead, first, 4, 1); break;
		default: tile(out, y_stride, in, COPY_STRIDE, w, 0, n, ahead, first, 3, 1); break;
		}
		row += rows;
	}
}

static void many(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w, int k,
                 int panel_begin, int panel_end)
{
	float copy[CHUNK_ROWS * COPY_STRIDE];
	for (int k0 = 0; k0 < k; k0 += K_BLOCK) {
		int n = k - k0 < K_BLOCK ? k - k0 : K_BLOCK;
		for (int r = 0; r < m; r++)
			memcpy(copy + r * COPY_STRIDE, x + (size_t)r * x_stride + k0, (size_t)n * sizeof(float));
		for (int p = panel_begin; p < panel_end; p++)
			copied_rows(y + p * PANEL, y_stride, copy, m, w + ((size_t)p * (size_t)k + (size_t)k0) * PANEL, n,
			            (size_t)k * PANEL * 2, k0 == 0);
	}
}

void matmul_bf16_avx2(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
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
