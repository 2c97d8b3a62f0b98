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

/* One page, whose first n positions count. */
static void page_values(const struct attention_tiles *tiles, const struct attention *a, float *out, int n_q,
                        const float *scores, int page, int n)
{
	for (int i = 0, queries; i < n_q; i += queries) {
		queries = group_rows(n_q - i, tiles->queries);
		tiles->values(a, out + (size_t)i * a->head_dim, scores + (size_t)i * a->score_stride, queries, page, n, i == 0);
	}
}

/* n <= ATTEND_QUERIES queries that lie side by side. */
static void attend(const struct attention_tiles *tiles, const struct attention *a, float *out, const float *q, int n,
                   float *scores)
{
	float largest[ATTEND_QUERIES], sums[ATTEND_QUERIES][LANES];
	size_t d = a->head_dim;
	scores_of(tiles, a, q, n, scores);
	for (int i = 0; i < n; i++) largest[i] = tiles->largest(scores + (size_t)i * a->score_stride, a->n_positions);
	memset(sums, 0, (size_t)n * sizeof *sums);
	memset(out, 0, (size_t)n * d * sizeof *out);
	for (int group = 0; group < a->n_pages; group += PAGE_GROUP) {
		int end = least(group + PAGE_GROUP, a->n_pages);
		for (int i = 0; i < n; i++)
			tiles->terms(scores + (size_t)i * a->score_stride + group * KV_TILE, (end - group) * KV_TILE, largest[i], sums[i]);
		for (int page = group; page < end; page++)
			page_values(tiles, a, out, n, scores + page * KV_TILE, page, least(a->n_positions - page * KV_TILE, KV_TILE));
	}
	for (size_t i = 0; i < (size_t)n; i++) {
		float sum = lanes_sum(sums[i]);
		for (size_t c = 0; c < d; c++) out[i * d + c] /= sum;
	}
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
