/* store_prune.h - what pruning leaves in the store: hidden states, decisions and quality heads (controller_prune.c).
 *
 * Tables of their own, made where pruning is on, in the store's one transaction:
 *   quality_features  trajectory, version, hidden (f32 [dim])
 *   prunings          grp, head (its number when it was decided), survivors, tilt, learned (the head that learned from the
 *                     group, 0: none yet), samples (struct stored_pruning_sample [n], of the machine's own byte order)
 *   quality_heads     number, head
 * A decision can be made again from its scores, tilt and survivors (prune_redo), its scores from the hidden states and
 * the head. */
#ifndef SCHEDULER_STORE_STORE_PRUNE_H
#define SCHEDULER_STORE_STORE_PRUNE_H

#include "scheduler/store/store.h"

struct stored_pruning_sample {
	double score;    /* of the head; 0 where there was no hidden state */
	double expected; /* q */
	int32_t fate;    /* enum prune_fate */
	int32_t seen;    /* 1: there was a hidden state */
};

struct stored_pruning {
	uint64_t head, learned;
	int survivors, n;
	double tilt;
	const struct stored_pruning_sample *samples; /* [n], borrowed for the call */
};

/* Make the tables, if they are not there. */
int store_prune_open(struct store *store, struct err *err);
int store_put_features(struct store *store, uint64_t trajectory_id, int64_t version, const float *hidden, int dim,
                       struct err *err);
int store_put_pruning(struct store *store, uint64_t group_id, const struct stored_pruning *pruning, struct err *err);
int store_pruning_learned(struct store *store, uint64_t group_id, uint64_t head, struct err *err);
int store_put_quality_head(struct store *store, uint64_t number, const void *bytes, size_t n_bytes, struct err *err);

/* The hidden states of a group's samples; anything but 0 from the callback ends the walk and is returned. */
int store_each_features(struct store *store, uint64_t group_id,
                        int (*each)(void *context, int sample, int64_t version, const void *hidden, size_t n_bytes),
                        void *context, struct err *err);
/* 1 if there is a decision, given to `each` (NULL: all that is asked), 0 if not, or an error. */
int store_get_pruning(struct store *store, uint64_t group_id,
                      void (*each)(void *context, const struct stored_pruning *pruning), void *context, struct err *err);
/* Groups with a decision that were dropped and that no head has learned from, in order of id; n_samples each. */
int store_each_unlearned(struct store *store, int (*each)(void *context, uint64_t group_id, int n_samples, struct err *err),
                         void *context, struct err *err);
/* The newest head, or number's where it is > 0; *bytes is owned by the caller, NULL where there is none. */
int store_get_quality_head(struct store *store, uint64_t number, void **bytes, size_t *n_bytes, struct err *err);

#endif
