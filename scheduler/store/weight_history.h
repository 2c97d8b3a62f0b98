/* weight_history.h - the last K versions of a run's weights, in run_dir/versions.
 *
 * The newest lies whole (V.full: BF16 in the flat order of policy/weights.h), each older one as what differs from the
 * next (V.delta: trainer_bridge/wire/delta.h, piece by piece), so K versions cost one whole and K - 1 deltas on disk, and
 * nothing in memory.  Every file ends with a checksum and is written beside and renamed: after a crash a version is
 * there whole or not at all.  One writer; readers open what a run has left, or leaves.
 */
#ifndef SCHEDULER_STORE_WEIGHT_HISTORY_H
#define SCHEDULER_STORE_WEIGHT_HISTORY_H

#include "policy/weights.h"

struct weight_history;

/* Makes run_dir/versions, or goes on with what is there; keep >= 1. */
int weight_history_create(struct weight_history **history, const char *run_dir, const struct model_config *model,
                          int keep, struct err *err);
/* What is there; ERR_MISSING where a run has kept nothing. */
int weight_history_open(struct weight_history **history, const char *run_dir, const struct model_config *model,
                        struct err *err);
void weight_history_close(struct weight_history *history); /* NULL is allowed; the files stay */

/* A version above all before it (one that is there is left alone), borrowed for the call; the oldest beyond `keep` goes.  Holds one version beside it. */
int weight_history_put(struct weight_history *history, int64_t version, const struct weights *weights, struct err *err);

int weight_history_count(const struct weight_history *history);
int64_t weight_history_oldest(const struct weight_history *history); /* -1: none */
int64_t weight_history_newest(const struct weight_history *history);
bool weight_history_has(const struct weight_history *history, int64_t version);

/* Owned by the caller (weights_free).  ERR_MISSING says which versions there are; a damaged file is ERR_INVALID. */
int weight_history_load(const struct weight_history *history, int64_t version, struct weights *weights, struct err *err);

#endif
