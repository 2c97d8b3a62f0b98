/* kv_cache.h - keys and values, BF16 or FP32, in reference-counted pages under a hard memory budget.
 *
 * A page holds KV_TILE positions of every layer and KV head:
 *     [layer][kv_head]{ K [head_dim][KV_TILE], V [KV_TILE][head_dim] } of one enum kv_type
 * A kv_seq is one timeline's list of pages.  Forks share full pages; a shared page is copied
 * before the first write to it (copy on write).  Not thread safe except for concurrent writes of
 * different positions or heads inside pages already reserved.
 */
#ifndef POLICY_KV_CACHE_H
#define POLICY_KV_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "policy/model_config.h"
#include "quant/kernels.h"

struct kv_cache;

struct kv_seq {
	struct kv_cache *cache; /* borrowed */
	void **pages;           /* [capacity], base addresses; read by the attention kernel */
	int n_pages, capacity;
};

/* budget_bytes is a hard bound on page memory; pages are taken from the system as needed and kept. */
int kv_cache_open(struct kv_cache **cache, const struct model_config *config, enum kv_type type,
                  size_t budget_bytes, struct err *err);
void kv_cache_close(struct kv_cache *cache);

enum kv_type kv_cache_type(const struct kv_cache *cache);
size_t kv_cache_page_bytes(const struct kv_cache *cache);
int kv_cache_pages_max(const struct kv_cache *cache);
int kv_cache_pages_used(const struct kv_cache *cache);
size_t kv_k_offset(const struct kv_cache *cache, int layer, int kv_head); /* elements into a page */
size_t kv_v_offset(const struct kv_cache *cache, int layer, int kv_head);

/* Bytes of KV of n_positions of one sequence, in whole pages. */
size_t kv_bytes(const struct model_config *config, enum kv_type type, int64_t n_positions);

void kv_seq_open(struct kv_seq *seq, struct kv_cache *cache);
void kv_seq_close(struct kv_seq *seq);

/* dst (open, empty) shares src's pages for positions [0, n_positions). */
void kv_seq_fork(struct kv_seq *dst, const struct kv_seq *src, int n_positions);

/* Make positions [write_from, n_positions) writable and owned alone; ERR_MEMORY (-9) when the
 * budget is spent, with nothing changed that would be lost. */
int kv_seq_reserve(struct kv_seq *seq, int write_from, int n_positions);

/* One head's key or value [head_dim] f32 at a reserved position, rounded to the cache's type. */
void kv_seq_put_key(const struct kv_seq *seq, int position, int layer, int kv_head, const float *key);
void kv_seq_put_value(const struct kv_seq *seq, int position, int layer, int kv_head, const float *value);

/* The pages that hold positions [0, n_positions), one after the other, as bytes for another cache of the same
 * model and type: what the two compute from them is the same bits. */
size_t kv_seq_export_bytes(const struct kv_seq *seq, int n_positions);
void kv_seq_export(const struct kv_seq *seq, int n_positions, void *bytes);
/* Into an open, empty sequence; ERR_MEMORY when the budget is spent, with nothing changed. */
int kv_seq_import(struct kv_seq *seq, int n_positions, const void *bytes);

/* Give back pages wholly beyond n_positions. */
void kv_seq_truncate(struct kv_seq *seq, int n_positions);

#endif
