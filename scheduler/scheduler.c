/* scheduler.c - the events: each changes the state and then calls step_advance(), which decides what
 * follows (scheduler_step.c).  Also restoring, life and counts.
 */
#include "scheduler/scheduler_internal.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

/* Events */

void scheduler_on_step_begin(struct scheduler *scheduler, int64_t step, int64_t version)
{
	step_begin(scheduler, step, false, scheduler->options.groups_per_step, scheduler->training_limit);
	scheduler->running = is_async(scheduler);
	staleness_version_set(scheduler, version);
	step_mark_due(scheduler);
	step_advance(scheduler);
}

void scheduler_on_eval_begin(struct scheduler *scheduler, int64_t step, int n_eval)
{
	scheduler_on_eval_begin_samples(scheduler, step, n_eval, scheduler->options.eval_samples);
}

bool scheduler_is_idle(const struct scheduler *scheduler)
{
	return scheduler->phase == PHASE_IDLE;
}

void scheduler_on_eval_begin_samples(struct scheduler *scheduler, int64_t step, int n_eval, int n_samples)
{
	scheduler->eval_samples = n_samples;
	step_begin(scheduler, step, true, n_eval, n_eval);
	if (is_async(scheduler))
		staleness_rest(scheduler);
	step_advance(scheduler);
}

void scheduler_on_version(struct scheduler *scheduler, int64_t version)
{
	assert(is_async(scheduler));
	staleness_version_set(scheduler, version);
	step_advance(scheduler);
}

void scheduler_on_rest(struct scheduler *scheduler)
{
	if (!scheduler->running)
		return;
	assert(scheduler->phase == PHASE_IDLE);
	scheduler->running = false;
	staleness_rest(scheduler);
}

void scheduler_on_rank_joined(struct scheduler *scheduler, int rank, int capacity)
{
	scheduler_on_rank_joined_slots(scheduler, rank, capacity, capacity);
}

void scheduler_on_rank_joined_slots(struct scheduler *scheduler, int rank, int capacity, int active)
{
	assert(rank >= 0 && capacity >= 0 && active >= 0 && active <= capacity);
	scheduler_on_rank_lost(scheduler, rank);
	if (rank >= scheduler->n_ranks) {
		int n = rank + 1 > 2 * scheduler->n_ranks ? rank + 1 : 2 * scheduler->n_ranks;
		scheduler->ranks = xrealloc(scheduler->ranks, (size_t)n * sizeof(*scheduler->ranks));
		memset(&scheduler->ranks[scheduler->n_ranks], 0,
		       (size_t)(n - scheduler->n_ranks) * sizeof(*scheduler->ranks));
		scheduler->n_ranks = n;
	}
	if (!scheduler->ranks[rank])
		scheduler->ranks[rank] = xcalloc(1, sizeof(struct rank));
	struct rank *joined = scheduler->ranks[rank];
	*joined = (struct rank){.number = rank, .alive = true, .capacity = capacity, .active = active, .receiver = -1};
	rank_room_changed(scheduler, joined);
	step_advance(scheduler);
}

void scheduler_on_rank_lost(struct scheduler *scheduler, int rank)
{
	struct rank *lost = rank_find(scheduler, rank);
	if (!lost)
		return;
	rank_stopping_set(scheduler, lost, false);
	lost->alive = false;
	recall_end(scheduler, lost);
	recall_forget_receiver(scheduler, lost);
	rank_room_changed(scheduler, lost);
	for (struct sample *sample; (sample = lost->leased.last);) {
		lease_end(scheduler, sample);
		sample_enqueue(scheduler, sample);
	}
	step_advance(scheduler);
}

void scheduler_on_sample_done(struct scheduler *scheduler, uint64_t group, int sample, uint64_t lease)
{
	struct sample *found = lease_find(scheduler, group, sample, lease);
	if (!found)
		return;
	lease_end(scheduler, found);
	group_sample_done(scheduler, found);
	step_advance(scheduler);
}

void scheduler_on_sample_pruned(struct scheduler *scheduler, uint64_t group, int index)
{
	struct group *found = group_map_find(&scheduler->groups, group);
	struct sample *sample = found && index >= 0 && index < found->n_samples ? &found->samples[index] : NULL;
	if (!sample || sample->state == SAMPLE_DONE)
		return;
	sample_leave(scheduler, sample);
	scheduler->pruned++;
	group_sample_done(scheduler, sample);
	step_advance(scheduler);
}

void scheduler_on_sample_partial(struct scheduler *scheduler, uint64_t group, int sample, uint64_t lease,
                                 int64_t oldest_version)
{
	struct sample *found = lease_find(scheduler, group, sample, lease);
	if (!found)
		return;
	bool rests = is_async(scheduler) && scheduler->ranks[found->rank]->stopping; /* not its fault */
	lease_end(scheduler, found);
	found->oldest_version = oldest_version;
	found->deferrals += !rests;
	scheduler->deferred++;
	sample_enqueue(scheduler, found);
	if (scheduler->options.deferral_action == ON_DEFERRALS_DROP && !found->group->eval &&
	    found->deferrals > scheduler->options.max_deferrals)
		group_give_up(scheduler, found->group);
	step_advance(scheduler);
}

void scheduler_on_group_scored(struct scheduler *scheduler, uint64_t group, bool keep)
{
	struct group *scored = group_map_find(&scheduler->groups, group);
	if (!scored || scored->state != GROUP_SCORING)
		return;
	struct pool *pool = &scheduler->pools[scored->eval];
	group_settle(scheduler, scored);
	pool->n_scoring--;
	if (keep || scored->eval) {
		scored->state = GROUP_KEPT;
		heap_insert(&pool->kept, &scored->kept_node, scored->id, scored);
		group_age_kept(scheduler, scored);
		if (group_is_expired(scheduler, scored))
			group_give_up(scheduler, scored);
	} else {
		group_remove(scheduler, scored);
		scheduler->groups_dropped++;
	}
	step_advance(scheduler);
}

void scheduler_on_rank_quiet(struct scheduler *scheduler, int rank)
{
	struct rank *quiet = rank_find(scheduler, rank);
	if (!quiet)
		return;
	rank_stopping_set(scheduler, quiet, false);
	step_advance(scheduler);
}

/* Resuming */

void scheduler_restore_group(struct scheduler *scheduler, uint64_t group, int n_samples)
{
	assert(scheduler->phase == PHASE_IDLE && n_samples > 0 && !group_map_find(&scheduler->groups, group));
	group_add(scheduler, group, n_samples, false);
	scheduler->restoring = true;
	scheduler_restore_next_group(scheduler, group + 1);
}

void scheduler_restore_sample(struct scheduler *scheduler, uint64_t group, int sample, bool done,
                              int deferrals, int64_t oldest_version)
{
	struct group *found = group_map_find(&scheduler->groups, group);
	assert(scheduler->phase == PHASE_IDLE && found && sample >= 0 && sample < found->n_samples);
	struct sample *restored = &found->samples[sample];
	assert(restored->state == SAMPLE_WAITING);
	sample_dequeue(scheduler, restored);
	restored->deferrals = deferrals;
	restored->oldest_version = oldest_version;
	if (oldest_version != VERSION_NONE && (found->version == VERSION_NONE || oldest_version < found->version))
		found->version = oldest_version;
	if (done)
		group_sample_done(scheduler, restored);
	else
		sample_enqueue(scheduler, restored);
}

void scheduler_restore_next_group(struct scheduler *scheduler, uint64_t next_group)
{
	if (scheduler->next_group < next_group)
		scheduler->next_group = next_group;
}

void scheduler_restore_version(struct scheduler *scheduler, int64_t version, int n_outstanding)
{
	assert(scheduler->phase == PHASE_IDLE && !scheduler->running);
	scheduler->version = version;
	scheduler->outstanding = n_outstanding;
}

/* Life, actions, counts */

struct scheduler *scheduler_open(const struct scheduler_options *options)
{
	assert(options->groups_per_step > 0 && options->samples_per_group > 0 && options->over_sampling >= 1);
	assert(options->asynchrony == SYNCHRONOUS || options->max_staleness >= 1);
	struct scheduler *scheduler = xcalloc(1, sizeof(*scheduler));
	scheduler->options = *options;
	int wanted = options->groups_per_step;
	/* 10 groups * 1.1 are 11, not the 12 that rounding up 11.000000000000002 would give. */
	scheduler->training_limit = (int)ceil(wanted * options->over_sampling - 1e-9 * wanted);
	scheduler->next_group = scheduler->next_lease = scheduler->next_recall = 1;
	return scheduler;
}

void scheduler_close(struct scheduler *scheduler)
{
	if (!scheduler)
		return;
	for (int i = 0; i < scheduler->n_ranks; i++)
		free(scheduler->ranks[i]);
	free(scheduler->ranks);
	for (int eval = 0; eval < 2; eval++) {
		for (int due = 0; due < DUE_KINDS; due++) {
			heap_free(&scheduler->pools[eval].pending[due]);
			heap_free(&scheduler->pools[eval].longest[due]);
		}
		heap_free(&scheduler->pools[eval].kept);
	}
	heap_free(&scheduler->room);
	heap_free(&scheduler->load);
	heap_free(&scheduler->unsettled);
	group_map_free(&scheduler->groups);
	free(scheduler->actions.items);
	free(scheduler->ages);
	free(scheduler->offers.sizes);
	free(scheduler);
}

bool scheduler_next_action(struct scheduler *scheduler, struct action *action)
{
	if (action_queue_pop(&scheduler->actions, action))
		return true;
	if (scheduler->scores_are_late)
		return false;
	scheduler->scores_are_late = true;
	if (scheduler->phase != PHASE_CLOSING)
		return false;
	step_advance(scheduler);
	return action_queue_pop(&scheduler->actions, action);
}

void scheduler_counts_read(const struct scheduler *scheduler, struct scheduler_counts *counts)
{
	*counts = (struct scheduler_counts){
		.waiting = scheduler->n_samples[SAMPLE_WAITING],
		.leased = scheduler->n_samples[SAMPLE_LEASED],
		.aside = scheduler->n_samples[SAMPLE_ASIDE],
		.done = scheduler->n_samples[SAMPLE_DONE],
		.resumed = scheduler->resumed,
		.deferred = scheduler->deferred,
		.groups_dropped = scheduler->groups_dropped,
		.groups_delivered = scheduler->groups_delivered,
		.groups_given_up = scheduler->groups_given_up,
		.recalls = scheduler->recalls,
		.migrated = scheduler->migrated,
		.extra = scheduler->n_extra,
		.pruned = scheduler->pruned,
	};
	for (int eval = 0; eval < 2; eval++) {
		const struct pool *pool = &scheduler->pools[eval];
		counts->groups_open += pool->n_open;
		counts->groups_complete += pool->n_scoring + (int)pool->kept.n;
	}
}
