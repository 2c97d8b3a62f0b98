/* attend_avx2.c - attention over paged keys and values, BF16 or FP32, eight lanes at a time.
 *
 * Sixteen elements are two registers: for BF16 the even and the odd ones, which costs a shift and a mask,
 * put back in order once per page (scores) or per visit of a page (values).
 */
#include <math.h>

#include "quant/attention.h"
#include "quant/avx2.h"
#include "quant/bf16.h"

enum { TILE_QUERIES = 6, TILE_VECTORS = 8, UNIT = 16 };

/* 16 elements. */
INLINE void unit_load(__m256 v[2], const char *at, const enum kv_type type)
{
	if (type == KV_F32) {
		v[0] = _mm256_loadu_ps((const float *)(const void *)at);
		v[1] = _mm256_loadu_ps((const float *)(const void *)at + 8);
		return;
	}
	__m256i pairs = _mm256_loadu_si256((const __m256i *)(const void *)at);
	v[0] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
	v[1] = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

/* Between the order of unit_load and that of memory. */
INLINE void unit_store(float *to, const __m256 v[2], const enum kv_type type)
{
	__m256 low = _mm256_unpacklo_ps(v[0], v[1]), high = _mm256_unpackhi_ps(v[0], v[1]);
	_mm256_storeu_ps(to, type == KV_F32 ? v[0] : _mm256_permute2f128_ps(low, high, 0x20));
	_mm256_storeu_ps(to + 8, type == KV_F32 ? v[1] : _mm256_permute2f128_ps(low, high, 0x31));
}

INLINE void unit_split(__m256 v[2], const float *from, const enum kv_type type)
{
	__m256 low = _mm256_loadu_ps(from), high = _mm256_loadu_ps(from + 8);
	__m256 left = _mm256_permute2f128_ps(low, high, 0x20), right = _mm256_permute2f128_ps(low, high, 0x31);
	v[0] = type == KV_F32 ? low : _mm256_shuffle_ps(left, right, 0x88);
	v[1] = type == KV_F32 ? high : _mm256_shuffle_ps(left, right, 0xdd);
}

/* ---- scores ---- */

/* Scores of Q queries on P pages from `page`. */
INLINE void score_tile(const struct attention *a, const float *q, float *scores, int page, bool first_tile, const int Q,
                       const int P, const enum kv_type type)
{
	__m256 acc[TILE_QUERIES][PAGE_GROUP][2];
	const char *key[PAGE_GROUP], *next[PAGE_GROUP];
	const size_t step = page_bytes(UNIT, type);
	UNROLL for (int p = 0; p < P; p++) {
		key[p] = page_at(a, page + p, a->k_offset, type);
		next[p] = page_ahead(a, page + p, K_PAGES_AHEAD, first_tile, a->k_offset, type);
		UNROLL for (int i = 0; i < Q; i++) acc[i][p][0] = acc[i][p][1] = _mm256_setzero_ps();
	}

	for (size_t d = 0; d < a->head_dim; d++) {
		UNROLL for (int p = 0; p < P; p++) {
			__m256 k[2];
			if (type == KV_F32 || d % 2 == 0) prefetch(next[p], d * step);
			unit_load(k, key[p] + d * step, type);
			UNROLL for (int i = 0; i < Q; i++) {
				__m256 in = _mm256_broadcast_ss(q + (size_t)i * a->head_dim + d);
				fma8(&acc[i][p][0], in, k[0]);
				fma8(&acc[i][p][1], in, k[1]);
			}
		}
	}

	__m256 scale = _mm256_set1_ps(a->scale);
	UNROLL for (int i = 0; i < Q; i++) UNROLL for (int p = 0; p < P; p++) {
		__m256 scaled[2] = {_mm256_mul_ps(acc[i][p][0], scale), _mm256_mul_ps(acc[i][p][1], scale)};
		unit_store(scores + (size_t)i * a->score_stride + (size_t)((page + p) * KV_TILE), scaled, type);
	}
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
	switch (queries) { SCORES(1, 4) SCORES(2, 2) SCORES(3, 2) SCORES(4, 1) SCORES(5, 1) SCORES(6, 1) }
}

static float scores_largest(float *scores, int n_positions)
{
	int padded = (n_positions + LANES - 1) / LANES * LANES;
	for (int p = n_positions; p < padded; p++) scores[p] = -INFINITY;

	__m256 most[2] = {_mm256_set1_ps(-INFINITY), _mm256_set1_ps(-INFINITY)};
	for (int p = 0; p < padded; p += LANES)
		for (int h = 0; h < 2; h++) most[h] = _mm256_max_ps(_mm256_loadu_ps(scores + p + 8 * h), most[h]);
	most[0] = _mm256_max_ps(most[0], most[1]);
	most[0] = _mm256_max_ps(most[0], _mm256_permute2f128_ps(most[0], most[0], 1));
	most[0] = _mm256_max_ps(most[0], _mm256_permute_ps(most[0], 0x4e));
	most[0] = _mm256_max_ps(most[0], _mm256_permute_ps(most[0], 0xb1));
	return _mm256_cvtss_f32(most[0]);
}

static void scores_terms(float *scores, int n, float largest, float sum[LANES])
{
	__m256 lanes[2] = {_mm256_loadu_ps(sum), _mm256_loadu_ps(sum + 8)}, most = _mm256_set1_ps(largest);
	for (int p = 0; p < n; p += LANES) {
		for (int h = 0; h < 2; h++) {
			__m256 term = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + p + 8 * h), most));
			_mm256_storeu_ps(scores + p + 8 * h, term);
			lanes[h] = _mm256_add_ps(lanes[h], term);
		}
	}
	_mm256_storeu_ps(sum, lanes[0]);
	_mm256_storeu_ps(sum + 8, lanes[1]);
}

/* ---- values ---- */

/* out += the first n positions of a page in columns [d, d + 16 U) for Q queries. */
INLINE void value_tile(const struct attention *a, float *out, const float *scores, int page, int n, bool first_tile,
                       size_t d, const int Q, const int U, const enum kv_type type)
{
	__m256 acc[TILE_QUERIES][TILE_VECTORS / 2][2];
	const size_t step = page_bytes(a->head_dim, type);
	const char *value = page_at(a, page, a->v_offset + d, type);
	const char *next = page_ahead(a, page, V_PAGES_AHEAD, first_tile, a->v_offset + d, type);
	UNROLL for (int i = 0; i < Q; i++) UNROLL for (int u = 0; u < U; u++)
		unit_split(acc[i][u], out + (size_t)i * a->head_dim + d + (size_t)(UNIT * u), type);

	for (int p = 0; p < n; p++, value += step, next += step) {
		UNROLL for (int u = 0; u < U; u++) {
			__m256 v[2];
			if (type == KV_F32 || u % 2 == 0) prefetch(next, page_bytes((size_t)(UNIT * u), type));
			unit_load(v, value + page_bytes((size_t)(UNIT * u), type), type);
			UNROLL for (int i = 0; i < Q; i++) {
				__m256 weight = _mm256_broadcast_ss(scores + (size_t)i * a->score_stride + p);
				fma8(&acc[i][u][0], weight, v[0]);
				fma8(&acc[i][u][1], weight, v[1]);
			}
		}
	}

	UNROLL for (int i = 0; i < Q; i++) UNROLL for (int u = 0; u < U; u++)
		unit_store(out + (size_t)i * a->head_dim + d + (size_t)(UNIT * u), acc[i][u], type);
}

/* The last head_dim % 16 columns of one query. */
INLINE void value_tail(const struct attention *a, float *out, const float *scores, int page, int n, size_t d,
                       const enum kv_type type)
{
	for (; d < a->head_dim; d++) {
		for (int p = 0; p < n; p++) {
			const void *at = page_at(a, page, a->v_offset + (size_t)p * a->head_dim + d, type);
			float v = type == KV_F32 ? *(const float *)at : bf16_to_f32(*(const uint16_t *)at);
			out[d] = fmaf(scores[p], v, out[d]);
		}
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
	switch (queries) { VALUES(1, 4) VALUES(2, 2) VALUES(3, 2) VALUES(4, 1) VALUES(5, 1) VALUES(6, 1) }
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

ATTEND(avx2, bf16)
ATTEND(avx2, f32)
