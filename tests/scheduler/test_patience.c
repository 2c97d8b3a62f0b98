/* test_patience.c - only what was listened to is silence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/controller/patience.h"

static void test_turns_add_up(void **state)
{
	struct patience p = { 0 };
	double start, skipped = 0;

	(void)state;
	assert_true(patience_turn(&p) == 0); /* nothing was listened to before the first */
	start = clock_seconds();
	for (int i = 0; i < 20; i++) {
		clock_sleep_ms(2);
		skipped += patience_turn(&p);
	}
	double passed = clock_seconds() - start;
	assert_true(p.seconds >= 0.039);
	assert_true(p.seconds + skipped <= passed + 0.001);
	assert_true(p.seconds + skipped >= passed - 0.01);
}

static void test_a_process_that_was_stopped_has_not_listened(void **state)
{
	struct patience p = { 0 };

	(void)state;
	patience_turn(&p);
	p.turned -= 90; /* as if it had been stopped for so long */
	double skipped = patience_turn(&p);
	assert_true(p.seconds > 0 && p.seconds <= 0.1 + 1e-9);
	assert_true(skipped > 89.8 && skipped < 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_turns_add_up),
		cmocka_unit_test(test_a_process_that_was_stopped_has_not_listened),
	};
	return cmocka_run_group_tests_name("patience", tests, NULL, NULL);
}
