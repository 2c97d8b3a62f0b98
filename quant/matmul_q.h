/* matmul_q.h - inside the quantized products only: the formats as constants that a compiler folds, and
 * activations laid out for tiles.
 *
 * Every kernel is one always_inline template over a format; a macro makes a function of it per format.
 */
#ifndef QUANT_MATMUL_Q_H
#define QUANT_MATMUL_Q_H

#include <string.h>

#include "quant/avx2.h"

struct traits {
	int group, low_bits;
	bool min;
	enum scale_type scale;
	bool e2m1;
};

enum {
	Q_STEPS = Q_BLOCK / 4, /* multiply-adds of 4 inputs per block */
	Q_BYTES = 256,         /* of plane q per block */
	Q_LINE = 64,           /* of plane low per block and bit */
	E2M1_ZERO = 12,        /* makes twice an E2M1 value unsigned */
	CHUNK_ROWS = 64,       /* rows that share a panel's weights while they are in L1 */
	AHEAD_BLOCKS = 8,      /* prefetch distance */
	CHUNK_LANES = 2048     /* rows times blocks that are laid out at a time: 96 KiB */
};

/* Before a loop of a constant number of rounds: it disappears. */
#define Q_UNROLL _Pragma("GCC unroll 8")

/* Around an integer sum: gcc regroups chains of them into trees, whose leaves do not fit the registers. */
#define CHAINED(sum) __asm__("" : "+x"(sum))

/* Which bits of the integers. */
enum part { ALL_BITS, LOW_BITS, HIGH_BITS };

/* Twice the E2M1 values, plus E2M1_ZERO. */
INLINE __m128i e2m1_unsigned(void)
{
	return _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
}

/* u of the weight 0: what the unsigned integers of a product are too large by. */
INLINE int zero_of(const struct traits t)
{
	return t.e2m1 ? E2M1_ZERO : t.min ? 0 : (8 << t.low_bits) + ((1 << t.low_bits) >> 1);
}

/* The largest unsigned integer of a product. */
INLINE int largest_of(const struct traits t) { return t.e2m1 ? 2 * E2M1_ZERO : (16 << t.low_bits) - 1; }

/* Dots per block: one, or one per half where groups are halves. */
INLINE int dots_of(const struct traits t) { return t.group < Q_BLOCK ? 2 : 1; }

/* Blocks of a panel in the planes. */
INLINE int blocks_of(const struct traits t, int k)
{
	int group = t.group < Q_BLOCK ? Q_BLOCK : t.group;
	return (k + group - 1) / group * (group / Q_BLOCK);
}

/* The planes from the first block of a panel on. */
struct panel {
	const uint8_t *q, *low, *scale;
	const uint16_t *min;
	float tensor_scale;
};

INLINE struct panel panel_of(const struct qmatrix *w, int index, const struct traits t)
{
	size_t block = (size_t)index * (size_t)blocks_of(t, w->k), group = block * Q_BLOCK / (size_t)t.group * PANEL;
	struct panel panel = {.q = w->q + block * Q_BYTES, .tensor_scale = w->tensor_scale};
	if (t.low_bits) panel.low = w->low + block * Q_LINE * (size_t)t.low_bits;
	panel.scale = (const uint8_t *)w->scale + group * (t.scale == SCALE_BF16 ? 2 : 1);
	if (t.min) panel.min = w->min + group;
	return panel;
}

/* Index of a block's group in the planes of scales and minimums, times PANEL. */
INLINE size_t group_at(int block, int dot, const struct traits t)
{
	return (size_t)(block * Q_BLOCK / t.group + dot) * PANEL;
}

/* Activations of some blocks, tile after tile of rows: [blocks][rows of the tile]. */
struct lanes {
	int8_t q[CHUNK_LANES][Q_BLOCK];
	struct lane {
		int32_t offset[2]; /* minus zero times the sum of the inputs of each dot */
		float scale, sum;
	} side[CHUNK_LANES];
};

/* Rows [0, R) of blocks [begin, end) from lane `at` on. */
INLINE void lanes_fill(struct lanes *out, int at, const struct q8_block *x, size_t x_stride, int R, int begin,
                       int end, const struct traits t)
{
	int zero = zero_of(t);
	for (int b = begin; b < end; b++) {
		for (int r = 0; r < R; r++, at++) {
			const struct q8_block *in = &x[(size_t)r * x_stride + (size_t)b];
			int both = in->sum[0] + in->sum[1];
			memcpy(out->q[at], in->q, Q_BLOCK);
			out->side[at] = (struct lane){{-zero * (dots_of(t) == 2 ? in->sum[0] : both), -zero * in->sum[1]},
			                              in->scale,
			                              (float)both};
		}
	}
}

/* Where a tile stands: blocks [begin, end) of the chunk [chunk, chunk_end); a panel has `blocks`. */
struct span {
	int begin, end, chunk, chunk_end, blocks;
};

/* What comes AHEAD_BLOCKS later in this chunk of a panel, or in that of the panel P after it. */
INLINE void prefetch_block(const struct panel *w, const struct span *k, int b, const struct traits t, const int P)
{
	b += AHEAD_BLOCKS;
	if (b >= k->chunk_end) b += P * k->blocks - (k->chunk_end - k->chunk);
	for (int i = 0; i < 4; i++) prefetch(w->q + 64 * i, (size_t)b * Q_BYTES);
	for (int i = 0; i < t.low_bits; i++) prefetch(w->low + 64 * i, (size_t)b * Q_LINE * (size_t)t.low_bits);
	if (t.group > Q_BLOCK && b % (t.group / Q_BLOCK)) return;
	prefetch(w->scale, group_at(b, 0, t) * (t.scale == SCALE_BF16 ? 2 : 1));
	if (t.min) prefetch(w->min, group_at(b, 0, t) * 2);
}

/* A file's whole product from its chunk(), which does all panels of one chunk of at most CHUNK_ROWS rows, its
 * FEW_ROWS in tiles of FEW_TILE_ROWS, and its TILE_ROWS: one function per format, so that all of a format's
 * numbers are constants. */
#define MATMUL_Q8(name) \
	INLINE void chunks(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m, \
	                   const struct qmatrix *w, int panel_begin, int panel_end, const struct traits t) \
	{ \
		struct lanes lanes; \
		int blocks = (w->k + Q_BLOCK - 1) / Q_BLOCK, tile_rows = m <= FEW_ROWS ? FEW_TILE_ROWS : TILE_ROWS; \
		struct span k = {.blocks = blocks_of(t, w->k)}; \
		for (; k.begin < blocks; k.begin = k.end) { \
			k.end = k.begin + CHUNK_LANES / m < blocks ? k.begin + CHUNK_LANES / m : blocks; \
			k.chunk = k.begin; \
			k.chunk_end = k.end; \
			for (int row = 0, n; row < m; row += n) { \
				n = group_rows(m - row, tile_rows); \
				lanes_fill(&lanes, row * (k.end - k.begin), x + (size_t)row * x_stride, x_stride, n, \
				           k.begin, k.end, t); \
			} \
			chunk(y, y_stride, &lanes, m, w, &k, panel_begin, panel_end, t); \
		} \
	} \
	FORMATS(MATMUL_Q8_FORMAT) \
	void name(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m, \
	          const struct qmatrix *w, int panel_begin, int panel_end) \
	{ \
		static void (*const formats[N_FORMATS])(float *, size_t, const struct q8_block *, size_t, int, \
		                                        const struct qmatrix *, int, int) = {FORMATS(MATMUL_Q8_NAME)}; \
		for (int row = 0, n; row < m; row += n) { \
			n = group_rows(m - row, CHUNK_ROWS); \
			formats[w->format](y + (size_t)row * y_stride, y_stride, x + (size_t)row * x_stride, x_stride, n, w, \
			                   panel_begin, panel_end); \
		} \
	}

#define MATMUL_Q8_FORMAT(id, name, group, low_bits, min, scale, e2m1) \
	static void chunks_##id(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m, \
	                        const struct qmatrix *w, int panel_begin, int panel_end) \
	{ \
		chunks(y, y_stride, x, x_stride, m, w, panel_begin, panel_end, \
		       (const struct traits){group, low_bits, min, scale, e2m1}); \
	}

#define MATMUL_Q8_NAME(id, name, group, low_bits, min, scale, e2m1) chunks_##id,

#endif
