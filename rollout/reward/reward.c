/* reward.c - opening a verifier, calling it, and the cutting of texts that verifiers share.
 *
 * reward = reward_answer, but for steps:
 * reward = answer_weight * reward_answer + (1 - answer_weight) * reward_steps.
 */
#include <stdlib.h>
#include <string.h>

#include "rollout/reward/reward_kinds.h"

int reward_open(struct reward **reward, const struct config_reward *options, struct err *err)
{
	struct reward_pattern *pattern = NULL;
	if (options->kind == REWARD_REGEX && !*options->pattern)
		return err_set(err, ERR_CONFIG, "reward.kind regex needs reward.pattern, as in \"answer is (\\S+)\"");
	if (options->kind == REWARD_PROGRAM && !*options->program)
		return err_set(err, ERR_CONFIG, "reward.kind program needs reward.program, the command line of the verifier");
	if (*options->pattern && reward_pattern_open(&pattern, options->pattern, err)) return err->code;
	*reward = xcalloc(1, sizeof **reward);
	(*reward)->kind = options->kind;
	(*reward)->tolerance = options->tolerance;
	(*reward)->length_target = options->length_target;
	(*reward)->length_slack = options->length_slack;
	(*reward)->answer_weight = options->answer_weight;
	(*reward)->pattern = pattern;
	return 0;
}

void reward_close(struct reward *reward)
{
	if (!reward) return;
	reward_pattern_close(reward->pattern);
	free(reward);
}

static int verify(const struct reward *reward, struct trajectory *trajectory, const char *text,
                  struct err *err)
{
	switch (reward->kind) {
	case REWARD_NUMERIC: return reward_score_numeric(reward, trajectory, text, err);
	case REWARD_MATH: return reward_score_math(reward, trajectory, text, err);
	case REWARD_COUNTDOWN: return reward_score_countdown(reward, trajectory, text, err);
	case REWARD_CONTAINS: return reward_score_contains(reward, trajectory, text, err);
	case REWARD_LENGTH: return reward_score_length(reward, trajectory, text, err);
	case REWARD_REGEX: return reward_score_regex(reward, trajectory, text, err);
	case REWARD_STEPS: return reward_score_steps(reward, trajectory, text, err);
	default: return reward_score_exact(reward, trajectory, text, err);
	}
}

int reward_score(const struct reward *reward, struct trajectory *trajectory, const char *text,
                 struct err *err)
{
	trajectory->has_reward = false;
	trajectory->reward = trajectory->reward_answer = trajectory->reward_steps = 0;
	if (reward->kind == REWARD_NONE || reward->kind == REWARD_PROGRAM) return 0; /* others score */
	if (verify(reward, trajectory, text, err)) {
		err_context(err, "no reward for prompt %s", trajectory->prompt_id ? trajectory->prompt_id : "?");
		trajectory->reward_answer = trajectory->reward_steps = 0;
		trajectory->finish = FINISH_ERROR;
		free(trajectory->error);
		trajectory->error = xstrdup(err->text);
		return err->code;
	}
	double weight = reward->kind == REWARD_STEPS ? reward->answer_weight : 1;
	trajectory->reward = weight * trajectory->reward_answer + (1 - weight) * trajectory->reward_steps;
	trajectory->has_reward = true;
	return 0;
}

int reward_expected(const struct trajectory *trajectory, struct span *expected, struct err *err)
{
	struct span nothing = { 0 };
	*expected = trajectory->answer ? span_trim(span_after_marker(span_of(trajectory->answer))) : nothing;
	if (expected->length) return 0;
	return err_set(err, ERR_MISSING,
	               "expected an answer to compare with, found %s; give every prompt one (data.answer_key) or "
	               "set reward.kind to none",
	               trajectory->answer ? "a blank one" : "none");
}

struct span span_of(const char *text)
{
	return (struct span){ text, strlen(text) };
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

struct span span_trim(struct span span)
{
	while (span.length && is_space(*span.start)) span.start++, span.length--;
	while (span.length && is_space(span.start[span.length - 1])) span.length--;
	return span;
}

struct span span_after_marker(struct span span)
{
	static const char marker[] = "####";
	size_t size = sizeof marker - 1;
	for (size_t at = span.length; at-- > 0;) {
		if (span.length - at < size || memcmp(span.start + at, marker, size)) continue;
		return (struct span){ span.start + at + size, span.length - at - size };
	}
	return span;
}

struct span span_last_line(struct span span)
{
	span = span_trim(span);
	size_t begin = span.length;
	while (begin && span.start[begin - 1] != '\n') begin--;
	return span_trim((struct span){ span.start + begin, span.length - begin });
}

bool span_equal(struct span a, struct span b)
{
	return a.start && b.start && a.length == b.length && !memcmp(a.start, b.start, a.length);
}
