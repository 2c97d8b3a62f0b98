/* tokenizer_vocab.c - token text <-> id: an array by id and open-addressing hashes (XXH3) by text. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "policy/tokenizer/tokenizer_internal.h"

enum { SLOTS_FIRST = 1024 };

static void map_open(struct text_map *map)
{
	*map = (struct text_map){.n_slots = SLOTS_FIRST};
	map->slots = xmalloc(SLOTS_FIRST * sizeof *map->slots);
	memset(map->slots, 0xFF, SLOTS_FIRST * sizeof *map->slots);
}

static void map_free(struct text_map *map)
{
	for (uint32_t i = 0; i < map->n; i++)
		free(map->items[i].text);
	free(map->items);
	free(map->slots);
	*map = (struct text_map){0};
}

/* The slot of this text, or the empty one where it would go. */
static int32_t *find_slot(const struct text_map *map, const char *text, size_t n)
{
	uint32_t mask = map->n_slots - 1, slot = (uint32_t)XXH3_64bits(text, n) & mask;

	for (;; slot = (slot + 1) & mask) {
		int32_t item = map->slots[slot];
		if (item < 0 || (map->items[item].n == n && memcmp(map->items[item].text, text, n) == 0))
			return &map->slots[slot];
	}
}

static int32_t map_find(const struct text_map *map, const char *text, size_t n)
{
	int32_t item = *find_slot(map, text, n);

	return item < 0 ? -1 : map->items[item].id;
}

/* Twice the slots; they are kept at most half full. */
static void grow_slots(struct text_map *map)
{
	map->n_slots *= 2;
	map->slots = xrealloc(map->slots, map->n_slots * sizeof *map->slots);
	memset(map->slots, 0xFF, map->n_slots * sizeof *map->slots);
	for (uint32_t i = 0; i < map->n; i++)
		*find_slot(map, map->items[i].text, map->items[i].n) = (int32_t)i;
}

/* text is new.  Returns the map's copy of it. */
static const char *map_add(struct text_map *map, const char *text, size_t n, int32_t id)
{
	if (2 * (map->n + 1) > map->n_slots)
		grow_slots(map);
	if (map->n == map->capacity) {
		map->capacity = map->capacity ? 2 * map->capacity : 64;
		map->items = xrealloc(map->items, map->capacity * sizeof *map->items);
	}
	struct text_id *item = &map->items[map->n];
	*item = (struct text_id){.text = xmalloc(n + 1), .n = (uint32_t)n, .id = id};
	memcpy(item->text, text, n);
	item->text[n] = '\0';
	*find_slot(map, text, n) = (int32_t)map->n++;
	return item->text;
}

void vocab_open(struct vocab *vocab)
{
	*vocab = (struct vocab){0};
	map_open(&vocab->model);
	map_open(&vocab->added);
}

void vocab_free(struct vocab *vocab)
{
	map_free(&vocab->model);
	map_free(&vocab->added);
	free(vocab->tokens);
	*vocab = (struct vocab){0};
}

int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n)
{
	return map_find(&vocab->model, text, n);
}

int32_t vocab_find_any(const struct vocab *vocab, const char *text, size_t n)
{
	int32_t id = map_find(&vocab->model, text, n);

	return id >= 0 ? id : map_find(&vocab->added, text, n);
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

static void set_token(struct vocab *vocab, int32_t id, const char *text, size_t n)
{
	uint32_t length = (uint32_t)n;

	grow_tokens(vocab, id);
	vocab->tokens[id] = (struct token){.text = text, .n = length, .shown = text, .n_shown = length};
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
	set_token(vocab, id, map_add(&vocab->model, text, n, id), n);
	return 0;
}

void vocab_add_added(struct vocab *vocab, const char *text, size_t n, int32_t id)
{
	set_token(vocab, id, map_add(&vocab->added, text, n, id), n);
}
