/* replay.h - recorded trajectories drawn again by an engine of this rank, and compared (replay_plan.h, replay_compare.h).
 *
 * Stretches are taken by mode and version, so each version's weights are loaded once; of one version as many are in the
 * engine as it takes, siblings together, whose prompt is then computed once.  Memory: a policy, the KV budget, the
 * records in flight, and 40 bytes a stretch.
 */
#ifndef SCHEDULER_REPLAY_REPLAY_H
#define SCHEDULER_REPLAY_REPLAY_H

#include "configs/config.h"
#include "scheduler/replay/replay_result.h"
#include "scheduler/store/step_range.h"
#include "scheduler/store/store_read.h"

struct replay;

struct replay_options {
	const char *run_dir;         /* borrowed, as all of it */
	const struct config *config; /* the run's, with what is asked for in this replay: drafter, threads, KV budget, ... */
	enum replay_mode mode;
	int rank;                    /* for messages */
};

/* Reads model, tokenizer and store; loads no weights. */
int replay_open(struct replay **replay, const struct replay_options *options, struct err *err);
void replay_close(struct replay *replay); /* NULL is allowed */

/* Which trajectories: all, less what the rest leaves out. */
struct replay_selection {
	struct step_range steps;       /* of groups that were delivered, evaluated or dropped in these */
	const uint64_t *ids;           /* [n_ids] ascending; NULL: any */
	size_t n_ids;
	size_t sample;                 /* so many of those that are left; 0: all */
	uint64_t seed;                 /* that decides which */
};

/* *samples is owned by the caller, ascending.  ERR_MISSING for an id that is not there, or where nothing is left. */
int replay_select(struct replay *replay, const struct replay_selection *selection, struct stored_sample **samples,
                  size_t *n, struct err *err);

struct replay_progress {
	uint64_t tokens, tokens_all; /* drawn; to be drawn */
};

/* Draws samples[n] again and adds what came of it to result.  tick is called every now and then; false stops. */
int replay_run(struct replay *replay, const struct stored_sample *samples, size_t n, struct replay_result *result,
               bool (*tick)(void *context, const struct replay_progress *progress), void *context, struct err *err);

#endif
