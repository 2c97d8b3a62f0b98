/* test_weights_tree.c - whatever ranks are left, each gets new weights exactly once and soon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "scheduler/ranks/weights_tree.h"
#include "tests/support/random_model.h"

enum { RANKS_MAX = 300, FANOUT_MAX = 9 };

/* Walks down from the root; returns the depth, and how often each rank was reached. */
static int walk(const int32_t *ranks, int n, int fanout, int32_t from, int *reached)
{
	int32_t children[FANOUT_MAX];
	int n_children = weights_tree_children(ranks, n, fanout, from, children), depth = 0;

	assert_in_range(n_children, 0, fanout);
	for (int i = 0; i < n_children; i++) {
		assert_int_equal(++reached[children[i]], 1); /* also: no circle */
		int below = 1 + walk(ranks, n, fanout, children[i], reached);
		if (below > depth) depth = below;
	}
	return depth;
}

static void check(const int32_t *ranks, int n, int fanout)
{
	int reached[RANKS_MAX + 1] = {0}, n_reached = 0, levels = 0;

	int depth = walk(ranks, n, fanout, 0, reached);
	for (int i = 0; i < n; i++) assert_int_equal(reached[ranks[i]], 1);
	for (int r = 0; r <= RANKS_MAX; r++) n_reached += reached[r];
	assert_int_equal(n_reached, n);
	for (int64_t width = 1, below = n; below > 0; levels++) { /* no tree of this fanout is lower */
		width *= fanout;
		below -= width;
	}
	assert_int_equal(depth, levels);
}

static void test_all_sizes(void **state)
{
	int32_t ranks[RANKS_MAX];

	(void)state;
	for (int i = 0; i < RANKS_MAX; i++) ranks[i] = i + 1;
	for (int n = 0; n <= 100; n++)
		for (int fanout = 1; fanout <= FANOUT_MAX; fanout++) check(ranks, n, fanout);
	check(ranks, RANKS_MAX, 2);
}

/* Ranks die one after the other, in any order. */
static void test_the_dead_are_left_out(void **state)
{
	int32_t ranks[RANKS_MAX], children[FANOUT_MAX];
	uint64_t random = 5;

	(void)state;
	for (int fanout = 1; fanout <= FANOUT_MAX; fanout++) {
		int n = 60;
		for (int i = 0; i < n; i++) ranks[i] = i + 1;
		while (n > 0) {
			int dies = (int)(random_bits(&random) % (uint64_t)n);
			int32_t dead = ranks[dies];
			memmove(ranks + dies, ranks + dies + 1, (size_t)(n - dies - 1) * sizeof *ranks);
			check(ranks, --n, fanout);
			assert_int_equal(weights_tree_children(ranks, n, fanout, dead, children), 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_sizes),
		cmocka_unit_test(test_the_dead_are_left_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
