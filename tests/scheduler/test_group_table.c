/* test_group_table.c - the window over ascending group ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "scheduler/controller/group_table.h"

static void test_finds_what_was_added(void **state)
{
	(void)state;
	struct group_table *table = group_table_open();
	assert_null(group_table_find(table, 1));
	for (uint64_t id = 5; id < 50; id += 3) {
		struct live_group *g = group_table_add(table, id, 4, id % 2);
		assert_int_equal(g->id, id);
		assert_int_equal(g->n_samples, 4);
		assert_int_equal(g->eval, id % 2);
	}
	for (uint64_t id = 0; id < 60; id++) {
		bool there = id >= 5 && id < 50 && (id - 5) % 3 == 0;
		struct live_group *g = group_table_find(table, id);
		assert_int_equal(g != NULL, there);
		if (there) assert_int_equal(g->id, id);
	}
	group_table_close(table);
}

/* An old group may outlive thousands of younger ones; the window follows the oldest. */
static void test_old_group_survives(void **state)
{
	(void)state;
	const int32_t prompt[] = { 1, 2, 3 };
	struct group_table *table = group_table_open();
	struct live_group *old = group_table_add(table, 1, 1, false);
	old->samples[0] = trajectory_new(prompt, 3, 8);
	for (uint64_t id = 2; id < 5000; id++) {
		group_table_add(table, id, 2, false);
		if (id % 7) group_table_remove(table, id);
	}
	assert_ptr_equal(group_table_find(table, 1), old);
	assert_int_equal(group_table_find(table, 1)->samples[0]->n_prompt, 3);
	group_table_remove(table, 1);
	assert_null(group_table_find(table, 1));
	int left = 0;
	for (struct live_group *g = group_table_next(table, 0); g; g = group_table_next(table, g->id + 1)) {
		assert_int_equal(g->id % 7, 0);
		left++;
	}
	assert_int_equal(left, 4999 / 7);
	group_table_close(table);
}

static void test_empties_and_fills_again(void **state)
{
	(void)state;
	struct group_table *table = group_table_open();
	for (uint64_t id = 1; id < 1000; id++) {
		group_table_add(table, id, 1, false);
		group_table_remove(table, id);
		assert_null(group_table_next(table, 0));
	}
	group_table_close(table);
}

static void test_a_group_grows(void **state)
{
	(void)state;
	const int32_t prompt[] = { 1, 2, 3 };
	struct group_table *table = group_table_open();
	struct live_group *g = group_table_add(table, 3, 2, false);
	for (int i = 0; i < 2; i++) g->samples[i] = trajectory_new(prompt, 3, 8);
	g->leases[1] = 7;
	group_table_extend(g, 30);
	assert_int_equal(g->n_samples, 32);
	assert_int_equal(g->n_first, 2);
	assert_int_equal(g->leases[1], 7);
	for (int i = 2; i < 32; i++) {
		assert_null(g->samples[i]);
		assert_int_equal(g->leases[i], 0);
		assert_false(g->judging[i] || g->moving[i]);
		g->samples[i] = trajectory_new(prompt, 3, 8);
	}
	assert_ptr_equal(group_table_find(table, 3), g);
	group_table_close(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_what_was_added),
		cmocka_unit_test(test_old_group_survives),
		cmocka_unit_test(test_a_group_grows),
		cmocka_unit_test(test_empties_and_fills_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
