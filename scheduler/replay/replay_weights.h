/* replay_weights.h - where the weights of a run's versions are to be had: the model directory (version 0), DIR/weights
 * (run.keep_weights: the last two) and DIR/versions (weights.keep_versions). */
#ifndef SCHEDULER_REPLAY_REPLAY_WEIGHTS_H
#define SCHEDULER_REPLAY_REPLAY_WEIGHTS_H

#include "policy/weights.h"
#include "scheduler/store/store_read.h"

struct replay_weights;

/* model_dir, config and store are borrowed until close. */
struct replay_weights *replay_weights_open(const char *run_dir, const char *model_dir, const struct model_config *config,
                                           struct store *store);
void replay_weights_close(struct replay_weights *weights); /* NULL is allowed */

bool replay_weights_has(struct replay_weights *weights, int64_t version);
/* Owned by the caller.  Checked against what the store or the file says of them; ERR_MISSING, ERR_INVALID. */
int replay_weights_load(struct replay_weights *weights, int64_t version, struct weights *loaded, struct err *err);

#endif
