/* test_serving_state.c - how far a serving has come, written and read back; what is damaged is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "scheduler/replay/serving_state.h"
#include "tests/support/model_dir.h"

static void test_what_is_unacknowledged_is_read_back(void **state)
{
	const int64_t left[] = { 2, 3, 5 };
	struct serving_state s = { .last = INT64_MAX, .version = 3, .n_tokens = 77, .seconds = 1.5 }, back;
	char dir[MODEL_DIR_PATH_MAX];
	struct err err;

	(void)state;
	model_dir_make(dir);
	assert_int_equal(serving_state_read(&back, dir, &err), ERR_MISSING);
	strcpy(s.run_id, "a-1-replay");
	for (int64_t step = 1; step <= 5; step++) serving_put(&s, step);
	serving_acknowledge(&s, 1);
	serving_acknowledge(&s, 4); /* another peer was faster */
	assert_int_equal(serving_state_write(&s, dir, &err), 0);
	assert_int_equal(serving_state_read(&back, dir, &err), 0);
	assert_memory_equal(back.unacknowledged, left, sizeof left);
	assert_int_equal(back.n_unacknowledged, 3);
	assert_int_equal(back.n_batches, 2);
	assert_int_equal(back.put, 5);
	assert_true(back.last == INT64_MAX && back.version == 3 && back.n_tokens == 77 && back.seconds == 1.5);
	assert_string_equal(back.run_id, s.run_id);
	model_dir_remove(dir);
}

static void test_damaged_ones_are_refused(void **state)
{
	static const char *const bad[] = {
		"", "{", "[]", "{}",
		"{\"run_id\":\"a\",\"put\":2,\"last\":9,\"version\":0,\"batches\":0,\"trajectories\":0,\"tokens\":0,\"versions\":0,"
		"\"versions_as_recorded\":0,\"unacknowledged\":[2,1]}",
		"{\"run_id\":\"a\",\"put\":2,\"last\":9,\"version\":0,\"batches\":0,\"trajectories\":0,\"tokens\":0,\"versions\":0,"
		"\"versions_as_recorded\":0,\"unacknowledged\":[3]}",
		"{\"run_id\":\"a\",\"put\":2,\"last\":9,\"version\":-1,\"batches\":0,\"trajectories\":0,\"tokens\":0,\"versions\":0,"
		"\"versions_as_recorded\":0,\"unacknowledged\":[2]}",
		"{\"run_id\":\"a\",\"put\":\"2\",\"last\":9,\"version\":0,\"batches\":0,\"trajectories\":0,\"tokens\":0,\"versions\":0,"
		"\"versions_as_recorded\":0,\"unacknowledged\":[]}",
	};
	char dir[MODEL_DIR_PATH_MAX];

	(void)state;
	model_dir_make(dir);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct serving_state s;
		struct err err;
		model_dir_put(dir, "serving.json", bad[i], strlen(bad[i]));
		assert_int_equal(serving_state_read(&s, dir, &err), ERR_INVALID);
		assert_non_null(strstr(err.text, "serving.json is damaged"));
	}
	model_dir_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_unacknowledged_is_read_back),
		cmocka_unit_test(test_damaged_ones_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
