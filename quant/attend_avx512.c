/* attend_avx512.c - attention over paged keys and values, BF16 or FP32, sixteen lanes at a time.
 *
 * The plan of attend_avx2.c.  Thirty-two elements are two registers; BF16 is widened by one permutation for
 * each, so that they stay in order.  A mask cuts the last columns of an odd head.
 */
#include <math.h>

#include "quant/attention.h"
#include "quant/avx512.h"

enum { TILE_QUERIES = 8, TILE_VECTORS = 4, UNIT = 32 };

/* 32 elements. */
INLINE void unit_load(__m512 v[2], const char *at, const enum kv_type type)
{
	if (type == KV_F32) {
		v[0] = _mm512_loadu_ps(at);
		v[1] = _mm512_loadu_ps(at + 64);
		return;
	}
	const __m512i low = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4, 0,
	                                     3, 0, 2, 0, 1, 0, 0, 0);
	const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
	__m512i elements = _mm512_loadu_si512(at);
	v[0] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, low, elements));
	v[1] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, high, elements));
}

/* Up to 16 elements; those outside the mask are 0 and not read. */
INLINE __m512 part_load(const char *at, __mmask16 mask, const enum kv_type type)
{
	return type == KV_F32 ? _mm512_maskz_loadu_ps(mask, at) : widen16_masked(mask, (const uint16_t *)(const void *)at);
}

/* ---- scores ---- */

/* acc += q[.][d] * k for Q queries. */
INLINE void score_step(__m512 acc[TILE_QUERIES][PAGE_GROUP], const struct attention *a, const float *q, size_t d,
                       int p, __m512 k, const int Q)
{
	UNROLL for (int i = 0; i < Q; i++)
		acc[i][p] = _mm512_fmadd_ps(_mm512_set1_ps(q[(size_t)i * a->head_dim + d]), k, acc[i][p]);
}

/* Scores of Q queries on P pages from `page`. */
INLINE void score_tile(const struct attention *a, const float *q, float *scores, int page, bool first_tile, const int Q,
                       const int P, const enum kv_type type)
{
	__m512 acc[TILE_QUERIES][PAGE_GROUP];
	const char *key[PAGE_GROUP], *next[PAGE_GROUP];
	const size_t step = page_bytes(KV_TILE, type);
	UNROLL for (int p = 0; p < P; p++) {
		key[p] = page_at(a, page + p, a->k_offset, type);
		next[p] = page_ahead(a, page + p, K_PAGES_AHEAD, first_tile, a->k_offset, type);
		UNROLL for (int i = 0; i < Q; i++) acc[i][p] = _mm512_setzero_ps();
	}

	size_t d = 0;
	for (; d + 2 <= a->head_dim; d += 2) {
		UNROLL for (int p = 0; p < P; p++) {
			__m512 k[2];
			prefetch(next[p], d * step);
			if (type == KV_F32) prefetch(next[p], d * step + LINE_BYTES);
			unit_load(k, key[p] + d * step, type);
			score_step(acc, a, q, d, p, k[0], Q);
			score_step(acc, a, q, d + 1, p, k[1], Q);
		}
	}
	if (d < a->head_dim)
		UNROLL for (int p = 0; p < P; p++) score_step(acc, a, q, d, p, part_load(key[p] + d * step, 0xffff, type), Q);

	UNROLL for (int i = 0; i < Q; i++) UNROLL for (int p = 0; p < P; p++)
		_mm512_storeu_ps(scores + (size_t)i * a->score_stride + (size_t)((page + p) * KV_TILE),
		                 _mm512_mul_ps(acc[i][p], _mm512_set1_ps(a->scale)));
}

/* P pages at a time. */
#define SCORES(Q, P) \
	case Q: \
		for (; page + (P) <= end; page += (P)) score_tile(a, q, scores, page, first_tile, Q, P, type); \
		for (; page < end; page++) score_tile(a, q, scores, page, first_tile, Q, 1, type); \
		break;

INLINE void scores_of(const struct attention *a, const float *q, float *scores, int queries, int page, int end,
                      bool first_tile, const enum kv_type type)
{
	switch (queries) {
		SCORES(1, 4) SCORES(2, 4) SCORES(3, 4) SCORES(4, 4)
		SCORES(5, 2) SCORES(6, 2) SCORES(7, 2) SCORES(8, 2)
	}
}

static float scores_largest(float *scores, int n_positions)
{
	const __m512 none = _mm512_set1_ps(-INFINITY);
	int full = n_positions / LANES * LANES;
	__mmask16 last = (__mmask16)((1u << (n_positions - full)) - 1);
	__m512 most = none;
	for (int p = 0; p < full; p += LANES) most = _mm512_max_ps(_mm512_loadu_ps(scores + p), most);
	if (last) {
		__m512 rest = _mm512_mask_loadu_ps(none, last, scores + full);
		most = _mm512_max_ps(rest, most);
		_mm512_storeu_ps(scores + full, rest);
	}
	return _mm512_reduce_max_ps(most);
}

static void scores_terms(float *scores, int n, float largest, float sum[LANES])
{
	__m512 lanes = _mm512_loadu_ps(sum), most = _mm512_set1_ps(largest);
	for (int p = 0; p < n; p += LANES) {
		__m512 term = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + p), most));
		_mm512_storeu_ps(scores + p, term);
		lanes = _mm512_add_ps(lanes, term);
	}
	_mm512_storeu_ps(sum, lanes);
}

/* ---- values ---- */

/* out += the first n positions of a page in columns [d, d + 32 U) for Q queries. */
INLINE void value_tile(const struct attention *a, float *out, const float *scores, int page, int n, bool first_tile,
                       size_t d, const int Q, const int U, const enum kv_type type)
{
	__m512 acc[TILE_QUERIES][2 * TILE_VECTORS];
	const size_t step = page_bytes(a->head_dim, type);
	const char *value = page_at(a, page, a->v_offset + d, type);
	const char *next = page_ahead(a, page, V_PAGES_AHEAD, first_tile, a->v_offset + d, type);
	UNROLL for (int i = 0; i < Q; i++) UNROLL for (int c = 0; c < 2 * U; c++)
		acc[i][c] = _mm512_loadu_ps(out + (size_t)i * a->head_dim + d + (size_t)(16 * c));

	for (int p = 0; p < n; p++, value += step, next += step) {
		UNROLL for (int u = 0; u < U; u++) {
			__m512 v[2];
			size_t unit = page_bytes((size_t)(UNIT * u), type);
			prefetch(next, unit);
			if (type == KV_F32) prefetch(next, unit + LINE_BYTES);
			unit_load(v, value + unit, type);
			UNROLL for (int i = 0; i < Q; i++) {
				__m512 weight = _mm512_set1_ps(scores[(size_t)i * a->score_stride + (size_t)p]);
				acc[i][2 * u] = _mm512_fmadd_ps(weight, v[0], acc[i][2 * u]);
				acc[i][2 * u + 1] = _mm512_fmadd_ps(weight, v[1], acc[i][2 * u + 1]);
			}
		}
	}

	UNROLL for (int i = 0; i < Q; i++) UNROLL for (int c = 0; c < 2 * U; c++)
		_mm512_storeu_ps(out + (size_t)i * a->head_dim + d + (size_t)(16 * c), acc[i][c]);
}

/* The last head_dim % 32 columns of one query. */
INLINE void value_tail(const struct attention *a, float *out, const float *scores, int page, int n, size_t d,
                       const enum kv_type type)
{
	for (; d < a->head_dim; d += 16) {
		__mmask16 mask = a->head_dim - d < 16 ? (__mmask16)((1u << (a->head_dim - d)) - 1) : 0xffff;
		__m512 acc = _mm512_maskz_loadu_ps(mask, out + d);
		for (int p = 0; p < n; p++) {
			const char *value = page_at(a, page, a->v_offset + (size_t)p * a->head_dim + d, type);
			acc = _mm512_fmadd_ps(_mm512_set1_ps(scores[p]), part_load(value, mask, type), acc);
		}
		_mm512_mask_storeu_ps(out + d, mask, acc);
	}
}

/* Q queries, U units of columns at a time. */
#define VALUES(Q, U) \
	case Q: \
		for (; d + UNIT * (U) <= a->head_dim; d += UNIT * (U)) \
			value_tile(a, out, scores, page, n, first_tile, d, Q, U, type); \
		for (; d + UNIT <= a->head_dim; d += UNIT) value_tile(a, out, scores, page, n, first_tile, d, Q, 1, type); \
		break;

INLINE void values_of(const struct attention *a, float *out, const float *scores, int queries, int page, int n,
                      bool first_tile, const enum kv_type type)
{
	size_t d = 0;
	switch (queries) {
		VALUES(1, 4) VALUES(2, 4) VALUES(3, 2) VALUES(4, 2)
		VALUES(5, 1) VALUES(6, 1) VALUES(7, 1) VALUES(8, 1)
	}
	for (int i = 0; i < queries && d < a->head_dim; i++)
		value_tail(a, out + (size_t)i * a->head_dim, scores + (size_t)i * a->score_stride, page, n, d, type);
}

static void scores_of_bf16(const struct attention *a, const float *q, float *scores, int queries, int page, int end,
                           bool first_tile)
{
	scores_of(a, q, scores, queries, page, end, first_tile, KV_BF16);
}

static void scores_of_f32(const struct attention *a, const float *q, float *scores, int queries, int page, int end,
                          bool first_tile)
{
	scores_of(a, q, scores, queries, page, end, first_tile, KV_F32);
}

static void values_of_bf16(const struct attention *a, float *out, const float *scores, int queries, int page, int n,
                           bool first_tile)
{
	values_of(a, out, scores, queries, page, n, first_tile, KV_BF16);
}

static void values_of_f32(const struct attention *a, float *out, const float *scores, int queries, int page, int n,
                          bool first_tile)
{
	values_of(a, out, scores, queries, page, n, first_tile, KV_F32);
}

ATTEND(avx512, bf16)
ATTEND(avx512, f32)
