/* scheduler_order.c - ORDER_LONGEST: samples by how long they are still expected to take.
 *
 * After the longest-processing-time rule (Graham, "Bounds on multiprocessing timing anomalies", 1969): what
 * takes longest starts first, so that the end of a step is not one long sample that began late.  It can only
 * choose among samples that are there: all groups of the step are opened at its begin, and leased once the
 * controller has said what it expects of them.  O(log samples) per change.
 */
#include "scheduler/scheduler_internal.h"

/* Longest first, then oldest group, then lowest sample. */
static uint64_t order_key(const struct sample *sample)
{
	return (uint64_t)(UINT32_MAX - sample->expected) << 32 | (sample->group->id & 0xfffff) << 12 |
	       ((uint64_t)sample->index & 0xfff);
}

static struct heap *order_heap(struct scheduler *scheduler, const struct sample *sample)
{
	return &scheduler->pools[sample->group->eval].longest[sample->due];
}

void order_enqueue(struct scheduler *scheduler, struct sample *sample)
{
	if (scheduler->options.order == ORDER_LONGEST && sample->group->known)
		heap_insert(order_heap(scheduler, sample), &sample->order_node, order_key(sample), sample);
}

void order_dequeue(struct scheduler *scheduler, struct sample *sample)
{
	if (sample->order_node.at > 0)
		heap_remove(order_heap(scheduler, sample), &sample->order_node);
}

struct sample *order_next_sample(struct scheduler *scheduler)
{
	struct pool *pool = &scheduler->pools[scheduler->eval];
	struct sample *due = heap_first(&pool->longest[DUE]);
	if (!step_fills(scheduler))
		return due;
	while (staleness_may_open(scheduler))
		group_open(scheduler);
	return due ? due : heap_first(&pool->longest[ORDINARY]);
}

static void expect(struct scheduler *scheduler, struct sample *sample, int tokens)
{
	sample->expected = tokens > 0 ? (uint32_t)tokens : 0;
	if (sample->order_node.at > 0)
		heap_rekey(order_heap(scheduler, sample), &sample->order_node, order_key(sample));
}

/* From now on its samples may be leased. */
static void group_known_set(struct scheduler *scheduler, struct group *group)
{
	group->known = true;
	scheduler->n_unknown--;
	for (int i = 0; i < group->n_samples; i++)
		if (group->samples[i].state != SAMPLE_DONE) /* pruned; nothing is leased yet */
			order_enqueue(scheduler, &group->samples[i]);
}

void scheduler_on_sample_expected(struct scheduler *scheduler, uint64_t group, int sample, int tokens)
{
	struct group *found = group_map_find(&scheduler->groups, group);
	if (scheduler->options.order != ORDER_LONGEST || !found || found->state != GROUP_OPEN || sample >= found->n_samples)
		return;
	for (int i = sample < 0 ? 0 : sample; i < (sample < 0 ? found->n_samples : sample + 1); i++)
		expect(scheduler, &found->samples[i], tokens);
	if (found->known)
		return;
	group_known_set(scheduler, found);
	step_advance(scheduler);
}
