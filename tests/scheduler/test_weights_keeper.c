/* test_weights_keeper.c - weights written beside a run: complete, the newest two, and refused where they are not what
 * the store says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "scheduler/store/weights_keeper.h"
#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"

static char model[MODEL_DIR_PATH_MAX], run[MODEL_DIR_PATH_MAX], weights_dir[MODEL_DIR_PATH_MAX + 16];

static int make_dirs(void **state)
{
	(void)state;
	model_dir_make(model);
	model_dir_make(run);
	snprintf(weights_dir, sizeof weights_dir, "%s/weights", run);
	model_dir_put(model, "tokenizer.json", "{}", 2);
	return 0;
}

static int remove_dirs(void **state)
{
	(void)state;
	char path[1024];
	for (int version = 0; version < 20; version++) {
		snprintf(path, sizeof path, "%s/version-%d", weights_dir, version);
		if (access(path, F_OK) == 0) model_dir_remove(path);
	}
	rmdir(weights_dir);
	model_dir_remove(model);
	model_dir_remove(run);
	return 0;
}

static bool is_there(const char *name)
{
	char path[1024];
	struct stat status;
	snprintf(path, sizeof path, "%s/%s", weights_dir, name);
	return stat(path, &status) == 0;
}

static struct weights_keeper *opened(int64_t newest)
{
	struct weights_keeper *keeper;
	struct err err;
	if (weights_keeper_open(&keeper, run, model, newest, &err)) fail_msg("%s", err.text);
	return keeper;
}

/* Puts a version and waits for its news; returns the hash of its weights. */
static uint64_t keep(struct weights_keeper *keeper, int64_t version, int *told)
{
	struct model_config config = random_model_small();
	struct weights weights;
	struct err err;
	int64_t which = -1;
	random_model(&weights, &config, (uint64_t)version);
	uint64_t hash = XXH3_64bits(weights.data, 2 * weights.n_elements);
	weights_keeper_put(keeper, version, &weights);
	while ((*told = weights_keeper_poll(keeper, &which, &err)) == 0) nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	assert_int_equal(which, version);
	assert_false(weights_keeper_busy(keeper) || weights_keeper_uses(keeper, weights.data));
	weights_free(&weights);
	return hash;
}

static void test_the_newest_two_stay(void **state)
{
	(void)state;
	struct model_config config = random_model_small();
	struct weights weights;
	struct err err;
	uint64_t hash = 0;
	int told;
	struct weights_keeper *keeper = opened(0);
	for (int version = 3; version <= 7; version++) {
		hash = keep(keeper, version, &told);
		assert_int_equal(told, 1);
	}
	weights_keeper_close(keeper, 10);
	assert_true(is_there("version-7") && is_there("version-6") && is_there("version-7/tokenizer.json"));
	assert_false(is_there("version-5") || is_there("new"));
	if (weights_keeper_load(&weights, run, 7, hash, &config, &err)) fail_msg("%s", err.text);
	assert_true(XXH3_64bits(weights.data, 2 * weights.n_elements) == hash);
	weights_free(&weights);
	assert_int_equal(weights_keeper_load(&weights, run, 7, hash + 1, &config, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "not what the run wrote"));
	assert_int_equal(weights_keeper_load(&weights, run, 5, hash, &config, &err), ERR_MISSING);
	struct model_config other = random_model_config(32, 1, 2, 1, 64, 96, 64);
	assert_int_equal(weights_keeper_load(&weights, run, 7, hash, &other, &err), ERR_INVALID);
}

static void test_what_a_crash_left_is_removed(void **state)
{
	(void)state;
	int told;
	char path[1024];
	struct weights_keeper *keeper = opened(0);
	keep(keeper, 1, &told);
	keep(keeper, 2, &told);
	weights_keeper_close(keeper, 10);
	snprintf(path, sizeof path, "%s/new", weights_dir);
	assert_int_equal(mkdir(path, 0777), 0);
	model_dir_put(path, "model.safetensors", "half", 4);
	keeper = opened(2);
	assert_false(is_there("new"));
	assert_true(is_there("version-1") && is_there("version-2"));
	keep(keeper, 3, &told);
	weights_keeper_close(keeper, 10);
	assert_true(is_there("version-3") && is_there("version-2"));
	assert_false(is_there("version-1"));
	keeper = opened(2); /* nobody was told of 3 before the crash: the run goes on from 2 */
	assert_false(is_there("version-3"));
	keep(keeper, 4, &told);
	weights_keeper_close(keeper, 10);
	assert_true(is_there("version-4") && is_there("version-2"));
}

/* Of those that come while one is written only the newest is written after it. */
static void test_a_slow_disk_gets_the_newest(void **state)
{
	(void)state;
	struct model_config config = random_model_small();
	struct weights_keeper *keeper = opened(0);
	struct weights weights;
	random_model(&weights, &config, 1);
	for (int version = 1; version <= 12; version++) weights_keeper_put(keeper, version, &weights);
	weights_keeper_close(keeper, 60); /* ends what waits */
	weights_free(&weights);
	assert_true(is_there("version-12"));
}

static void test_what_cannot_be_written_is_said(void **state)
{
	(void)state;
	struct weights_keeper *keeper = opened(0);
	struct err err;
	int told;
	char path[1024];
	snprintf(path, sizeof path, "%s/new", weights_dir);
	FILE *file = fopen(path, "w"); /* in the way */
	fclose(file);
	keep(keeper, 1, &told);
	assert_true(told < 0);
	assert_int_equal(unlink(path), 0);
	keep(keeper, 2, &told);
	assert_int_equal(told, 1);
	weights_keeper_close(keeper, 10);
	model_dir_put(model, "file", "", 0);
	snprintf(path, sizeof path, "%s/file", model);
	assert_int_equal(weights_keeper_open(&keeper, path, model, 0, &err), ERR_IO);
	assert_non_null(strstr(err.text, "weights"));
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, make_dirs, remove_dirs)
	const struct CMUnitTest tests[] = {
		CASE(test_the_newest_two_stay),
		CASE(test_what_a_crash_left_is_removed),
		CASE(test_a_slow_disk_gets_the_newest),
		CASE(test_what_cannot_be_written_is_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
