/* scheduler_stream.c - groups that leave before their step is complete, because nothing can keep them out of its batch.
 *
 * A batch is the oldest `wanted` groups that are complete when the step closes.  A complete group is among them
 * whatever happens if fewer groups than the batch still needs are older and not complete: all of them may come, and
 * there is still room for it.  So streaming changes when groups leave, never which: a batch has the same groups with
 * it and without (S16).
 *
 * Cost: O(live groups) at most for each group that is scored while a step streams.
 */
#include "scheduler/scheduler_internal.h"

#include <stdlib.h>

#include "configs/err.h"

void scheduler_on_stream(struct scheduler *scheduler, enum scheduler_stream stream)
{
	if (scheduler->stream == stream)
		return;
	scheduler->stream = stream;
	step_advance(scheduler);
}

/* The kept groups that are certain, in order; returns how many. */
static int find_certain(const struct scheduler *scheduler, struct group **certain)
{
	int n = 0, n_older = 0; /* n_older: not complete, and may still come */
	for (size_t i = 0; i < scheduler->groups.n_slots; i++) {
		struct group *group = scheduler->groups.slots[i].group;
		if (!group || group->eval)
			continue;
		if (n_older + n >= scheduler->wanted - scheduler->n_streamed)
			break;
		if (group->state == GROUP_KEPT)
			certain[n++] = group;
		else if (scheduler->stream == STREAM_IN_ORDER)
			break;
		else
			n_older++;
	}
	return n;
}

void step_stream(struct scheduler *scheduler)
{
	size_t n_kept = scheduler->pools[false].kept.n;
	if (scheduler->stream == STREAM_OFF || scheduler->phase == PHASE_IDLE || scheduler->eval || n_kept == 0)
		return;
	struct group **certain = xmalloc(n_kept * sizeof(struct group *));
	int n = find_certain(scheduler, certain);
	for (int i = 0; i < n; i++)
		group_deliver(scheduler, certain[i]); /* which may move the groups behind it in their map */
	scheduler->n_streamed += n;
	free(certain);
}
