/* tokenizer_vocab.c - token text <-> id: an array by id and an open-addressing hash (XXH3) by text. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "policy/tokenizer_internal.h"

enum { SLOTS_FIRST = 1024 };

void vocab_open(struct vocab *vocab)
{
	*vocab = (struct vocab){.n_slots = SLOTS_FIRST};
	vocab->slots = xmalloc(SLOTS_FIRST * sizeof *vocab->slots);
	memset(vocab->slots, 0xFF, SLOTS_FIRST * sizeof *vocab->slots);
}

void vocab_free(struct vocab *vocab)
{
	for (int32_t i = 0; i < vocab->n_ids; i++)
		free(vocab->tokens[i].text);
	free(vocab->tokens);
	free(vocab->slots);
	*vocab = (struct vocab){0};
}

/* The slot of this text, or the empty one where it would go. */
static uint32_t find_slot(const struct vocab *vocab, const char *text, size_t n)
{
	uint32_t mask = vocab->n_slots - 1, slot = (uint32_t)XXH3_64bits(text, n) & mask;

	for (;; slot = (slot + 1) & mask) {
		int32_t id = vocab->slots[slot];
		if (id < 0 || (vocab->tokens[id].n == n && memcmp(vocab->tokens[id].text, text, n) == 0))
			return slot;
	}
}

int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n)
{
	return vocab->slots[find_slot(vocab, text, n)];
}

/* Keep the slots at most half full. */
static void grow_slots(struct vocab *vocab)
{
	if (2 * ((uint32_t)vocab->n_tokens + 1) <= vocab->n_slots)
		return;
	vocab->n_slots *= 2;
	vocab->slots = xrealloc(vocab->slots, vocab->n_slots * sizeof *vocab->slots);
	memset(vocab->slots, 0xFF, vocab->n_slots * sizeof *vocab->slots);
	for (int32_t id = 0; id < vocab->n_ids; id++)
		if (vocab->tokens[id].text)
			vocab->slots[find_slot(vocab, vocab->tokens[id].text, vocab->tokens[id].n)] = id;
}

/* Make id a valid index; ids may come in any order. */
static void grow_tokens(struct vocab *vocab, int32_t id)
{
	if (id < vocab->n_ids)
		return;
	size_t old = (size_t)vocab->n_ids, capacity = 1;
	while (capacity < old)
		capacity *= 2;
	if ((size_t)id >= capacity || old == 0) {
		while (capacity <= (size_t)id)
			capacity *= 2;
		vocab->tokens = xrealloc(vocab->tokens, capacity * sizeof *vocab->tokens);
	}
	memset(vocab->tokens + old, 0, ((size_t)id + 1 - old) * sizeof *vocab->tokens);
	vocab->n_ids = id + 1;
}

int vocab_add(struct vocab *vocab, const char *text, size_t n, int32_t id, struct err *err)
{
	char name[QUOTED_MAX], other[QUOTED_MAX];
	int32_t known = vocab_find(vocab, text, n);

	if (known >= 0)
		return err_set(err, ERR_INVALID, "token %s has two ids, %d and %d", quoted(name, text, n), known, id);
	if (id < vocab->n_ids && vocab->tokens[id].text)
		return err_set(err, ERR_INVALID, "id %d is given to two tokens, %s and %s", id,
		               quoted(other, vocab->tokens[id].text, vocab->tokens[id].n), quoted(name, text, n));
	grow_tokens(vocab, id);
	grow_slots(vocab);
	struct token *token = &vocab->tokens[id];
	token->n = (uint32_t)n;
	token->text = xmalloc(n + 1);
	memcpy(token->text, text, n);
	token->text[n] = '\0';
	token->shown = token->text;
	token->n_shown = token->n;
	vocab->slots[find_slot(vocab, text, n)] = id;
	vocab->n_tokens++;
	return 0;
}
