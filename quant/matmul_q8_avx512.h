/* matmul_q8_avx512.h - quantized weights times INT8 activations, a panel in one register.
 *
 * Included by a file per instruction set, which the compiler's flags tell it: with AVX512_VNNI four
 * products are added to 32 bits at once, else in pairs to 16 bits as often as these hold, then to 32.
 *
 * Few rows take the weights from the planes, several panels side by side: bound by memory, or, with VNNI, in
 * tiles of 8 rows that fill all registers, faster than unpacking even where two of them do it.  For more rows
 * SUB_BLOCKS blocks of two panels become bytes and FP32 scales in L1, which tiles of rows read: these
 * differ by format only where the arithmetic does.
 */
#include "quant/matmul_q_avx512.h"

#ifdef __AVX512VNNI__
enum { VNNI = 1, FEW_ROWS = 16, FEW_TILE_ROWS = 8, ROWS_MOST = 8, ONE_ROW_PANELS = 4 };
#else
enum { VNNI = 0, FEW_ROWS = 2, FEW_TILE_ROWS = 2, ROWS_MOST = 6, ONE_ROW_PANELS = 2 };
#endif
enum {
	TILE_ROWS = 6,     /* of unpacked panels; ROWS_MOST of any */
	TILE_PANELS = 4,
	MANY_PANELS = 2,
	SUB_BLOCKS = 4,    /* unpacked at a time */
	DIRECT_BLOCKS = 16 /* whose planes stay in L1 for a second tile of rows */
};

/* Bytes above 127 would saturate a pair of products: their nibbles are multiplied apart. */
INLINE bool split_of(const struct traits t) { return !VNNI && largest_of(t) > 127; }

INLINE enum part part_of(int part, const struct traits t)
{
	return !split_of(t) ? ALL_BITS : part ? HIGH_BITS : LOW_BITS;
}

/* Blocks of a panel, unpacked; [1] of q: the high nibbles of what is split. */
struct unpacked {
	_Alignas(64) uint8_t q[SUB_BLOCKS][VNNI ? 1 : 2][Q_STEPS][64];
	_Alignas(64) float scale[SUB_BLOCKS][2][PANEL];
	_Alignas(64) float min[SUB_BLOCKS][PANEL];
};

INLINE void unpack(struct unpacked *out, const struct panel *w, const struct span *k, const struct traits t)
{
	for (int b = k->begin; b < k->end; b++) {
		int i = b - k->begin;
		prefetch_block(w, k, b, t, MANY_PANELS);
		for (int part = 0; part < 1 + split_of(t); part++)
			Q_UNROLL for (int s = 0; s < Q_STEPS; s++)
				_mm512_store_si512(out->q[i][part][s], step_load(w, b, s, part_of(part, t), t));
		for (int d = 0; d < dots_of(t); d++) _mm512_store_ps(out->scale[i][d], scale_load(w, group_at(b, d, t), t));
		if (t.min) _mm512_store_ps(out->min[i], widen16(w->min + group_at(b, 0, t)));
	}
}

/* Step s of block b of panel p, the i-th unpacked. */
INLINE __m512i weight_of(const struct panel *w, const struct unpacked *u, int b, int i, int s, int part,
                         const struct traits t)
{
	return u ? load512(u->q[i][part][s]) : step_load(w, b, s, part_of(part, t), t);
}

/* 4 inputs of a row in every lane. */
INLINE __m512i broadcast4(const int8_t *x)
{
	int32_t four;
	memcpy(&four, x, sizeof four);
	return _mm512_set1_epi32(four);
}

/* sum[r][p] += the products of dot d of block b, the i-th unpacked, for R rows of 32 inputs. */
INLINE void dots(__m512i sum[ROWS_MOST][TILE_PANELS], const struct panel *w, const struct unpacked *u, int b, int i,
                 int d, const int8_t (*x)[Q_BLOCK], const struct traits t, const int R, const int P)
{
	const int begin = d * Q_STEPS / dots_of(t), end = (d + 1) * Q_STEPS / dots_of(t);
	__m512i weight[TILE_PANELS];
#ifdef __AVX512VNNI__
	Q_UNROLL for (int s = begin; s < end; s++) {
		for (int p = 0; p < P; p++) weight[p] = weight_of(&w[p], u ? &u[p] : NULL, b, i, s, 0, t);
		for (int r = 0; r < R; r++) {
			__m512i in = broadcast4(x[r] + 4 * s);
			for (int p = 0; p < P; p++) sum[r][p] = _mm512_dpbusd_epi32(sum[r][p], weight[p], in);
		}
	}
#else
	const int held = INT16_MAX / (2 * 127 * (split_of(t) ? 15 : largest_of(t)));
	Q_UNROLL for (int part = 0; part < 1 + split_of(t); part++) {
		const __m512i unit = _mm512_set1_epi16(part ? 16 : 1);
		Q_UNROLL for (int first = begin; first < end; first += held) {
			const int last = first + held < end ? first + held : end;
			__m512i sum16[ROWS_MOST][TILE_PANELS];
			for (int r = 0; r < R; r++)
				for (int p = 0; p < P; p++) sum16[r][p] = _mm512_setzero_si512();
			Q_UNROLL for (int s = first; s < last; s++) {
				for (int p = 0; p < P; p++) weight[p] = weight_of(&w[p], u ? &u[p] : NULL, b, i, s, part, t);
				for (int r = 0; r < R; r++) {
					__m512i in = broadcast4(x[r] + 4 * s);
					for (int p = 0; p < P; p++) {
						__m512i pairs = _mm512_maddubs_epi16(weight[p], in);
						sum16[r][p] = _mm512_add_epi16(sum16[r][p], pairs);
						CHAINED(sum16[r][p]);
					}
				}
			}
			for (int r = 0; r < R; r++)
				for (int p = 0; p < P; p++)
					sum[r][p] = _mm512_add_epi32(sum[r][p], _mm512_madd_epi16(sum16[r][p], unit));
		}
	}
#endif
}

/* R rows of P panels, from their planes or unpacked. */
INLINE void tile(float *y, size_t y_stride, const struct lanes *x, int at, const struct panel *w,
                 const struct unpacked *u, const struct span *k, const struct traits t, const int R, const int P)
{
	__m512 out[ROWS_MOST][TILE_PANELS];
	for (int r = 0; r < R; r++)
		for (int p = 0; p < P; p++)
			out[r][p] = k->begin ? _mm512_loadu_ps(y + (size_t)r * y_stride + p * PANEL) : _mm512_setzero_ps();

	for (int b = k->begin; b < k->end; b++, at += R) {
		int i = b - k->begin;
		if (!u)
			for (int p = 0; p < P; p++) prefetch_block(&w[p], k, b, t, P);
		Q_UNROLL for (int d = 0; d < dots_of(t); d++) {
			__m512i sum[ROWS_MOST][TILE_PANELS];
			for (int r = 0; r < R; r++)
				for (int p = 0; p < P; p++) sum[r][p] = _mm512_set1_epi32(x->side[at + r].offset[d]);
			dots(sum, w, u, b, i, d, x->q + at, t, R, P);
			for (int p = 0; p < P; p++) {
				size_t group = group_at(b, d, t);
				__m512 w_scale = u ? _mm512_load_ps(u[p].scale[i][d]) : scale_load(&w[p], group, t);
				for (int r = 0; r < R; r++) {
					const struct lane *side = &x->side[at + r];
					__m512 x_scale = _mm512_set1_ps(side->scale);
					__m512 scale = _mm512_mul_ps(x_scale, w_scale);
					out[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][p]), scale, out[r][p]);
					if (t.min) {
						__m512 min = u ? _mm512_load_ps(u[p].min[i]) : widen16(w[p].min + group);
						min = _mm512_mul_ps(x_scale, min);
						out[r][p] = _mm512_fmadd_ps(_mm512_set1_ps(side->sum), min, out[r][p]);
					}
				}
			}
		}
	}

	for (int r = 0; r < R; r++)
		for (int p = 0; p < P; p++) _mm512_storeu_ps(y + (size_t)r * y_stride + p * PANEL, out[r][p]);
}

/* One chunk of R rows and all panels, straight from the planes. */
INLINE void stream(float *y, size_t y_stride, const struct lanes *x, const struct qmatrix *w, const struct span *k,
                   int panel, int panel_end, const struct traits t, const int R, const int P)
{
	struct panel planes[TILE_PANELS];
	for (; panel + P <= panel_end; panel += P) {
		for (int p = 0; p < P; p++) planes[p] = panel_of(w, panel + p, t);
		tile(y + panel * PANEL, y_stride, x, 0, planes, NULL, k, t, R, P);
	}
	for (; panel < panel_end; panel++) {
		planes[0] = panel_of(w, panel, t);
		tile(y + panel * PANEL, y_stride, x, 0, planes, NULL, k, t, R, 1);
	}
}

#ifdef __AVX512VNNI__
/* 5 to FEW_ROWS rows, straight from the planes of two panels. */
INLINE void direct(float *y, size_t y_stride, const struct lanes *x, int m, const struct qmatrix *w,
                   const struct span *chunk, int panel_begin, int panel_end, const struct traits t)
{
	struct span k = *chunk;
	int step = m <= FEW_TILE_ROWS ? chunk->end - chunk->begin : DIRECT_BLOCKS;
	for (int panel = panel_begin; panel < panel_end; panel += 2) {
		const bool two = panel_end - panel >= 2;
		struct panel planes[2] = {panel_of(w, panel, t), panel_of(w, two ? panel + 1 : panel, t)};
		for (k.begin = chunk->begin; k.begin < chunk->end; k.begin = k.end) {
			k.end = k.begin + step < chunk->end ? k.begin + step : chunk->end;
			for (int row = 0, n; row < m; row += n) {
				n = group_rows(m - row, FEW_TILE_ROWS);
				float *out = y + (size_t)row * y_stride + panel * PANEL;
				int at = row * (k.chunk_end - k.chunk) + n * (k.begin - k.chunk);
				switch (two ? n : -n) {
				case 8: tile(out, y_stride, x, at, planes, NULL, &k, t, 8, 2); break;
				case 7: tile(out, y_stride, x, at, planes, NULL, &k, t, 7, 2); break;
				case 6: tile(out, y_stride, x, at, planes, NULL, &k, t, 6, 2); break;
				case 5: tile(out, y_stride, x, at, planes, NULL, &k, t, 5, 2); break;
				case 4: tile(out, y_stride, x, at, planes, NULL, &k, t, 4, 2); break; /* of 9 rows */
				case -8: tile(out, y_stride, x, at, planes, NULL, &k, t, 8, 1); break;
				case -7: tile(out, y_stride, x, at, planes, NULL, &k, t, 7, 1); break;
				case -6: tile(out, y_stride, x, at, planes, NULL, &k, t, 6, 1); break;
				case -5: tile(out, y_stride, x, at, planes, NULL, &k, t, 5, 1); break;
				default: tile(out, y_stride, x, at, planes, NULL, &k, t, 4, 1); break;
				}
			}
		}
	}
}
#endif

/* All rows and P unpacked panels. */
INLINE void rows(float *y, size_t y_stride, const struct lanes *x, int m, const struct unpacked *u, const struct span *k,
                 const struct traits t, const int P)
{
	for (int row = 0; row < m;) {
		int n = group_rows(m - row, TILE_ROWS);
		float *out = y + (size_t)row * y_stride;
		int at = row * (k->chunk_end - k->chunk) + n * (k->begin - k->chunk);
		switch (n) {
		case 6: tile(out, y_stride, x, at, NULL, u, k, t, 6, P); break;
		case 5: tile(out, y_stride, x, at, NULL, u, k, t, 5, P); break;
		case 4: tile(out, y_stride, x, at, NULL, u, k, t, 4, P); break;
		default: tile(out, y_stride, x, at, NULL, u, k, t, 3, P); break;
		}
		row += n;
	}
}

/* Formats whose tiles are the same share these functions. */
#define ROWS(name, ...) \
	static void rows_##name(float *y, size_t y_stride, const struct lanes *x, int m, const struct unpacked *u, \
	                        const struct span *k, int n_panels) \
	{ \
		if (n_panels == 2) \
			rows(y, y_stride, x, m, u, k, (const struct traits){__VA_ARGS__}, 2); \
		else \
			rows(y, y_stride, x, m, u, k, (const struct traits){__VA_ARGS__}, 1); \
	}
ROWS(plain, 32, 0, false)
ROWS(min, 32, 0, true)
ROWS(halves, 16, 0, false, SCALE_E4M3, true)
#ifndef __AVX512VNNI__
ROWS(to_31, 32, 1, false)
ROWS(to_63, 32, 2, false)
ROWS(to_255, 32, 4, false)
#endif

typedef void rows_fn(float *y, size_t y_stride, const struct lanes *x, int m, const struct unpacked *u,
                     const struct span *k, int n_panels);

INLINE rows_fn *rows_of(const struct traits t)
{
	if (t.min) return rows_min;
	if (dots_of(t) == 2) return rows_halves;
#ifndef __AVX512VNNI__
	if (largest_of(t) > 63) return rows_to_255;
	if (largest_of(t) > 31) return rows_to_63;
	if (largest_of(t) > 15) return rows_to_31;
#endif
	return rows_plain;
}

INLINE void many(float *y, size_t y_stride, const struct lanes *x, int m, const struct qmatrix *w,
                 const struct span *chunk, int panel_begin, int panel_end, const struct traits t)
{
	struct unpacked u[MANY_PANELS];
	struct span k = *chunk;
	for (int panel = panel_begin; panel < panel_end; panel += MANY_PANELS) {
		int n = panel_end - panel < MANY_PANELS ? panel_end - panel : MANY_PANELS;
		struct panel planes[MANY_PANELS];
		for (int p = 0; p < n; p++) planes[p] = panel_of(w, panel + p, t);
		for (k.begin = chunk->begin; k.begin < chunk->end; k.begin = k.end) {
			k.end = k.begin + SUB_BLOCKS < chunk->end ? k.begin + SUB_BLOCKS : chunk->end;
			for (int p = 0; p < n; p++) unpack(&u[p], &planes[p], &k, t);
			rows_of(t)(y + panel * PANEL, y_stride, x, m, u, &k, n);
		}
	}
}

INLINE void chunk(float *y, size_t y_stride, const struct lanes *x, int m, const struct qmatrix *w,
                  const struct span *k, int panel_begin, int panel_end, const struct traits t)
{
	switch (m) {
	case 1: stream(y, y_stride, x, w, k, panel_begin, panel_end, t, 1, ONE_ROW_PANELS); return;
	case 2: stream(y, y_stride, x, w, k, panel_begin, panel_end, t, 2, 2); return;
#ifdef __AVX512VNNI__
	case 3: stream(y, y_stride, x, w, k, panel_begin, panel_end, t, 3, 2); return;
	case 4: stream(y, y_stride, x, w, k, panel_begin, panel_end, t, 4, 2); return;
#endif
	default: break;
	}
#ifdef __AVX512VNNI__
	if (m <= FEW_ROWS) {
		direct(y, y_stride, x, m, w, k, panel_begin, panel_end, t);
		return;
	}
#endif
	many(y, y_stride, x, m, w, k, panel_begin, panel_end, t);
}
