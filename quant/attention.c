/* attention.c - see attention.h: the loops over pages and tiles of queries. */
#include "quant/attention.h"

#include <string.h>

static int least(int a, int b) { return a < b ? a : b; }

static struct attention attention_of(int head_dim, const void *const *pages, size_t k_offset, size_t v_offset,
                                     int n_positions, float scale)
{
	int n_pages = (n_positions + KV_TILE - 1) / KV_TILE;
	return (struct attention){pages, k_offset, v_offset, (size_t)head_dim, (size_t)n_pages * KV_TILE,
	                          n_positions, n_pages, scale};
}

static void scores_of(const struct attention_tiles *tiles, const struct attention *a, const float *q, int n, float *scores)
{
	for (int page = 0; page < a->n_pages; page += PAGE_GROUP) {
		for (int i = 0, queries; i < n; i += queries) {
			queries = group_rows(n - i, tiles->queries);
			tiles->scores(a, q + (size_t)i * a->head_dim, scores + (size_t)i * a->score_stride, queries, page,
			              least(page + PAGE_GROUP, a->n_pages), i == 0);
		}
	}
}

static void values_of(const struct attention_tiles *tiles, const struct attention *a, float *out, int n,
                      const float *scores)
{
	for (int page = 0; page < a->n_pages; page++) {
		int before = page * KV_TILE;
		for (int i = 0, queries; i < n; i += queries) {
			queries = group_rows(n - i, tiles->queries);
			tiles->values(a, out + (size_t)i * a->head_dim, scores + (size_t)i * a->score_stride + before, queries,
			              page, least(a->n_positions - before, KV_TILE), i == 0);
		}
	}
}

/* n <= ATTEND_QUERIES queries that lie side by side. */
static void attend(const struct attention_tiles *tiles, const struct attention *a, float *out, const float *q, int n,
                   float *scores)
{
	float sums[ATTEND_QUERIES];
	size_t d = a->head_dim;
	scores_of(tiles, a, q, n, scores);
	for (int i = 0; i < n; i++) sums[i] = tiles->softmax(scores + (size_t)i * a->score_stride, a->n_positions);
	memset(out, 0, (size_t)n * d * sizeof *out);
	values_of(tiles, a, out, n, scores);
	for (size_t i = 0; i < (size_t)n; i++)
		for (size_t c = 0; c < d; c++) out[i * d + c] /= sums[i];
}

void attention_row(const struct attention_tiles *tiles, float *out, const float *q, int n_q, int head_dim,
                   const void *const *pages, size_t k_offset, size_t v_offset, int n_positions, float scale,
                   float *scores)
{
	struct attention a = attention_of(head_dim, pages, k_offset, v_offset, n_positions, scale);
	for (int i = 0; i < n_q; i += ATTEND_QUERIES) {
		size_t at = (size_t)i * a.head_dim;
		attend(tiles, &a, out + at, q + at, least(n_q - i, ATTEND_QUERIES), scores);
	}
}
