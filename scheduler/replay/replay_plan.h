/* replay_plan.h - what of a recorded trajectory can be drawn again, and in which pieces.
 *
 * A trajectory is a pure function of weights by version, prompt, seed, settings and segment boundaries, so
 * each run of tokens of one version can be drawn again by itself, from the recorded tokens before it: where every
 * stretch comes out equal the whole does, by induction.  So a run of many versions needs each of them in memory once,
 * and a trajectory of which one version was not kept is still compared in its other stretches.
 *
 * By contract some tokens cannot be drawn again from the record: those over the keys and values of older versions
 * (SEGMENT_KV_KEPT) and those of maximal coupling, which depend on draft lengths.  No I/O here.
 */
#ifndef SCHEDULER_REPLAY_REPLAY_PLAN_H
#define SCHEDULER_REPLAY_REPLAY_PLAN_H

#include "rollout/trajectory.h"

/* How tokens that were drawn in exact or speculative mode, the same bits, are drawn again.  What the quantized copy drew
 * it draws again in each of them. */
enum replay_mode { REPLAY_RECORDED, REPLAY_EXACT, REPLAY_SPECULATIVE };

/* What can be done about a stretch. */
enum replay_fate { FATE_DRAW, FATE_NOT_KEPT /* its weights */, FATE_KV_KEPT, FATE_MAXIMAL, FATE_COUNT };

/* Tokens [start, end) of one version, drawn in one mode. */
struct replay_stretch {
	int32_t start, end;
	int32_t version;
	int mode;              /* enum rollout_mode, to draw it again in */
	enum replay_fate fate;
	int segment;           /* index of its first segment */
};

struct replay_rules {
	enum replay_mode mode;
	bool maximal;          /* the run's speculation.coupling */
	bool (*kept)(void *context, int32_t version); /* are its weights to be had? */
	void *context;
};

/* *stretches is owned by the caller, in order; *n 0 where nothing was drawn.  ERR_INVALID, which says what is wrong, where
 * the segments do not cover the response or contradict the tokens' versions. */
int replay_split(const struct trajectory *trajectory, const struct replay_rules *rules, struct replay_stretch **stretches,
                 int *n, struct err *err);

/* A copy of the record to draw stretch [start, end) into: as it was when the token at `start` was next, and so that it
 * ends at `end`; by itself where the record did so (last).  Owned by the caller. */
struct trajectory *replay_begin(const struct trajectory *recorded, const struct replay_stretch *stretch);
/* The record's own end, which the last stretch is to come to again: a stop token or the limit of its length. */
bool replay_ends_by_itself(const struct trajectory *recorded, const struct replay_stretch *stretch);

#endif
