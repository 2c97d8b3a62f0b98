/* simulated_pruning.h - samples of test_simulator.c that need not go on, wherever they are (S20). */
#ifndef TESTS_SCHEDULER_SIMULATED_PRUNING_H
#define TESTS_SCHEDULER_SIMULATED_PRUNING_H

#include "tests/scheduler/simulated_world.h"

/* In one world of three, now and then: which one; NULL: none. */
static inline struct shadow_group *pruning_picks(struct world *world, int *index)
{
	uint64_t draw = mix(world->seed * 91 ^ (uint64_t)world->n_handled);
	if (mix(world->seed ^ 0x9d21u) % 3 || draw % 4)
		return NULL;
	for (int i = 0; i < world->n_groups; i++) { /* by its id: who else is there depends on what has left */
		struct shadow_group *group = &world->groups[i];
		uint64_t own = mix(draw ^ group->id * 77);
		*index = (int)(own / 32 % (uint64_t)group->n_samples);
		if (group->eval || group->complete || own % 32)
			continue;
		const struct shadow *sample = &group->samples[*index];
		world->n_pruned[sample->done ? 2 : sample->leased ? 1 : 0]++;
		return group;
	}
	return NULL;
}

/* Of a group that is complete by it nothing need be expected any more, but of what it may be extended by. */
static inline void pruning_marks(struct shadow_group *group, int index)
{
	bool all = true;
	group->samples[index].done = true;
	for (int i = 0; i < group->n_samples; i++)
		all = all && group->samples[i].done;
	group->known |= all;
}

#endif
