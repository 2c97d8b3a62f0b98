/* scheduler_step.c - what a step is made of: samples in queues, leases on ranks, groups, and the one
 * place that decides, step_advance().
 *
 * After APRIL ("Active Partial Rollouts in Reinforcement Learning", 2025): start more groups than the
 * batch needs, stop when enough are complete, put the rest aside and resume it first.  Here finished
 * siblings and surplus groups are kept, samples are leased one by one so that a group may span ranks,
 * and what is due (too old, or put aside too often) is finished before the step ends.
 *
 * Each function costs O(log groups + log ranks) but for those once a step: step_mark_due O(live
 * samples), step_close O(ranks + leases), and step_awaits_score O(live groups) for what comes while a step that
 * is over but for scores waits for one.
 */
#include "scheduler/scheduler_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "configs/err.h"

/* Actions, about a sample under its lease, a group, or the step */

void sample_action(struct scheduler *scheduler, enum action_type type, const struct sample *sample)
{
	struct action action = {.type = type, .group = sample->group->id, .sample = sample->index};
	action.rank = sample->rank;
	action.n_samples = sample->group->n_samples;
	action.lease = sample->lease;
	action.step = scheduler->step;
	action.eval = sample->group->eval;
	action_queue_push(&scheduler->actions, &action);
}

void group_action(struct scheduler *scheduler, enum action_type type, const struct group *group)
{
	struct action action = {.type = type, .group = group->id, .sample = -1, .rank = -1};
	action.n_samples = group->n_samples;
	action.step = scheduler->step;
	action.eval = group->eval;
	action_queue_push(&scheduler->actions, &action);
}

void step_action(struct scheduler *scheduler, enum action_type type, int rank)
{
	struct action action = {.type = type, .sample = -1, .rank = rank};
	action.step = scheduler->step;
	action.eval = scheduler->eval;
	action_queue_push(&scheduler->actions, &action);
}

/* Samples */

void sample_state_set(struct scheduler *scheduler, struct sample *sample, enum sample_state state)
{
	scheduler->n_samples[sample->state]--;
	scheduler->n_samples[state]++;
	sample->state = state;
}

void sample_due_set(struct scheduler *scheduler, struct sample *sample, bool due)
{
	scheduler->n_due += due - sample->due;
	sample->due = due;
}

void sample_enqueue(struct scheduler *scheduler, struct sample *sample)
{
	struct group *group = sample->group;
	struct sample_list *list = &group->pending[sample->due];
	if (list->n == 0)
		heap_insert(&scheduler->pools[group->eval].pending[sample->due], &group->pending_node[sample->due],
		            group->id, group);
	order_enqueue(scheduler, sample);
	if (sample->oldest_version == VERSION_NONE) {
		sample_state_set(scheduler, sample, SAMPLE_WAITING);
		sample_list_push_back(list, sample);
	} else {
		sample_state_set(scheduler, sample, SAMPLE_ASIDE);
		sample_list_push_front(list, sample);
	}
}

void sample_dequeue(struct scheduler *scheduler, struct sample *sample)
{
	struct group *group = sample->group;
	struct sample_list *list = &group->pending[sample->due];
	order_dequeue(scheduler, sample);
	sample_list_remove(list, sample);
	if (list->n == 0)
		heap_remove(&scheduler->pools[group->eval].pending[sample->due], &group->pending_node[sample->due]);
}

/* Ranks */

struct rank *rank_find(const struct scheduler *scheduler, int number)
{
	struct rank *rank = number >= 0 && number < scheduler->n_ranks ? scheduler->ranks[number] : NULL;
	return rank && rank->alive ? rank : NULL;
}

/* Ranks without room last. */
static uint64_t rank_key(const struct rank *rank)
{
	int64_t slots = rank_free(rank) > 0 ? rank_slots(rank) : INT32_MIN;
	return (uint64_t)(INT32_MAX - slots) << 32 | (uint32_t)rank->number;
}

void rank_room_changed(struct scheduler *scheduler, struct rank *rank)
{
	bool open = rank->alive && !rank->stopping;
	if (open && rank->room_node.at > 0)
		heap_rekey(&scheduler->room, &rank->room_node, rank_key(rank));
	else if (open)
		heap_insert(&scheduler->room, &rank->room_node, rank_key(rank), rank);
	else if (rank->room_node.at > 0)
		heap_remove(&scheduler->room, &rank->room_node);
	if (scheduler->options.migrate)
		rank_load_changed(scheduler, rank);
}

void rank_stopping_set(struct scheduler *scheduler, struct rank *rank, bool stopping)
{
	if (rank->stopping == stopping)
		return;
	rank->stopping = stopping;
	scheduler->n_stopping += stopping ? 1 : -1;
	rank_room_changed(scheduler, rank);
}

/* Leases */

struct sample *lease_find(const struct scheduler *scheduler, uint64_t group_id, int index, uint64_t lease)
{
	struct group *group = group_map_find(&scheduler->groups, group_id);
	if (!group || index < 0 || index >= group->n_samples)
		return NULL;
	struct sample *sample = &group->samples[index];
	return sample->state == SAMPLE_LEASED && sample->lease == lease ? sample : NULL;
}

/* The rank that it was recalled for, or that has the group's prompt, if it has room, else the one with most. */
static struct rank *lease_rank(const struct scheduler *scheduler, const struct sample *sample)
{
	struct rank *home = rank_find(scheduler, sample->to == TO_HOME ? sample->group->home : sample->to);
	if (home && !home->stopping && rank_free(home) > 0)
		return home;
	return heap_first(&scheduler->room);
}

static void lease_begin(struct scheduler *scheduler, struct sample *sample)
{
	struct group *group = sample->group;
	struct rank *rank = lease_rank(scheduler, sample);
	sample_dequeue(scheduler, sample);
	sample_due_set(scheduler, sample, sample->due || sample_must_finish(scheduler, sample));
	sample_state_set(scheduler, sample, SAMPLE_LEASED);
	scheduler->resumed += sample->oldest_version != VERSION_NONE && sample->to == TO_HOME;
	sample->lease = scheduler->next_lease++;
	sample->rank = group->home = rank->number;
	sample->to = TO_HOME;
	sample_list_push_back(&rank->leased, sample);
	rank->barren = false;
	rank_room_changed(scheduler, rank);
	sample_action(scheduler, ACTION_LEASE, sample);
}

void lease_end(struct scheduler *scheduler, struct sample *sample)
{
	struct rank *rank = scheduler->ranks[sample->rank];
	sample_list_remove(&rank->leased, sample);
	rank->barren = false;
	sample->rank = -1;
	rank_room_changed(scheduler, rank);
}

/* Groups */

struct group *group_add(struct scheduler *scheduler, uint64_t id, int n_samples, bool eval)
{
	struct group *group = xcalloc(1, sizeof(*group) + (size_t)n_samples * sizeof(group->samples[0]));
	group->id = id;
	group->eval = eval;
	group->home = -1;
	group->n_samples = n_samples;
	group->version = VERSION_NONE;
	group->known = scheduler->options.order != ORDER_LONGEST ||
	               (scheduler->phase == PHASE_IDLE && !scheduler->running); /* restored: it waits for nothing */
	scheduler->n_unknown += !group->known;
	group_map_insert(&scheduler->groups, group);
	scheduler->pools[eval].n_open++;
	group_unsettle(scheduler, group);
	group_add_samples(scheduler, group, 0);
	return group;
}

void group_add_samples(struct scheduler *scheduler, struct group *group, int first)
{
	scheduler->n_samples[SAMPLE_WAITING] += group->n_samples - first;
	for (int i = first; i < group->n_samples; i++) {
		group->samples[i] = (struct sample){
			.group = group, .index = i, .rank = -1, .to = TO_HOME, .oldest_version = VERSION_NONE,
			.state = SAMPLE_WAITING};
		sample_enqueue(scheduler, &group->samples[i]);
	}
}

struct group *group_open(struct scheduler *scheduler)
{
	bool eval = scheduler->eval;
	int n_offered = eval ? 0 : offers_take(&scheduler->offers);
	int n_samples = eval ? scheduler->eval_samples : n_offered ? n_offered : scheduler->options.samples_per_group;
	struct group *group = group_add(scheduler, scheduler->next_group++, n_samples, eval);
	group->version = scheduler->version;
	if (n_offered > 0)
		group_settle(scheduler, group);
	group_age_begin(scheduler, group);
	struct action action = {.type = ACTION_OPEN_GROUP, .group = group->id, .sample = -1, .rank = -1};
	action.n_samples = n_samples;
	action.step = scheduler->step;
	action.eval = eval;
	action.offered = n_offered > 0;
	action_queue_push(&scheduler->actions, &action);
	return group;
}

void group_sample_done(struct scheduler *scheduler, struct sample *sample)
{
	struct group *group = sample->group;
	sample_due_set(scheduler, sample, false);
	sample_state_set(scheduler, sample, SAMPLE_DONE);
	if (++group->n_done < group->n_samples)
		return;
	scheduler->n_unknown -= !group->known; /* all were pruned before anything was expected of them */
	group->known = true;
	if (!group_is_held(scheduler, group)) {
		group_judge(scheduler, group);
		return;
	}
	group->state = GROUP_HELD;
	scheduler->n_held++;
}

void group_judge(struct scheduler *scheduler, struct group *group)
{
	scheduler->n_held -= group->state == GROUP_HELD;
	group_settle_unless_room(scheduler, group);
	group->state = GROUP_SCORING;
	scheduler->pools[group->eval].n_open--;
	scheduler->pools[group->eval].n_scoring++;
	scheduler->scores_are_late = false;
	group_action(scheduler, ACTION_GROUP_COMPLETE, group);
}

void group_remove(struct scheduler *scheduler, struct group *group)
{
	group_age_end(scheduler, group);
	group_settle(scheduler, group);
	scheduler->n_held -= group->state == GROUP_HELD;
	scheduler->n_samples[SAMPLE_DONE] -= group->n_samples;
	scheduler->n_unknown -= !group->known;
	group_map_remove(&scheduler->groups, group->id);
}

/* The step */

void step_begin(struct scheduler *scheduler, int64_t step, bool eval, int wanted, int limit)
{
	assert(scheduler->phase == PHASE_IDLE);
	scheduler->phase = PHASE_FILLING;
	scheduler->step = step;
	scheduler->eval = eval;
	scheduler->wanted = wanted;
	scheduler->limit = limit;
}

void step_mark_due(struct scheduler *scheduler)
{
	for (size_t i = 0; i < scheduler->groups.n_slots; i++) {
		struct group *group = scheduler->groups.slots[i].group;
		struct sample *next = group ? group->pending[ORDINARY].first : NULL;
		for (struct sample *sample = next; sample && sample->state == SAMPLE_ASIDE; sample = next) {
			next = sample->next;
			if (!sample_must_finish(scheduler, sample))
				continue;
			sample_dequeue(scheduler, sample);
			sample_due_set(scheduler, sample, true);
			sample_enqueue(scheduler, sample);
		}
	}
}

bool step_fills(const struct scheduler *scheduler)
{
	return scheduler->phase == PHASE_FILLING || (scheduler->phase == PHASE_IDLE && scheduler->running);
}

/* S6: the oldest group with samples to lease, else a fresh one.  A closing step only leases what is
 * due. */
static struct sample *step_next_sample(struct scheduler *scheduler)
{
	struct pool *pool = &scheduler->pools[scheduler->eval];
	if (scheduler->options.order == ORDER_LONGEST)
		return order_next_sample(scheduler);
	struct group *due = heap_first(&pool->pending[DUE]);
	struct group *ordinary = step_fills(scheduler) ? heap_first(&pool->pending[ORDINARY]) : NULL;
	if (due && (!ordinary || due->id <= ordinary->id))
		return due->pending[DUE].first;
	if (!ordinary && step_fills(scheduler) && staleness_may_open(scheduler))
		ordinary = group_open(scheduler);
	return ordinary ? ordinary->pending[ORDINARY].first : NULL;
}

static void step_fill(struct scheduler *scheduler)
{
	for (;;) {
		const struct rank *roomiest = heap_first(&scheduler->room);
		struct sample *sample = roomiest && rank_free(roomiest) > 0 ? step_next_sample(scheduler) : NULL;
		if (!sample)
			return;
		lease_begin(scheduler, sample);
	}
}

/* Enough groups are complete: no new leases, and what is in flight comes back.  Async, it goes on; an evaluation
 * has nothing in flight by then. */
static void step_close(struct scheduler *scheduler)
{
	scheduler->phase = PHASE_CLOSING;
	for (int i = 0; !is_async(scheduler) && scheduler->options.partial_rollouts && i < scheduler->n_ranks; i++) {
		struct rank *rank = rank_find(scheduler, i);
		if (!rank || rank->leased.n == 0)
			continue;
		for (const struct sample *sample = rank->leased.first; sample; sample = sample->next)
			if (sample->due)
				sample_action(scheduler, ACTION_KEEP, sample);
		step_action(scheduler, ACTION_STOP, i);
		rank_stopping_set(scheduler, rank, true);
	}
}

void group_deliver(struct scheduler *scheduler, struct group *group)
{
	heap_remove(&scheduler->pools[group->eval].kept, &group->kept_node);
	group_action(scheduler, ACTION_DELIVER, group);
	group_remove(scheduler, group);
	scheduler->groups_delivered++;
}

static void step_deliver(struct scheduler *scheduler)
{
	struct pool *pool = &scheduler->pools[scheduler->eval];
	for (; scheduler->n_streamed < scheduler->wanted; scheduler->n_streamed++)
		group_deliver(scheduler, heap_first(&pool->kept));
	scheduler->n_streamed = 0;
	step_action(scheduler, ACTION_STEP_READY, -1);
	scheduler->phase = PHASE_IDLE;
	if (!scheduler->eval) {
		scheduler->n_extra = 0;
		staleness_batch_out(scheduler);
	}
	scheduler->eval = false;
}

/* S21: a group that is judged would be in the batch if its score were here, and would be too old for the next one; or
 * nobody has had the time to say it. */
static bool step_awaits_score(const struct scheduler *scheduler)
{
	int n_kept = scheduler->n_streamed;
	if (scheduler->pools[false].n_scoring == 0)
		return false;
	if (!scheduler->scores_are_late)
		return true;
	for (size_t i = 0; i < scheduler->groups.n_slots && n_kept < scheduler->wanted; i++) {
		const struct group *group = scheduler->groups.slots[i].group;
		if (!group || group->eval)
			continue;
		n_kept += group->state == GROUP_KEPT;
		if (group->state == GROUP_SCORING && group_is_at_limit(scheduler, group))
			return true;
	}
	return false;
}

/* Nothing is in flight, and enough groups are complete: what else is judged is there for the next batch. */
static bool step_is_quiet(const struct scheduler *scheduler)
{
	if (is_async(scheduler))
		return !scheduler->eval || scheduler->n_stopping == 0;
	return scheduler->n_samples[SAMPLE_LEASED] == 0 && scheduler->n_due == 0 && scheduler->n_stopping == 0 &&
	       (scheduler->eval || !step_awaits_score(scheduler));
}

/* Work for ranks with room: what waits, else what others have too much of. */
static void step_lease(struct scheduler *scheduler)
{
	if (scheduler->phase == PHASE_IDLE && !scheduler->running)
		return;
	step_fill(scheduler);
	if (scheduler->options.migrate)
		step_migrate(scheduler);
}

void step_advance(struct scheduler *scheduler)
{
	const struct pool *pool = &scheduler->pools[scheduler->eval];
	step_stream(scheduler);
	if (scheduler->phase == PHASE_FILLING && (int)pool->kept.n + scheduler->n_streamed >= scheduler->wanted &&
	    !staleness_holds_batch(scheduler))
		step_close(scheduler);
	step_lease(scheduler);
	if (scheduler->phase == PHASE_CLOSING && step_is_quiet(scheduler)) {
		step_deliver(scheduler);
		step_lease(scheduler);
	}
	groups_judge(scheduler);
}
