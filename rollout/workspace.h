/* workspace.h - what drafters and the verifier compute with: the current policy and scratch memory,
 * taken once when the engine opens. */
#ifndef ROLLOUT_WORKSPACE_H
#define ROLLOUT_WORKSPACE_H

#include <stdbool.h>

#include "policy/forward.h"
#include "rollout/engine.h"
#include "rollout/sampling/sampling.h"
#include "rollout/speculation/speculation.h"

enum { STOPS_MAX = MODEL_EOS_MAX + 1 };

struct workspace {
	const struct policy *policy; /* borrowed; changes with engine_set_policy */
	enum policy_part part;       /* what draws in the round at hand: the target, or its quantized copy */
	struct forward *forward;
	struct forward_row *rows;    /* [rows_max] */
	int n_rows, rows_max;
	float *logits;               /* [logits_max][stride] */
	size_t stride;
	struct maximal_store *maximal; /* drafts' distributions until they are verified; NULL: coupled verification */
	struct sampler **samplers;   /* [n_threads] */
	int n_threads;
	int32_t stops[STOPS_MAX];    /* tokens that end a sample */
	int n_stops;
	struct engine_stats stats;
	double prompt_share;         /* of a row's cost, where it has no logits */
	struct speculation *speculation; /* learns what calls cost; NULL: nobody asks */
	double (*clock)(void);
};

void workspace_open(struct workspace *workspace, const struct policy *policy,
                    const struct engine_options *options, int logits_max);
void workspace_close(struct workspace *workspace);

/* Rows with logits that cost about what so many rows of prompts do. */
int workspace_whole_rows(const struct workspace *workspace, int prompt_rows);

/* Threads worth waking to draw from n rows of logits. */
int workspace_draw_threads(const struct workspace *workspace, int n);

bool workspace_is_stop(const struct workspace *workspace, int32_t token);

static inline double workspace_now(const struct workspace *workspace)
{
	return workspace->clock ? workspace->clock() : 0.0;
}

static inline float *workspace_logits(const struct workspace *workspace, int row)
{
	return workspace->logits + (size_t)row * workspace->stride;
}

static inline void workspace_add_row(struct workspace *workspace, struct kv_seq *seq, int32_t position,
                                     int32_t token, int32_t logits_row)
{
	workspace->rows[workspace->n_rows++] = (struct forward_row){seq, position, token, logits_row};
}

#endif
