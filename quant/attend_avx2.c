/* attend_avx2.c - attention of the query heads that share one KV head, over paged BF16 keys and values.
 *
 * Scores: lanes are positions, a page is 16 chains over d.  Values: lanes are d, one chain over
 * positions.  Heads are taken in groups so that a key or value is widened once for all of them.
 * Positions beyond n_positions in the last page are computed (whatever lies there) and then masked.
 */
#include <math.h>

#include "quant/avx2.h"
#include "quant/bf16.h"

enum {
	HEADS = 4,
	PAGES = 4,
	D_LANES = 8,
	LINE = 32,         /* bf16 values of a cache line */
	K_PAGES_AHEAD = 4, /* pages lie anywhere, so the hardware does not prefetch them */
	V_PAGES_AHEAD = 2
};

/* Scores of H heads on P pages from `page`. */
INLINE void score_tile(const struct attention *a, const float *q, float *scores, int page, const int H,
                       const int P)
{
	__m256 acc[HEADS][PAGES][2];
	const uint16_t *key[PAGES], *next[PAGES];
	for (int p = 0; p < P; p++) {
		key[p] = a->pages[page + p] + a->k_offset;
		next[p] = a->pages[attention_page_ahead(a, page + p, K_PAGES_AHEAD)] + a->k_offset;
	}
	for (int h = 0; h < H; h++)
		for (int p = 0; p < P; p++) acc[h][p][0] = acc[h][p][1] = _mm256_setzero_ps();

	for (size_t d = 0; d < a->head_dim; d++) {
		for (int p = 0; p < P; p++) {
			prefetch(next[p] + d * KV_TILE, 0);
			__m256 low = widen8(key[p] + d * KV_TILE), high = widen8(key[p] + d * KV_TILE + 8);
			for (int h = 0; h < H; h++) {
				__m256 in = _mm256_broadcast_ss(q + (size_t)h * a->head_dim + d);
				acc[h][p][0] = _mm256_fmadd_ps(in, low, acc[h][p][0]);
				acc[h][p][1] = _mm256_fmadd_ps(in, high, acc[h][p][1]);
			}
		}
	}

	__m256 scale = _mm256_set1_ps(a->scale);
	for (int h = 0; h < H; h++)
		for (int i = 0; i < 2 * P; i++)
			_mm256_storeu_ps(scores + (size_t)h * a->score_stride + (size_t)page * KV_TILE + 8 * (size_t)i,
			                 _mm256_mul_ps(acc[h][i / 2][i % 2], scale));
}

INLINE void scores_of(const struct attention *a, const float *q, float *scores, const int H, const int P)
{
	int page = 0;
	for (; page + P <= attention_pages(a); page += P) score_tile(a, q, scores, page, H, P);
	for (; page < attention_pages(a); page++) score_tile(a, q, scores, page, H, 1);
}

/* exp(score - max) in place, 0 beyond n_positions; returns the lane sum. */
float softmax_terms_avx2(float *scores, int n_positions)
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

	__m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
	for (int p = 0; p < padded; p += LANES) {
		for (int h = 0; h < 2; h++) {
			__m256 term = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + p + 8 * h), most[0]));
			_mm256_storeu_ps(scores + p + 8 * h, term);
			sum[h] = _mm256_add_ps(sum[h], term);
		}
	}
	return lanes_sum16(sum[0], sum[1]);
}

/* Columns [d, d + 8 C) of H heads. */
INLINE void value_tile(const struct attention *a, float *out, const float *scores, const float *sums,
                       size_t d, const int H, const int C)
{
	__m256 acc[HEADS][8];
	for (int h = 0; h < H; h++)
		for (int c = 0; c < C; c++) acc[h][c] = _mm256_setzero_ps();

	for (int first = 0; first < a->n_positions; first += KV_TILE) {
		const uint16_t *value = a->pages[first / KV_TILE] + a->v_offset + d;
		const uint16_t *next =
			a->pages[attention_page_ahead(a, first / KV_TILE, V_PAGES_AHEAD)] + a->v_offset + d;
		int end = a->n_positions - first < KV_TILE ? a->n_positions : first + KV_TILE;
		for (int p = first; p < end; p++, value += a->head_dim, next += a->head_dim) {
			for (int c = 0; c < C; c += LINE / D_LANES) prefetch(next + D_LANES * c, 0);
			for (int c = 0; c < C; c++) {
				__m256 v = widen8(value + D_LANES * c);
				for (int h = 0; h < H; h++) {
					__m256 weight = _mm256_broadcast_ss(scores + (size_t)h * a->score_stride + p);
					acc[h][c] = _mm256_fmadd_ps(weight, v, acc[h][c]);
				}
			}
		}
	}

	for (int h = 0; h < H; h++)
		for (int c = 0; c < C; c++)
			_mm256_storeu_ps(out + (size_t)h * a->head_dim + d + (size_t)(D_LANES * c),
			                 _mm256_div_ps(acc[h][c], _mm256_set1_ps(sums[h])));
}

/* The last head_dim % 8 columns of one head. */
static void value_tail(const struct attention *a, float *out, const float *scores, float sum, size_t d)
{
	for (; d < a->head_dim; d++) {
		float chain = 0.0f;
		for (int p = 0; p < a->n_positions; p++) {
			const uint16_t *value = a->pages[p / KV_TILE] + a->v_offset + (size_t)(p % KV_TILE) * a->head_dim;
			chain = fmaf(scores[p], bf16_to_f32(value[d]), chain);
		}
		out[d] = chain / sum;
	}
}

/* H heads; P pages of scores and C vectors of values at a time fill the registers. */
INLINE void attend_heads(const struct attention *a, float *out, const float *q, float *scores, const int H,
                         const int P, const int C)
{
	float sums[HEADS];
	scores_of(a, q, scores, H, P);
	for (int h = 0; h < H; h++)
		sums[h] = softmax_terms_avx2(scores + (size_t)h * a->score_stride, a->n_positions);

	size_t d = 0;
	for (; d + (size_t)(D_LANES * C) <= a->head_dim; d += (size_t)(D_LANES * C))
		value_tile(a, out, scores, sums, d, H, C);
	for (; d + D_LANES <= a->head_dim; d += D_LANES) value_tile(a, out, scores, sums, d, H, 1);
	for (int h = 0; h < H; h++)
		value_tail(a, out + (size_t)h * a->head_dim, scores + (size_t)h * a->score_stride, sums[h], d);
}

void attend_avx2(float *out, const float *q, int n_q, int head_dim, const uint16_t *const *pages,
                 size_t k_offset, size_t v_offset, int n_positions, float scale, float *scores)
{
	struct attention a = attention_of(head_dim, pages, k_offset, v_offset, n_positions, scale);
	for (int h = 0; h < n_q;) {
		int heads = group_rows(n_q - h, HEADS);
		float *o = out + (size_t)h * a.head_dim, *s = scores + (size_t)h * a.score_stride;
		const float *in = q + (size_t)h * a.head_dim;
		switch (heads) {
		case 4: attend_heads(&a, o, in, s, 4, 1, 2); break;
		case 3: attend_heads(&a, o, in, s, 3, 1, 4); break;
		case 2: attend_heads(&a, o, in, s, 2, 2, 4); break;
		default: attend_heads(&a, o, in, s, 1, 4, 8); break;
		}
		h += heads;
	}
}
