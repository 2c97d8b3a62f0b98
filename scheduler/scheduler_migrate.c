/* scheduler_migrate.c - the tail: samples move from loaded ranks to idle ones.
 *
 * When nothing is left to lease, the rank with most free slots (the receiver) gets samples of the rank with
 * the longest queue, or else of the one that decodes most (the donor).  Queued samples fill the receiver's
 * slots.  Of active ones half the difference moves, and only where the donor holds at least twice as many as
 * the receiver and two more: after that, half of what one of the two holds must end before the other gives
 * again, so that n samples take O(log n) recalls per rank and none goes to and fro.
 *
 * A recall says what the donor keeps, not what it gives: what ended meanwhile is not taken twice.  Until it
 * is answered the receiver's slots count as taken.  One that brought nothing is not repeated before a
 * sample of that rank has begun or ended.  O(log ranks) per recall and per sample.
 */
#include "scheduler/scheduler_internal.h"

#include <stdlib.h>

/* Fewer free slots than this part of them are not worth a queued sample's way. */
enum { SLOTS_PART = 8 };
enum { KEY_BITS = 21 };

static uint64_t key_part(int n)
{
	uint64_t most = (1u << KEY_BITS) - 1;
	return most - (n < 0 ? 0 : (uint64_t)n < most ? (uint64_t)n : most);
}

void rank_load_changed(struct scheduler *scheduler, struct rank *rank)
{
	bool open = rank->alive && !rank->stopping && rank->recall == 0 && !rank->barren && rank->leased.n > 0;
	if (!open) {
		if (rank->load_node.at > 0)
			heap_remove(&scheduler->load, &rank->load_node);
		return;
	}
	uint64_t key = key_part(rank->leased.n - rank->active) << 2 * KEY_BITS | key_part(rank->leased.n) << KEY_BITS |
	               ((uint64_t)rank->number & ((1u << KEY_BITS) - 1));
	if (rank->load_node.at > 0)
		heap_rekey(&scheduler->load, &rank->load_node, key);
	else
		heap_insert(&scheduler->load, &rank->load_node, key, rank);
}

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

int migration_size(const struct rank *donor, const struct rank *receiver)
{
	int slots = smaller(rank_slots(receiver), rank_free(receiver));
	int queued = donor->leased.n - donor->active, holds = receiver->leased.n + receiver->n_expected;
	int n = 0;
	if (donor == receiver || slots <= 0)
		return 0;
	if (queued > 0 && SLOTS_PART * slots >= receiver->active)
		n = smaller(queued, slots);
	if (donor->leased.n >= 2 * holds + 2) {
		/* A receiver with fewer slots than the donor has free itself is the worse place. */
		int half = smaller((donor->leased.n - holds) / 2, (rank_slots(receiver) - rank_slots(donor)) / 2);
		if (half > n)
			n = smaller(half, slots);
	}
	return n;
}

static void recall_begin(struct scheduler *scheduler, struct rank *donor, struct rank *receiver, int n)
{
	donor->recall = scheduler->next_recall++;
	donor->barren = true; /* until something comes */
	donor->receiver = receiver->number;
	donor->n_promised = n;
	receiver->n_expected += n;
	rank_room_changed(scheduler, donor);
	rank_room_changed(scheduler, receiver);
	scheduler->recalls++;
	struct action action = {.type = ACTION_RECALL, .sample = -1, .rank = donor->number};
	action.n_samples = donor->leased.n - n;
	action.lease = donor->recall;
	action.step = scheduler->step;
	action.eval = scheduler->eval;
	action_queue_push(&scheduler->actions, &action);
}

/* n samples fewer will come to the donor's receiver. */
static void promise_less(struct scheduler *scheduler, struct rank *donor, int n)
{
	struct rank *receiver = rank_find(scheduler, donor->receiver);
	donor->n_promised -= n;
	if (!receiver || n == 0)
		return;
	receiver->n_expected -= n;
	rank_room_changed(scheduler, receiver);
}

void recall_end(struct scheduler *scheduler, struct rank *donor)
{
	promise_less(scheduler, donor, donor->n_promised);
	donor->recall = 0;
	donor->receiver = -1;
	rank_room_changed(scheduler, donor);
}

void recall_forget_receiver(struct scheduler *scheduler, struct rank *lost)
{
	for (int i = 0; i < scheduler->n_ranks && lost->n_expected > 0; i++) {
		struct rank *donor = scheduler->ranks[i];
		if (!donor || donor->receiver != lost->number)
			continue;
		lost->n_expected -= donor->n_promised;
		donor->n_promised = 0;
		donor->receiver = -1;
	}
}

void step_migrate(struct scheduler *scheduler)
{
	if (scheduler->n_unknown > 0)
		return; /* something will be there to lease in a moment */
	for (;;) {
		struct rank *receiver = heap_first(&scheduler->room), *donor = heap_first(&scheduler->load);
		if (!receiver || !donor || receiver->recall != 0)
			return;
		int n = migration_size(donor, receiver);
		if (n == 0)
			return;
		recall_begin(scheduler, donor, receiver, n);
	}
}

bool scheduler_on_sample_recalled(struct scheduler *scheduler, uint64_t group, int sample, uint64_t lease,
                                  int64_t oldest_version)
{
	struct sample *found = lease_find(scheduler, group, sample, lease);
	if (!found)
		return false;
	struct rank *donor = scheduler->ranks[found->rank];
	found->to = TO_ROOMIEST;
	lease_end(scheduler, found);
	if (donor->n_promised > 0) {
		found->to = donor->receiver;
		promise_less(scheduler, donor, 1);
	}
	found->oldest_version = oldest_version;
	scheduler->migrated++;
	/* Without partial rollouts the step waits for what it has begun. */
	if (scheduler->phase == PHASE_CLOSING && !scheduler->options.partial_rollouts)
		sample_due_set(scheduler, found, true);
	bool aside = scheduler->phase == PHASE_CLOSING && !found->due && oldest_version != VERSION_NONE;
	found->deferrals += aside;
	scheduler->deferred += aside;
	sample_enqueue(scheduler, found);
	step_advance(scheduler);
	if (found->state != SAMPLE_LEASED)
		found->to = TO_HOME;
	return aside;
}

void scheduler_on_rank_recalled(struct scheduler *scheduler, int rank, uint64_t recall)
{
	struct rank *donor = rank_find(scheduler, rank);
	if (!donor || recall == 0 || donor->recall != recall)
		return;
	recall_end(scheduler, donor);
	step_advance(scheduler);
}
