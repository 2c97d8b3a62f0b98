/* made_up_trajectory.h - trajectories with every field set to something telling, by group and sample,
 * and their comparison field by field, bit by bit.
 */
#ifndef TESTS_SCHEDULER_MADE_UP_TRAJECTORY_H
#define TESTS_SCHEDULER_MADE_UP_TRAJECTORY_H

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

#include "rollout/trajectory.h"

static inline char *made_up_text(const char *text)
{
	return text ? strcpy(malloc(strlen(text) + 1), text) : NULL;
}

static inline void made_up_scores(struct trajectory *made, int sample)
{
	made->has_reward = true;
	made->reward = 1.0 / 3 + sample;
	made->reward_answer = sample == 2;
	made->reward_steps = -0.0;
	made->has_advantage = sample != 1;
	made->advantage = sample == 0 ? -0.0f : -1.1754944e-38f / 4; /* minus zero, a denormal */
	made->baseline = 3.4028235e38f;
	made->scale = 0.1f;
	made->pivot = sample == 2;
	made->loss_weight = 0.3f;
}

/* Owned by the caller. */
static inline struct trajectory *made_up_trajectory(uint64_t group, int sample)
{
	static const char *const texts[] = {NULL, "", "a \"quoted\" \\ line\nand \xc3\xa9"};
	const int32_t prompt[] = {0, -1, INT32_MAX, (int32_t)group};
	struct trajectory *made = trajectory_new(prompt, 4, 40);
	char prompt_id[32];
	snprintf(prompt_id, sizeof(prompt_id), "p-%d", (int)group % 4);
	made->group_id = group;
	made->sample = sample;
	made->id = trajectory_id(group, sample);
	made->group_size = 3;
	made->prompt_id = made_up_text(prompt_id);
	made->epoch = (int32_t)(group % 5);
	made->eval = group % 2;
	made->seed = UINT64_MAX - group * 977 - (uint64_t)sample;
	made->answer = made_up_text(texts[group % 3]);
	made->meta = made_up_text(sample ? "{\"level\":[1,2]}" : NULL);
	made->sampling = (struct sampling_options){.temperature = 0.7f, .top_p = 0.95f, .top_k = 40, .min_p = 0.05f};
	for (int i = 0; i < (int)(group % 7) * 5 + sample; i++)
		trajectory_append(made, i * 7, -1.0f / (float)(i + 3), i / 6, i / 4, i % 2);
	if (group % 3 == 1) {
		trajectory_keep_target(made);
		for (int i = 4; i < made->n_tokens; i++)
			made->target_logprobs[i] = i % 5 == 4 ? -INFINITY : i % 7 ? -1.0f / (float)i : NAN;
	}
	made->finish = (enum finish_reason)(group % (FINISH_ERROR + 1));
	made->error = made->finish == FINISH_ERROR ? made_up_text("the verifier died") : NULL;
	made->deferrals = sample;
	made_up_scores(made, sample);
	made->drafted = 100 + sample;
	made->accepted = 50;
	made->verify_calls = 25;
	made->queue_seconds = 1e-9;
	made->prefill_seconds = 0.1;
	made->decode_seconds = 123456.789;
	made->reward_seconds = 5;
	made->staleness_max = 3;
	made->staleness_min = 1;
	return made;
}

static inline void assert_same_text(const char *a, const char *b)
{
	assert_true(!a == !b);
	if (a)
		assert_string_equal(a, b);
}

#define assert_same_bits(a, b, field) assert_memory_equal(&(a)->field, &(b)->field, sizeof((a)->field))

static inline void assert_same_trajectory(const struct trajectory *a, const struct trajectory *b)
{
	assert_true(trajectory_checksum(a) == trajectory_checksum(b));
	size_t n = (size_t)a->n_tokens;
	assert_int_equal(a->n_tokens, b->n_tokens);
	assert_int_equal(a->n_prompt, b->n_prompt);
	assert_memory_equal(a->tokens, b->tokens, n * sizeof(*a->tokens));
	assert_memory_equal(a->logprobs, b->logprobs, n * sizeof(*a->logprobs));
	assert_true(!a->target_logprobs == !b->target_logprobs);
	if (a->target_logprobs)
		assert_memory_equal(a->target_logprobs, b->target_logprobs, n * sizeof(*a->target_logprobs));
	assert_memory_equal(a->versions, b->versions, n * sizeof(*a->versions));
	assert_memory_equal(a->loss_mask, b->loss_mask, n * sizeof(*a->loss_mask));
	assert_int_equal(a->n_segments, b->n_segments);
	if (a->n_segments)
		assert_memory_equal(a->segments, b->segments, (size_t)a->n_segments * sizeof(*a->segments));
	assert_same_text(a->prompt_id, b->prompt_id);
	assert_same_text(a->answer, b->answer);
	assert_same_text(a->meta, b->meta);
	assert_same_text(a->error, b->error);
	assert_true(a->id == b->id && a->group_id == b->group_id && a->sample == b->sample);
	assert_true(a->group_size == b->group_size && a->epoch == b->epoch && a->eval == b->eval &&
	            a->seed == b->seed);
	assert_same_bits(a, b, sampling);
	assert_true(a->max_tokens == b->max_tokens && a->finish == b->finish && a->deferrals == b->deferrals);
	assert_true(a->has_reward == b->has_reward && a->has_advantage == b->has_advantage &&
	            a->pivot == b->pivot);
	assert_same_bits(a, b, reward);
	assert_same_bits(a, b, reward_answer);
	assert_same_bits(a, b, reward_steps);
	assert_same_bits(a, b, advantage);
	assert_same_bits(a, b, baseline);
	assert_same_bits(a, b, scale);
	assert_same_bits(a, b, loss_weight);
	assert_true(a->drafted == b->drafted && a->accepted == b->accepted && a->verify_calls == b->verify_calls);
	assert_same_bits(a, b, queue_seconds);
	assert_same_bits(a, b, prefill_seconds);
	assert_same_bits(a, b, decode_seconds);
	assert_same_bits(a, b, reward_seconds);
	assert_true(a->staleness_max == b->staleness_max && a->staleness_min == b->staleness_min);
}

#endif
