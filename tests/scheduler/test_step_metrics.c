/* test_step_metrics.c - the numbers of a step, from hand-made trajectories. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "scheduler/controller/step_metrics.h"

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
	step_metrics_put_aside(&m, now);
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
	m.given_up = 2;
	int lengths[] = { 5, 1, 9 };
	for (int i = 0; i < 3; i++) {
		struct trajectory *t = sample(lengths[i], i == 0 ? 1 : 2, i == 2 ? FINISH_LENGTH : FINISH_STOP);
		t->has_reward = true;
		t->reward = i * 0.5;
		t->reward_answer = i == 1;
		t->staleness_max = i == 0;
		for (int k = 0; i == 0 && k < 3; k++) t->loss_mask[t->n_prompt + k] = 0;
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
	assert_float_equal(number(o, "staleness/masked_tokens"), 3, 0);
	assert_float_equal(number(o, "staleness/dropped_groups"), 2, 0);
	json_decref(o);
	free(text);
	/* what was judged between two steps is the next one's, what was generated is not */
	m.judged = 3;
	m.judge_bad_data = 2;
	m.failed = 9;
	step_metrics_begin_again(&m, 2, 2);
	assert_int_equal(m.groups, 3);
	assert_int_equal(m.dropped, 1);
	assert_int_equal(m.completed, 3);
	assert_int_equal(m.judged, 3);
	assert_int_equal(m.failed, 2);
	assert_int_equal(m.trajectories, 0);
	assert_int_equal(m.tokens, 0);
	assert_int_equal(m.step, 2);
	/* the next step starts from nothing */
	step_metrics_begin(&m, 2, 2);
	assert_int_equal(m.groups, 0);
	assert_int_equal(m.trajectories, 0);
	assert_int_equal(step_metrics_length_max(&m), 0);
	step_metrics_free(&m);
}

/* 20 prompt tokens and 40 response tokens were needed; the prompt was computed on one of two ranks, and 6 tokens
 * again.  Delivered are 5 and 9 tokens, of 5, 9 and an unfinished 16. */
static void test_work_and_length_bias(void **state)
{
	(void)state;
	static const int lengths[] = { 5, 9, 16 };
	struct step_metrics m = { 0 };
	step_metrics_begin(&m, 1, 1);
	assert_float_equal(step_metrics_length_bias(&m), 0, 0);
	m.needed_prompt_tokens = 20;
	m.prefill_tokens = 10;
	m.recomputed_tokens = 6;
	m.imported_tokens = 3;
	m.tokens = 40;
	m.migrated = 2;
	for (int i = 0; i < 3; i++) {
		struct trajectory *t = sample(lengths[i], 1, i < 2 ? FINISH_STOP : FINISH_NONE);
		if (i < 2) step_metrics_delivered(&m, t);
		step_metrics_known(&m, t);
		trajectory_free(t);
	}
	char *text = step_metrics_json(&m);
	json_t *o = json_loads(text, 0, NULL);
	assert_float_equal(number(o, "rollout/length_bias"), 0.7, 1e-9);
	assert_float_equal(number(o, "rollout/computed_ratio"), 50.0 / 60, 1e-8);
	assert_float_equal(number(o, "rollout/recomputed_ratio"), 0.1, 1e-9);
	assert_float_equal(number(o, "rollout/prefill_tokens"), 10, 0);
	assert_float_equal(number(o, "rollout/recomputed_tokens"), 6, 0);
	assert_float_equal(number(o, "rollout/imported_tokens"), 3, 0);
	assert_float_equal(number(o, "partial/migrated"), 2, 0);
	json_decref(o);
	free(text);
	step_metrics_free(&m);
}

/* Behaviour at -0.5: the target says -0.7, -0.4, nothing at all, -0.5. */
static void test_mismatch_of_quantized_samples(void **state)
{
	(void)state;
	struct step_metrics m = { 0 };
	static const float target[] = { -0.7f, -0.4f, -INFINITY, -0.5f };
	struct trajectory *t = sample(4, 1, FINISH_STOP);
	step_metrics_begin(&m, 1, 1);
	step_metrics_delivered(&m, t);
	char *text = step_metrics_json(&m);
	assert_null(strstr(text, "rollout_corr/kl")); /* the target drew */
	free(text);
	trajectory_keep_target(t);
	memcpy(t->target_logprobs + 2, target, sizeof target);
	step_metrics_delivered(&m, t);
	text = step_metrics_json(&m);
	json_t *o = json_loads(text, 0, NULL);
	assert_float_equal(number(o, "rollout_corr/kl"), (0.2 - 0.1 + 0) / 3, 1e-6);
	assert_float_equal(number(o, "rollout_corr/k3_kl"), (expm1(-0.2) + 0.2 + expm1(0.1) - 0.1) / 3, 1e-6);
	assert_float_equal(number(o, "rollout_corr/outside_frac"), 0.25, 1e-9);
	json_decref(o);
	free(text);
	trajectory_free(t);
	step_metrics_free(&m);
}

/* 4 seconds with 6 sessions on both ranks, then 2 with one on one of them; 8 slots each. */
static void test_ranks_at_work(void **state)
{
	(void)state;
	struct step_metrics m = { 0 };
	step_metrics_begin(&m, 1, 1);
	step_metrics_watched(&m, 4, 2, 16, 2, 6);
	step_metrics_watched(&m, 2, 2, 16, 1, 1);
	m.engine = (struct engine_stats){ .drafted_by_position = { 10, 8 }, .accepted_by_position = { 9, 2 } };
	m.ranks_wait_seconds = 1.5;
	char *text = step_metrics_json(&m);
	json_t *o = json_loads(text, 0, NULL);
	assert_float_equal(number(o, "rollout/active_sessions/mean"), 26.0 / 6, 1e-6);
	assert_float_equal(number(o, "rollout/active_sessions/max"), 6, 0);
	assert_float_equal(number(o, "rollout/tail_ratio"), 2.0 / 6, 1e-6);
	assert_float_equal(number(o, "cluster/busy_ratio"), 10.0 / 12, 1e-6);
	assert_float_equal(number(o, "timing_s/ranks_wait"), 1.5, 0);
	const json_t *rate = json_object_get(o, "rollout/sd/acceptance_by_position");
	assert_int_equal(json_array_size(rate), 2);
	assert_float_equal(json_number_value(json_array_get(rate, 0)), 0.9, 1e-9);
	assert_float_equal(json_number_value(json_array_get(rate, 1)), 0.25, 1e-9);
	json_decref(o);
	free(text);
	step_metrics_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_only_new_tokens),
		cmocka_unit_test(test_json_of_a_step),
		cmocka_unit_test(test_work_and_length_bias),
		cmocka_unit_test(test_ranks_at_work),
		cmocka_unit_test(test_mismatch_of_quantized_samples),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
