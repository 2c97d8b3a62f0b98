/* replay_plan.c - segments to stretches, and the state in which one begins. */
#include "scheduler/replay/replay_plan.h"

#include <stdlib.h>

#include "configs/config.h"

static int mode_of(const struct segment *segment) { return segment->mode & ~SEGMENT_KV_KEPT; }

/* Segments cover the response without gaps, each of the version that its tokens have, in a mode that there is. */
static int check_segments(const struct trajectory *t, struct err *err)
{
	int32_t at = t->n_prompt;

	for (int i = 0; i < t->n_segments; i++) {
		const struct segment *s = &t->segments[i];
		if (s->start != at || s->length < 1 || s->length > t->n_tokens - at)
			return err_set(err, ERR_INVALID, "segment %d is [%d, +%d), expected one from token %d on within %d", i, s->start,
			               s->length, at, t->n_tokens);
		if (mode_of(s) < ROLLOUT_EXACT || mode_of(s) > ROLLOUT_QUANTIZED)
			return err_set(err, ERR_INVALID, "segment %d has mode %d, which there is not", i, s->mode);
		for (; at < s->start + s->length; at++)
			if (t->versions[at] != s->version)
				return err_set(err, ERR_INVALID, "token %d has version %d, its segment %d has %d", at, t->versions[at], i, s->version);
	}
	if (at == t->n_tokens) return 0;
	return err_set(err, ERR_INVALID, "segments end at token %d of %d", at, t->n_tokens);
}

static enum replay_fate fate_of(const struct segment *segment, const struct replay_rules *rules)
{
	if (segment->mode & SEGMENT_KV_KEPT) return FATE_KV_KEPT;
	if (rules->maximal && mode_of(segment) == ROLLOUT_SPECULATIVE) return FATE_MAXIMAL;
	return rules->kept(rules->context, segment->version) ? FATE_DRAW : FATE_NOT_KEPT;
}

static int mode_to_draw_in(const struct segment *segment, const struct replay_rules *rules)
{
	int mode = mode_of(segment);

	if (mode == ROLLOUT_QUANTIZED || rules->mode == REPLAY_RECORDED) return mode;
	return rules->mode == REPLAY_EXACT ? ROLLOUT_EXACT : ROLLOUT_SPECULATIVE;
}

int replay_split(const struct trajectory *t, const struct replay_rules *rules, struct replay_stretch **out, int *n,
                 struct err *err)
{
	int rc = check_segments(t, err);

	*out = NULL;
	*n = 0;
	if (rc || t->n_segments == 0) return rc;
	struct replay_stretch *list = xcalloc((size_t)t->n_segments, sizeof *list);
	for (int i = 0; i < t->n_segments; i++) {
		const struct segment *s = &t->segments[i];
		struct replay_stretch next = { .start = s->start, .end = s->start + s->length, .version = s->version,
		                               .mode = mode_to_draw_in(s, rules), .fate = fate_of(s, rules), .segment = i };
		struct replay_stretch *last = *n ? &list[*n - 1] : NULL;
		if (last && last->version == next.version && last->mode == next.mode && last->fate == next.fate) last->end = next.end;
		else list[(*n)++] = next;
	}
	*out = list;
	return 0;
}

bool replay_ends_by_itself(const struct trajectory *recorded, const struct replay_stretch *stretch)
{
	return stretch->end == recorded->n_tokens && (recorded->finish == FINISH_STOP || recorded->finish == FINISH_LENGTH);
}

struct trajectory *replay_begin(const struct trajectory *recorded, const struct replay_stretch *stretch)
{
	struct trajectory *t = trajectory_copy(recorded);

	t->n_tokens = stretch->start;
	free(t->segments);
	t->segments = NULL;
	t->n_segments = 0;
	t->finish = FINISH_NONE;
	free(t->error);
	t->error = NULL;
	if (!replay_ends_by_itself(recorded, stretch)) t->max_tokens = stretch->end - recorded->n_prompt;
	t->drafted = t->accepted = t->verify_calls = 0;
	return t;
}
