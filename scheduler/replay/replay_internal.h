/* replay_internal.h - what the files of a replay on one rank share. */
#ifndef SCHEDULER_REPLAY_REPLAY_INTERNAL_H
#define SCHEDULER_REPLAY_REPLAY_INTERNAL_H

#include "rollout/engine.h"
#include "rollout/reward/reward.h"
#include "scheduler/replay/replay.h"
#include "scheduler/replay/replay_compare.h"
#include "scheduler/replay/replay_weights.h"

struct replay_work {
	struct replay_stretch stretch;
	size_t sample; /* index into samples */
};

struct replay {
	struct replay_options options;
	const struct config *config;
	struct model_config model;
	struct tokenizer *tokenizer;
	struct reward *reward;
	struct store *store;
	struct replay_weights *weights;
	int32_t stop_token;          /* rollout.stop, or -1 */
	int32_t known_version;       /* + 1, of which `known` says whether it is kept; 0: none */
	bool known;

	/* during replay_run */
	const struct stored_sample *samples; /* [n_samples] */
	size_t n_samples;
	bool *different;             /* [n_samples] */
	struct replay_work *work;    /* [n_work] */
	size_t n_work, work_capacity;
	struct replay_result *result;
	struct replay_progress progress;
	bool (*tick)(void *context, const struct replay_progress *progress);
	void *tick_context;
};

/* replay.c: ERR_STATE if it is to stop. */
int replay_tick(struct replay *replay, struct err *err);

/* replay_draw.c: all of work, in its order. */
int replay_draw(struct replay *replay, struct err *err);

#endif
