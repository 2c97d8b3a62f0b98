/* test_step_metrics.c - the numbers of a step, from hand-made trajectories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "scheduler/step_metrics.h"

static struct trajectory *sample(int n_response, int32_t version, enum finish_reason finish)
{
	const int32_t prompt[] = { 7, 8 };
	struct trajectory *t = trajectory_new(prompt, 2, 64);
	for (int i = 0; i < n_response; i++) trajectory_append(t, i, -0.5f, version, 1, 0);
	t->finish = finish;
	return t;
}

static double number(json_t *o, const char *key)
{
	json_t *value = json_object_get(o, key);
	assert_non_null(value);
	return json_number_value(value);
}

static void test_counts_only_new_tokens(void **state)
{
	(void)state;
	struct step_metrics m = { 0 };
	step_metrics_begin(&m, 3, 2);
	struct trajectory *before = sample(4, 1, FINISH_NONE), *now = sample(10, 1, FINISH_NONE);
	now->drafted = 8;
	now->accepted = 6;
	now->verify_calls = 2;
	step_metrics_returned(&m, before, now);
	assert_int_equal(m.tokens, 6);
	assert_int_equal(m.put_aside, 1);
	m.rollout_seconds = 2;
	assert_float_equal(step_metrics_tokens_per_sec(&m), 3, 1e-12);
	assert_float_equal(step_metrics_acceptance(&m), 0.75, 1e-12);
	trajectory_free(before);
	trajectory_free(now);
	step_metrics_free(&m);
}

static void test_json_of_a_step(void **state)
{
	(void)state;
	struct step_metrics m = { 0 };
	step_metrics_begin(&m, 1, 2);
	int lengths[] = { 5, 1, 9 };
	for (int i = 0; i < 3; i++) {
		struct trajectory *t = sample(lengths[i], i == 0 ? 1 : 2, i == 2 ? FINISH_LENGTH : FINISH_STOP);
		t->has_reward = true;
		t->reward = i * 0.5;
		t->reward_answer = i == 1;
		t->staleness_max = i == 0;
		step_metrics_delivered(&m, t);
		step_metrics_group(&m, &t, 1, &(struct group_advantage){ .degenerate = i == 0 }, i == 0);
		trajectory_free(t);
	}
	char *text = step_metrics_json(&m);
	assert_null(strchr(text, '\n'));
	json_t *o = json_loads(text, 0, NULL);
	assert_non_null(o);
	assert_float_equal(number(o, "reward/mean"), 0.5, 1e-9);
	assert_float_equal(number(o, "reward/pass_rate"), 1.0 / 3, 1e-6);
	assert_float_equal(number(o, "reward/delivered_mean"), 0.5, 1e-9);
	assert_float_equal(number(o, "rollout/dynamic_filter/drop_groups"), 1, 0);
	assert_float_equal(number(o, "rollout/response_len/mean"), 5, 1e-9);
	assert_float_equal(number(o, "rollout/response_len/median"), 5, 1e-9);
	assert_float_equal(number(o, "rollout/response_len/max"), 9, 1e-9);
	assert_float_equal(number(o, "rollout/truncated_ratio"), 1.0 / 3, 1e-6);
	assert_float_equal(number(o, "staleness/max"), 1, 0);
	assert_float_equal(number(o, "off_policy_ratio"), 5.0 / 15, 1e-6);
	json_decref(o);
	free(text);
	/* the next step starts from nothing */
	step_metrics_begin(&m, 2, 2);
	assert_int_equal(m.trajectories, 0);
	assert_int_equal(step_metrics_length_max(&m), 0);
	step_metrics_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_only_new_tokens),
		cmocka_unit_test(test_json_of_a_step),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
