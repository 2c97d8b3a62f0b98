/* test_weight_history.c - kept versions come back bit for bit, the oldest go, and damage is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "scheduler/store/weight_history.h"
#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"

static char dir[MODEL_DIR_PATH_MAX], versions[MODEL_DIR_PATH_MAX + 16];
static struct model_config config;

static int set_up(void **state)
{
	(void)state;
	model_dir_make(dir);
	snprintf(versions, sizeof versions, "%s/versions", dir);
	config = random_model_small();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	model_dir_remove(versions);
	model_dir_remove(dir);
	return 0;
}

/* Version v is drawn anew every third version, else the one before with some last bits changed. */
static void version_make(struct weights *weights, int64_t v)
{
	random_model(weights, &config, (uint64_t)(v / 3));
	for (int64_t step = v / 3 * 3; step < v; step++)
		for (size_t i = (size_t)step % 7; i < weights->n_elements; i += 7)
			weights->data[i] ^= 1;
}

static void put(struct weight_history *history, int64_t v)
{
	struct weights weights;
	struct err err;

	version_make(&weights, v);
	if (weight_history_put(history, v, &weights, &err))
		fail_msg("%s", err.text);
	weights_free(&weights);
}

static void expect_version(const struct weight_history *history, int64_t v)
{
	struct weights expected, found;
	struct err err;

	version_make(&expected, v);
	if (weight_history_load(history, v, &found, &err))
		fail_msg("%s", err.text);
	assert_int_equal(found.n_elements, expected.n_elements);
	assert_memory_equal(found.data, expected.data, 2 * expected.n_elements);
	weights_free(&found);
	weights_free(&expected);
}

static void expect_failure(const struct weight_history *history, int64_t v, int code, const char *said)
{
	struct weights weights;
	struct err err;

	assert_int_equal(weight_history_load(history, v, &weights, &err), code);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
}

static void test_the_last_versions_come_back(void **state)
{
	struct weight_history *history, *reader;
	struct err err;

	(void)state;
	for (int keep = 1; keep <= 4; keep += 3) {
		assert_int_equal(weight_history_create(&history, dir, &config, keep, &err), 0);
		for (int64_t v = 0; v <= 8; v += 1 + (v == 4)) { /* 5 is never made */
			put(history, v);
			int64_t kept = 0;
			for (int64_t old = 0; old <= v; old++)
				if (weight_history_has(history, old)) {
					expect_version(history, old);
					kept++;
				}
			assert_int_equal(kept, weight_history_count(history));
			assert_true(kept == keep || kept == v + 1 - (v > 5));
			assert_int_equal(weight_history_newest(history), v);
			assert_int_equal(model_dir_count(versions), kept);
		}
		assert_int_equal(weight_history_open(&reader, dir, &config, &err), 0);
		assert_int_equal(weight_history_count(reader), keep);
		expect_version(reader, 8);
		expect_version(reader, weight_history_oldest(reader));
		expect_failure(reader, 0, ERR_MISSING, "version 0 is not kept");
		weight_history_close(reader);
		weight_history_close(history);
		model_dir_remove(versions);
	}
	assert_int_equal(mkdir(versions, 0777), 0);
}

static void test_deltas_are_small_and_a_run_goes_on(void **state)
{
	struct weight_history *history;
	char path[MODEL_DIR_PATH_MAX + 64];
	struct stat full, delta;
	struct err err;

	(void)state;
	assert_int_equal(weight_history_create(&history, dir, &config, 3, &err), 0);
	put(history, 0);
	put(history, 1);
	weight_history_close(history);
	assert_int_equal(weight_history_create(&history, dir, &config, 3, &err), 0);
	assert_int_equal(weight_history_count(history), 2);
	put(history, 1); /* it is there */
	assert_int_equal(weight_history_count(history), 2);
	put(history, 2);
	for (int64_t v = 0; v <= 2; v++)
		expect_version(history, v);
	snprintf(path, sizeof path, "%s/2.full", versions);
	assert_int_equal(stat(path, &full), 0);
	snprintf(path, sizeof path, "%s/0.delta", versions);
	assert_int_equal(stat(path, &delta), 0);
	assert_true(delta.st_size < full.st_size / 4); /* one number in seven, one bit of it */
	weight_history_close(history);
}

static void test_damage_is_refused(void **state)
{
	struct weight_history *history;
	struct err err;
	size_t n_bytes;

	(void)state;
	assert_int_equal(weight_history_open(&history, dir, &config, &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "weights.keep_versions"));
	assert_int_equal(weight_history_create(&history, dir, &config, 3, &err), 0);
	put(history, 0);
	put(history, 1);
	unsigned char *bytes = model_dir_get(versions, "1.full", &n_bytes);
	bytes[n_bytes / 2] ^= 1;
	model_dir_put(versions, "1.full", bytes, n_bytes);
	expect_failure(history, 1, ERR_INVALID, "checksum");
	expect_failure(history, 0, ERR_INVALID, "checksum");
	bytes[n_bytes / 2] ^= 1;
	model_dir_put(versions, "1.full", bytes, n_bytes - 9);
	expect_failure(history, 1, ERR_INCOMPLETE, "ends within");
	model_dir_put(versions, "1.full", "DRWDELT1", 8);
	expect_failure(history, 1, ERR_INVALID, "no version of weights");
	model_dir_put(versions, "1.full", bytes, n_bytes);
	expect_version(history, 1);
	free(bytes);
	weight_history_close(history);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(test_the_last_versions_come_back),
		CASE(test_deltas_are_small_and_a_run_goes_on),
		CASE(test_damage_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
