/* tokenizer_bpe.c - byte pair encoding (Sennrich, Haddow, Birch 2016; merges by rank as in GPT-2).
 *
 * One piece starts as a linked list of single-character symbols.  A binary heap holds every adjacent pair
 * that has a merge, ordered by (rank, position); the best is merged, its two new neighbours are looked
 * up and pushed.  A pair whose symbols have changed since is skipped when it comes up.  At most 3n pairs
 * are ever pushed, so a piece of n characters costs O(n log n) even where the whole text is one piece
 * (Llama 2).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer_internal.h"
#include "policy/utf8.h"

struct symbol {
	int32_t id;         /* -1: merged into the one on its left */
	int32_t prev, next; /* -1: none */
};

struct candidate {
	uint32_t rank;
	int32_t at;         /* the left symbol */
	int32_t id;         /* what the pair becomes */
};

struct bpe_scratch {
	struct symbol *symbols;
	struct candidate *heap; /* [3 * capacity] */
	size_t n_symbols, n_heap, capacity;
};

struct bpe_scratch *bpe_scratch_open(void)
{
	return xcalloc(1, sizeof(struct bpe_scratch));
}

void bpe_scratch_close(struct bpe_scratch *scratch)
{
	free(scratch->symbols);
	free(scratch->heap);
	free(scratch);
}

static bool before(const struct candidate *a, const struct candidate *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(struct bpe_scratch *scratch, struct candidate candidate)
{
	struct candidate *heap = scratch->heap;
	size_t at = scratch->n_heap++;

	assert(scratch->n_heap <= 3 * scratch->capacity);
	while (at > 0 && before(&candidate, &heap[(at - 1) / 2])) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = candidate;
}

static struct candidate heap_pop(struct bpe_scratch *scratch)
{
	struct candidate *heap = scratch->heap, best = heap[0], last = heap[--scratch->n_heap];
	size_t n = scratch->n_heap, at = 0, child;

	while ((child = 2 * at + 1) < n) {
		child += child + 1 < n && before(&heap[child + 1], &heap[child]);
		if (!before(&heap[child], &last))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = last;
	return best;
}

/* Queue the merge of symbol `at` with the one after it, if there is one. */
static void consider(const struct bpe *bpe, struct bpe_scratch *scratch, int32_t at)
{
	const struct symbol *left = &scratch->symbols[at];

	if (left->next < 0)
		return;
	const struct merge *merge = merge_find(bpe, left->id, scratch->symbols[left->next].id);
	if (merge)
		heap_push(scratch, (struct candidate){merge->rank, at, merge->id});
}

static void merge_all(const struct bpe *bpe, struct bpe_scratch *scratch)
{
	struct symbol *symbols = scratch->symbols;

	for (size_t i = 0; i + 1 < scratch->n_symbols; i++)
		consider(bpe, scratch, (int32_t)i);
	while (scratch->n_heap > 0) {
		struct candidate best = heap_pop(scratch);
		struct symbol *left = &symbols[best.at];
		if (left->id < 0 || left->next < 0)
			continue;
		struct symbol *right = &symbols[left->next];
		const struct merge *merge = merge_find(bpe, left->id, right->id);
		if (!merge || merge->id != best.id)
			continue; /* one of the two has changed since */
		left->id = best.id;
		left->next = right->next;
		right->id = -1;
		if (left->next >= 0)
			symbols[left->next].prev = best.at;
		if (left->prev >= 0)
			consider(bpe, scratch, left->prev);
		consider(bpe, scratch, best.at);
	}
}

static void add_symbol(struct bpe_scratch *scratch, int32_t id)
{
	int32_t at = (int32_t)scratch->n_symbols++;

	scratch->symbols[at] = (struct symbol){.id = id, .prev = at - 1, .next = at + 1};
}

/* True if every byte of a character has a byte token. */
static bool add_bytes(const struct bpe *bpe, struct bpe_scratch *scratch, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bpe->byte_ids[(unsigned char)text[i]] < 0)
			return false;
	for (size_t i = 0; i < n; i++)
		add_symbol(scratch, bpe->byte_ids[(unsigned char)text[i]]);
	return true;
}

/* A character is never dropped in silence. */
static int refuse_character(char byte, int32_t code, struct err *err)
{
	static const char lacks[] = "the vocabulary has no token for it, no byte tokens and no unk_token";

	if (code < 0)
		return err_set(err, ERR_INVALID, "tokenizer: byte 0x%02X (not UTF-8): %s",
		               (unsigned char)byte, lacks);
	return err_set(err, ERR_INVALID, "tokenizer: character U+%04X: %s", (unsigned)code, lacks);
}

/* One symbol per character; what the vocabulary lacks becomes byte tokens or the unknown token. */
static int add_characters(const struct bpe *bpe, const struct vocab *vocab, const char *text, size_t n,
                          struct bpe_scratch *scratch, struct err *err)
{
	bool after_unk = false;

	for (size_t at = 0, step; at < n; at += step) {
		int32_t code;
		step = utf8_step(text + at, n - at, &code);
		int32_t id = vocab_find(vocab, text + at, step);
		bool unknown = id < 0 && !(bpe->byte_fallback && add_bytes(bpe, scratch, text + at, step));
		if (unknown && bpe->unk_id < 0)
			return refuse_character(text[at], code, err);
		if (id >= 0)
			add_symbol(scratch, id);
		else if (unknown && !(after_unk && bpe->fuse_unk))
			add_symbol(scratch, bpe->unk_id);
		after_unk = unknown;
	}
	return 0;
}

static void reserve(struct bpe_scratch *scratch, size_t n)
{
	if (n > scratch->capacity) {
		scratch->capacity = n < 64 ? 64 : n;
		scratch->symbols = xrealloc(scratch->symbols, scratch->capacity * sizeof *scratch->symbols);
		scratch->heap = xrealloc(scratch->heap, 3 * scratch->capacity * sizeof *scratch->heap);
	}
	scratch->n_symbols = scratch->n_heap = 0;
}

int bpe_encode(const struct bpe *bpe, const struct vocab *vocab, const char *text, size_t n,
               struct bpe_scratch *scratch, struct ids *ids, struct err *err)
{
	int32_t whole = bpe->ignore_merges ? vocab_find(vocab, text, n) : -1;

	if (whole >= 0) {
		ids_push(ids, whole);
		return 0;
	}
	if (n > INT32_MAX) /* a normalizer may have made it longer than the text */
		return err_set(err, ERR_TOO_BIG, "tokenizer: a piece of %zu bytes; at most %d are taken", n, INT32_MAX);
	reserve(scratch, n);
	if (add_characters(bpe, vocab, text, n, scratch, err) != 0)
		return err->code;
	if (scratch->n_symbols == 0)
		return 0;
	scratch->symbols[scratch->n_symbols - 1].next = -1;
	merge_all(bpe, scratch);
	for (int32_t at = 0; at >= 0; at = scratch->symbols[at].next)
		ids_push(ids, scratch->symbols[at].id);
	return 0;
}
