/* test_trajectory.c - the record's growth, copies and checksum. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "configs/config.h"
#include "rollout/trajectory.h"
#include "tests/support/bridge_fixture.h"

static void test_new_has_a_prompt_and_nothing_else(void **state)
{
	const int32_t prompt[] = {5, 6, 7};
	struct trajectory *t = trajectory_new(prompt, 3, 10);

	(void)state;
	assert_int_equal(t->n_prompt, 3);
	assert_int_equal(t->n_tokens, 3);
	assert_true(t->capacity >= 13);
	assert_int_equal(t->finish, FINISH_NONE);
	assert_int_equal(trajectory_response_length(t), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(t->tokens[i], prompt[i]);
		assert_int_equal(t->versions[i], -1);
		assert_int_equal(t->loss_mask[i], 0);
		assert_true(t->logprobs[i] == 0.0f);
	}
	trajectory_free(t);
	trajectory_free(NULL);
}

static void test_append_opens_segments_where_something_changes(void **state)
{
	const int32_t prompt[] = {1};
	const struct { int32_t version, rank, mode; } made[] = {
		{3, 1, 0}, {3, 1, 0}, {4, 1, 0}, {4, 2, 0}, {4, 2, 1}, {4, 2, 1}, {3, 1, 0},
	};
	const struct segment expected[] = {{1, 2, 3, 1, 0},
	                                   {3, 1, 4, 1, 0},
	                                   {4, 1, 4, 2, 0},
	                                   {5, 2, 4, 2, 1},
	                                   {7, 1, 3, 1, 0}};
	struct trajectory *t = trajectory_new(prompt, 1, 0); /* grows past what was asked for */

	(void)state;
	for (int i = 0; i < 7; i++)
		trajectory_append(t, 10 + i, -0.5f, made[i].version, made[i].rank, made[i].mode);
	assert_int_equal(t->n_tokens, 8);
	assert_int_equal(t->n_segments, 5);
	assert_memory_equal(t->segments, expected, sizeof expected);
	assert_int_equal(t->versions[7], 3);
	assert_int_equal(t->loss_mask[7], 1);
	assert_int_equal(t->tokens[7], 16);
	trajectory_free(t);
}

/* What the target draws has its own log-probability, what the copy draws has none yet. */
static void test_target_logprobs_grow_along(void **state)
{
	const int32_t prompt[] = {1, 2};
	struct trajectory *t = trajectory_new(prompt, 2, 1);

	(void)state;
	trajectory_append(t, 5, -0.5f, 0, 0, ROLLOUT_SPECULATIVE);
	assert_null(t->target_logprobs);
	trajectory_keep_target(t);
	trajectory_append(t, 6, -0.25f, 0, 0, ROLLOUT_EXACT);
	for (int i = 0; i < 40; i++)
		trajectory_append(t, 7, -1.0f, 0, 0, ROLLOUT_QUANTIZED);
	trajectory_keep_target(t); /* keeps what is there */
	assert_true(t->target_logprobs[0] == 0 && t->target_logprobs[1] == 0);
	assert_true(t->target_logprobs[2] == -0.5f && t->target_logprobs[3] == -0.25f);
	for (int i = 4; i < t->n_tokens; i++)
		assert_true(isnan(t->target_logprobs[i]));
	trajectory_free(t);
}

static void test_copy_is_deep_and_goes_on(void **state)
{
	struct trajectory *t = bridge_trajectory(9, 2, 7), *copy = trajectory_copy(t);

	(void)state;
	assert_true(bridge_same_trajectory(t, copy));
	assert_int_equal(trajectory_checksum(t), trajectory_checksum(copy));
	for (int i = 0; i < 40; i++)
		trajectory_append(copy, i, -1.0f, i, 0, 0); /* each in its own segment */
	assert_int_equal(t->n_tokens, 10);
	assert_int_equal(t->n_segments, 2);
	assert_int_equal(copy->n_segments, 42);
	trajectory_free(t);
	assert_string_equal(copy->meta, "{\"level\":5}");
	trajectory_free(copy);
}

#define CHANGES(statement) do { \
	struct trajectory *t = bridge_trajectory(9, 2, 7); \
	uint64_t before = trajectory_checksum(t); \
	statement; \
	if (trajectory_checksum(t) == before) fail_msg("not in the checksum: %s", #statement); \
	trajectory_free(t); \
} while (0)

#define KEEPS(statement) do { \
	struct trajectory *t = bridge_trajectory(9, 2, 7); \
	uint64_t before = trajectory_checksum(t); \
	statement; \
	if (trajectory_checksum(t) != before) fail_msg("in the checksum: %s", #statement); \
	trajectory_free(t); \
} while (0)

static void test_checksum_covers_what_must_be_reproducible(void **state)
{
	(void)state;
	CHANGES(t->id++);
	CHANGES(t->group_id++);
	CHANGES(t->sample++);
	CHANGES(t->group_size++);
	CHANGES(t->prompt_id[0]++);
	CHANGES(t->epoch++);
	CHANGES(t->eval = !t->eval);
	CHANGES(t->seed++);
	CHANGES(t->sampling.temperature = 0.71f);
	CHANGES(t->sampling.top_p = 0.9f);
	CHANGES(t->sampling.top_k++);
	CHANGES(t->sampling.min_p = 0.1f);
	CHANGES(t->max_tokens++);
	CHANGES(t->tokens[0]++);
	CHANGES(t->tokens[9]++);
	CHANGES(t->logprobs[3] = 0.0f); /* it was minus zero */
	CHANGES(t->target_logprobs[9] = -1.0f);
	CHANGES(free(t->target_logprobs); t->target_logprobs = NULL);
	CHANGES(t->versions[9]++);
	CHANGES(t->loss_mask[9] = 0);
	CHANGES(t->n_prompt++);
	CHANGES(t->n_tokens--);
	CHANGES(t->finish = FINISH_STOP);
	CHANGES(t->has_reward = false);
	CHANGES(t->reward = 0.2);
	CHANGES(t->reward_answer = 0);
	CHANGES(t->reward_steps = 0);
	CHANGES(t->has_advantage = false);
	CHANGES(t->advantage = 1.7f);
	CHANGES(t->baseline = 0.4f);
	CHANGES(t->scale = 1);
	CHANGES(t->pivot = false);
	CHANGES(t->loss_weight = 1);
}

static void test_checksum_ignores_how_it_was_made(void **state)
{
	(void)state;
	KEEPS(t->segments[0].rank++);
	KEEPS(t->segments[0].mode = 0);
	KEEPS(t->drafted++; t->accepted++; t->verify_calls++);
	KEEPS(t->queue_seconds = t->prefill_seconds = t->decode_seconds = t->reward_seconds = 9);
	KEEPS(t->deferrals++);
	KEEPS(t->staleness_max++; t->staleness_min++);
	KEEPS(t->answer[0] = 'x'; t->meta[0] = 'x');
}

static void test_finish_names_go_both_ways(void **state)
{
	(void)state;
	for (int i = FINISH_NONE; i <= FINISH_ERROR; i++)
		assert_int_equal(finish_parse(finish_name((enum finish_reason)i)), i);
	assert_string_equal(finish_name(FINISH_LENGTH), "length");
	assert_int_equal(finish_parse("eos"), -1);
	assert_int_equal(finish_parse(""), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_has_a_prompt_and_nothing_else),
		cmocka_unit_test(test_append_opens_segments_where_something_changes),
		cmocka_unit_test(test_target_logprobs_grow_along),
		cmocka_unit_test(test_copy_is_deep_and_goes_on),
		cmocka_unit_test(test_checksum_covers_what_must_be_reproducible),
		cmocka_unit_test(test_checksum_ignores_how_it_was_made),
		cmocka_unit_test(test_finish_names_go_both_ways),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
