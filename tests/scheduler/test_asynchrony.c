/* test_asynchrony.c - generation beside training: what is leased when, what waits for what, what is given up. */
#include "tests/scheduler/scheduler_bench.h"

/* Groups of one sample, two in a batch. */
static struct scheduler_options asynchronous(int max_staleness, double over_sampling)
{
	return (struct scheduler_options){.groups_per_step = 2, .over_sampling = over_sampling, .samples_per_group = 1,
		.eval_samples = 1, .partial_rollouts = true, .max_staleness = max_staleness, .max_deferrals = 1,
		.asynchrony = ASYNCHRONOUS};
}

static void version(struct bench *bench, int64_t number)
{
	scheduler_on_version(bench->scheduler, number);
	settle(bench);
}

static struct action lease_of(const struct bench *bench, uint64_t group)
{
	for (int i = 0; i < bench->n; i++)
		if (bench->actions[i].type == ACTION_LEASE && bench->actions[i].group == group)
			return bench->actions[i];
	fail_msg("group %d is not leased", (int)group);
	return (struct action){0};
}

static void test_async_leases_between_steps_and_never_stops(void **state)
{
	(void)state;
	struct action leases[16];
	struct bench bench = bench_open(asynchronous(2, 16));
	joined(&bench, 1, 100);
	assert_int_equal(bench.n, 0); /* until the first step */
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 6); /* (0 + 2 + 1) batches of 2 */
	done(&bench, leases[2]);
	done(&bench, leases[0]);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1); /* the other four have two batches more */
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 1).group, 3);
	assert_int_equal(count(&bench, ACTION_STOP), 0);
	assert_int_equal(count(&bench, ACTION_LEASE), 0); /* one batch without its version: 2 batches may be live */
	done(&bench, leases[1]);
	done(&bench, leases[3]);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0); /* nobody has asked */
	version(&bench, 1);
	assert_int_equal(count(&bench, ACTION_LEASE), 2);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).group, 7);
	begin(&bench, 2, 1);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	bench_close(&bench);
}

static void test_over_sampling_bounds_how_far_async_runs_ahead(void **state)
{
	(void)state;
	struct action leases[16];
	struct bench bench = bench_open(asynchronous(4, 1.5));
	joined(&bench, 1, 100);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 3);
	done(&bench, leases[0]);
	assert_int_equal(count(&bench, ACTION_LEASE), 0);
	done(&bench, leases[2]); /* overtakes group 2, which has time */
	assert_int_equal(nth(&bench, ACTION_DELIVER, 1).group, 3);
	assert_int_equal(count(&bench, ACTION_LEASE), 2);
	bench_close(&bench);
}

/* Group 1 may be overtaken until it would be too old in the next batch; then the batch waits. */
static void test_a_batch_waits_for_what_would_be_too_old(void **state)
{
	(void)state;
	struct bench bench = bench_open(asynchronous(2, 1.5));
	joined(&bench, 1, 100);
	begin(&bench, 1, 0);
	struct action slow = lease_of(&bench, 1), other[2] = {lease_of(&bench, 2), lease_of(&bench, 3)};
	for (int64_t v = 0; v < 2; v++) {
		done(&bench, other[0]);
		done(&bench, other[1]);
		assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
		other[0] = nth(&bench, ACTION_LEASE, 0);
		other[1] = nth(&bench, ACTION_LEASE, 1);
		version(&bench, v + 1);
		begin(&bench, v + 2, v + 1);
	}
	done(&bench, other[0]);
	done(&bench, other[1]);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 0);
	done(&bench, slow);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
	bench_close(&bench);
}

static void test_mask_waits_for_nothing(void **state)
{
	(void)state;
	struct scheduler_options options = asynchronous(2, 1.5);
	options.stale_action = ON_STALE_MASK;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 100);
	begin(&bench, 1, 0);
	struct action slow = lease_of(&bench, 1), other[2] = {lease_of(&bench, 2), lease_of(&bench, 3)};
	for (int64_t v = 0; v < 5; v++) {
		done(&bench, other[0]);
		done(&bench, other[1]);
		assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
		other[0] = nth(&bench, ACTION_LEASE, 0);
		other[1] = nth(&bench, ACTION_LEASE, 1);
		version(&bench, v + 1);
		assert_int_equal(count(&bench, ACTION_CANCEL) + count(&bench, ACTION_DROP_GROUP), 0);
		begin(&bench, v + 2, v + 1);
	}
	done(&bench, slow);
	assert_int_equal(counts(&bench).done, 1);
	bench_close(&bench);
}

static void test_drop_calls_back_what_is_too_old(void **state)
{
	(void)state;
	struct action leases[16];
	struct scheduler_options options = asynchronous(1, 1);
	options.stale_action = ON_STALE_DROP;
	options.samples_per_group = 2;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 3); /* the fourth sample waits */
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 3);
	done(&bench, leases[0]);
	version(&bench, 1); /* lag 1: not yet */
	assert_int_equal(count(&bench, ACTION_DROP_GROUP), 0);
	version(&bench, 2);
	assert_int_equal(count(&bench, ACTION_DROP_GROUP), 2);
	assert_int_equal(count(&bench, ACTION_CANCEL), 3); /* with the one that took the place of leases[0] */
	assert_int_equal(nth(&bench, ACTION_CANCEL, 0).rank, 1);
	assert_int_equal(nth(&bench, ACTION_CANCEL, 0).lease, leases[1].lease);
	assert_int_equal(counts(&bench).groups_given_up, 2);
	assert_int_equal(counts(&bench).groups_dropped, 0);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).group, 3);
	assert_int_equal(count(&bench, ACTION_LEASE), 3);
	done(&bench, leases[1]); /* finished before it heard of it */
	partial(&bench, leases[2], 0);
	assert_int_equal(counts(&bench).done + counts(&bench).aside, 0);
	bench_close(&bench);
}

/* Complete ones grow too old as well, and one whose score comes late is looked at then. */
static void test_drop_of_complete_groups(void **state)
{
	(void)state;
	struct action leases[16];
	struct scheduler_options options = asynchronous(1, 2);
	options.stale_action = ON_STALE_DROP;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 100);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 4);
	done(&bench, leases[0]);
	bench.hold_scores = true;
	done(&bench, leases[1]);
	version(&bench, 2);
	assert_int_equal(count(&bench, ACTION_DROP_GROUP), 3); /* kept, and two in flight; one is being scored */
	assert_int_equal(count(&bench, ACTION_CANCEL), 2);
	scheduler_on_group_scored(bench.scheduler, 2, true);
	settle(&bench);
	assert_int_equal(nth(&bench, ACTION_DROP_GROUP, 0).group, 2);
	assert_int_equal(counts(&bench).groups_given_up, 4);
	bench_close(&bench);
}

static void test_drop_after_max_deferrals(void **state)
{
	(void)state;
	struct action leases[16];
	struct scheduler_options options = plain;
	options.groups_per_step = 1;
	options.over_sampling = 2;
	options.samples_per_group = 2;
	options.max_deferrals = 1;
	options.deferral_action = ON_DEFERRALS_DROP;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 4);
	for (int step = 1; step <= 2; step++) {
		begin(&bench, step, step);
		assert_int_equal(leases_take(&bench, leases), 4);
		assert_int_equal(leases[0].group, 1);
		done(&bench, leases[2]);
		done(&bench, leases[3]);
		assert_int_equal(count(&bench, ACTION_KEEP), 0);
		assert_int_equal(count(&bench, ACTION_STOP), 1);
		partial(&bench, leases[0], step);
		if (step == 2) { /* once too often: its sibling is called back, and its own partial comes too late */
			assert_int_equal(nth(&bench, ACTION_CANCEL, 0).sample, leases[1].sample);
			assert_int_equal(nth(&bench, ACTION_DROP_GROUP, 0).group, 1);
		}
		partial(&bench, leases[1], step);
		quiet(&bench, 1);
		assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	}
	assert_int_equal(counts(&bench).groups_given_up, 1);
	begin(&bench, 3, 3);
	assert_int_equal(nth(&bench, ACTION_OPEN_GROUP, 0).group, 4);
	bench_close(&bench);
}

static void test_async_rests_during_an_evaluation(void **state)
{
	(void)state;
	struct action leases[16], eval[16];
	struct bench bench = bench_open(asynchronous(4, 1.5));
	joined(&bench, 1, 3);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 3);
	struct action first = leases[2];
	done(&bench, leases[0]);
	done(&bench, leases[1]);
	assert_int_equal(leases_take(&bench, leases), 2);
	scheduler_on_eval_begin(bench.scheduler, 1, 2);
	settle(&bench);
	assert_int_equal(count(&bench, ACTION_STOP), 1);
	assert_int_equal(count(&bench, ACTION_KEEP) + count(&bench, ACTION_LEASE), 0);
	partial(&bench, first, 0);
	partial(&bench, leases[0], 0);
	partial(&bench, leases[1], 0);
	version(&bench, 1);
	assert_int_equal(count(&bench, ACTION_LEASE), 0);
	quiet(&bench, 1);
	assert_int_equal(leases_take(&bench, eval), 2);
	assert_true(eval[0].eval && eval[1].eval);
	done(&bench, eval[0]);
	done(&bench, eval[1]);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	assert_int_equal(count(&bench, ACTION_LEASE), 3); /* it goes on without a step, oldest first */
	assert_int_equal(nth(&bench, ACTION_LEASE, 0).group, first.group);
	assert_int_equal(counts(&bench).resumed, 3);
	bench_close(&bench);
}

static void test_async_rests_at_the_end(void **state)
{
	(void)state;
	struct action leases[16];
	struct bench bench = bench_open(asynchronous(4, 1.5));
	joined(&bench, 1, 3);
	begin(&bench, 1, 0);
	leases_take(&bench, leases);
	struct action first = leases[2];
	done(&bench, leases[0]);
	done(&bench, leases[1]);
	assert_int_equal(leases_take(&bench, leases), 2);
	scheduler_on_rest(bench.scheduler);
	settle(&bench);
	assert_int_equal(count(&bench, ACTION_STOP), 1);
	partial(&bench, leases[0], 0);
	partial(&bench, leases[1], 0);
	partial(&bench, first, 0);
	quiet(&bench, 1);
	version(&bench, 1);
	assert_int_equal(bench.n, 0);
	assert_int_equal(counts(&bench).aside, 3);
	bench_close(&bench);
}

/* A trainer that takes batches and makes no versions gets as many as it asks for. */
static void test_async_goes_on_without_versions(void **state)
{
	(void)state;
	struct action leases[16];
	struct bench bench = bench_open(asynchronous(1, 1));
	joined(&bench, 1, 100);
	for (int step = 1; step <= 6; step++) {
		int n = step > 1 ? leases_take(&bench, leases) : 0; /* what went out between the steps */
		begin(&bench, step, 0);
		n += leases_take(&bench, leases + n);
		assert_int_equal(n, 2);
		done(&bench, leases[0]);
		done(&bench, leases[1]);
		assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	}
	bench_close(&bench);
}

/* Everything of a step begun under version v goes out with v + 1: with max_staleness 1 none of it may stay behind. */
static void test_one_step_off_waits_where_it_must(void **state)
{
	(void)state;
	struct action leases[16], again[16];
	for (int max_staleness = 1; max_staleness <= 2; max_staleness++) {
		struct scheduler_options options = asynchronous(max_staleness, 1.5);
		options.asynchrony = ASYNCHRONOUS_BY_ONE_STEP;
		struct bench bench = bench_open(options);
		joined(&bench, 1, 100);
		begin(&bench, 1, 0);
		assert_int_equal(leases_take(&bench, leases), max_staleness == 1 ? 2 : 3);
		done(&bench, leases[1]);
		if (max_staleness == 1) {
			done(&bench, leases[0]);
			assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
			assert_int_equal(count(&bench, ACTION_STOP), 0);
			bench_close(&bench);
			continue;
		}
		done(&bench, leases[2]);
		assert_int_equal(count(&bench, ACTION_STOP), 1); /* group 1 has one batch more */
		partial(&bench, leases[0], 0);
		quiet(&bench, 1);
		assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
		begin(&bench, 2, 1); /* will be delivered with version 2 */
		assert_int_equal(leases_take(&bench, again), 3);
		done(&bench, again[1]);
		done(&bench, again[2]);
		assert_int_equal(count(&bench, ACTION_STOP) + count(&bench, ACTION_STEP_READY), 0);
		done(&bench, again[0]);
		assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 1);
		assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
		bench_close(&bench);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_async_leases_between_steps_and_never_stops),
		cmocka_unit_test(test_over_sampling_bounds_how_far_async_runs_ahead),
		cmocka_unit_test(test_a_batch_waits_for_what_would_be_too_old),
		cmocka_unit_test(test_mask_waits_for_nothing),
		cmocka_unit_test(test_drop_calls_back_what_is_too_old),
		cmocka_unit_test(test_drop_of_complete_groups),
		cmocka_unit_test(test_drop_after_max_deferrals),
		cmocka_unit_test(test_async_rests_during_an_evaluation),
		cmocka_unit_test(test_async_rests_at_the_end),
		cmocka_unit_test(test_async_goes_on_without_versions),
		cmocka_unit_test(test_one_step_off_waits_where_it_must),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
