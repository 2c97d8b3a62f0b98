/* bench_scheduler.c - events per CPU second of the state machine alone, by number of ranks.
 *
 *     bench_scheduler [ranks, default 10000]
 *
 * Every rank holds 40 samples of groups of 9; steps want half of what fits in flight, so that each step
 * puts partials aside and resumes them.  An event is one call of scheduler_on_*; taking the actions that
 * follow is part of its cost.  Recalls are answered at once, with nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "configs/err.h"
#include "scheduler/scheduler.h"

enum { CAPACITY = 40, SAMPLES = 9, STEPS = 5 };

struct load {
	struct scheduler *scheduler;
	struct action *leases; /* [n_leases] in flight */
	int n_leases;
	int *stopped; /* [n_stopped] ranks that owe a quiet */
	int n_stopped;
	bool ready;
	unsigned long long n_events, random;
};

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void take_actions(struct load *load)
{
	struct action action;
	while (scheduler_next_action(load->scheduler, &action)) {
		if (action.type == ACTION_LEASE)
			load->leases[load->n_leases++] = action;
		else if (action.type == ACTION_STOP)
			load->stopped[load->n_stopped++] = action.rank;
		else if (action.type == ACTION_STEP_READY)
			load->ready = true;
		else if (action.type == ACTION_RECALL) {
			scheduler_on_rank_recalled(load->scheduler, action.rank, action.lease);
			load->n_events++;
		}
		if (action.type == ACTION_GROUP_COMPLETE) {
			scheduler_on_group_scored(load->scheduler, action.group, true);
			load->n_events++;
		}
	}
	load->n_events++;
}

/* Samples end in random order. */
static void finish_one(struct load *load)
{
	load->random = load->random * 6364136223846793005u + 1442695040888963407u;
	struct action *lease = &load->leases[(load->random >> 33) % (unsigned)load->n_leases];
	struct action taken = *lease;
	*lease = load->leases[--load->n_leases];
	scheduler_on_sample_done(load->scheduler, taken.group, taken.sample, taken.lease);
	take_actions(load);
}

static void run_step(struct load *load, int64_t step)
{
	load->ready = false;
	scheduler_on_step_begin(load->scheduler, step, step);
	take_actions(load);
	while (load->n_stopped == 0 && !load->ready)
		finish_one(load);
	while (load->n_leases > 0) {
		struct action lease = load->leases[--load->n_leases];
		scheduler_on_sample_partial(load->scheduler, lease.group, lease.sample, lease.lease, step);
		take_actions(load);
	}
	while (load->n_stopped > 0) {
		scheduler_on_rank_quiet(load->scheduler, load->stopped[--load->n_stopped]);
		take_actions(load);
	}
}

int main(int argc, char **argv)
{
	int n_ranks = argc > 1 ? atoi(argv[1]) : 10000;
	if (n_ranks < 1 || n_ranks > 1000000) {
		fprintf(stderr, "bench_scheduler: expected 1 to 1000000 ranks\n");
		return 2;
	}
	int in_flight = n_ranks * CAPACITY / SAMPLES;
	struct scheduler_options options = {.groups_per_step = in_flight / 2 + 1,
	                                    .over_sampling = 2,
	                                    .samples_per_group = SAMPLES,
	                                    .eval_samples = 1,
	                                    .partial_rollouts = true,
	                                    .migrate = true,
	                                    .max_staleness = 1000,
	                                    .max_deferrals = 1000};
	struct load load = {.scheduler = scheduler_open(&options)};
	load.leases = xmalloc((size_t)n_ranks * CAPACITY * sizeof(*load.leases));
	load.stopped = xmalloc((size_t)n_ranks * sizeof(*load.stopped));
	for (int rank = 0; rank < n_ranks; rank++)
		scheduler_on_rank_joined(load.scheduler, rank + 1, CAPACITY);
	double start = cpu_seconds();
	for (int step = 1; step <= STEPS; step++)
		run_step(&load, step);
	double elapsed = cpu_seconds() - start;
	printf("%d ranks, %d samples in flight: %llu events in %.3f CPU s, %.0f events/s\n", n_ranks,
	       n_ranks * CAPACITY, load.n_events, elapsed, (double)load.n_events / elapsed);
	free(load.leases);
	free(load.stopped);
	scheduler_close(load.scheduler);
	return 0;
}
