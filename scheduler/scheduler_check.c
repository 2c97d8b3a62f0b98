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
	int n_samples[SAMPLE_STATES], n_due, n_stopping;
	int n_open[2], n_scoring[2], n_kept[2];
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
		expect(recount, scheduler->phase != PHASE_IDLE, "S1: sample %d of group %llu is leased between steps",
		       sample->index, group);
		expect(recount, sample->group->eval == scheduler->eval,
		       "S10: sample %d of group %llu is leased in a step of the other kind", sample->index, group);
		break;
	}
	case SAMPLE_WAITING:
	case SAMPLE_ASIDE:
		n_listed[sample->due]++;
		expect(recount, (sample->state == SAMPLE_ASIDE) == (sample->oldest_version != VERSION_NONE),
		       "S1: sample %d of group %llu waits with the tokens of a partial or is aside without",
		       sample->index, group);
		break;
	default:
		expect(recount, !sample->due, "S7: sample %d of group %llu is done and due", sample->index, group);
	}
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
	for (int due = 0; due < DUE_KINDS; due++)
		expect(recount,
		       n_listed[due] == group->pending[due].n &&
		           (n_listed[due] > 0) == (group->pending_node[due].at > 0),
		       "S3: group %llu queues %d samples of %d to lease (due %d)", id, group->pending[due].n,
		       n_listed[due], due);
	recount->n_open[group->eval] += group->state == GROUP_OPEN;
	recount->n_scoring[group->eval] += group->state == GROUP_SCORING;
	recount->n_kept[group->eval] += group->state == GROUP_KEPT;
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
		return;
	}
	if (!roomiest || rank_free(roomiest) <= 0)
		return;
	expect(recount, pool->pending[DUE].n == 0, "S8: rank %d has room and %zu groups have samples due",
	       roomiest->number, pool->pending[DUE].n);
	if (scheduler->phase == PHASE_FILLING)
		expect(recount, pool->pending[ORDINARY].n == 0 && pool_groups(pool) >= scheduler->limit,
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
	for (int eval = 0; eval < 2; eval++) {
		const struct pool *pool = &scheduler->pools[eval];
		expect(&recount,
		       recount.n_open[eval] == pool->n_open && recount.n_scoring[eval] == pool->n_scoring &&
		           recount.n_kept[eval] == (int)pool->kept.n,
		       "S3: %s groups open, scoring, kept are %d %d %d, counted %d %d %zu",
		       eval ? "eval" : "training", recount.n_open[eval], recount.n_scoring[eval],
		       recount.n_kept[eval], pool->n_open, pool->n_scoring, pool->kept.n);
	}
	check_progress(&recount);
	return recount.ok;
}
