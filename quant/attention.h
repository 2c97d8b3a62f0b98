/* attention.h - inside attention.c and attend_*.c only: what the vector versions of attention share.
 *
 * A query is one head of a row.  The queries that share a KV head pass over the pages together, so that a
 * page is read, and its elements are widened, once for a tile of queries:
 *
 *     for some pages at a time:  scores of every tile      lanes are positions, one chain over d
 *     for some pages at a time:  exponentials of every query, then
 *       for every page:          values of every tile      lanes are d, one chain over positions, kept in out
 *
 * Positions beyond a query's last in a page are computed for the scores (whatever lies there), then masked.
 */
#ifndef QUANT_ATTENTION_H
#define QUANT_ATTENTION_H

#include "quant/kernels_tables.h"

enum {
	PAGE_GROUP = 4,    /* pages whose scores are computed together */
	K_PAGES_AHEAD = 8, /* pages lie anywhere, so the hardware does not prefetch them */
	V_PAGES_AHEAD = 2,
	LINE_BYTES = 64
};

struct attention {
	const void *const *pages;
	size_t k_offset, v_offset; /* elements */
	size_t head_dim, score_stride;
	int n_positions, n_pages;
	float scale;
};

/* One instruction set and element type.  q, out [queries][head_dim]; scores [queries][score_stride]. */
struct attention_tiles {
	int queries; /* of a tile, at most */
	/* Scores of some queries on pages [page, end). */
	void (*scores)(const struct attention *a, const float *q, float *scores, int queries, int page, int end,
	               bool first_tile);
	/* The largest of a query's scores; those beyond n_positions up to a whole KV_TILE become -inf. */
	float (*largest)(float *scores, int n_positions);
	/* exp(score - largest) in place for n scores, whole KV_TILEs, added to the lanes of the sum: a few pages
	 * at a time, while values on their way are waited for. */
	void (*terms)(float *scores, int n, float largest, float sum[LANES]);
	/* out += the first n positions of a page for some queries; scores: those of the page. */
	void (*values)(const struct attention *a, float *out, const float *scores, int queries, int page, int n,
	               bool first_tile);
};

/* ATTEND_FUNCTION of kernels_tables.h with these tiles. */
void attention_row(const struct attention_tiles *tiles, float *out, const float *q, int n_q, int head_dim,
                   const void *const *pages, size_t k_offset, size_t v_offset, int n_positions, float scale,
                   float *scores);

static inline size_t page_bytes(size_t element, const enum kv_type type) { return element * (type == KV_F32 ? 4 : 2); }

static inline const char *page_at(const struct attention *a, int page, size_t element, const enum kv_type type)
{
	return (const char *)a->pages[page] + page_bytes(element, type);
}

/* The same of the page to prefetch while this one is used; of this one near the end, and for the tiles after
 * the first. */
static inline const char *page_ahead(const struct attention *a, int page, int ahead, bool first_tile, size_t element,
                                     const enum kv_type type)
{
	return page_at(a, first_tile && page + ahead < a->n_pages ? page + ahead : page, element, type);
}

/* The members of an instruction set from its static scores_of_KV, scores_largest, scores_terms and values_of_KV. */
#define ATTEND(isa, kv) \
	static const struct attention_tiles tiles_##kv = {TILE_QUERIES, scores_of_##kv, scores_largest, scores_terms, values_of_##kv}; \
	ATTEND_FUNCTION(attend_##kv##_##isa) \
	{ \
		attention_row(&tiles_##kv, out, q, n_q, head_dim, pages, k_offset, v_offset, n_positions, scale, scores); \
	}

#endif
