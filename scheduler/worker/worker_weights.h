/* worker_weights.h - a new version on its way into a worker, and on to the ranks below it.
 *
 * Owns the flat memory in which versions arrive (one, used again and again) and the policy in the making: layers
 * are packed and quantized as they become whole.  Generation goes on under the old version meanwhile. */
#ifndef SCHEDULER_WORKER_WORKER_WEIGHTS_H
#define SCHEDULER_WORKER_WORKER_WEIGHTS_H

#include "policy/policy.h"
#include "scheduler/ranks/rank_messages.h"

struct worker_weights;

/* draft: how the drafter's copy is made, or NULL for none; copied.  Transport and writer are borrowed. */
struct worker_weights *worker_weights_open(const struct model_config *model, const struct draft_options *draft,
                                           int n_threads, const struct config *config, struct transport *transport,
                                           struct message_writer *writer);
void worker_weights_close(struct worker_weights *ww); /* NULL is allowed */

/* A WEIGHTS_* message.  On the COMMIT of a version that is not `current` *policy is that version, owned by the
 * caller; else NULL.  *committed says that there was a commit, and of what. */
int worker_weights_take(struct worker_weights *ww, enum rank_message type, const struct message_node *root,
                        int64_t current, struct policy **policy, int64_t *committed, struct err *err);
double worker_weights_seconds(const struct worker_weights *ww); /* of packing and quantizing the last version */

/* Passes on what has come; *busy: there is more to pass on than the ranks below take now. */
int worker_weights_pump(struct worker_weights *ww, bool *busy, struct err *err);
void worker_weights_forget(struct worker_weights *ww); /* nothing of what was on its way counts */

#endif
