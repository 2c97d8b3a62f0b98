/* tokenizer_pieces.c - growing lists of pieces, spans and ids; amortised constant time per element. */
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"

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

void pieces_open(struct pieces *pieces, bool literal)
{
	pieces->items = grown(pieces->items, pieces->n + 1, &pieces->capacity, sizeof *pieces->items);
	pieces->bytes = grown(pieces->bytes, 1, &pieces->bytes_capacity, 1); /* an empty piece has an address too */
	pieces->items[pieces->n++] = (struct piece){.start = pieces->n_bytes, .literal = literal};
}

void pieces_write(struct pieces *pieces, const char *bytes, size_t n)
{
	if (pieces->n_bytes_max > 0 && n > pieces->n_bytes_max - pieces->n_bytes)
		pieces->over = true;
	if (n == 0 || pieces->over)
		return;
	pieces->bytes = grown(pieces->bytes, pieces->n_bytes + n, &pieces->bytes_capacity, 1);
	memcpy(pieces->bytes + pieces->n_bytes, bytes, n);
	pieces->n_bytes += n;
	pieces->items[pieces->n - 1].n += n;
}

void pieces_write_from(struct pieces *pieces, const char *bytes, size_t n, bool first)
{
	pieces_write(pieces, bytes, n);
	if (first)
		pieces->items[pieces->n - 1].origin += n;
}

void pieces_add(struct pieces *pieces, const char *bytes, size_t n, size_t origin)
{
	if (n == 0)
		return;
	pieces_open(pieces, false);
	pieces_write(pieces, bytes, n);
	pieces->items[pieces->n - 1].origin = origin;
}

size_t origin_within(size_t origin, size_t start, size_t end)
{
	return origin <= start ? 0 : (origin < end ? origin : end) - start;
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
