/* matmul_q32.h - quantized weights, FP32 activations: the chains of kernels.h, whatever the vectors.
 *
 * SUB_INPUTS inputs of a few panels become FP32 weights in L1, by a function per format, which tiles of
 * rows then read.  Few rows take all of K of some panels, side by side so that their chains hide the
 * latency of multiply-adds, before the next ones.  Of many rows one K block is copied side by side (rows a
 * power of two apart would share cache sets) and meets all panels.
 *
 * A file defines first
 *     FEW_ROWS, TILE_ROWS and MANY_PANELS
 *     unpack(out, panel, block, traits)   32 inputs, as format_weight
 *     tiles(chain, x, x_stride, weights, n, begins, rows, n_panels)
 *                                         chain [rows][n_panels][PANEL] = that of n inputs, or its continuation
 *     few_panels(rows)                    taken side by side
 */
#ifndef QUANT_MATMUL_Q32_H
#define QUANT_MATMUL_Q32_H

#include "quant/matmul_q.h"

enum { SUB_INPUTS = 64, PANELS_MAX = 4, COPY_STRIDE = K_BLOCK + 16 };

/* Of one panel. */
typedef float weights[SUB_INPUTS][PANEL];

INLINE void unpack(float (*out)[PANEL], const struct panel *w, int b, const struct traits t);
static void tiles(float *chain, const float *x, size_t x_stride, const weights *w, int n, bool begins, int rows,
                  int n_panels);
INLINE int few_panels(int rows);

/* Blocks [k->begin, k->end) of some panels. */
typedef void unpack_fn(weights *out, const struct qmatrix *w, int panel, int n_panels, const struct span *k);

#define FORMAT(id, name, group, low_bits, min, scale, e2m1) \
	static void unpack_##id(weights *out, const struct qmatrix *w, int panel, int n_panels, const struct span *k) \
	{ \
		const struct traits t = {group, low_bits, min, scale, e2m1}; \
		for (int p = 0; p < n_panels; p++) { \
			struct panel planes = panel_of(w, panel + p, t); \
			for (int b = k->begin; b < k->end; b++) { \
				prefetch_block(&planes, k, b, t, n_panels); \
				unpack(&out[p][(b - k->begin) * Q_BLOCK], &planes, b, t); \
			} \
		} \
	}
FORMATS(FORMAT)
#undef FORMAT

static unpack_fn *const unpack_fns[N_FORMATS] = {
#define FORMAT(id, name, group, low_bits, min, scale, e2m1) unpack_##id,
	FORMATS(FORMAT)
#undef FORMAT
};

struct product {
	float *y;
	size_t y_stride;
	int m;
	const struct qmatrix *w;
	int blocks;     /* of a panel in the planes */
	bool streaming; /* all of a panel's K before the next panel */
};

/* The K block at k0 of some panels; x: its inputs, rows x_stride apart. */
static void block(const struct product *o, const float *x, size_t x_stride, int k0, int panel, int n_panels)
{
	_Alignas(64) weights w[PANELS_MAX];
	_Alignas(64) float chain[CHUNK_ROWS * 2 * PANEL];
	int k = o->w->k, k1 = k - k0 < K_BLOCK ? k : k0 + K_BLOCK, blocks = (k + Q_BLOCK - 1) / Q_BLOCK;
	struct span span = {.chunk_end = blocks, .blocks = o->blocks};
	if (!o->streaming) {
		span.chunk = k0 / Q_BLOCK;
		span.chunk_end = (k1 + Q_BLOCK - 1) / Q_BLOCK;
	}
	for (int i = k0; i < k1; i += SUB_INPUTS) {
		int n = k1 - i < SUB_INPUTS ? k1 - i : SUB_INPUTS;
		span.begin = i / Q_BLOCK;
		span.end = (i + n + Q_BLOCK - 1) / Q_BLOCK;
		unpack_fns[o->w->format](w, o->w, panel, n_panels, &span);
		for (int row = 0, rows; row < o->m; row += rows) {
			rows = group_rows(o->m - row, TILE_ROWS);
			tiles(chain + row * n_panels * PANEL, x + (size_t)row * x_stride + (i - k0), x_stride,
			      (const weights *)w, n, i == k0, rows, n_panels);
		}
	}
	for (int row = 0; row < o->m; row++) {
		float *y = o->y + (size_t)row * o->y_stride + panel * PANEL;
		const float *sum = chain + row * n_panels * PANEL;
		for (int l = 0; l < n_panels * PANEL; l++) y[l] = k0 == 0 ? sum[l] : y[l] + sum[l];
	}
}

static void few(const struct product *o, const float *x, size_t x_stride, int panel, int panel_end)
{
	for (int n; panel < panel_end; panel += n) {
		n = panel_end - panel < few_panels(o->m) ? 1 : few_panels(o->m);
		for (int k0 = 0; k0 < o->w->k; k0 += K_BLOCK) block(o, x + k0, x_stride, k0, panel, n);
	}
}

static void many(const struct product *o, const float *x, size_t x_stride, int panel_begin, int panel_end)
{
	float copy[CHUNK_ROWS * COPY_STRIDE];
	for (int k0 = 0; k0 < o->w->k; k0 += K_BLOCK) {
		int inputs = o->w->k - k0 < K_BLOCK ? o->w->k - k0 : K_BLOCK;
		for (int r = 0; r < o->m; r++)
			memcpy(copy + r * COPY_STRIDE, x + (size_t)r * x_stride + k0, (size_t)inputs * sizeof(float));
		for (int panel = panel_begin, n; panel < panel_end; panel += n) {
			n = panel_end - panel < MANY_PANELS ? 1 : MANY_PANELS;
			block(o, copy, COPY_STRIDE, k0, panel, n);
		}
	}
}

INLINE void matmul_q32(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const struct qmatrix *w,
                       int panel_begin, int panel_end)
{
	struct product o = {.y_stride = y_stride, .w = w, .blocks = format_blocks(format_info(w->format), w->k)};
	for (int row = 0; row < m; row += o.m) {
		o.m = group_rows(m - row, CHUNK_ROWS);
		o.y = y + (size_t)row * y_stride;
		o.streaming = o.m <= FEW_ROWS;
		(o.streaming ? few : many)(&o, x + (size_t)row * x_stride, x_stride, panel_begin, panel_end);
	}
}

#endif
