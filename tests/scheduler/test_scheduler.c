/* test_scheduler.c - steps and evaluations of the state machine, one rule per case. */
#include "tests/scheduler/scheduler_bench.h"

static void test_nothing_without_ranks_or_step(void **state)
{
	(void)state;
	struct bench bench = bench_open(plain);
	joined(&bench, 1, 10);
	assert_int_equal(bench.n, 0);
	bench_close(&bench);
	bench = bench_open(plain);
	begin(&bench, 1, 0);
	assert_int_equal(bench.n, 0);
	joined(&bench, 1, 1);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 1);
	assert_int_equal(count(&bench, ACTION_LEASE), 1);
	bench_close(&bench);
}

static void test_step_from_begin_to_ready(void **state)
{
	(void)state;
	struct action leases[8];
	struct bench bench = bench_open(plain);
	joined(&bench, 1, 100);
	begin(&bench, 7, 3);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 2);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).group, 1);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).n_samples, 3);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 1).group, 2);
	assert_int_equal(leases_take(&bench, leases), 6);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(leases[i].group, 1 + i / 3);
		assert_int_equal(leases[i].sample, i % 3);
		done(&bench, leases[i]);
		assert_int_equal(count(&bench, ACTION_GROUP_COMPLETE), i % 3 == 2);
	}
	assert_int_equal(count(&bench, ACTION_STOP), 0); /* nothing was in flight */
	assert_int_equal(count(&bench, ACTION_DELIVER), 2);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 1).group, 2);
	assert_int_equal(bench.actions[bench.n - 1].type, ACTION_STEP_READY);
	assert_int_equal(bench.actions[bench.n - 1].step, 7);
	assert_false(bench.actions[bench.n - 1].eval);
	assert_int_equal(counts(&bench).groups_delivered, 2);
	assert_int_equal(counts(&bench).done, 0);
	bench_close(&bench);
}

static void test_capacity_and_placement(void **state)
{
	(void)state;
	struct bench bench = bench_open((struct scheduler_options){.groups_per_step = 3, .over_sampling = 1,
		.samples_per_group = 2, .partial_rollouts = true, .max_staleness = 1, .max_deferrals = 1});
	joined(&bench, 2, 3);
	joined(&bench, 1, 2);
	begin(&bench, 1, 0);
	/* Group 1 to the roomiest rank 2; then one place on rank 2, two on rank 1: group 2 there. */
	const int ranks[] = {2, 2, 1, 1, 2};
	assert_int_equal(count(&bench, ACTION_LEASE), 5);
	for (int i = 0; i < 5; i++)
		assert_int_equal(nth(&bench, ACTION_LEASE, i).rank, ranks[i]);
	assert_int_equal(counts(&bench).waiting, 1);
	/* The last sample goes to where its sibling is once there is room. */
	struct action sibling = nth(&bench, ACTION_LEASE, 0);
	done(&bench, sibling);
	assert_int_equal(nth(&bench, ACTION_LEASE, 0).group, 3);
	assert_int_equal(nth(&bench, ACTION_LEASE, 0).rank, 2);
	bench_close(&bench);
}

static void test_ties_go_to_the_lowest_rank(void **state)
{
	(void)state;
	struct bench bench = bench_open((struct scheduler_options){.groups_per_step = 3, .over_sampling = 1,
		.samples_per_group = 1, .partial_rollouts = true, .max_staleness = 1, .max_deferrals = 1});
	joined(&bench, 9, 1);
	joined(&bench, 4, 1);
	joined(&bench, 6, 1);
	begin(&bench, 1, 0);
	assert_int_equal(nth(&bench, ACTION_LEASE, 0).rank, 4);
	assert_int_equal(nth(&bench, ACTION_LEASE, 1).rank, 6);
	assert_int_equal(nth(&bench, ACTION_LEASE, 2).rank, 9);
	bench_close(&bench);
}

static void test_over_sampling_bounds_open_groups(void **state)
{
	(void)state;
	struct scheduler_options options = plain;
	options.groups_per_step = 10;
	options.over_sampling = 1.1; /* 10 * 1.1 > 11 in doubles */
	struct bench bench = bench_open(options);
	joined(&bench, 1, 1000);
	begin(&bench, 1, 0);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 11);
	bench_close(&bench);
	options.over_sampling = 1.11;
	bench = bench_open(options);
	joined(&bench, 1, 1000);
	begin(&bench, 1, 0);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 12);
	bench_close(&bench);
}

/* One group wanted, two in flight: the second is put aside and resumed first, before fresh groups. */
static void test_partials_are_put_aside_and_resumed_first(void **state)
{
	(void)state;
	struct action leases[8], resumed[8];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 2;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 3);
	joined(&bench, 2, 1);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 4);
	done(&bench, leases[2]); /* a sibling of group 2 finishes: kept, never drawn again */
	done(&bench, leases[0]);
	done(&bench, leases[1]);
	assert_int_equal(count(&bench, ACTION_STOP), 1);
	assert_int_equal(nth(&bench, ACTION_STOP, 0).rank, leases[3].rank);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	partial(&bench, leases[3], 0);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0); /* the rank is not quiet yet */
	quiet(&bench, leases[3].rank);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	assert_int_equal(counts(&bench).aside, 1);
	assert_int_equal(counts(&bench).deferred, 1);

	begin(&bench, 2, 1);
	assert_int_equal(leases_take(&bench, resumed), 3);
	assert_int_equal(resumed[0].group, 2);
	assert_int_equal(resumed[0].sample, leases[3].sample);
	assert_int_equal(resumed[1].group, 3);
	assert_int_equal(counts(&bench).resumed, 1);
	bench_close(&bench);
}

static void test_surplus_groups_are_kept_for_the_next_step(void **state)
{
	(void)state;
	struct action leases[8];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 1;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 2);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 2);
	done(&bench, leases[1]); /* group 2 is complete, rank 1 is told to stop */
	assert_int_equal(count(&bench, ACTION_STOP), 1);
	done(&bench, leases[0]); /* group 1 finished before the word reached it: the older one goes first */
	quiet(&bench, 1);
	assert_int_equal(count(&bench, ACTION_DELIVER), 1);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	assert_int_equal(counts(&bench).groups_complete, 1);
	begin(&bench, 2, 1);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 0);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 2);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	bench_close(&bench);
}

static void test_dropped_groups_are_replaced(void **state)
{
	(void)state;
	struct action leases[8];
	struct scheduler_options options = plain;
	options.samples_per_group = 1;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 8);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 2);
	bench.keep = false;
	done(&bench, leases[0]);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).group, 3);
	assert_int_equal(counts(&bench).groups_dropped, 1);
	struct action replacement = nth(&bench, ACTION_LEASE, 0);
	bench.keep = true;
	done(&bench, leases[1]);
	done(&bench, replacement);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 2);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 1).group, 3);
	scheduler_on_group_scored(bench.scheduler, 2, false); /* too late: it is gone */
	settle(&bench);
	assert_int_equal(counts(&bench).groups_dropped, 1);
	bench_close(&bench);
}

static struct bench three_complete(struct scheduler_options options, struct action leases[3])
{
	struct bench bench = bench_open(options);
	bench.hold_scores = true;
	joined(&bench, 1, 8);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 3);
	for (int i = 0; i < 3; i++)
		done(&bench, leases[i]);
	assert_int_equal(counts(&bench).groups_complete, 3);
	return bench;
}

static void scored(struct bench *bench, uint64_t group, bool keep)
{
	scheduler_on_group_scored(bench->scheduler, group, keep);
	settle(bench);
}

static struct scheduler_options late_options(void)
{
	struct scheduler_options options = plain;
	options.samples_per_group = 1;
	options.over_sampling = 1.5;
	return options;
}

/* S21: scores may come later than GROUP_COMPLETE; a step ends without those of groups that it does not need. */
static void test_late_scores(void **state)
{
	(void)state;
	struct action leases[3];
	struct bench bench = three_complete(late_options(), leases);
	scored(&bench, 3, true);
	scored(&bench, 3, true); /* said twice: counted once */
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	scored(&bench, 1, true);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 1).group, 3);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	assert_int_equal(counts(&bench).groups_complete, 1);
	scored(&bench, 2, true); /* between two steps */
	assert_int_equal(bench.n, 0);
	begin(&bench, 2, 1);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 2); /* three are there, as ever */
	assert_int_equal(leases_take(&bench, leases), 2);
	done(&bench, leases[0]);
	scored(&bench, leases[0].group, true);
	quiet(&bench, 1);
	partial(&bench, leases[1], 1);
	assert_int_equal(counts(&bench).groups_delivered, 4);
	bench_close(&bench);
}

static void test_late_score_that_drops(void **state)
{
	(void)state;
	struct action leases[3];
	struct bench bench = three_complete(late_options(), leases);
	scored(&bench, 2, true);
	scored(&bench, 1, true);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	begin(&bench, 2, 1);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 2); /* the one that is judged counts */
	scored(&bench, 3, false);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 1);
	assert_int_equal(counts(&bench).groups_dropped, 1);
	bench_close(&bench);
}

/* What would lag too much in the next batch is waited for, if it would be in this one. */
static void test_late_score_at_max_staleness(void **state)
{
	(void)state;
	struct action leases[3];
	struct scheduler_options options = late_options();
	options.max_staleness = 0;
	struct bench bench = three_complete(options, leases);
	scored(&bench, 2, true);
	scored(&bench, 3, true);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	scored(&bench, 1, true);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 1).group, 2);
	bench_close(&bench);
	bench = three_complete(options, leases);
	scored(&bench, 2, true);
	scored(&bench, 1, true); /* the third is younger than both */
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	bench_close(&bench);
}

/* An evaluation begins and ends while a training group is judged. */
static void test_late_score_within_an_evaluation(void **state)
{
	(void)state;
	struct action leases[3];
	struct bench bench = three_complete(late_options(), leases);
	scored(&bench, 2, true);
	scored(&bench, 1, true);
	scheduler_on_eval_begin(bench.scheduler, 1, 2);
	settle(&bench);
	assert_int_equal(leases_take(&bench, leases), 2);
	done(&bench, leases[1]);
	scored(&bench, 3, false);
	assert_int_equal(bench.n, 0); /* nothing is opened for it now */
	done(&bench, leases[0]);
	scored(&bench, leases[0].group, true);
	scored(&bench, leases[1].group, true);
	assert_true(nth(&bench, ACTION_STEP_READY, 0).eval);
	begin(&bench, 2, 1);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 3);
	bench_close(&bench);
}

static void test_without_partial_rollouts_the_step_waits(void **state)
{
	(void)state;
	struct action leases[8];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 2;
	options.partial_rollouts = false;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 3);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 3);
	done(&bench, leases[0]);
	struct action fourth = nth(&bench, ACTION_LEASE, 0);
	done(&bench, leases[1]);
	assert_int_equal(count(&bench, ACTION_STOP), 0);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	done(&bench, leases[2]);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	done(&bench, fourth);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	assert_int_equal(counts(&bench).groups_complete, 1);
	bench_close(&bench);
}

static void test_eval_rests_training_work(void **state)
{
	(void)state;
	struct action leases[8];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 1;
	options.eval_samples = 2;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 16);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 2);
	done(&bench, leases[0]);
	partial(&bench, leases[1], 0);
	quiet(&bench, 1);

	scheduler_on_eval_begin(bench.scheduler, 1, 3);
	settle(&bench);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 3);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).group, 3); /* ids from the one counter */
	assert_true(nth(&bench, ACTION_OPEN_GROUP, 0).eval);
	assert_int_equal(leases_take(&bench, leases), 6);
	bench.keep = false; /* evaluation groups are never dropped */
	for (int i = 5; i >= 0; i--) {
		assert_true(leases[i].eval);
		done(&bench, leases[i]);
	}
	assert_int_equal(count(&bench, ACTION_DELIVER), 3);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 3);
	assert_true(nth(&bench, ACTION_STEP_READY, 0).eval);
	assert_int_equal(counts(&bench).aside, 1);

	begin(&bench, 2, 0);
	assert_int_equal(nth(&bench, ACTION_LEASE, 0).group, 2);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).group, 6);
	bench_close(&bench);
}

static void test_eval_of_nothing_is_ready_at_once(void **state)
{
	(void)state;
	struct bench bench = bench_open(plain);
	scheduler_on_eval_begin(bench.scheduler, 0, 0);
	settle(&bench);
	assert_int_equal(bench.n, 1);
	assert_int_equal(bench.actions[0].type, ACTION_STEP_READY);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_without_ranks_or_step),
		cmocka_unit_test(test_step_from_begin_to_ready),
		cmocka_unit_test(test_capacity_and_placement),
		cmocka_unit_test(test_ties_go_to_the_lowest_rank),
		cmocka_unit_test(test_over_sampling_bounds_open_groups),
		cmocka_unit_test(test_partials_are_put_aside_and_resumed_first),
		cmocka_unit_test(test_surplus_groups_are_kept_for_the_next_step),
		cmocka_unit_test(test_dropped_groups_are_replaced),
		cmocka_unit_test(test_late_scores),
		cmocka_unit_test(test_late_score_that_drops),
		cmocka_unit_test(test_late_score_at_max_staleness),
		cmocka_unit_test(test_late_score_within_an_evaluation),
		cmocka_unit_test(test_without_partial_rollouts_the_step_waits),
		cmocka_unit_test(test_eval_rests_training_work),
		cmocka_unit_test(test_eval_of_nothing_is_ready_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
