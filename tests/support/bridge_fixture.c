/* bridge_fixture.c - see bridge_fixture.h. */
#include "tests/support/bridge_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct trajectory *bridge_trajectory(uint64_t group, int32_t sample, int32_t n_response)
{
	const int32_t prompt[] = {1, 70000, 42};
	struct trajectory *t = trajectory_new(prompt, 3, n_response + 5);

	t->id = trajectory_id(group, sample);
	t->group_id = group;
	t->sample = sample;
	t->group_size = sample + 3;
	t->prompt_id = xstrdup("gsm8k/\xc3\xbc-17");
	t->epoch = 2;
	t->eval = sample % 2 == 1;
	t->seed = UINT64_C(0xfedcba9876543210) + (uint64_t)sample;
	t->answer = xstrdup("\xe2\x88\x92 42\n\"quoted\"");
	t->meta = xstrdup("{\"level\":5}");
	t->sampling = (struct sampling_options){0.7f, 0.95f, 50, 0.02f};
	for (int32_t i = 0; i < n_response; i++)
		trajectory_append(t, 100 + i, -0.125f * (float)i, i < n_response / 2 ? 6 : 7, 1, 1);
	trajectory_keep_target(t);
	for (int32_t i = 0; i < n_response; i++) t->target_logprobs[3 + i] = i == 1 ? -INFINITY : -0.25f * (float)i;
	t->finish = FINISH_ERROR;
	t->error = xstrdup("verifier said: no");
	t->deferrals = 1;
	t->has_reward = t->has_advantage = true;
	t->reward = 0.1;
	t->reward_answer = 1;
	t->reward_steps = 1.0 / 3;
	t->advantage = -1.7f;
	t->baseline = 0.3f;
	t->scale = 0.01f;
	t->pivot = true;
	t->loss_weight = 0.5f;
	t->drafted = 40;
	t->accepted = 30;
	t->verify_calls = 11;
	t->queue_seconds = 0.1;
	t->prefill_seconds = 0.2;
	t->decode_seconds = 3.25;
	t->reward_seconds = 1e-3;
	t->staleness_max = 2;
	t->staleness_min = -1;
	return t;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_bytes(const void *a, const void *b, size_t n_bytes)
{
	return n_bytes == 0 || memcmp(a, b, n_bytes) == 0;
}

bool bridge_same_trajectory(const struct trajectory *a, const struct trajectory *b)
{
	size_t n = (size_t)a->n_tokens;

	if (a->n_tokens != b->n_tokens || a->n_segments != b->n_segments) {
		fprintf(stderr, "lengths differ\n");
		return false;
	}
#define SAME(condition) if (!(condition)) return fprintf(stderr, "differs: %s\n", #condition), false
#define EQUAL(field) SAME(a->field == b->field)
	EQUAL(id); EQUAL(group_id); EQUAL(sample); EQUAL(group_size); EQUAL(epoch); EQUAL(eval); EQUAL(seed);
	EQUAL(max_tokens); EQUAL(n_prompt); EQUAL(finish); EQUAL(deferrals); EQUAL(has_reward); EQUAL(reward);
	EQUAL(reward_answer); EQUAL(reward_steps); EQUAL(has_advantage); EQUAL(advantage); EQUAL(baseline);
	EQUAL(scale); EQUAL(pivot); EQUAL(loss_weight); EQUAL(drafted); EQUAL(accepted); EQUAL(verify_calls);
	EQUAL(queue_seconds); EQUAL(prefill_seconds); EQUAL(decode_seconds); EQUAL(reward_seconds);
	EQUAL(staleness_max); EQUAL(staleness_min);
	EQUAL(sampling.temperature); EQUAL(sampling.top_p); EQUAL(sampling.top_k); EQUAL(sampling.min_p);
	SAME(same_text(a->prompt_id, b->prompt_id));
	SAME(same_text(a->answer, b->answer));
	SAME(same_text(a->meta, b->meta));
	SAME(same_text(a->error, b->error));
	SAME(same_bytes(a->tokens, b->tokens, n * sizeof *a->tokens));
	SAME(same_bytes(a->logprobs, b->logprobs, n * sizeof *a->logprobs));
	SAME(!a->target_logprobs == !b->target_logprobs);
	SAME(!a->target_logprobs || same_bytes(a->target_logprobs, b->target_logprobs, n * sizeof *a->target_logprobs));
	SAME(same_bytes(a->versions, b->versions, n * sizeof *a->versions));
	SAME(same_bytes(a->loss_mask, b->loss_mask, n));
	SAME(same_bytes(a->segments, b->segments, (size_t)a->n_segments * sizeof *a->segments));
#undef SAME
#undef EQUAL
	return true;
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

size_t bridge_unhex(const char *hex, uint8_t *out, size_t room)
{
	size_t n_digits = 0;

	for (; *hex && n_digits / 2 < room; hex++) {
		int digit = hex_digit(*hex);
		if (digit < 0)
			continue;
		out[n_digits / 2] = (uint8_t)(n_digits % 2 ? out[n_digits / 2] << 4 | digit : digit);
		n_digits++;
	}
	return n_digits / 2;
}

uint32_t bridge_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t)((z ^ z >> 31) >> 32);
}
