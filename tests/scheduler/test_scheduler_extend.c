/* test_scheduler_extend.c - groups that get more samples once those they began with are done (S18, S19). */
#include "tests/scheduler/scheduler_bench.h"

static struct scheduler_options extending(int samples_max, int budget)
{
	struct scheduler_options options = plain; /* 2 groups of 3 samples */
	options.samples_max = samples_max;
	options.extension_budget = budget;
	return options;
}

static void extended(struct bench *bench, uint64_t group, int n_more)
{
	scheduler_on_group_extended(bench->scheduler, group, n_more);
	settle(bench);
}

static int room(const struct bench *bench, uint64_t group)
{
	return scheduler_extension_room(bench->scheduler, group);
}

/* Six leases of two groups; the samples of `group` are done. */
static int begin_and_do(struct bench *bench, struct action *leases, uint64_t group)
{
	joined(bench, 1, 100);
	begin(bench, 1, 0);
	int n = leases_take(bench, leases);
	for (int i = 0; i < n; i++)
		if (leases[i].group == group) done(bench, leases[i]);
	return n;
}

static void test_a_group_goes_on(void **state)
{
	(void)state;
	struct action leases[16], more[16];
	struct bench bench = bench_open(extending(8, 0));
	bench.hold_scores = true;
	begin_and_do(&bench, leases, 1);
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).n_samples, 3);
	assert_int_equal(room(&bench, 1), 5);
	assert_int_equal(room(&bench, 2), 0); /* it is not done */
	extended(&bench, 1, 4);
	assert_int_equal(room(&bench, 1), 0);
	assert_int_equal(leases_take(&bench, more), 4);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(more[i].group, 1);
		assert_int_equal(more[i].sample, 3 + i); /* indices go on counting */
		assert_int_equal(more[i].n_samples, 7);
		assert_int_equal(count(&bench, ACTION_GROUP_COMPLETE), 0);
		done(&bench, more[i]);
	}
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).n_samples, 7);
	assert_int_equal(room(&bench, 1), 0); /* once */
	assert_int_equal(counts(&bench).extra, 4);
	scheduler_on_group_scored(bench.scheduler, 1, true);
	settle(&bench);
	for (int i = 3; i < 6; i++) done(&bench, leases[i]);
	scheduler_on_group_scored(bench.scheduler, 2, true);
	settle(&bench);
	assert_int_equal(count(&bench, ACTION_DELIVER), 2);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	assert_int_equal(counts(&bench).done, 0);
	assert_int_equal(counts(&bench).extra, 0); /* counted by step */
	bench_close(&bench);
}

/* With a budget the younger group is not asked about before the older one is settled. */
static void test_budget_in_order(void **state)
{
	(void)state;
	struct action leases[16];
	struct bench bench = bench_open(extending(8, 6));
	bench.hold_scores = true;
	begin_and_do(&bench, leases, 2);
	assert_int_equal(count(&bench, ACTION_GROUP_COMPLETE), 0);
	assert_int_equal(counts(&bench).groups_open, 2);
	for (int i = 0; i < 3; i++) done(&bench, leases[i]);
	assert_int_equal(count(&bench, ACTION_GROUP_COMPLETE), 1);
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).group, 1);
	assert_int_equal(room(&bench, 1), 5);
	extended(&bench, 1, 5);
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).group, 2);
	assert_int_equal(room(&bench, 2), 1); /* what is left */
	bench_close(&bench);
}

/* Nobody waits for a verdict that cannot bring anything. */
static void test_spent_budget_holds_nobody(void **state)
{
	(void)state;
	struct action leases[32];
	struct scheduler_options options = extending(8, 2);
	options.groups_per_step = 3;
	struct bench bench = bench_open(options);
	bench.hold_scores = true;
	begin_and_do(&bench, leases, 1);
	extended(&bench, 1, 2);
	for (int i = 6; i < 9; i++) done(&bench, leases[i]); /* group 3, before 2 */
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).group, 3);
	assert_int_equal(room(&bench, 3), 0);
	bench_close(&bench);
}

static void test_evaluations_and_offers_never(void **state)
{
	(void)state;
	struct action leases[16];
	struct bench bench = bench_open(extending(8, 0));
	const int n_samples = 2;
	bench.hold_scores = true;
	joined(&bench, 1, 100);
	scheduler_on_eval_begin(bench.scheduler, 1, 1);
	settle(&bench);
	assert_int_equal(leases_take(&bench, leases), 1);
	done(&bench, leases[0]);
	assert_int_equal(count(&bench, ACTION_GROUP_COMPLETE), 1);
	assert_int_equal(room(&bench, leases[0].group), 0);
	scheduler_on_group_scored(bench.scheduler, leases[0].group, true);
	settle(&bench);
	scheduler_on_prompts_offered(bench.scheduler, &n_samples, 1, false);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 5);
	for (int i = 0; i < 2; i++) done(&bench, leases[i]);
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).n_samples, 2);
	assert_int_equal(room(&bench, leases[0].group), 0);
	bench_close(&bench);
}

/* What is added is put aside with its step and goes on in the next, like any sample. */
static void test_extended_samples_wait_for_the_next_step(void **state)
{
	(void)state;
	struct action leases[16], more[16];
	struct scheduler_options options = extending(8, 0);
	options.groups_per_step = 1;
	options.over_sampling = 2;
	struct bench bench = bench_open(options);
	bench.hold_scores = true;
	begin_and_do(&bench, leases, 1);
	extended(&bench, 1, 2);
	assert_int_equal(leases_take(&bench, more), 2);
	for (int i = 3; i < 6; i++) done(&bench, leases[i]);
	scheduler_on_group_scored(bench.scheduler, 2, true);
	settle(&bench); /* enough: group 1 is put aside */
	assert_int_equal(count(&bench, ACTION_STOP), 1);
	partial(&bench, more[0], 0);
	partial(&bench, more[1], 0);
	quiet(&bench, 1);
	assert_int_equal(nth(&bench, ACTION_DELIVER, 0).group, 2);
	begin(&bench, 2, 1);
	assert_int_equal(leases_take(&bench, more), 2 + 3); /* and a group for the place that is free */
	for (int i = 0; i < 2; i++) assert_int_equal(more[i].group, 1);
	bench_close(&bench);
}

static void restore(struct scheduler *scheduler, uint64_t group, int n_samples, bool settled)
{
	scheduler_restore_group(scheduler, group, n_samples);
	if (settled) scheduler_restore_settled(scheduler, group);
	for (int i = 0; i < n_samples; i++) scheduler_restore_sample(scheduler, group, i, true, 0, 0);
}

/* Restored in any order, groups are judged in ascending order, and what was spent stays spent. */
static void test_restored(void **state)
{
	(void)state;
	struct bench bench = bench_open(extending(8, 6));
	bench.hold_scores = true;
	scheduler_restore_extra(bench.scheduler, 2);
	restore(bench.scheduler, 6, 3, false);
	restore(bench.scheduler, 5, 3, false);
	restore(bench.scheduler, 4, 5, true); /* it was extended by two */
	settle(&bench);
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).group, 4);
	assert_int_equal(room(&bench, 4), 0);
	joined(&bench, 1, 100);
	assert_int_equal(count(&bench, ACTION_GROUP_COMPLETE), 1);
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).group, 5);
	assert_int_equal(room(&bench, 5), 4);
	begin(&bench, 1, 0);
	scheduler_on_group_scored(bench.scheduler, 5, true);
	settle(&bench);
	assert_int_equal(nth(&bench, ACTION_GROUP_COMPLETE, 0).group, 6);
	bench_close(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_group_goes_on),
		cmocka_unit_test(test_budget_in_order),
		cmocka_unit_test(test_spent_budget_holds_nobody),
		cmocka_unit_test(test_evaluations_and_offers_never),
		cmocka_unit_test(test_extended_samples_wait_for_the_next_step),
		cmocka_unit_test(test_restored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
