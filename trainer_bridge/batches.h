/* batches.h - batches that no peer has acknowledged yet, in the order they were put.
 *
 * A batch is encoded once and kept until it is acknowledged: waiting (no holder) or held by the one
 * peer it was given to.  A peer that goes away gives back what it holds.  Does no I/O.
 */
#ifndef TRAINER_BRIDGE_BATCHES_H
#define TRAINER_BRIDGE_BATCHES_H

#include "rollout/trajectory.h"

/* The bytes outlive the acknowledgement while a write still needs them: references. */
struct batch {
	uint64_t id;
	int64_t step, version;
	int n;               /* trajectories */
	uint8_t *bytes;      /* each trajectory as a frame: u32 length, msgpack map */
	size_t n_bytes;
	const void *holder;  /* NULL: waiting */
	int references;
	struct batch *next;
};

struct batches {
	struct batch *first;
	int n;
};

/* Encodes n trajectories. */
void batches_put(struct batches *batches, uint64_t id, int64_t step, int64_t version,
                 struct trajectory *const *trajectories, int n);
/* The oldest waiting batch, now held by holder; NULL if none. */
struct batch *batches_take(struct batches *batches, const void *holder);
int batches_waiting(const struct batches *batches); /* without a holder */
void batches_give_back(struct batches *batches, const void *holder);

/* ERR_STATE if another holds it; *known is false where no such batch is there (any more). */
int batches_ack(struct batches *batches, uint64_t id, const void *holder, bool *known, struct err *err);
void batches_clear(struct batches *batches);

void batch_reference(struct batch *batch);
void batch_release(struct batch *batch);

#endif
