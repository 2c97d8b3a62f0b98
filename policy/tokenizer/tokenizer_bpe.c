/* tokenizer_bpe.c - byte pair encoding (Sennrich, Haddow, Birch 2016; merges by rank as in GPT-2).
 *
 * One piece starts as a linked list of single-character symbols.  A heap holds every adjacent pair
 * that has a merge, ordered by (rank, position); the best is merged, its two new neighbours are looked
 * up and pushed.  A pair whose symbols have changed since is skipped when it comes up.  At most 3n pairs
 * are ever pushed, so a piece of n characters costs O(n log n) even where the whole text is one piece
 * (Llama 2).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"

struct symbol {
	int32_t id;         /* -1: merged into the one on its left */
	int32_t prev, next; /* -1: none */
};

struct candidate {
	uint64_t order; /* rank << 32 | the left symbol: least first */
	int32_t id;     /* what the pair becomes */
};

struct bpe_scratch {
	struct symbol *symbols;
	struct candidate *heap; /* [3 * capacity] */
	size_t n_symbols, n_heap, capacity;
	char *affixed; /* a symbol's text with its prefix and suffix */
};

struct bpe_scratch *bpe_scratch_open(void)
{
	return xcalloc(1, sizeof(struct bpe_scratch));
}

void bpe_scratch_close(struct bpe_scratch *scratch)
{
	free(scratch->symbols);
	free(scratch->heap);
	free(scratch->affixed);
	free(scratch);
}

/* The heap has four children to a node: half the levels of two, and they lie side by side. */
static void heap_push(struct bpe_scratch *scratch, struct candidate candidate)
{
	struct candidate *heap = scratch->heap;
	size_t at = scratch->n_heap++;

	assert(scratch->n_heap <= 3 * scratch->capacity);
	while (at > 0 && candidate.order < heap[(at - 1) / 4].order) {
		heap[at] = heap[(at - 1) / 4];
		at = (at - 1) / 4;
	}
	heap[at] = candidate;
}

static struct candidate heap_pop(struct bpe_scratch *scratch)
{
	struct candidate *heap = scratch->heap, best = heap[0], last = heap[--scratch->n_heap];
	size_t n = scratch->n_heap, at = 0, child;

	while ((child = 4 * at + 1) < n) {
		for (size_t i = child + 1, end = child + 4 < n ? child + 4 : n; i < end; i++)
			child = heap[i].order < heap[child].order ? i : child;
		if (heap[child].order >= last.order)
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
		heap_push(scratch, (struct candidate){(uint64_t)merge->rank << 32 | (uint32_t)at, merge->id});
}

static void merge_all(const struct bpe *bpe, struct bpe_scratch *scratch)
{
	struct symbol *symbols = scratch->symbols;

	for (size_t i = 0; i + 1 < scratch->n_symbols; i++)
		consider(bpe, scratch, (int32_t)i);
	while (scratch->n_heap > 0) {
		struct candidate best = heap_pop(scratch);
		int32_t at = (int32_t)(uint32_t)best.order;
		struct symbol *left = &symbols[at];
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
			symbols[left->next].prev = at;
		if (left->prev >= 0)
			consider(bpe, scratch, left->prev);
		consider(bpe, scratch, at);
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

/* The text of a symbol: its character, between the prefix of all but the first and the suffix of the last. */
static const char *with_affixes(const struct bpe *bpe, struct bpe_scratch *scratch, const char *text, size_t *n,
                                bool first, bool last)
{
	size_t before = first ? 0 : bpe->n_prefix, after = last ? bpe->n_suffix : 0;

	if (before + after == 0)
		return text;
	scratch->affixed = xrealloc(scratch->affixed, before + *n + after);
	if (before > 0)
		memcpy(scratch->affixed, bpe->prefix, before);
	memcpy(scratch->affixed + before, text, *n);
	if (after > 0)
		memcpy(scratch->affixed + before + *n, bpe->suffix, after);
	*n += before + after;
	return scratch->affixed;
}

/* One symbol per character; what the vocabulary lacks becomes byte tokens or the unknown token, or is
 * dropped where there are neither.  An unknown token is put off until the next known symbol: byte tokens
 * overtake it, as in the reference. */
static int add_characters(const struct bpe *bpe, const struct vocab *vocab, const char *text, size_t n,
                          struct bpe_scratch *scratch, struct err *err)
{
	bool put_off = false;

	for (size_t at = 0, step; at < n; at += step) {
		int32_t code;
		step = utf8_step(text + at, n - at, &code);
		size_t length = step;
		const char *symbol = with_affixes(bpe, scratch, text + at, &length, at == 0, at + step == n);
		int32_t id = vocab_find(vocab, symbol, length);
		if (id < 0 && bpe->byte_fallback && add_bytes(bpe, scratch, symbol, length))
			continue;
		if (id < 0 && !bpe->unk)
			continue;
		if (id < 0 && bpe->unk_id < 0)
			return err_set(err, ERR_INVALID, "tokenizer: the vocabulary has no token for U+%04X, and its "
			               "unk_token \"%.64s\" is not in model.vocab", (unsigned)code, bpe->unk);
		if (put_off && (id >= 0 || !bpe->fuse_unk))
			add_symbol(scratch, bpe->unk_id);
		put_off = id < 0;
		if (id >= 0)
			add_symbol(scratch, id);
	}
	if (put_off)
		add_symbol(scratch, bpe->unk_id);
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
	reserve(scratch, bpe->byte_fallback ? n * (1 + bpe->n_prefix) + bpe->n_suffix : n);
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
