/* scheduler_extend.c - groups that get more samples once those that they began with are done: a second stage, whose size
 * depends on how the first one went.
 *
 * A group is settled once its number of samples is final.  One that is not, and whose samples are all done, is judged by
 * whoever scores it: it is complete as it is, or goes on with more (scheduler_on_group_extended).  With a budget per
 * step what one group is given another cannot have, so groups are judged one after the other in ascending order, and
 * those that finish before an older one is settled are held: which of them get the last of the budget does not depend
 * on timing.  Once the budget is spent nobody can get anything, and nobody is held.
 *
 * O(log groups) per group, O(samples of the group) to extend it.
 */
#include "scheduler/scheduler_internal.h"

#include <assert.h>

static bool extends(const struct scheduler *scheduler)
{
	return scheduler->options.samples_max > 0;
}

static bool budget_is_left(const struct scheduler *scheduler)
{
	return scheduler->n_extra < scheduler->options.extension_budget;
}

void group_unsettle(struct scheduler *scheduler, struct group *group)
{
	group->settled = group->eval || !extends(scheduler) || group->n_samples >= scheduler->options.samples_max;
	if (!group->settled)
		heap_insert(&scheduler->unsettled, &group->unsettled_node, group->id, group);
}

void group_settle(struct scheduler *scheduler, struct group *group)
{
	group->settled = true;
	if (group->unsettled_node.at > 0)
		heap_remove(&scheduler->unsettled, &group->unsettled_node);
}

void group_settle_unless_room(struct scheduler *scheduler, struct group *group)
{
	if (scheduler->options.extension_budget > 0 && !budget_is_left(scheduler))
		group_settle(scheduler, group);
}

bool group_is_held(const struct scheduler *scheduler, const struct group *group)
{
	return !group->settled && scheduler->options.extension_budget > 0 && budget_is_left(scheduler) &&
	       (scheduler->restoring || heap_first(&scheduler->unsettled) != group);
}

void groups_judge(struct scheduler *scheduler)
{
	scheduler->restoring = false;
	if (scheduler->n_held == 0)
		return;
	if (scheduler->options.extension_budget > 0 && budget_is_left(scheduler)) {
		struct group *oldest = heap_first(&scheduler->unsettled);
		if (oldest && oldest->state == GROUP_HELD)
			group_judge(scheduler, oldest);
		return;
	}
	for (size_t i = 0; i < scheduler->groups.n_slots && scheduler->n_held > 0; i++) {
		struct group *group = scheduler->groups.slots[i].group;
		if (group && group->state == GROUP_HELD)
			group_judge(scheduler, group);
	}
}

int scheduler_extension_room(const struct scheduler *scheduler, uint64_t id)
{
	const struct scheduler_options *options = &scheduler->options;
	const struct group *group = group_map_find(&scheduler->groups, id);
	if (!group || group->state != GROUP_SCORING || group->settled || group_is_expired(scheduler, group))
		return 0;
	int room = options->samples_max - group->n_samples;
	int left = options->extension_budget - scheduler->n_extra;
	return options->extension_budget > 0 && left < room ? left : room;
}

void scheduler_on_group_extended(struct scheduler *scheduler, uint64_t id, int n_more)
{
	struct group *group = group_map_find(&scheduler->groups, id);
	if (!group || group->state != GROUP_SCORING)
		return;
	assert(n_more > 0 && n_more <= scheduler_extension_room(scheduler, id));
	struct pool *pool = &scheduler->pools[group->eval];
	group_settle(scheduler, group);
	scheduler->n_extra += n_more;
	pool->n_scoring--;
	pool->n_open++;
	group = group_map_resize(&scheduler->groups, group, group->n_samples + n_more);
	group->state = GROUP_OPEN;
	group_add_samples(scheduler, group, group->n_samples - n_more);
	step_advance(scheduler);
}

/* Resuming */

void scheduler_restore_settled(struct scheduler *scheduler, uint64_t id)
{
	struct group *group = group_map_find(&scheduler->groups, id);
	assert(scheduler->phase == PHASE_IDLE && group && group->n_done == 0);
	group_settle(scheduler, group);
}

void scheduler_restore_extra(struct scheduler *scheduler, int n_extra)
{
	assert(scheduler->phase == PHASE_IDLE && n_extra >= 0);
	scheduler->n_extra = n_extra;
}
