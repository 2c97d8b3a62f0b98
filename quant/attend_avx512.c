/* attend_avx512.c - attention of the query heads that share one KV head, over paged BF16 keys and values.
 *
 * The plan of attend_avx2.c with 16 positions, or 16 columns of values, in one register; a mask cuts
 * the last columns of an odd head.
 */
#include "quant/avx512.h"

enum { HEADS = 4, PAGES = 8, D_LANES = 16, LINE = 32, K_PAGES_AHEAD = 8, V_PAGES_AHEAD = 2 };

/* Scores of H heads on P pages from `page`. */
INLINE void score_tile(const struct attention *a, const float *q, float *scores, int page, const int H,
                       const int P)
{
	__m512 acc[HEADS][PAGES];
	const uint16_t *key[PAGES], *next[PAGES];
	for (int p = 0; p < P; p++) {
		key[p] = a->pages[page + p] + a->k_offset;
		next[p] = a->pages[attention_page_ahead(a, page + p, K_PAGES_AHEAD)] + a->k_offset;
	}
	for (int h = 0; h < H; h++)
		for (int p = 0; p < P; p++) acc[h][p] = _mm512_setzero_ps();

	for (size_t d = 0; d < a->head_dim; d++) {
		for (int p = 0; p < P; p++) {
			prefetch(next[p] + d * KV_TILE, 0);
			__m512 k = widen16(key[p] + d * KV_TILE);
			for (int h = 0; h < H; h++)
				acc[h][p] = _mm512_fmadd_ps(_mm512_set1_ps(q[(size_t)h * a->head_dim + d]), k, acc[h][p]);
		}
	}

	for (int h = 0; h < H; h++)
		for (int p = 0; p < P; p++)
			_mm512_storeu_ps(scores + (size_t)h * a->score_stride + (size_t)(page + p) * KV_TILE,
			                 _mm512_mul_ps(acc[h][p], _mm512_set1_ps(a->scale)));
}

INLINE void scores_of(const struct attention *a, const float *q, float *scores, const int H, const int P)
{
	int page = 0;
	for (; page + P <= attention_pages(a); page += P) score_tile(a, q, scores, page, H, P);
	for (; page < attention_pages(a); page++) score_tile(a, q, scores, page, H, 1);
}

/* Columns [d, d + 16 C) of H heads, or fewer where the mask says so. */
INLINE void value_tile(const struct attention *a, float *out, const float *scores, const float *sums,
                       size_t d, __mmask16 mask, const int H, const int C)
{
	__m512 acc[HEADS][4];
	for (int h = 0; h < H; h++)
		for (int c = 0; c < C; c++) acc[h][c] = _mm512_setzero_ps();

	for (int first = 0; first < a->n_positions; first += KV_TILE) {
		int page = first / KV_TILE;
		const uint16_t *value = a->pages[page] + a->v_offset + d;
		const uint16_t *next = a->pages[attention_page_ahead(a, page, V_PAGES_AHEAD)] + a->v_offset + d;
		int end = a->n_positions - first < KV_TILE ? a->n_positions : first + KV_TILE;
		for (int p = first; p < end; p++, value += a->head_dim, next += a->head_dim) {
			for (int c = 0; c < C; c += LINE / D_LANES) prefetch(next + D_LANES * c, 0);
			for (int c = 0; c < C; c++) {
				__m512 v = widen16_masked(mask, value + D_LANES * c);
				for (int h = 0; h < H; h++) {
					__m512 weight = _mm512_set1_ps(scores[(size_t)h * a->score_stride + (size_t)p]);
					acc[h][c] = _mm512_fmadd_ps(weight, v, acc[h][c]);
				}
			}
		}
	}

	for (int h = 0; h < H; h++)
		for (int c = 0; c < C; c++)
			_mm512_mask_storeu_ps(out + (size_t)h * a->head_dim + d + (size_t)(D_LANES * c), mask,
			                      _mm512_div_ps(acc[h][c], _mm512_set1_ps(sums[h])));
}

/* H heads; P pages of scores and C vectors of values at a time. */
INLINE void attend_heads(const struct attention *a, float *out, const float *q, float *scores, const int H,
                         const int P, const int C)
{
	const __mmask16 all = 0xffff;
	float sums[HEADS];
	scores_of(a, q, scores, H, P);
	for (int h = 0; h < H; h++)
		sums[h] = softmax_terms_avx2(scores + (size_t)h * a->score_stride, a->n_positions);

	size_t d = 0;
	for (; d + (size_t)(D_LANES * C) <= a->head_dim; d += (size_t)(D_LANES * C))
		value_tile(a, out, scores, sums, d, all, H, C);
	for (; d + D_LANES <= a->head_dim; d += D_LANES) value_tile(a, out, scores, sums, d, all, H, 1);
	if (d < a->head_dim)
		value_tile(a, out, scores, sums, d, (__mmask16)((1u << (a->head_dim - d)) - 1), H, 1);
}

void attend_avx512(float *out, const float *q, int n_q, int head_dim, const uint16_t *const *pages,
                   size_t k_offset, size_t v_offset, int n_positions, float scale, float *scores)
{
	struct attention a = attention_of(head_dim, pages, k_offset, v_offset, n_positions, scale);
	for (int h = 0; h < n_q;) {
		int heads = group_rows(n_q - h, HEADS);
		float *o = out + (size_t)h * a.head_dim, *s = scores + (size_t)h * a.score_stride;
		const float *in = q + (size_t)h * a.head_dim;
		switch (heads) {
		case 4: attend_heads(&a, o, in, s, 4, 2, 4); break;
		case 3: attend_heads(&a, o, in, s, 3, 4, 4); break;
		case 2: attend_heads(&a, o, in, s, 2, 4, 4); break;
		default: attend_heads(&a, o, in, s, 1, 8, 4); break;
		}
		h += heads;
	}
}
