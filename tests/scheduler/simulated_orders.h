/* simulated_orders.h - what test_simulator.c requires of the order of leases, of recalls, and of the order in which
 * delivered groups are remembered.
 */
#ifndef TESTS_SCHEDULER_SIMULATED_ORDERS_H
#define TESTS_SCHEDULER_SIMULATED_ORDERS_H

#include "tests/scheduler/simulated_trainer.h"

/* S6: no sample of the step waits that should have been leased before this one. */
static inline void require_order(struct world *world, const struct shadow_group *group, const struct shadow *leased)
{
	bool longest = world->options.order == ORDER_LONGEST;
	require(world, !longest || group->known, "S6: nothing is expected of group %d yet", (int)group->id);
	for (struct shadow_group *other = world->groups; other < world->groups + world->n_groups; other++)
		for (int i = 0; i < other->n_samples; i++) {
			const struct shadow *sample = &other->samples[i];
			if (sample == leased || sample->added || other->eval != group->eval || sample->done || sample->leased)
				continue;
			require(world, longest || other >= group, "S6: group %d is leased before %d", (int)group->id,
			        (int)other->id);
			if (!longest || !other->known)
				continue;
			bool due = sample->due || is_due(world, other, sample);
			bool leased_due = leased->due || is_due(world, group, leased);
			/* What a rank puts aside of its own accord may become due by that only when it is leased. */
			bool after = due < leased_due || (due == leased_due && sample->expected <= leased->expected);
			require(world, world->p_spontaneous || after,
			        "S6: a sample of group %d that has %d tokens to go is leased before one that has %d",
			        (int)group->id, leased->expected, sample->expected);
		}
}

/* S14.  That a slot is free for what comes back is scheduler_check()'s to say. */
static inline void on_recall(struct world *world, const struct action *action)
{
	struct sim_rank *rank = &world->ranks[action->rank];
	int n_leased = 0;
	/* Nothing says that a step closes one step off unless there is somebody to stop. */
	bool closing = world->closing || (world->options.asynchrony == ASYNCHRONOUS_BY_ONE_STEP && is_closing(world));
	require(world, world->options.migrate && (world->open || sim_async(world)), "S14: a recall that nobody asked for");
	require(world, rank->alive && !rank->stopping && rank->recall == 0, "S14: rank %d cannot be recalled from",
	        action->rank);
	for (int i = 0; i < world->n_groups; i++)
		for (int k = 0; k < world->groups[i].n_samples; k++) {
			const struct shadow *sample = &world->groups[i].samples[k];
			n_leased += sample->leased && sample->rank == action->rank;
			require(world,
			        closing || sample->added || world->groups[i].eval != sim_eval(world) || sample->done || sample->leased,
			        "S14: a recall while group %d waits", (int)world->groups[i].id);
		}
	int least = rank->active < n_leased / 2 ? rank->active : n_leased / 2;
	require(world, action->n_samples >= least && action->n_samples < n_leased,
	        "S14: rank %d holds %d samples and is to keep %d", action->rank, n_leased, action->n_samples);
	rank->recall = action->lease;
	world->n_recalls++;
	send_to_rank(world, (struct event){.type = EVENT_RECALL,
	                                   .rank = action->rank,
	                                   .sample = action->n_samples,
	                                   .lease = action->lease});
}

static inline int id_compare(const void *a, const void *b)
{
	const struct shadow_group *left = a, *right = b;
	return (left->id > right->id) - (left->id < right->id);
}

/* Ids and sizes in prompt order, whatever the order in which they were delivered. */
static inline void remember_delivered(struct world *world)
{
	qsort(world->streamed, (size_t)world->n_streamed, sizeof *world->streamed, id_compare);
	for (int i = 0; i < world->n_streamed; i++)
		world->delivered[world->n_delivered_ids++] = world->streamed[i].id << 8 | (uint64_t)world->streamed[i].n_samples;
}

#endif
