/* matmul_q8_avx2.c - quantized weights times INT8 activations, half a panel in one register.
 *
 * Unsigned weights times signed activations are added in pairs to 16 bits (vpmaddubsw) as often as these
 * hold, which for 4-bit integers is a whole block, then to 32.  Bytes above 127 would saturate a pair:
 * their nibbles are multiplied apart.
 *
 * Few rows take the weights from the planes: bound by memory.  For more rows SUB_BLOCKS blocks of a panel
 * become bytes and FP32 scales in L1, which tiles of rows read: these differ by format only where the
 * arithmetic does.
 */
#include "quant/matmul_q_avx2.h"

enum { FEW_ROWS = 2, FEW_TILE_ROWS = 2, TILE_ROWS = 4, TILE_SIDES = 4, SUB_BLOCKS = 4 };

/* Blocks of a panel, unpacked; [1] of q: the high nibbles of what is split. */
struct unpacked {
	_Alignas(64) uint8_t q[SUB_BLOCKS][2][Q_STEPS][64];
	_Alignas(64) float scale[SUB_BLOCKS][2][PANEL];
	_Alignas(64) float min[SUB_BLOCKS][PANEL];
};

/* 8 outputs of a panel, from its planes or unpacked. */
struct side {
	const struct panel *w;
	const struct unpacked *u;
	int side;
};

INLINE bool split_of(const struct traits t) { return largest_of(t) > 127; }

INLINE enum part part_of(int part, const struct traits t)
{
	return !split_of(t) ? ALL_BITS : part ? HIGH_BITS : LOW_BITS;
}

INLINE void unpack(struct unpacked *out, const struct panel *w, const struct span *k, const struct traits t)
{
	for (int b = k->begin; b < k->end; b++) {
		int i = b - k->begin;
		prefetch_block(w, k, b, t, 1);
		for (int side = 0; side < 2; side++) {
			for (int part = 0; part < 1 + split_of(t); part++)
				Q_UNROLL for (int s = 0; s < Q_STEPS; s++)
					_mm256_store_si256((__m256i *)(void *)(out->q[i][part][s] + 32 * side),
					                   step_load8(w, b, s, side, part_of(part, t), t));
			for (int d = 0; d < dots_of(t); d++)
				_mm256_store_ps(out->scale[i][d] + 8 * side, scale_load8(w, group_at(b, d, t) + 8 * (size_t)side, t));
			if (t.min) _mm256_store_ps(out->min[i] + 8 * side, widen8(w->min + group_at(b, 0, t) + 8 * (size_t)side));
		}
	}
}

INLINE __m256i weight_of(struct side o, int b, int i, int s, int part, const struct traits t)
{
	return o.u ? load256(o.u->q[i][part][s] + 32 * o.side) : step_load8(o.w, b, s, o.side, part_of(part, t), t);
}

/* sum[r][c] += the products of dot d of block b, the i-th unpacked, for R rows of 32 inputs. */
INLINE void dots(__m256i sum[TILE_ROWS][TILE_SIDES], const struct side *outputs, int b, int i, int d,
                 const int8_t (*x)[Q_BLOCK], const struct traits t, const int R, const int C)
{
	const int begin = d * Q_STEPS / dots_of(t), end = (d + 1) * Q_STEPS / dots_of(t);
	const int held = INT16_MAX / (2 * 127 * (split_of(t) ? 15 : largest_of(t)));
	Q_UNROLL for (int part = 0; part < 1 + split_of(t); part++) {
		const __m256i unit = _mm256_set1_epi16(part ? 16 : 1);
		Q_UNROLL for (int first = begin; first < end; first += held) {
			const int last = first + held < end ? first + held : end;
			__m256i sum16[TILE_ROWS][TILE_SIDES];
			for (int r = 0; r < R; r++)
				for (int c = 0; c < C; c++) sum16[r][c] = _mm256_setzero_si256();
			Q_UNROLL for (int s = first; s < last; s++) {
				__m256i weight[TILE_SIDES];
				for (int c = 0; c < C; c++) weight[c] = weight_of(outputs[c], b, i, s, part, t);
				for (int r = 0; r < R; r++) {
					int32_t four;
					memcpy(&four, x[r] + 4 * s, sizeof four);
					__m256i in = _mm256_set1_epi32(four);
					for (int c = 0; c < C; c++) {
						__m256i pairs = _mm256_maddubs_epi16(weight[c], in);
						sum16[r][c] = _mm256_add_epi16(sum16[r][c], pairs);
						CHAINED(sum16[r][c]);
					}
				}
			}
			for (int r = 0; r < R; r++) {
				for (int c = 0; c < C; c++) {
					__m256i sum32 = _mm256_madd_epi16(sum16[r][c], unit);
					sum[r][c] = _mm256_add_epi32(sum[r][c], sum32);
				}
			}
		}
	}
}

/* R rows of C half panels. */
INLINE void tile(float *y, size_t y_stride, const struct lanes *x, int at, const struct side *outputs,
                 const struct span *k, const struct traits t, const int R, const int C)
{
	__m256 out[TILE_ROWS][TILE_SIDES];
	for (int r = 0; r < R; r++)
		for (int c = 0; c < C; c++)
			out[r][c] = k->begin ? _mm256_loadu_ps(y + (size_t)r * y_stride + 8 * c) : _mm256_setzero_ps();

	for (int b = k->begin; b < k->end; b++, at += R) {
		int i = b - k->begin;
		if (!outputs->u)
			for (int p = 0; p < C / 2; p++) prefetch_block(outputs[2 * p].w, k, b, t, C / 2);
		Q_UNROLL for (int d = 0; d < dots_of(t); d++) {
			__m256i sum[TILE_ROWS][TILE_SIDES];
			for (int r = 0; r < R; r++)
				for (int c = 0; c < C; c++) sum[r][c] = zero_of(t) ? _mm256_set1_epi32(x->side[at + r].offset[d]) : _mm256_setzero_si256();
			dots(sum, outputs, b, i, d, x->q + at, t, R, C);
			for (int c = 0; c < C; c++) {
				struct side o = outputs[c];
				size_t group = group_at(b, d, t) + 8 * (size_t)o.side;
				__m256 w_scale = o.u ? _mm256_load_ps(o.u->scale[i][d] + 8 * o.side) : scale_load8(o.w, group, t);
				for (int r = 0; r < R; r++) {
					const struct lane *side = &x->side[at + r];
					__m256 x_scale = _mm256_set1_ps(side->scale);
					out[r][c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][c]), _mm256_mul_ps(x_scale, w_scale), out[r][c]);
					if (t.min) {
						__m256 min = o.u ? _mm256_load_ps(o.u->min[i] + 8 * o.side) : widen8(o.w->min + group);
						out[r][c] = _mm256_fmadd_ps(_mm256_set1_ps(side->sum), _mm256_mul_ps(x_scale, min), out[r][c]);
					}
				}
			}
		}
	}

	for (int r = 0; r < R; r++)
		for (int c = 0; c < C; c++) _mm256_storeu_ps(y + (size_t)r * y_stride + 8 * c, out[r][c]);
}

/* One chunk of R rows and all panels, straight from the planes. */
INLINE void stream(float *y, size_t y_stride, const struct lanes *x, const struct qmatrix *w, const struct span *k,
                   int panel, int panel_end, const struct traits t, const int R, const int P)
{
	struct panel planes[TILE_SIDES / 2];
	struct side outputs[TILE_SIDES];
	for (int c = 0; c < 2 * P; c++) outputs[c] = (struct side){&planes[c / 2], NULL, c % 2};
	for (; panel + P <= panel_end; panel += P) {
		for (int p = 0; p < P; p++) planes[p] = panel_of(w, panel + p, t);
		tile(y + panel * PANEL, y_stride, x, 0, outputs, k, t, R, 2 * P);
	}
	if (P == 1) return;
	for (; panel < panel_end; panel++) {
		planes[0] = panel_of(w, panel, t);
		tile(y + panel * PANEL, y_stride, x, 0, outputs, k, t, R, 2);
	}
}

/* All rows and an unpacked panel. */
INLINE void rows(float *y, size_t y_stride, const struct lanes *x, int m, const struct unpacked *u,
                 const struct span *k, const struct traits t)
{
	const struct side outputs[2] = {{NULL, u, 0}, {NULL, u, 1}};
	for (int row = 0; row < m;) {
		int n = group_rows(m - row, TILE_ROWS);
		float *out = y + (size_t)row * y_stride;
		int at = row * (k->chunk_end - k->chunk) + n * (k->begin - k->chunk);
		switch (n) {
		case 4: tile(out, y_stride, x, at, outputs, k, t, 4, 2); break;
		case 3: tile(out, y_stride, x, at, outputs, k, t, 3, 2); break;
		default: tile(out, y_stride, x, at, outputs, k, t, 2, 2); break;
		}
		row += n;
	}
}

/* Formats whose tiles are the same share these functions. */
#define ROWS(name, ...) \
	static void rows_##name(float *y, size_t y_stride, const struct lanes *x, int m, const struct unpacked *u, \
	                        const struct span *k) \
	{ \
		rows(y, y_stride, x, m, u, k, (const struct traits){__VA_ARGS__}); \
	}
ROWS(min, 32, 0, true)
ROWS(halves, 16, 0, false, SCALE_E4M3, true)
ROWS(to_15, 32, 0, false)
ROWS(to_31, 32, 1, false)
ROWS(to_63, 32, 2, false)
ROWS(to_255, 32, 4, false)

typedef void rows_fn(float *y, size_t y_stride, const struct lanes *x, int m, const struct unpacked *u,
                     const struct span *k);

INLINE rows_fn *rows_of(const struct traits t)
{
	if (t.min) return rows_min;
	if (dots_of(t) == 2) return rows_halves;
	if (largest_of(t) <= 15) return rows_to_15;
	if (largest_of(t) <= 31) return rows_to_31;
	return largest_of(t) <= 63 ? rows_to_63 : rows_to_255;
}

INLINE void many(float *y, size_t y_stride, const struct lanes *x, int m, const struct qmatrix *w,
                 const struct span *chunk, int panel_begin, int panel_end, const struct traits t)
{
	struct unpacked u;
	struct span k = *chunk;
	for (int panel = panel_begin; panel < panel_end; panel++) {
		struct panel planes = panel_of(w, panel, t);
		for (k.begin = chunk->begin; k.begin < chunk->end; k.begin = k.end) {
			k.end = k.begin + SUB_BLOCKS < chunk->end ? k.begin + SUB_BLOCKS : chunk->end;
			unpack(&u, &planes, &k, t);
			rows_of(t)(y + panel * PANEL, y_stride, x, m, &u, &k);
		}
	}
}

INLINE void chunk(float *y, size_t y_stride, const struct lanes *x, int m, const struct qmatrix *w,
                  const struct span *k, int panel_begin, int panel_end, const struct traits t)
{
	switch (m) {
	case 1: stream(y, y_stride, x, w, k, panel_begin, panel_end, t, 1, 2); return;
	case 2: stream(y, y_stride, x, w, k, panel_begin, panel_end, t, 2, 1); return;
	default: many(y, y_stride, x, m, w, k, panel_begin, panel_end, t); return;
	}
}

MATMUL_Q8(matmul_q8_avx2)
