/* weights_keeper.h - the policy's newest weights in DIR/weights, written by a thread beside the run.
 *
 * DIR/weights/version-N is a model directory (model.safetensors, config.json, links to the tokenizer's files of
 * the model that the run began with), so that it can also be used as one.  It is renamed into place when it is
 * whole and synced.  The last two stay: the one before is removed only when a newer one is complete. */
#ifndef SCHEDULER_STORE_WEIGHTS_KEEPER_H
#define SCHEDULER_STORE_WEIGHTS_KEEPER_H

#include <stdbool.h>

#include "policy/weights.h"

struct weights_keeper;

/* Makes DIR/weights and removes what a crash left half written, or whole and newer than `newest`, the last that
 * poll has told of: it would push out one that is needed. */
int weights_keeper_open(struct weights_keeper **keeper, const char *run_dir, const char *model_path, int64_t newest,
                        struct err *err);
/* Waits at most `seconds` for what is being written, then leaves it half written. */
void weights_keeper_close(struct weights_keeper *keeper, double seconds);

/* Borrows the data until weights_keeper_uses says that it is done with it.  One version is written at a time; of those
 * that come meanwhile only the newest is. */
void weights_keeper_put(struct weights_keeper *keeper, int64_t version, const struct weights *weights);
bool weights_keeper_uses(struct weights_keeper *keeper, const uint16_t *data);

/* What has happened since the last call: 0: nothing; 1: *version is in its file; or an error, of *version. */
int weights_keeper_poll(struct weights_keeper *keeper, int64_t *version, struct err *err);
bool weights_keeper_busy(struct weights_keeper *keeper);

/* The weights of a version, with the XXH3-64 of all of them as the store has it.  ERR_MISSING, ERR_INVALID. */
int weights_keeper_load(struct weights *weights, const char *run_dir, int64_t version, uint64_t xxh3,
                        const struct model_config *model, struct err *err);

#endif
