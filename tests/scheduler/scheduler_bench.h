/* scheduler_bench.h - a scheduler on the bench: one event at a time, and what it said to it.
 *
 * settle() takes all actions, scores complete groups as they come and checks the invariants.
 */
#ifndef TESTS_SCHEDULER_SCHEDULER_BENCH_H
#define TESTS_SCHEDULER_SCHEDULER_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/scheduler.h"

enum { ACTIONS_MAX = 512 };

/* The scheduler with what it said since the last event. */
struct bench {
	struct scheduler *scheduler;
	struct action actions[ACTIONS_MAX];
	int n;
	bool keep; /* the answer to GROUP_COMPLETE; none while hold_scores */
	bool hold_scores;
};

static const struct scheduler_options plain = {
	.groups_per_step = 2, .over_sampling = 1, .samples_per_group = 3, .eval_samples = 1,
	.partial_rollouts = true, .max_staleness = 4, .max_deferrals = 8,
};

static inline struct bench bench_open(struct scheduler_options options)
{
	return (struct bench){.scheduler = scheduler_open(&options), .keep = true};
}

static inline void bench_close(struct bench *bench)
{
	scheduler_close(bench->scheduler);
}

static inline void settle(struct bench *bench)
{
	struct action action;
	bench->n = 0;
	while (scheduler_next_action(bench->scheduler, &action)) {
		assert_true(bench->n < ACTIONS_MAX);
		bench->actions[bench->n++] = action;
		if (action.type == ACTION_GROUP_COMPLETE && !bench->hold_scores)
			scheduler_on_group_scored(bench->scheduler, action.group, bench->keep);
	}
	assert_true(scheduler_check(bench->scheduler, stderr));
}

static inline int count(const struct bench *bench, enum action_type type)
{
	int n = 0;
	for (int i = 0; i < bench->n; i++)
		n += bench->actions[i].type == type;
	return n;
}

/* The n-th action of a type since the last event. */
static inline struct action nth(const struct bench *bench, enum action_type type, int n)
{
	for (int i = 0; i < bench->n; i++)
		if (bench->actions[i].type == type && n-- == 0)
			return bench->actions[i];
	fail_msg("action of type %d is missing", (int)type);
	return (struct action){0};
}

static inline void joined(struct bench *bench, int rank, int capacity)
{
	scheduler_on_rank_joined(bench->scheduler, rank, capacity);
	settle(bench);
}

static inline void begin(struct bench *bench, int64_t step, int64_t version)
{
	scheduler_on_step_begin(bench->scheduler, step, version);
	settle(bench);
}

static inline void done(struct bench *bench, struct action lease)
{
	scheduler_on_sample_done(bench->scheduler, lease.group, lease.sample, lease.lease);
	settle(bench);
}

static inline void partial(struct bench *bench, struct action lease, int64_t oldest_version)
{
	scheduler_on_sample_partial(bench->scheduler, lease.group, lease.sample, lease.lease, oldest_version);
	settle(bench);
}

static inline void quiet(struct bench *bench, int rank)
{
	scheduler_on_rank_quiet(bench->scheduler, rank);
	settle(bench);
}

static inline struct scheduler_counts counts(const struct bench *bench)
{
	struct scheduler_counts read;
	scheduler_counts_read(bench->scheduler, &read);
	return read;
}

/* The leases given so far, kept apart from bench->actions, which every event replaces. */
static inline int leases_take(const struct bench *bench, struct action *leases)
{
	int n = 0;
	for (int i = 0; i < bench->n; i++)
		if (bench->actions[i].type == ACTION_LEASE)
			leases[n++] = bench->actions[i];
	return n;
}

#endif
