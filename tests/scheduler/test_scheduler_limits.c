/* test_scheduler_limits.c - what bounds a sample's life: late answers, lost ranks, deferrals, staleness,
 * restarts. */
#include "tests/scheduler/scheduler_bench.h"

static void test_a_stale_lease_changes_nothing(void **state)
{
	(void)state;
	struct action leases[8];
	struct bench bench = bench_open(plain);
	joined(&bench, 1, 6);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 6);
	struct action wrong = leases[0];
	wrong.lease += 100;
	done(&bench, wrong);
	partial(&bench, wrong, 0);
	wrong = leases[0];
	wrong.group = 99;
	done(&bench, wrong);
	wrong = leases[0];
	wrong.sample = 3;
	done(&bench, wrong);
	wrong.sample = -1;
	done(&bench, wrong);
	assert_int_equal(counts(&bench).leased, 6);
	done(&bench, leases[0]);
	done(&bench, leases[0]);
	partial(&bench, leases[0], 0);
	assert_int_equal(counts(&bench).done, 1);
	assert_int_equal(counts(&bench).aside, 0);
	bench_close(&bench);
}

static void test_a_lost_ranks_samples_go_to_others(void **state)
{
	(void)state;
	struct action leases[8], again[8];
	struct bench bench = bench_open(plain);
	joined(&bench, 1, 6);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 6);
	done(&bench, leases[4]);
	scheduler_on_rank_lost(bench.scheduler, 1);
	scheduler_on_rank_lost(bench.scheduler, 1);
	scheduler_on_rank_lost(bench.scheduler, 77);
	settle(&bench);
	assert_int_equal(counts(&bench).waiting, 5);
	joined(&bench, 2, 100);
	assert_int_equal(leases_take(&bench, again), 5);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(again[i].rank, 2);
		assert_true(again[i].lease > leases[5].lease);
	}
	done(&bench, leases[0]); /* the dead rank's late answer */
	assert_int_equal(counts(&bench).done, 1);
	for (int i = 0; i < 5; i++)
		done(&bench, again[i]);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	bench_close(&bench);
}

/* A rank that was told to stop and dies does not hold up the step; its partials are as last known. */
static void test_a_rank_lost_while_stopping(void **state)
{
	(void)state;
	struct action leases[8], resumed[8];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 1;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 1);
	joined(&bench, 2, 1);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 2);
	done(&bench, leases[0]);
	assert_int_equal(nth(&bench, ACTION_STOP, 0).rank, 2);
	scheduler_on_rank_lost(bench.scheduler, 2);
	settle(&bench);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	assert_int_equal(counts(&bench).waiting, 1);
	begin(&bench, 2, 1);
	assert_int_equal(leases_take(&bench, resumed), 1);
	assert_int_equal(resumed[0].group, 2);
	bench_close(&bench);
}

static void test_a_rank_that_joins_again_has_lost_its_samples(void **state)
{
	(void)state;
	struct action leases[8];
	struct bench bench = bench_open(plain);
	joined(&bench, 1, 4);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 4);
	joined(&bench, 1, 5);
	assert_int_equal(leases_take(&bench, leases), 5);
	assert_int_equal(counts(&bench).leased, 5);
	bench_close(&bench);
}

/* S7 by deferrals: put aside max_deferrals times, a sample is named by KEEP and the step waits. */
static void test_max_deferrals(void **state)
{
	(void)state;
	struct action leases[8];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 1;
	options.max_deferrals = 2;
	options.max_staleness = 100;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 2);
	for (int step = 1; step <= 2; step++) {
		begin(&bench, step, step);
		assert_int_equal(leases_take(&bench, leases), 2);
		assert_int_equal(leases[0].group, 1);
		done(&bench, leases[1]);
		assert_int_equal(count(&bench, ACTION_KEEP), 0);
		partial(&bench, leases[0], 1);
		quiet(&bench, 1);
		assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	}
	begin(&bench, 3, 3);
	leases_take(&bench, leases);
	done(&bench, leases[1]);
	struct action keep = nth(&bench, ACTION_KEEP, 0);
	assert_int_equal(keep.group, 1);
	assert_int_equal(keep.sample, 0);
	assert_int_equal(keep.rank, 1);
	assert_int_equal(bench.actions[bench.n - 1].type, ACTION_STOP); /* after the KEEP */
	quiet(&bench, 1);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	done(&bench, leases[0]);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	bench_close(&bench);
}

/* S7 by age; the sample that must finish loses its rank while the step closes and is leased again. */
static void test_max_staleness_survives_a_lost_rank(void **state)
{
	(void)state;
	struct action leases[8], again[8];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 1;
	options.max_staleness = 2;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 1);
	joined(&bench, 2, 1);
	begin(&bench, 1, 5);
	assert_int_equal(leases_take(&bench, leases), 2);
	done(&bench, leases[1]);
	partial(&bench, leases[0], 5);
	quiet(&bench, leases[0].rank);
	begin(&bench, 2, 7); /* two versions later */
	assert_int_equal(leases_take(&bench, leases), 2);
	assert_int_equal(leases[0].group, 1);
	done(&bench, leases[1]);
	assert_int_equal(nth(&bench, ACTION_KEEP, 0).group, 1);
	scheduler_on_rank_lost(bench.scheduler, leases[0].rank);
	settle(&bench);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	assert_int_equal(leases_take(&bench, again), 1);
	assert_int_equal(again[0].group, 1);
	assert_int_equal(again[0].rank, leases[1].rank);
	done(&bench, again[0]);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	bench_close(&bench);
}

/* With max_staleness 0 nothing that has begun crosses a version. */
static void test_max_staleness_zero_keeps_everything_started(void **state)
{
	(void)state;
	struct action leases[8];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 1;
	options.max_staleness = 0;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 2);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 2);
	done(&bench, leases[0]);
	assert_int_equal(nth(&bench, ACTION_KEEP, 0).group, 2);
	quiet(&bench, 1);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	done(&bench, leases[1]);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	bench_close(&bench);
}

static void test_restored_work_comes_first(void **state)
{
	(void)state;
	struct action leases[16];
	struct bench bench = bench_open(plain); /* 2 groups of 3 */
	scheduler_restore_group(bench.scheduler, 41, 3);
	scheduler_restore_group(bench.scheduler, 40, 2);
	scheduler_restore_sample(bench.scheduler, 40, 0, true, 0, 9);
	scheduler_restore_sample(bench.scheduler, 40, 1, true, 1, 9);
	scheduler_restore_sample(bench.scheduler, 41, 1, false, 2, 8);
	scheduler_restore_next_group(bench.scheduler, 50);
	settle(&bench);
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).group, 40);
	joined(&bench, 1, 100);
	begin(&bench, 1, 10);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 0);
	assert_int_equal(leases_take(&bench, leases), 3);
	assert_int_equal(leases[0].group, 41);
	assert_int_equal(leases[0].sample, 1); /* the partial, then those that never began */
	assert_int_equal(counts(&bench).resumed, 1);
	for (int i = 0; i < 3; i++)
		done(&bench, leases[i]);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 40);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 1).group, 41);
	begin(&bench, 2, 11);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).group, 50);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stale_lease_changes_nothing),
		cmocka_unit_test(test_a_lost_ranks_samples_go_to_others),
		cmocka_unit_test(test_a_rank_lost_while_stopping),
		cmocka_unit_test(test_a_rank_that_joins_again_has_lost_its_samples),
		cmocka_unit_test(test_max_deferrals),
		cmocka_unit_test(test_max_staleness_survives_a_lost_rank),
		cmocka_unit_test(test_max_staleness_zero_keeps_everything_started),
		cmocka_unit_test(test_restored_work_comes_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
