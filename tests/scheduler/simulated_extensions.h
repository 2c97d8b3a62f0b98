/* simulated_extensions.h - what becomes of a group of test_simulator.c that is done: whether it is kept, or gets more
 * samples first; who wants how many, what S18 and S19 say about it, and the shadow of those that are added.
 */
#ifndef TESTS_SCHEDULER_SIMULATED_EXTENSIONS_H
#define TESTS_SCHEDULER_SIMULATED_EXTENSIONS_H

#include "tests/scheduler/simulated_trainer.h"

/* Two worlds of three extend groups, half of those within a budget. */
static inline void extensions_draw(struct world *world)
{
	uint64_t draw = mix(world->seed ^ 0xe27e4du);
	int least = world->options.samples_per_group;
	if (draw % 3 == 0)
		return;
	world->options.samples_max = least + (int)(draw / 3 % (uint64_t)(EXTENDED_MAX - least + 1));
	world->options.extension_budget = draw / 60 % 2 ? 1 + (int)(draw / 120 % 20) : 0;
}

/* Samples that the first stage of a group asks for: of it alone, as its rewards are. */
static inline int extension_wanted(uint64_t group)
{
	uint64_t draw = mix(group * 131 + 5);
	return draw % 3 ? (int)(draw / 3 % EXTENDED_MAX) : 0;
}

/* Async a batch may be complete before all is heard that was said before it: the count is the scheduler's. */
static inline void extensions_count(struct world *world)
{
	struct scheduler_counts counts;
	scheduler_counts_read(world->scheduler, &counts);
	if (sim_async(world))
		world->n_extra = counts.extra;
}

/* What is judged now gets nothing, however late its score comes. */
static inline bool extension_is_spent(struct world *world)
{
	extensions_count(world);
	return world->options.extension_budget > 0 && world->n_extra >= world->options.extension_budget;
}

/* S18 and S19, as a group is about to be scored: how many samples it gets. */
static inline int extension_verdict(struct world *world, const struct shadow_group *group)
{
	extensions_count(world);
	int max = world->options.samples_max, budget = world->options.extension_budget;
	int room = scheduler_extension_room(world->scheduler, group->id), wanted = extension_wanted(group->id);
	int left = budget > 0 ? budget - world->n_extra : EXTENDED_MAX, cap = max - group->n_samples;
	bool expired = world->options.stale_action == ON_STALE_DROP; /* perhaps: then there is no room */
	require(world, !room || (!group->settled && !group->eval), "S18: group %d may be extended by %d samples",
	        (int)group->id, room);
	require(world, room >= 0 && (room == 0 || room == (cap < left ? cap : left)),
	        "S18: group %d of %d samples has room for %d; at most %d in a group, %d left", (int)group->id, group->n_samples,
	        room, max, left);
	/* Async it may have been judged as the budget was spent, and the next step's not be heard of yet. */
	bool may = !group->settled && !group->eval && cap > 0 && left > 0 && (budget == 0 || !sim_async(world));
	require(world, room > 0 || expired || !may, "S18: group %d of %d samples has no room of %d, %d left in the step",
	        (int)group->id, group->n_samples, cap, left);
	for (const struct shadow_group *older = world->groups; !sim_async(world) && budget > 0 && room > 0 && older < group; older++) {
		bool free = !older->eval && !older->settled && older->n_samples < max;
		require(world, !free, "S19: group %d is extended before %d is judged", (int)group->id, (int)older->id);
		world->n_in_turn++;
	}
	world->n_cut += wanted > room && room == left && room > 0;
	return wanted < room ? wanted : room;
}

/* The group goes on. */
static inline void extend(struct world *world, struct shadow_group *group, int n_more)
{
	for (int i = group->n_samples; i < group->n_samples + n_more; i++)
		group->samples[i] = (struct shadow){.oldest_version = NO_TOKENS, .added = true};
	group->n_samples += n_more;
	group->complete = false;
	world->n_extra += n_more;
	world->n_extended++;
	scheduler_on_group_extended(world->scheduler, group->id, n_more);
}

/* Whether a group is worth training on depends on it alone, as its rewards do. */
static inline bool group_keep(const struct world *world, uint64_t group)
{
	return mix(group * 31 + 7) % 1000 >= (uint64_t)world->p_drop;
}

static inline void score(struct world *world, uint64_t id)
{
	struct shadow_group *group = shadow_find(world, id);
	bool keep = group_keep(world, id);
	if (group && group->complete && !group->kept) {
		int n_more = extension_verdict(world, group);
		group->settled = true;
		if (n_more > 0) {
			extend(world, group, n_more);
			return;
		}
		group->kept = keep || group->eval;
		group->kept_late = world->options.extension_budget > 0; /* several may be judged at once */
		if (!group->kept) {
			shadow_remove(world, group);
			world->n_dropped++;
		}
	}
	scheduler_on_group_scored(world->scheduler, id, keep);
}

/* All that was said has been heard. */
static inline void extensions_are_heard(struct world *world)
{
	for (int i = 0; i < world->n_groups; i++) {
		world->groups[i].kept_late = false;
		for (int k = 0; k < world->groups[i].n_samples; k++)
			world->groups[i].samples[k].added = false;
	}
}

#endif
