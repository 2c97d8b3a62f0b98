/* simulated_totals.h - what happened in all worlds of test_simulator.c: what is never seen is not tested. */
#ifndef TESTS_SCHEDULER_SIMULATED_TOTALS_H
#define TESTS_SCHEDULER_SIMULATED_TOTALS_H

#include "tests/scheduler/simulated_world.h"

struct totals {
	unsigned long long worlds, events, leases, given_up, cancelled, at_limit, recalls, migrated;
	unsigned long long extended, in_turn, cut, awaited;
	unsigned long long pruned[3]; /* that waited or were aside, leased, done */
};

static inline void totals_add(struct totals *t, const struct world *world)
{
	t->worlds++;
	t->events += (unsigned long long)world->n_handled;
	t->leases += (unsigned long long)world->n_leases;
	t->given_up += world->n_given_up;
	t->cancelled += world->n_cancelled;
	t->at_limit += world->lag_max == world->options.max_staleness;
	t->recalls += (unsigned long long)world->n_recalls;
	t->migrated += (unsigned long long)world->n_migrated;
	t->extended += world->n_extended;
	t->in_turn += world->n_in_turn;
	t->cut += world->n_cut;
	t->awaited += world->n_awaited;
	for (int i = 0; i < 3; i++)
		t->pruned[i] += (unsigned long long)world->n_pruned[i];
}

static inline void totals_say(const struct totals *t)
{
	print_message("%llu seeds, %llu events, %llu leases, %llu recalls of %llu samples\n", t->worlds, t->events, t->leases,
	              t->recalls, t->migrated);
	print_message("%llu groups given up, %llu samples called back, %llu worlds at max_staleness\n", t->given_up, t->cancelled,
	              t->at_limit);
	print_message("%llu groups extended, %llu times after an older one, %llu cut by a step's budget; %llu scored behind a batch\n",
	              t->extended, t->in_turn, t->cut, t->awaited);
	print_message("pruned: %llu that waited or were aside, %llu leased, %llu done\n", t->pruned[0], t->pruned[1], t->pruned[2]);
}

/* Rare things need many worlds. */
static inline void totals_require(const struct totals *t)
{
	unsigned long long n = t->worlds;
	if (n < 1000)
		return;
	assert_true(t->extended > 5 * n && t->in_turn > n && t->cut > n / 2 && t->awaited > n / 20);
	/* No to and fro, in a world where ranks die and the controller is told late. */
	assert_true(t->recalls > n / 2 && t->recalls < t->leases / 10 && t->migrated < t->leases / 10);
	if (n < 10000)
		return;
	assert_true(t->given_up > n / 20 && t->cancelled > n / 20 && t->at_limit > n / 20);
	assert_true(t->pruned[0] > n / 20 && t->pruned[1] > n / 20 && t->pruned[2] > n / 20);
}

#endif
