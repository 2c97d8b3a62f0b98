/* leases.c - a short list: a worker holds tens of samples. */
#include "scheduler/worker/leases.h"

#include <stddef.h>

#include "configs/err.h"

struct lease *leases_find(const struct leases *leases, uint64_t trajectory_id)
{
	for (int i = 0; i < leases->n; i++)
		if (leases->items[i].trajectory_id == trajectory_id) return &leases->items[i];
	return NULL;
}

void leases_add(struct leases *leases, uint64_t trajectory_id, uint64_t lease, int32_t n_tokens)
{
	if (leases->n == leases->capacity) {
		leases->capacity = leases->capacity ? 2 * leases->capacity : 64;
		leases->items = xrealloc(leases->items, (size_t)leases->capacity * sizeof *leases->items);
	}
	leases->items[leases->n++] = (struct lease){ .trajectory_id = trajectory_id, .lease = lease, .told = n_tokens };
}

uint64_t leases_end(struct leases *leases, uint64_t trajectory_id)
{
	struct lease *l = leases_find(leases, trajectory_id);
	uint64_t number = l ? l->lease : 0;

	if (l) *l = leases->items[--leases->n];
	return number;
}
