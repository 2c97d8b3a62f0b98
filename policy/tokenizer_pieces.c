/* tokenizer_pieces.c - growing lists of pieces, spans and ids; amortised constant time per element. */
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer_internal.h"

/* Room for `need` elements, doubling. */
static void *grown(void *items, size_t need, size_t *capacity, size_t size)
{
	if (need <= *capacity)
		return items;
	size_t doubled = *capacity ? 2 * *capacity : 16;
	*capacity = need > doubled ? need : doubled;
	return xrealloc(items, *capacity * size);
}

void pieces_free(struct pieces *pieces)
{
	free(pieces->bytes);
	free(pieces->items);
	*pieces = (struct pieces){0};
}

void pieces_clear(struct pieces *pieces)
{
	pieces->n_bytes = pieces->n = 0;
}

void pieces_open(struct pieces *pieces, unsigned flags)
{
	pieces->items = grown(pieces->items, pieces->n + 1, &pieces->capacity, sizeof *pieces->items);
	pieces->items[pieces->n++] = (struct piece){.start = pieces->n_bytes, .flags = flags};
}

void pieces_write(struct pieces *pieces, const char *bytes, size_t n)
{
	if (n == 0)
		return;
	pieces->bytes = grown(pieces->bytes, pieces->n_bytes + n, &pieces->bytes_capacity, 1);
	memcpy(pieces->bytes + pieces->n_bytes, bytes, n);
	pieces->n_bytes += n;
	pieces->items[pieces->n - 1].n += n;
}

void pieces_add(struct pieces *pieces, const char *bytes, size_t n, unsigned flags)
{
	if (n == 0)
		return;
	pieces_open(pieces, flags);
	pieces_write(pieces, bytes, n);
}

void spans_add(struct spans *spans, size_t start, size_t end, bool match)
{
	spans->items = grown(spans->items, spans->n + 1, &spans->capacity, sizeof *spans->items);
	spans->items[spans->n++] = (struct span){start, end, match};
}

void ids_push(struct ids *ids, int32_t id)
{
	ids->items = grown(ids->items, ids->n + 1, &ids->capacity, sizeof *ids->items);
	ids->items[ids->n++] = id;
}
