/* matmul_bf16_avx512.c - BF16 weights, FP32 arithmetic, one exact chain per output.
 *
 * The plan of matmul_bf16_avx2.c with a panel in one register: 32 registers hold 24 accumulators, 24 rows
 * of one panel or 12 rows of two, and inputs come from memory with the multiply-add.
 */
#include <string.h>

#include "quant/avx512.h"

enum {
	FEW_ROWS = 8,
	PAIR_ROWS = 12, /* tiles of up to so many rows take two panels */
	TILE_ROWS = 24,
	TILE_PANELS = 8,
	CHUNK_ROWS = 96, /* rows copied at a time */
	COPY_STRIDE = K_BLOCK + 16,
	AHEAD_BYTES = 4096
};

/* acc += x[0..R) * w for the first J inputs of a pair. */
INLINE void tile_step(__m512 acc[TILE_ROWS][TILE_PANELS], const float *x, size_t x_stride, const uint16_t *w,
                      size_t w_stride, const int J, const int R, const int P)
{
	__m512 weight[2][TILE_PANELS];
	UNROLL for (int p = 0; p < P; p++) {
		__m512i pair = _mm512_loadu_si512(w + (size_t)p * w_stride);
		weight[0][p] = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
		weight[1][p] = _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000)));
	}
	UNROLL for (int j = 0; j < J; j++) UNROLL for (int r = 0; r < R; r++) {
		__m512 in = _mm512_set1_ps(x[(size_t)r * x_stride + (size_t)j]);
		UNROLL for (int p = 0; p < P; p++) acc[r][p] = _mm512_fmadd_ps(in, weight[j][p], acc[r][p]);
	}
}

/* y (+)= the chains of inputs [0, n) for R rows and P panels, which are w_stride elements apart. */
INLINE void tile(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w,
                 size_t w_stride, int n, struct ahead ahead, bool first, const int R, const int P)
{
	__m512 acc[TILE_ROWS][TILE_PANELS];
	UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < P; p++) acc[r][p] = _mm512_setzero_ps();

	if (R > FEW_ROWS && !first) UNROLL for (int r = 0; r < R; r++) prefetch_lines(y + (size_t)r * y_stride, P);
	int i = 0;
	for (; i + 2 <= n; i += 2, w += 2 * PANEL, ahead.at += ahead.step) {
		if (i == ahead.cut) ahead.at += ahead.jump;
		UNROLL for (int p = 0; p < P; p++) prefetch((const void *)ahead.at, (size_t)p * w_stride * sizeof *w);
		tile_step(acc, x + i, x_stride, w, w_stride, 2, R, P);
	}
	if (i < n) tile_step(acc, x + i, x_stride, w, w_stride, 1, R, P);

	UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < P; p++) {
		float *out = y + (size_t)r * y_stride + p * PANEL;
		_mm512_storeu_ps(out, first ? acc[r][p] : _mm512_add_ps(_mm512_loadu_ps(out), acc[r][p]));
	}
}

/* All K blocks of P panels for R <= FEW_ROWS rows. */
INLINE void stream(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w, int k,
                   const int R, const int P)
{
	for (int k0 = 0; k0 < k; k0 += K_BLOCK)
		tile(y, y_stride, x + k0, x_stride, w + (size_t)k0 * PANEL, packed_panel_elements(k),
		     k - k0 < K_BLOCK ? k - k0 : K_BLOCK, ahead_stream(w, k, k0, AHEAD_BYTES, P), k0 == 0, R, P);
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

FEW(1, 8)
FEW(2, 8)
FEW(3, 4)
FEW(4, 4)
FEW(5, 4)
FEW(6, 4)
FEW(7, 2)
FEW(8, 2)

typedef void few_fn(float *y, size_t y_stride, const float *x, size_t x_stride, const uint16_t *w, int k,
                    int panel, int panel_end);
static few_fn *const few[FEW_ROWS + 1] = {NULL, few_1, few_2, few_3, few_4, few_5, few_6, few_7, few_8};

/* A K block of the panels of a tile and where it goes. */
struct block {
	float *y;
	const uint16_t *w;
	size_t y_stride, panel_size;
	int n;
	bool first;
	struct ahead ahead;
};

typedef void tile_fn(const struct block *b, float *y, const float *x);

#define TILE(R, P) \
	static void tile_##R##_##P(const struct block *b, float *y, const float *x) \
	{ \
		tile(y, b->y_stride, x, COPY_STRIDE, b->w, b->panel_size, b->n, b->ahead, b->first, R, P); \
	}

/* Rows left over by any sharing out: at least half a tile, or FEW_ROWS + 1 where there is only one. */
#define TILES(TILE) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14) TILE(15) TILE(16) TILE(17) TILE(18) \
	TILE(19) TILE(20) TILE(21) TILE(22) TILE(23) TILE(24)

#define TILE_OF_ONE(R) TILE(R, 1)
TILES(TILE_OF_ONE)
TILE(9, 2)
TILE(10, 2)
TILE(11, 2)
TILE(12, 2)

#define ENTRY(R) [R] = tile_##R##_1,
static tile_fn *const tiles_of_one[TILE_ROWS + 1] = {TILES(ENTRY)};
static tile_fn *const tiles_of_two[PAIR_ROWS + 1] = {[9] = tile_9_2, [10] = tile_10_2, [11] = tile_11_2, [12] = tile_12_2};

static void many(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w, int k,
                 int panel_begin, int panel_end)
{
	float copy[CHUNK_ROWS * COPY_STRIDE];
	size_t panel_size = packed_panel_elements(k), step = 2 * PANEL * sizeof *w / (size_t)row_groups(m, TILE_ROWS);
	for (int k0 = 0; k0 < k; k0 += K_BLOCK) {
		int n = k - k0 < K_BLOCK ? k - k0 : K_BLOCK;
		for (int r = 0; r < m; r++)
			memcpy(copy + r * COPY_STRIDE, x + (size_t)r * x_stride + k0, (size_t)n * sizeof(float));
		for (int p = panel_begin, some; p < panel_end; p += some) {
			some = m <= PAIR_ROWS && p + 2 <= panel_end ? 2 : 1;
			int next = p + some < panel_end ? p + some : p;
			const uint16_t *block = w + (size_t)k0 * PANEL;
			struct block b = {y + p * PANEL, block + (size_t)p * panel_size, y_stride, panel_size, n, k0 == 0,
			                  {(uintptr_t)(block + (size_t)next * panel_size), step, 0, -1}};
			tile_fn *const *tiles = some == 2 ? tiles_of_two : tiles_of_one;
			for (int row = 0, rows; row < m; row += rows) {
				rows = group_rows(m - row, TILE_ROWS);
				tiles[rows](&b, b.y + (size_t)row * y_stride, copy + (size_t)row * COPY_STRIDE);
				b.ahead.at += (size_t)(n / 2) * step;
			}
		}
	}
}

void matmul_bf16_avx512(float *y, size_t y_stride, const float *x, size_t x_stride, int m, const uint16_t *w,
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
