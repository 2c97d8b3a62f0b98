/* scheduler_check.c - recounts everything and holds it against the invariants of scheduler.h.
 *
 * O(live samples): for tests and the simulator, not for the controller's loop.  What only a sequence
 * of actions can show (S2's "once", S5, S6, S9) is checked by the simulator that sees them.
 */
#include "scheduler/scheduler_internal.h"

#include <stdarg.h>
#include <string.h>

struct recount {
	const struct scheduler *scheduler;
	FILE *out;
	int n_samples[SAMPLE_STATES], n_due, n_stopping, n_unknown, n_aged, n_aged_kept;
	int n_open[2], n_scoring[2], n_kept[2], n_held, n_unsettled;
	bool ok;
};

__attribute__((format(printf, 3, 4))) static void expect(struct recount *recount, bool holds,
                                                         const char *format, ...)
{
	if (holds)
		return;
	recount->ok = false;
	if (!recount->out)
		return;
	va_list arguments;
	va_start(arguments, format);
	fprintf(recount->out, "scheduler: invariant broken: ");
	vfprintf(recount->out, format, arguments);
	fputc('\n', recount->out);
	va_end(arguments);
}

static void check_sample(struct recount *recount, const struct sample *sample, int n_listed[DUE_KINDS])
{
	const struct scheduler *scheduler = recount->scheduler;
	unsigned long long group = sample->group->id;
	recount->n_samples[sample->state]++;
	recount->n_due += sample->due;
	switch (sample->state) {
	case SAMPLE_LEASED: {
		bool known = sample->rank >= 0 && sample->rank < scheduler->n_ranks && scheduler->ranks[sample->rank];
		expect(recount, known && scheduler->ranks[sample->rank]->alive,
		       "S1: sample %d of group %llu is leased to rank %d, which is not there", sample->index, group,
		       sample->rank);
		expect(recount, scheduler->phase != PHASE_IDLE || is_async(scheduler), "S1: sample %d of group %llu is leased between steps",
		       sample->index, group);
		expect(recount, sample->group->eval == scheduler->eval || (is_async(scheduler) && scheduler->eval),
		       "S10: sample %d of group %llu is leased in a step of the other kind", sample->index, group);
		break;
	}
	case SAMPLE_WAITING:
	case SAMPLE_ASIDE:
		n_listed[sample->due]++;
		expect(recount, (sample->order_node.at > 0) == (scheduler->options.order == ORDER_LONGEST && sample->group->known),
		       "S6: sample %d of group %llu waits outside the order", sample->index, group);
		expect(recount, (sample->state == SAMPLE_ASIDE) == (sample->oldest_version != VERSION_NONE),
		       "S1: sample %d of group %llu waits with the tokens of a partial or is aside without",
		       sample->index, group);
		break;
	default:
		expect(recount, !sample->due, "S7: sample %d of group %llu is done and due", sample->index, group);
	}
}

/* S18, S19 */
static void check_extension(struct recount *recount, const struct group *group)
{
	const struct scheduler *scheduler = recount->scheduler;
	int max = scheduler->options.samples_max, budget = scheduler->options.extension_budget;
	unsigned long long id = group->id;
	bool oldest = heap_first(&scheduler->unsettled) == group;
	recount->n_held += group->state == GROUP_HELD;
	recount->n_unsettled += !group->settled;
	expect(recount, group->settled == (group->unsettled_node.at == 0), "S18: group %llu is settled (%d) and listed as if not",
	       id, group->settled);
	expect(recount, group->settled || (!group->eval && group->n_samples < max && group->state != GROUP_KEPT),
	       "S18: group %llu of %d samples may be extended", id, group->n_samples);
	expect(recount, group->state != GROUP_SCORING || group->settled || budget == 0 || oldest,
	       "S19: group %llu is judged before an older one", id);
	bool held = budget > 0 && scheduler->n_extra < budget && (!oldest || scheduler->restoring);
	expect(recount, group->state != GROUP_HELD || held,
	       "S19: group %llu is held for nothing", id);
}

static void check_group(struct recount *recount, const struct group *group)
{
	int n_listed[DUE_KINDS] = {0}, n_done_before = recount->n_samples[SAMPLE_DONE];
	for (int i = 0; i < group->n_samples; i++)
		check_sample(recount, &group->samples[i], n_listed);
	int n_done = recount->n_samples[SAMPLE_DONE] - n_done_before;
	unsigned long long id = group->id;
	expect(recount, n_done == group->n_done && (n_done == group->n_samples) == (group->state != GROUP_OPEN),
	       "S2: group %llu has %d of %d samples done, counted %d, state %d", id, n_done, group->n_samples,
	       group->n_done, (int)group->state);
	check_extension(recount, group);
	recount->n_unknown += !group->known;
	for (int due = 0; due < DUE_KINDS; due++)
		expect(recount,
		       n_listed[due] == group->pending[due].n &&
		           (n_listed[due] > 0) == (group->pending_node[due].at > 0),
		       "S3: group %llu queues %d samples of %d to lease (due %d)", id, group->pending[due].n,
		       n_listed[due], due);
	recount->n_open[group->eval] += group->state == GROUP_OPEN || group->state == GROUP_HELD;
	recount->n_scoring[group->eval] += group->state == GROUP_SCORING;
	recount->n_kept[group->eval] += group->state == GROUP_KEPT;
	recount->n_aged += group->aged;
	recount->n_aged_kept += group->aged && group->state == GROUP_KEPT;
}

static void check_rank(struct recount *recount, const struct rank *rank)
{
	int n = 0;
	for (const struct sample *sample = rank->leased.first; sample; sample = sample->next, n++)
		expect(recount, sample->state == SAMPLE_LEASED && sample->rank == rank->number,
		       "S1: rank %d lists sample %d of group %llu, which is not leased to it", rank->number,
		       sample->index, (unsigned long long)sample->group->id);
	expect(recount, n == rank->leased.n && n <= (rank->alive ? rank->capacity : 0),
	       "S4: rank %d holds %d samples (counted %d), capacity %d", rank->number, n, rank->leased.n,
	       rank->capacity);
	bool recallable = recount->scheduler->options.migrate && rank->alive && !rank->stopping && rank->recall == 0 &&
	                  !rank->barren && rank->leased.n > 0;
	expect(recount, (rank->load_node.at > 0) == recallable, "S14: rank %d holds %d samples, recall %llu, open to recalls %d",
	       rank->number, rank->leased.n, (unsigned long long)rank->recall, rank->load_node.at > 0);
	expect(recount, rank->n_promised >= 0 && (rank->recall != 0 || rank->n_promised == 0),
	       "S14: rank %d owes %d samples to recall %llu", rank->number, rank->n_promised,
	       (unsigned long long)rank->recall);
	int n_expected = 0;
	for (int i = 0; rank->alive && i < recount->scheduler->n_ranks; i++) {
		const struct rank *donor = recount->scheduler->ranks[i];
		n_expected += donor && donor->receiver == rank->number ? donor->n_promised : 0;
	}
	expect(recount, n_expected == rank->n_expected, "S14: rank %d expects %d samples by recalls, %d are promised",
	       rank->number, rank->n_expected, n_expected);
	expect(recount, (rank->room_node.at > 0) == (rank->alive && !rank->stopping),
	       "S8: rank %d is alive %d, stopping %d, open to leases %d", rank->number, rank->alive,
	       rank->stopping, rank->room_node.at > 0);
	recount->n_stopping += rank->stopping;
}

static void check_progress(struct recount *recount)
{
	const struct scheduler *scheduler = recount->scheduler;
	const struct pool *pool = &scheduler->pools[scheduler->eval];
	const struct rank *roomiest = heap_first(&scheduler->room);
	if (scheduler->phase == PHASE_IDLE) {
		expect(recount, scheduler->n_due == 0, "S7: the step ended with %d samples due", scheduler->n_due);
		if (!scheduler->running)
			return;
	}
	if (!roomiest || rank_free(roomiest) <= 0)
		return;
	expect(recount, pool->pending[DUE].n == 0, "S8: rank %d has room and %zu groups have samples due",
	       roomiest->number, pool->pending[DUE].n);
	bool longest = scheduler->options.order == ORDER_LONGEST; /* pending groups may await what is expected of them */
	size_t n_pending = longest ? pool->longest[ORDINARY].n : pool->pending[ORDINARY].n;
	const struct rank *donor = heap_first(&scheduler->load);
	expect(recount, !donor || roomiest->recall != 0 || scheduler->n_unknown > 0 || migration_size(donor, roomiest) == 0,
	       "S14: rank %d has slots free and rank %d holds %d samples", roomiest->number, donor ? donor->number : -1,
	       donor ? donor->leased.n : 0);
	if (step_fills(scheduler))
		expect(recount, n_pending == 0 && !staleness_may_open(scheduler),
		       "S8: rank %d has room, %zu groups have samples to lease, %d of %d groups are there",
		       roomiest->number, pool->pending[ORDINARY].n, pool_groups(pool), scheduler->limit);
}

bool scheduler_check(const struct scheduler *scheduler, FILE *out)
{
	struct recount recount = {.scheduler = scheduler, .out = out, .ok = true};
	for (size_t i = 0; i < scheduler->groups.n_slots; i++)
		if (scheduler->groups.slots[i].group)
			check_group(&recount, scheduler->groups.slots[i].group);
	int n_leased = 0;
	for (int i = 0; i < scheduler->n_ranks; i++) {
		if (!scheduler->ranks[i])
			continue;
		check_rank(&recount, scheduler->ranks[i]);
		n_leased += scheduler->ranks[i]->leased.n;
	}
	expect(&recount, n_leased == recount.n_samples[SAMPLE_LEASED], "S1: ranks hold %d samples, %d are leased",
	       n_leased, recount.n_samples[SAMPLE_LEASED]);
	expect(&recount, memcmp(recount.n_samples, scheduler->n_samples, sizeof(recount.n_samples)) == 0,
	       "S3: samples waiting, leased, aside, done are %d %d %d %d, counted %d %d %d %d",
	       recount.n_samples[0], recount.n_samples[1], recount.n_samples[2], recount.n_samples[3],
	       scheduler->n_samples[0], scheduler->n_samples[1], scheduler->n_samples[2],
	       scheduler->n_samples[3]);
	expect(&recount, recount.n_due == scheduler->n_due && recount.n_stopping == scheduler->n_stopping,
	       "S7: %d samples are due (counted %d), %d ranks are stopping (counted %d)", recount.n_due,
	       scheduler->n_due, recount.n_stopping, scheduler->n_stopping);
	for (int i = 0; i < scheduler->n_ages; i++) {
		recount.n_aged -= scheduler->ages[i].n_live;
		recount.n_aged_kept -= scheduler->ages[i].n_kept;
	}
	expect(&recount, recount.n_aged == 0 && recount.n_aged_kept == 0,
	       "S11: the ages of %d groups are not counted, of %d that are kept", recount.n_aged, recount.n_aged_kept);
	expect(&recount, recount.n_unknown == scheduler->n_unknown, "S6: of %d groups nothing is expected, counted %d",
	       scheduler->n_unknown, recount.n_unknown);
	for (int eval = 0; eval < 2; eval++) {
		const struct pool *pool = &scheduler->pools[eval];
		expect(&recount,
		       recount.n_open[eval] == pool->n_open && recount.n_scoring[eval] == pool->n_scoring &&
		           recount.n_kept[eval] == (int)pool->kept.n,
		       "S3: %s groups open, scoring, kept are %d %d %d, counted %d %d %zu",
		       eval ? "eval" : "training", recount.n_open[eval], recount.n_scoring[eval],
		       recount.n_kept[eval], pool->n_open, pool->n_scoring, pool->kept.n);
	}
	expect(&recount, recount.n_held == scheduler->n_held && recount.n_unsettled == (int)scheduler->unsettled.n,
	       "S19: %d groups are held and %zu may be extended, counted %d and %d", scheduler->n_held, scheduler->unsettled.n,
	       recount.n_held, recount.n_unsettled);
	expect(&recount, scheduler->options.extension_budget == 0 || scheduler->n_extra <= scheduler->options.extension_budget,
	       "S19: groups were extended by %d samples, the step has %d", scheduler->n_extra, scheduler->options.extension_budget);
	check_progress(&recount);
	return recount.ok;
}
