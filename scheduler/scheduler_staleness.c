/* scheduler_staleness.c - how old work may get: what must be finished, what is given up, and how much may be
 * begun at all.
 *
 * Asynchronous generation after AReaL ("AReaL: A Large-Scale Asynchronous Reinforcement Learning System for
 * Language Reasoning", Fu et al. 2025): training groups opened and not dropped never exceed
 * (version + max_staleness + 1) * groups_per_step, so that generation pauses rather than getting too old.
 *
 * Differences from the paper: what is said there of versions is said here of versions and batches: `outstanding`
 * batches are out and no version has come for them, so (max_staleness + 1 - outstanding) batches may be live.
 * That is the same where a trainer makes one version per batch, and does not stop for ever one that makes fewer:
 * for a step that is open one batch may be live whatever is outstanding.  And the bound on age is strict, although
 * groups that end soon overtake older ones: under ON_STALE_FINISH a batch waits while what it would leave behind
 * could not all be delivered in time, groups_per_step at a time (earliest deadline first).
 *
 * Cost: O(live groups) for each version and each batch, O(versions among live groups) for each group between.
 */
#include "scheduler/scheduler_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "configs/err.h"

/* The version with which a batch that is made now is delivered: one step off, the next one. */
static int64_t delivery_version(const struct scheduler *scheduler)
{
	return scheduler->version + (scheduler->options.asynchrony == ASYNCHRONOUS_BY_ONE_STEP);
}

static int64_t group_lag(const struct scheduler *scheduler, const struct group *group)
{
	return group->version == VERSION_NONE ? 0 : delivery_version(scheduler) - group->version;
}

bool sample_must_finish(const struct scheduler *scheduler, const struct sample *sample)
{
	const struct scheduler_options *options = &scheduler->options;
	if (sample->group->eval || is_async(scheduler))
		return false; /* asynchronously nothing is put aside at the end of a step */
	if (options->deferral_action == ON_DEFERRALS_FINISH && sample->deferrals >= options->max_deferrals)
		return true;
	if (options->stale_action != ON_STALE_FINISH || options->asynchrony != SYNCHRONOUS)
		return false; /* one step off, staleness_holds_batch sees to it */
	int64_t lag = sample->oldest_version == VERSION_NONE ? 0 : scheduler->version - sample->oldest_version;
	return lag >= options->max_staleness;
}

/* Too old to be delivered where that is a reason to give up. */
bool group_is_expired(const struct scheduler *scheduler, const struct group *group)
{
	return !group->eval && scheduler->options.stale_action == ON_STALE_DROP &&
	       group_lag(scheduler, group) > scheduler->options.max_staleness;
}

bool group_is_at_limit(const struct scheduler *scheduler, const struct group *group)
{
	return group_lag(scheduler, group) >= scheduler->options.max_staleness;
}

/* Whether ages are counted for staleness_holds_batch. */
static bool counts_ages(const struct scheduler *scheduler)
{
	return scheduler->options.asynchrony != SYNCHRONOUS && scheduler->options.stale_action == ON_STALE_FINISH;
}

static struct age *age_find(const struct scheduler *scheduler, int64_t version)
{
	struct age *age = scheduler->ages + scheduler->n_ages;
	while (age > scheduler->ages && age[-1].version >= version)
		age--;
	return age < scheduler->ages + scheduler->n_ages && age->version == version ? age : NULL;
}

void group_age_begin(struct scheduler *scheduler, struct group *group)
{
	if (group->eval || !counts_ages(scheduler))
		return;
	struct age *age = age_find(scheduler, group->version);
	if (!age) { /* the newest yet: groups are opened, and reviewed, in order of age */
		if (scheduler->n_ages == scheduler->ages_capacity) {
			scheduler->ages_capacity = scheduler->ages_capacity ? 2 * scheduler->ages_capacity : 16;
			scheduler->ages =
				xrealloc(scheduler->ages, (size_t)scheduler->ages_capacity * sizeof(*scheduler->ages));
		}
		age = &scheduler->ages[scheduler->n_ages++];
		*age = (struct age){.version = group->version};
		assert(age == scheduler->ages || age[-1].version < age->version);
	}
	age->n_live++;
	age->n_kept += group->state == GROUP_KEPT;
	group->aged = true;
}

void group_age_kept(struct scheduler *scheduler, const struct group *group)
{
	if (group->aged)
		age_find(scheduler, group->version)->n_kept++;
}

void group_age_end(struct scheduler *scheduler, const struct group *group)
{
	if (!group->aged)
		return;
	struct age *age = age_find(scheduler, group->version);
	age->n_live--;
	age->n_kept -= group->state == GROUP_KEPT;
}

bool staleness_holds_batch(const struct scheduler *scheduler)
{
	int wanted = scheduler->wanted, n_live = 0, n_kept = 0;
	if (scheduler->eval)
		return false;
	for (const struct age *age = scheduler->ages; age < scheduler->ages + scheduler->n_ages; age++) {
		n_live += age->n_live;
		n_kept += age->n_kept;
		/* Batches after this one that may still have it; until each of them a version may come. */
		int64_t lag = delivery_version(scheduler) - age->version;
		int64_t batches = scheduler->options.max_staleness - lag;
		batches -= is_async(scheduler) ? scheduler->outstanding : 0;
		if (n_kept >= wanted - scheduler->n_streamed)
			return false; /* waiting does not help what is younger: all of this batch is older */
		if (n_live - n_kept > (batches > 0 ? batches : 0) * wanted)
			return true;
	}
	return false;
}

/* How many batches of groups may be live.  One that somebody waits for always may. */
static int64_t batches_ahead(const struct scheduler *scheduler)
{
	int64_t least = scheduler->phase == PHASE_FILLING, ahead = scheduler->options.max_staleness;
	ahead += is_async(scheduler) ? 1 - scheduler->outstanding : 0;
	return ahead > least ? ahead : least;
}

bool staleness_may_open(const struct scheduler *scheduler)
{
	int n_live = pool_groups(&scheduler->pools[scheduler->eval]) + scheduler->n_streamed;
	if (!scheduler->eval && scheduler->options.offered_only && scheduler->offers.n == 0)
		return false;
	if (scheduler->eval || scheduler->options.asynchrony == SYNCHRONOUS)
		return n_live < scheduler->limit;
	return n_live < scheduler->training_limit &&
	       n_live < batches_ahead(scheduler) * scheduler->options.groups_per_step;
}

/* Every training group in ascending order; each may be removed by what is done to it. */
static void each_group(struct scheduler *scheduler, void (*visit)(struct scheduler *, struct group *))
{
	struct group **groups = xmalloc((scheduler->groups.n_live + 1) * sizeof(struct group *));
	size_t n = 0;
	for (size_t i = 0; i < scheduler->groups.n_slots; i++) {
		struct group *group = scheduler->groups.slots[i].group;
		if (group && !group->eval)
			groups[n++] = group;
	}
	for (size_t i = 0; i < n; i++)
		visit(scheduler, groups[i]);
	free(groups);
}

/* Restored groups may not know their version, or a later one than a younger group's.  Delivery is by id, so none may
 * be taken for younger than those behind it. */
static void versions_put_in_order(struct scheduler *scheduler)
{
	int64_t oldest = scheduler->version;
	for (size_t i = scheduler->groups.n_slots; i-- > 0;) {
		struct group *group = scheduler->groups.slots[i].group;
		if (!group || group->eval)
			continue;
		if (group->version == VERSION_NONE)
			group->version = counts_ages(scheduler) ? oldest : scheduler->version;
		oldest = group->version < oldest ? group->version : oldest;
		if (counts_ages(scheduler))
			group->version = oldest;
	}
}

static void group_review(struct scheduler *scheduler, struct group *group)
{
	if (group->state != GROUP_SCORING && group_is_expired(scheduler, group))
		group_give_up(scheduler, group);
	else
		group_age_begin(scheduler, group);
}

static void groups_review(struct scheduler *scheduler)
{
	versions_put_in_order(scheduler);
	scheduler->n_ages = 0;
	each_group(scheduler, group_review);
}

void staleness_version_set(struct scheduler *scheduler, int64_t version)
{
	int64_t made = version - scheduler->version;
	scheduler->version = version;
	if (made > 0)
		scheduler->outstanding -= made < scheduler->outstanding ? (int)made : scheduler->outstanding;
	groups_review(scheduler);
}

void staleness_batch_out(struct scheduler *scheduler)
{
	scheduler->outstanding++;
	if (is_async(scheduler))
		groups_review(scheduler);
}

void sample_leave(struct scheduler *scheduler, struct sample *sample)
{
	if (sample->state == SAMPLE_LEASED) {
		sample_action(scheduler, ACTION_CANCEL, sample);
		lease_end(scheduler, sample);
	} else if (sample->state != SAMPLE_DONE) {
		sample_dequeue(scheduler, sample);
	}
}

void group_give_up(struct scheduler *scheduler, struct group *group)
{
	struct pool *pool = &scheduler->pools[group->eval];
	assert(group->state != GROUP_SCORING);
	for (int i = 0; i < group->n_samples; i++) {
		struct sample *sample = &group->samples[i];
		sample_leave(scheduler, sample);
		sample_due_set(scheduler, sample, false);
		sample_state_set(scheduler, sample, SAMPLE_DONE);
	}
	if (group->state == GROUP_KEPT)
		heap_remove(&pool->kept, &group->kept_node);
	else
		pool->n_open--;
	group_action(scheduler, ACTION_DROP_GROUP, group);
	scheduler->groups_given_up++;
	group_remove(scheduler, group);
}

void staleness_rest(struct scheduler *scheduler)
{
	for (int i = 0; scheduler->options.partial_rollouts && i < scheduler->n_ranks; i++) {
		struct rank *rank = rank_find(scheduler, i);
		if (!rank || rank->leased.n == 0 || rank->stopping)
			continue;
		step_action(scheduler, ACTION_STOP, i);
		rank_stopping_set(scheduler, rank, true);
	}
}
