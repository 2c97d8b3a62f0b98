/* scheduler_offers.c - prompts that somebody hands in while the run goes on, each with its own number of samples.
 *
 * A ring of those that wait to be opened, first come first served; O(1) each.
 */
#include "scheduler/scheduler_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "configs/err.h"

static void offers_grow(struct offers *offers)
{
	int capacity = offers->capacity ? 2 * offers->capacity : 64;
	int *sizes = xmalloc((size_t)capacity * sizeof(int));
	for (int i = 0; i < offers->n; i++)
		sizes[i] = offers->sizes[(offers->first + i) % offers->capacity];
	free(offers->sizes);
	*offers = (struct offers){.sizes = sizes, .n = offers->n, .capacity = capacity};
}

void scheduler_on_prompts_offered(struct scheduler *scheduler, const int *n_samples, int n, bool first)
{
	struct offers *offers = &scheduler->offers;
	assert(!first || n == 1);
	for (int i = 0; i < n; i++) {
		assert(n_samples[i] > 0);
		if (offers->n == offers->capacity)
			offers_grow(offers);
		if (first)
			offers->first = (offers->first + offers->capacity - 1) % offers->capacity;
		offers->sizes[(offers->first + (first ? 0 : offers->n)) % offers->capacity] = n_samples[i];
		offers->n++;
	}
	step_advance(scheduler);
}

int offers_take(struct offers *offers)
{
	if (offers->n == 0)
		return 0;
	int n_samples = offers->sizes[offers->first];
	offers->first = (offers->first + 1) % offers->capacity;
	offers->n--;
	return n_samples;
}
