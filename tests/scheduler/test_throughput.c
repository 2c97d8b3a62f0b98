/* test_throughput.c - the order of a sweep's runs, its result lines, and what the table says of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>
#include <math.h>

#include "scheduler/throughput/throughput_order.h"
#include "scheduler/throughput/throughput_results.h"

enum { N = 7 };

static void test_order_is_a_permutation(void **state)
{
	(void)state;
	for (int n = 1; n <= 60; n++)
		for (int repetition = 0; repetition < 6; repetition++) {
			int order[60], seen[60] = { 0 };
			throughput_order(order, n, repetition, 3);
			for (int i = 0; i < n; i++) {
				assert_in_range(order[i], 0, n - 1);
				assert_int_equal(seen[order[i]]++, 0);
			}
		}
}

/* The second of a pair is the first backwards: the places of every index add up to the same. */
static void test_order_is_counterbalanced(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 50; seed++) {
		int first[N], second[N], places[N] = { 0 };
		throughput_order(first, N, 4, seed);
		throughput_order(second, N, 5, seed);
		for (int i = 0; i < N; i++) {
			places[first[i]] += i;
			places[second[i]] += i;
		}
		for (int i = 0; i < N; i++) assert_int_equal(places[i], N - 1);
	}
}

/* Over 7000 pairs each index is first 1000 times; binomial, sigma 29.3, 5 sigma. */
static void test_order_is_shuffled(void **state)
{
	int first[N] = { 0 }, order[N], again[N];

	(void)state;
	for (uint64_t seed = 0; seed < 70; seed++)
		for (int pair = 0; pair < 100; pair++) {
			throughput_order(order, N, 2 * pair, seed);
			first[order[0]]++;
		}
	for (int i = 0; i < N; i++) assert_in_range(first[i], 1000 - 147, 1000 + 147);
	throughput_order(order, N, 3, 9);
	throughput_order(again, N, 3, 9);
	assert_memory_equal(order, again, sizeof order);
}

/* ---- results ---- */

static struct sweep_point items[2] = { { .label = "a", .baseline = 0 }, { .label = "b", .baseline = 0 } };
static const struct sweep_points points = { items, 2 };
static char path[] = "/tmp/drumroll_test_throughput_XXXXXX";

static int open_scratch(void **state)
{
	(void)state;
	int file = mkstemp(path);
	return file < 0 ? -1 : close(file);
}

static int remove_scratch(void **state)
{
	(void)state;
	return unlink(path);
}

static int add(struct throughput_results *results, const char *variant, int repetition, int status, double value)
{
	struct err err;
	json_t *record = json_pack("{s:s,s:i,s:i,s:{s:f}}", "variant", variant, "repetition", repetition, "exit", status, "metrics", "m", value);
	assert_non_null(record);
	return throughput_results_add(results, path, record, &points, "m", &err);
}

static void clear(void)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
}

/* Ratios by hand: 20/10, 33/11, 12/12; differences 10, 22, 0; of repetition 3 the baseline has failed, of 4 the point. */
static void test_statistics(void **state)
{
	struct throughput_results results = { 0 }, read = { 0 };
	struct throughput_statistics s;
	struct err err;

	(void)state;
	clear();
	const double a[] = { 10, 11, 12, 13, 14 }, b[] = { 20, 33, 12, 50, 60 };
	for (int r = 0; r < 5; r++) {
		assert_int_equal(add(&results, "b", r, r == 4 ? 1 : 0, b[r]), 0);
		assert_int_equal(add(&results, "a", r, r == 3 ? 139 : 0, a[r]), 0);
	}
	assert_int_equal(throughput_results_read(&read, path, &points, "m", &err), 0);
	assert_int_equal(read.n, results.n);
	throughput_statistics(&s, &read, &points, 1);
	assert_int_equal(s.runs, 4);
	assert_int_equal(s.failed, 1);
	assert_int_equal(s.pairs, 3);
	assert_true(s.median == 26.5 && s.min == 12 && s.max == 50);
	assert_true(s.ratio == 2 && s.ratio_min == 1 && s.ratio_max == 3);
	assert_true(fabs(s.mean - 28.75) < 1e-12);
	/* squared deviations of 20, 33, 12, 50 add up to 826.75; t(3) = 3.1824 */
	assert_true(fabs(s.interval - 3.1824 * sqrt(826.75 / 3) / 2) < 1e-3);
	assert_true(fabs(s.difference - 32.0 / 3) < 1e-12);
	throughput_statistics(&s, &read, &points, 0);
	assert_true(s.ratio == 1 && s.ratio_max == 1 && s.difference == 0);
	throughput_results_free(&results);
	throughput_results_free(&read);
}

static void test_nothing_measured(void **state)
{
	struct throughput_results results = { 0 };
	struct throughput_statistics s;
	struct err err;

	(void)state;
	throughput_statistics(&s, &results, &points, 1);
	assert_true(s.runs == 0 && s.failed == 0 && isnan(s.median) && isnan(s.mean) && isnan(s.interval) && isnan(s.ratio));
	assert_int_equal(throughput_results_read(&results, "/nonexistent/results.jsonl", &points, "m", &err), 0);
	clear();
	assert_int_equal(add(&results, "a", 0, 0, 3), 0);
	throughput_statistics(&s, &results, &points, 0);
	assert_true(s.runs == 1 && s.mean == 3 && isnan(s.interval));
	throughput_results_free(&results);
}

/* A line that a crash cut off is none; of two of one run the later one holds; others are refused by line. */
static void test_damage(void **state)
{
	struct throughput_results results = { 0 };
	struct err err;

	(void)state;
	clear();
	assert_int_equal(add(&results, "a", 0, 1, 5), 0);
	assert_int_equal(add(&results, "a", 0, 0, 6), 0);
	assert_int_equal(results.n, 1);
	throughput_results_free(&results);
	FILE *file = fopen(path, "a");
	fputs("{\"variant\":\"b\",\"repeti", file);
	fclose(file);
	assert_int_equal(throughput_results_read(&results, path, &points, "m", &err), 0);
	assert_int_equal(results.n, 1);
	assert_true(throughput_results_find(&results, 0, 0)->value == 6);
	assert_null(throughput_results_find(&results, 1, 0));
	throughput_results_free(&results);
	file = fopen(path, "a");
	fputs("\n", file);
	fclose(file);
	assert_int_equal(throughput_results_read(&results, path, &points, "m", &err), ERR_INVALID);
	assert_non_null(strstr(err.text, ":3: "));
	throughput_results_free(&results);
	clear();
	assert_int_equal(add(&results, "c", 0, 0, 5), ERR_STATE);
	throughput_results_free(&results);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_is_a_permutation), cmocka_unit_test(test_order_is_counterbalanced),
		cmocka_unit_test(test_order_is_shuffled), cmocka_unit_test(test_statistics),
		cmocka_unit_test(test_nothing_measured), cmocka_unit_test(test_damage),
	};
	return cmocka_run_group_tests(tests, open_scratch, remove_scratch);
}
