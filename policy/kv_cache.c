/* kv_cache.c - reference-counted pages: a free list, a hard budget, copy on write.
 *
 * A page is one 64-byte aligned block: a header with its reference count, then the data whose
 * address the sequences hold.  Every operation is O(pages touched); a copy on write is one memcpy of
 * a page, at most once per fork.
 */
#include "policy/kv_cache.h"

#include <assert.h>
#include <limits.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "quant/bf16.h"

struct page {
	alignas(64) struct page *next_free;
	struct page *next_made;
	int references;
};
static_assert(sizeof(struct page) == 64, "the page data after the header keeps 64-byte alignment");

struct kv_cache {
	enum kv_type type;
	size_t page_bytes;          /* header included */
	size_t head_elements;       /* K and V of one layer and KV head */
	int n_layers, n_kv_heads, head_dim;
	int pages_max, pages_made, pages_free;
	struct page *free_list, *made_list;
};

static struct page *page_of(void *data) { return (struct page *)data - 1; }
static int pages_for(int n_positions) { return (n_positions + KV_TILE - 1) / KV_TILE; }

static size_t page_bytes_of(const struct model_config *config, enum kv_type type)
{
	size_t heads = (size_t)config->n_layers * (size_t)config->n_kv_heads;
	size_t bytes = heads * 2 * (size_t)config->head_dim * KV_TILE * kv_element_bytes(type);
	return sizeof(struct page) + (bytes + 63) / 64 * 64;
}

size_t kv_bytes(const struct model_config *config, enum kv_type type, int64_t n_positions)
{
	return (size_t)((n_positions + KV_TILE - 1) / KV_TILE) * page_bytes_of(config, type);
}

int kv_cache_open(struct kv_cache **out, const struct model_config *config, enum kv_type type,
                  size_t budget_bytes, struct err *err)
{
	size_t page_bytes = page_bytes_of(config, type);
	if (budget_bytes < page_bytes)
		return err_set(err, ERR_MEMORY,
		               "the KV cache's budget is %zu bytes, but one page of %d positions of this "
		               "model takes %zu; raise worker.kv_memory_mb",
		               budget_bytes, KV_TILE, page_bytes);
	struct kv_cache *cache = xcalloc(1, sizeof *cache);
	cache->type = type;
	cache->page_bytes = page_bytes;
	cache->head_elements = 2u * (size_t)config->head_dim * KV_TILE;
	cache->n_layers = config->n_layers;
	cache->n_kv_heads = config->n_kv_heads;
	cache->head_dim = config->head_dim;
	size_t pages_max = budget_bytes / page_bytes;
	cache->pages_max = pages_max < INT_MAX ? (int)pages_max : INT_MAX;
	*out = cache;
	return 0;
}

void kv_cache_close(struct kv_cache *cache)
{
	if (!cache) return;
	assert(cache->pages_free == cache->pages_made && "a sequence is still open");
	while (cache->made_list) {
		struct page *page = cache->made_list;
		cache->made_list = page->next_made;
		free(page);
	}
	free(cache);
}

enum kv_type kv_cache_type(const struct kv_cache *cache) { return cache->type; }
size_t kv_cache_page_bytes(const struct kv_cache *cache) { return cache->page_bytes; }
int kv_cache_pages_max(const struct kv_cache *cache) { return cache->pages_max; }
int kv_cache_pages_used(const struct kv_cache *cache) { return cache->pages_made - cache->pages_free; }

size_t kv_k_offset(const struct kv_cache *cache, int layer, int kv_head)
{
	assert(layer >= 0 && layer < cache->n_layers && kv_head >= 0 && kv_head < cache->n_kv_heads);
	return ((size_t)layer * (size_t)cache->n_kv_heads + (size_t)kv_head) * cache->head_elements;
}

size_t kv_v_offset(const struct kv_cache *cache, int layer, int kv_head)
{
	return kv_k_offset(cache, layer, kv_head) + (size_t)cache->head_dim * KV_TILE;
}

/* Have at least n pages on the free list, within the budget. */
static bool pages_ensure(struct kv_cache *cache, int n)
{
	while (cache->pages_free < n) {
		if (cache->pages_made == cache->pages_max) return false;
		struct page *page = aligned_alloc(alignof(struct page), cache->page_bytes);
		if (!page) return false;
		memset(page, 0, cache->page_bytes);
		page->next_made = cache->made_list;
		cache->made_list = page;
		page->next_free = cache->free_list;
		cache->free_list = page;
		cache->pages_made++;
		cache->pages_free++;
	}
	return true;
}

static void *page_take(struct kv_cache *cache)
{
	struct page *page = cache->free_list;
	assert(page && page->references == 0);
	cache->free_list = page->next_free;
	cache->pages_free--;
	page->next_free = NULL;
	page->references = 1;
	return page + 1;
}

static void page_release(struct kv_cache *cache, void *data)
{
	struct page *page = page_of(data);
	assert(page->references > 0);
	if (--page->references > 0) return;
	page->next_free = cache->free_list;
	cache->free_list = page;
	cache->pages_free++;
}

void kv_seq_open(struct kv_seq *seq, struct kv_cache *cache)
{
	*seq = (struct kv_seq){.cache = cache};
}

void kv_seq_close(struct kv_seq *seq)
{
	kv_seq_truncate(seq, 0);
	free(seq->pages);
	*seq = (struct kv_seq){0};
}

static void seq_grow(struct kv_seq *seq, int n_pages)
{
	if (n_pages <= seq->capacity) return;
	int capacity = seq->capacity > 0 ? seq->capacity : 8;
	while (capacity < n_pages) capacity *= 2;
	seq->pages = xrealloc(seq->pages, (unsigned long)capacity * sizeof *seq->pages);
	seq->capacity = capacity;
}

void kv_seq_fork(struct kv_seq *dst, const struct kv_seq *src, int n_positions)
{
	int n_pages = pages_for(n_positions);
	assert(dst->cache == src->cache && dst->n_pages == 0);
	assert(n_positions >= 0 && n_pages <= src->n_pages);
	seq_grow(dst, n_pages);
	for (int i = 0; i < n_pages; i++) {
		dst->pages[i] = src->pages[i];
		page_of(src->pages[i])->references++;
	}
	dst->n_pages = n_pages;
}

int kv_seq_reserve(struct kv_seq *seq, int write_from, int n_positions)
{
	assert(write_from >= 0 && write_from <= n_positions);
	assert(write_from <= seq->n_pages * KV_TILE && "positions before write_from must have been reserved");
	if (write_from == n_positions) return 0;
	struct kv_cache *cache = seq->cache;
	int first = write_from / KV_TILE, n_pages = pages_for(n_positions);
	int n_wanted = n_pages > seq->n_pages ? n_pages - seq->n_pages : 0;
	for (int i = first; i < n_pages && i < seq->n_pages; i++)
		n_wanted += page_of(seq->pages[i])->references > 1;
	if (!pages_ensure(cache, n_wanted)) return ERR_MEMORY;

	seq_grow(seq, n_pages);
	for (int i = first; i < n_pages && i < seq->n_pages; i++) {
		if (page_of(seq->pages[i])->references == 1) continue;
		void *own = page_take(cache);
		if (i * KV_TILE < write_from) memcpy(own, seq->pages[i], cache->page_bytes - sizeof(struct page));
		page_release(cache, seq->pages[i]);
		seq->pages[i] = own;
	}
	while (seq->n_pages < n_pages) seq->pages[seq->n_pages++] = page_take(cache);
	return 0;
}

static size_t page_data_bytes(const struct kv_seq *seq) { return seq->cache->page_bytes - sizeof(struct page); }

size_t kv_seq_export_bytes(const struct kv_seq *seq, int n_positions)
{
	return (size_t)pages_for(n_positions) * page_data_bytes(seq);
}

void kv_seq_export(const struct kv_seq *seq, int n_positions, void *bytes)
{
	assert(pages_for(n_positions) <= seq->n_pages);
	for (int i = 0; i < pages_for(n_positions); i++)
		memcpy((char *)bytes + (size_t)i * page_data_bytes(seq), seq->pages[i], page_data_bytes(seq));
}

int kv_seq_import(struct kv_seq *seq, int n_positions, const void *bytes)
{
	assert(seq->n_pages == 0);
	int rc = kv_seq_reserve(seq, 0, n_positions);
	for (int i = 0; !rc && i < seq->n_pages; i++)
		memcpy(seq->pages[i], (const char *)bytes + (size_t)i * page_data_bytes(seq), page_data_bytes(seq));
	return rc;
}

void kv_seq_truncate(struct kv_seq *seq, int n_positions)
{
	assert(n_positions >= 0);
	int n_pages = pages_for(n_positions);
	while (seq->n_pages > n_pages) page_release(seq->cache, seq->pages[--seq->n_pages]);
}

/* n numbers to elements at, at + stride, ... of the position's page. */
static void put(const struct kv_seq *seq, int position, size_t at, size_t stride, const float *x)
{
	assert(position >= 0 && position / KV_TILE < seq->n_pages);
	void *page = seq->pages[position / KV_TILE];
	int n = seq->cache->head_dim;
	if (seq->cache->type == KV_F32)
		for (int d = 0; d < n; d++) ((float *)page)[at + (size_t)d * stride] = x[d];
	else
		for (int d = 0; d < n; d++) ((uint16_t *)page)[at + (size_t)d * stride] = bf16_from_f32(x[d]);
}

void kv_seq_put_key(const struct kv_seq *seq, int position, int layer, int kv_head, const float *key)
{
	put(seq, position, kv_k_offset(seq->cache, layer, kv_head) + (size_t)(position % KV_TILE), KV_TILE, key);
}

void kv_seq_put_value(const struct kv_seq *seq, int position, int layer, int kv_head, const float *value)
{
	size_t head_dim = (size_t)seq->cache->head_dim, slot = (size_t)(position % KV_TILE);
	put(seq, position, kv_v_offset(seq->cache, layer, kv_head) + slot * head_dim, 1, value);
}
