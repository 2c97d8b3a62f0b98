/* test_scheduler_offers.c - S17: prompts that are offered are opened first, in their order, with their number of samples;
 * where there are no others, nothing is opened without one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "scheduler/scheduler.h"

struct opened {
	int n, samples[64], offered[64];
	uint64_t groups[64];
	int n_leases;
	struct action leases[512];
	bool ready;
};

static void take_actions(struct scheduler *scheduler, struct opened *o)
{
	struct action action;

	while (scheduler_next_action(scheduler, &action)) {
		if (action.type == ACTION_OPEN_GROUP) {
			o->groups[o->n] = action.group;
			o->samples[o->n] = action.n_samples;
			o->offered[o->n++] = action.offered;
		}
		if (action.type == ACTION_LEASE)
			o->leases[o->n_leases++] = action;
		if (action.type == ACTION_GROUP_COMPLETE)
			scheduler_on_group_scored(scheduler, action.group, true);
		o->ready |= action.type == ACTION_STEP_READY;
	}
	assert_true(scheduler_check(scheduler, stderr));
}

static struct scheduler *open_scheduler(bool offered_only, int wanted)
{
	struct scheduler *scheduler = scheduler_open(&(struct scheduler_options){.groups_per_step = wanted, .over_sampling = 1,
		.samples_per_group = 2, .eval_samples = 1, .partial_rollouts = true, .max_staleness = 4, .max_deferrals = 8,
		.offered_only = offered_only});

	scheduler_on_rank_joined(scheduler, 1, 100);
	return scheduler;
}

static void test_offered_first_then_others(void **state)
{
	struct scheduler *scheduler = open_scheduler(false, 5);
	const int sizes[] = {3, 1, 4}, again = 7;
	struct opened o = {0};

	(void)state;
	scheduler_on_prompts_offered(scheduler, sizes, 3, false);
	scheduler_on_prompts_offered(scheduler, &again, 1, true); /* comes again, so before them */
	take_actions(scheduler, &o);
	assert_int_equal(o.n, 0); /* no step is open */
	scheduler_on_step_begin(scheduler, 1, 0);
	take_actions(scheduler, &o);
	const int expected[] = {7, 3, 1, 4, 2}, offered[] = {1, 1, 1, 1, 0};
	assert_int_equal(o.n, 5);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(o.samples[i], expected[i]);
		assert_int_equal(o.offered[i], offered[i]);
		assert_int_equal(o.groups[i], i + 1);
	}
	assert_int_equal(o.n_leases, 17);
	scheduler_close(scheduler);
}

static void test_nothing_without_an_offer(void **state)
{
	struct scheduler *scheduler = open_scheduler(true, 2);
	const int sizes[] = {1, 2, 3};
	struct opened o = {0};

	(void)state;
	scheduler_on_step_begin(scheduler, 1, 0);
	take_actions(scheduler, &o);
	assert_int_equal(o.n, 0);
	scheduler_on_prompts_offered(scheduler, sizes, 1, false);
	take_actions(scheduler, &o);
	assert_int_equal(o.n, 1);
	scheduler_on_prompts_offered(scheduler, sizes + 1, 2, false); /* one more than the step wants */
	take_actions(scheduler, &o);
	assert_int_equal(o.n, 2);
	for (int i = 0; i < o.n_leases; i++)
		scheduler_on_sample_done(scheduler, o.leases[i].group, o.leases[i].sample, o.leases[i].lease);
	take_actions(scheduler, &o);
	assert_true(o.ready && scheduler_is_idle(scheduler));
	scheduler_on_eval_begin_samples(scheduler, 1, 1, 6); /* an evaluation takes none of them */
	take_actions(scheduler, &o);
	assert_int_equal(o.n, 3);
	assert_true(o.samples[2] == 6 && !o.offered[2] && !scheduler_is_idle(scheduler));
	scheduler_close(scheduler);
}

/* The ring turns and grows, and keeps their order. */
static void test_many_offers_in_order(void **state)
{
	struct scheduler *scheduler = open_scheduler(true, 1);
	int next_in = 1, next_out = 1;

	(void)state;
	for (int step = 1; step <= 300; step++) {
		struct opened o = {0};
		for (int i = 0; i < 1 + (step < 200); i++, next_in++) {
			int size = 1 + next_in % 9;
			scheduler_on_prompts_offered(scheduler, &size, 1, false);
		}
		scheduler_on_step_begin(scheduler, step, 0);
		take_actions(scheduler, &o);
		assert_int_equal(o.n, 1);
		assert_int_equal(o.samples[0], 1 + next_out++ % 9);
		for (int i = 0; i < o.n_leases; i++)
			scheduler_on_sample_done(scheduler, o.leases[i].group, o.leases[i].sample, o.leases[i].lease);
		take_actions(scheduler, &o);
		assert_true(o.ready);
	}
	scheduler_close(scheduler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_offered_first_then_others),
		cmocka_unit_test(test_nothing_without_an_offer),
		cmocka_unit_test(test_many_offers_in_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
