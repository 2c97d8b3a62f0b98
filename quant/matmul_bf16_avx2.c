/* matmul_bf16_avx2.c - BF16 weights, FP32 arithmetic, one exact chain per output.
 *
 * Few rows (M <= FEW_ROWS) stream the weights once, some panels at a time: bound by memory, so what
 * matters is enough chains in flight to hide their latency, and prefetching across panels.  Many rows are
 * bound by arithmetic: rows of one K block are copied side by side (rows a power of two apart would share
 * cache sets), then every panel's K block of weights meets all of them while it is in L1, and the next
 * panel's is fetched meanwhile, evenly over the rows.
 *
 * A tile is R rows by H halves of a panel, R H accumulators, each one chain of kernels.h; how rows are
 * shared out over tiles changes no bit.  16 registers hold 6 rows by 2 halves or 4 by 3: whichever there
 * are fewer of, inputs or halves of weights, is held, and the others pass by.
 */
#include <string.h>

#include "quant/avx2.h"

enum {
	FEW_ROWS = 6,
	TILE_ROWS = 6,
	TILE_HALVES = 8,
	TRIPLE = 3,      /* panels that tiles of 3 and 4 rows share out as two times 3 halves */
	CHUNK_ROWS = 96, /* rows copied at a time: 102 KiB, within L2 */
	COPY_STRIDE = K_BLOCK + 16,
	AHEAD_BYTES = 4096 /* prefetch distance of few rows, all panels together */
};

/* The first (j = 0) or second input of 8 outputs. */
INLINE __m256 widen_pair(const uint16_t *w, int j)
{
	__m256i pair = _mm256_loadu_si256((const __m256i *)(const void *)w);
	return _mm256_castsi256_ps(j ? _mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000))
	                             : _mm256_slli_epi32(pair, 16));
}

/* Half h, counted from half `from` of the panel at w. */
INLINE const uint16_t *half_at(const uint16_t *w, size_t w_stride, int from, int h)
{
	return w + (size_t)((from + h) / 2) * w_stride + (from + h) % 2 * PANEL;
}

/* acc += x[0..R) * w for input j of a pair. */
INLINE void tile_step(__m256 acc[TILE_ROWS][TILE_HALVES], const float *x, size_t x_stride, const uint16_t *w,
                      size_t w_stride, int j, const int R, const int from, const int H)
{
	if (R < H) {
		__m256 in[TILE_ROWS];
		UNROLL for (int r = 0; r < R; r++) in[r] = _mm256_broadcast_ss(x + (size_t)r * x_stride);
		UNROLL for (int h = 0; h < H; h++) {
			__m256 half = widen_pair(half_at(w, w_stride, from, h), j);
			UNROLL for (int r = 0; r < R; r++) fma8(&acc[r][h], in[r], half);
		}
		return;
	}
	__m256 half[TILE_HALVES];
	UNROLL for (int h = 0; h < H; h++) half[h] = widen_pair(half_at(w, w_stride, from, h), j);
	UNROLL for (int r = 0; r < R; r++) {
		__m256 in = _mm256_broadcast_ss(x + (size_t)r * x_stride);
		UNROLL for (int h = 0; h < H; h++) fma8(&acc[r][h], in, half[h]);
	}
}

/* y (+)= the chains of inputs [0, n) for R rows and H halves of panels, the first of them half `from` of
 * the panel at w; panels are w_stride elements apart.  y: the first panel's outputs. */
INLINE void tile(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w,
                 size_t w_stride, int n, struct ahead ahead, bool first, bool copied, const int R, const int from,
                 const int H)
{
	__m256 acc[TILE_ROWS][TILE_HALVES];
	UNROLL for (int r = 0; r < R; r++) UNROLL for (int h = 0; h < H; h++) acc[r][h] = _mm256_setzero_ps();

	if (copied && !first) UNROLL for (int r = 0; r < R; r++) prefetch_lines(y + (size_t)r * y_stride, (from + H + 1) / 2);
	int i = 0;
	for (; i + 2 <= n; i += 2, w += 2 * PANEL, ahead.at += ahead.step) {
		if (i == ahead.cut) ahead.at += ahead.jump;
		/* A panel of which only the second half is used was fetched for the first. */
		UNROLL for (int p = from; p < (from + H + 1) / 2; p++)
			prefetch((const void *)ahead.at, (size_t)p * w_stride * sizeof *w);
		tile_step(acc, x + i, x_stride, w, w_stride, 0, R, from, H);
		tile_step(acc, x + i + 1, x_stride, w, w_stride, 1, R, from, H);
	}
	if (i < n) tile_step(acc, x + i, x_stride, w, w_stride, 0, R, from, H);

	UNROLL for (int r = 0; r < R; r++) UNROLL for (int h = 0; h < H; h++) {
		float *out = y + (size_t)r * y_stride + 8 * (from + h);
		_mm256_storeu_ps(out, first ? acc[r][h] : _mm256_add_ps(_mm256_loadu_ps(out), acc[r][h]));
	}
}

/* All K blocks of P panels for R <= FEW_ROWS rows. */
INLINE void stream(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w, int k,
                   const int R, const int P)
{
	for (int k0 = 0; k0 < k; k0 += K_BLOCK)
		tile(y, y_stride, x + k0, x_stride, w + (size_t)k0 * PANEL, packed_panel_elements(k),
		     k - k0 < K_BLOCK ? k - k0 : K_BLOCK, ahead_stream(w, k, k0, AHEAD_BYTES, P), k0 == 0, false, R, 0, 2 * P);
}

#define FEW(R, P) \
	static void few_##R(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w, \
	                    int k, int panel, int panel_end) \
	{ \
		size_t panel_size = packed_panel_elements(k); \
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

typedef void few_fn(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w, int k,
                    int panel, int panel_end);
static few_fn *const few[FEW_ROWS + 1] = {NULL, few_1, few_2, few_3, few_4, few_5, few_6};

/* A K block of some panels and where it goes. */
struct block {
	float *y;
	const uint16_t *w;
	size_t y_stride, panel_size;
	int n;
	bool first;
	struct ahead ahead;
};

/* R rows, from x with COPY_STRIDE, of panel p of the block. */
#define TILE(R) \
	static void tile_##R(const struct block *b, float *y, const float *x, int p) \
	{ \
		struct ahead ahead = b->ahead; \
		ahead.at += (size_t)p * b->panel_size * sizeof *b->w; \
		tile(y + p * PANEL, b->y_stride, x, COPY_STRIDE, b->w + (size_t)p * b->panel_size, 0, b->n, ahead, \
		     b->first, true, R, 0, 2); \
	}

/* R rows of TRIPLE panels. */
#define TILE_TRIPLE(R) \
	static void tile_triple_##R(const struct block *b, float *y, const float *x) \
	{ \
		struct ahead ahead = b->ahead; \
		tile(y, b->y_stride, x, COPY_STRIDE, b->w, b->panel_size, b->n, ahead, b->first, true, R, 0, 3); \
		ahead.at += b->panel_size * sizeof *b->w; \
		tile(y + PANEL, b->y_stride, x, COPY_STRIDE, b->w + b->panel_size, b->panel_size, b->n, ahead, b->first, \
		     true, R, 1, 3); \
	}

TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE_TRIPLE(3)
TILE_TRIPLE(4)

static void (*const tiles[])(const struct block *b, float *y, const float *x, int p) = {
	[3] = tile_3, [4] = tile_4, [5] = tile_5, [6] = tile_6};

/* The K block of some panels for m rows that lie COPY_STRIDE apart. */
static void copied_rows(struct block *b, const float *x, int m, int n_panels)
{
	for (int row = 0; row < m;) {
		int rows = group_rows(m - row, TILE_ROWS);
		float *y = b->y + (size_t)row * b->y_stride;
		const float *in = x + (size_t)row * COPY_STRIDE;
		if (n_panels == TRIPLE && rows == 3)
			tile_triple_3(b, y, in);
		else if (n_panels == TRIPLE && rows == 4)
			tile_triple_4(b, y, in);
		else
			for (int p = 0; p < n_panels; p++) tiles[rows](b, y, in, p);
		b->ahead.at += (size_t)(b->n / 2) * b->ahead.step;
		row += rows;
	}
}

static void many(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w, int k,
                 int panel_begin, int panel_end)
{
	float copy[CHUNK_ROWS * COPY_STRIDE];
	size_t panel_size = packed_panel_elements(k), step = 2 * PANEL * sizeof *w / (size_t)row_groups(m, TILE_ROWS);
	int group = m / row_groups(m, TILE_ROWS) < 5 ? TRIPLE : 1;
	for (int k0 = 0; k0 < k; k0 += K_BLOCK) {
		int n = k - k0 < K_BLOCK ? k - k0 : K_BLOCK;
		for (int r = 0; r < m; r++)
			memcpy(copy + r * COPY_STRIDE, x + (size_t)r * x_stride + k0, (size_t)n * sizeof(float));
		for (int p = panel_begin, some; p < panel_end; p += some) {
			some = p + group <= panel_end ? group : 1;
			int next = p + some < panel_end ? p + some : p;
			const uint16_t *block = w + (size_t)k0 * PANEL;
			struct block b = {y + p * PANEL, block + (size_t)p * panel_size, y_stride, panel_size, n, k0 == 0,
			                  {(uintptr_t)(block + (size_t)next * panel_size), step, 0, -1}};
			copied_rows(&b, copy, m, some);
		}
	}
}

void matmul_bf16_avx2(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
                      int k, int panel_begin, int panel_end)
{
	if (m > 0 && m <= FEW_ROWS) {
		few[m](y, y_stride, x, x_stride, w, k, panel_begin, panel_end);
		return;
	}
	for (int row = 0; row < m;) {
		int rows = group_rows(m - row, CHUNK_ROWS);
		many(y + (size_t)row * y_stride, y_stride, x + (size_t)row * x_stride, x_stride, rows, w, k,
		     panel_begin, panel_end);
		row += rows;
	}
}
