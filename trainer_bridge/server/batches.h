/* batches.h - batches that no peer has acknowledged yet, in the order they were put.
 *
 * A batch is made of groups, each encoded once, when it is put, and kept until the batch is acknowledged.  The last
 * batch may be open: groups are still to come.  A batch waits (no holder) or is held by the one peer it was given to.
 * A peer that goes away gives back what it holds.  Does no I/O.
 */
#ifndef TRAINER_BRIDGE_SERVER_BATCHES_H
#define TRAINER_BRIDGE_SERVER_BATCHES_H

#include "rollout/trajectory.h"

/* The order of groups in a batch. */
enum batch_order { ORDER_PROMPT /* ascending group */, ORDER_COMPLETION };

/* Samples of one group; immutable once put. */
struct batch_group {
	uint64_t group;
	uint64_t completed;       /* orders groups by when they were complete */
	int64_t version;          /* the policy's when it was put */
	int n;                    /* trajectories */
	int32_t (*lengths)[2];    /* [n] tokens of prompt and response */
	uint8_t *bytes;           /* each trajectory as a frame: u32 length, msgpack map */
	size_t n_bytes;
};

/* The bytes outlive the acknowledgement while a write still needs them: references. */
struct batch {
	uint64_t id;
	int64_t step, version;
	int n;                    /* trajectories */
	struct batch_group *groups; /* [n_groups] in the order they were put */
	int n_groups, capacity;
	bool ended;               /* false: open */
	enum batch_order order;   /* in which groups are put while it is open */
	const void *holder;       /* NULL: waiting */
	int references;
	struct batch *next;
};

struct batches {
	struct batch *first;
	int n;
};

/* Encodes n trajectories; samples of a group stand together.  The batch is complete. */
void batches_put(struct batches *batches, uint64_t id, int64_t step, int64_t version,
                 struct trajectory *const *trajectories, int n);
/* One group of the open batch, which is begun where there is none, with the promise that groups come in `order`. */
void batches_put_group(struct batches *batches, uint64_t id, int64_t step, int64_t version, enum batch_order order,
                       uint64_t completed, struct trajectory *const *trajectories, int n);
void batches_end(struct batches *batches, uint64_t id, int64_t version);
struct batch *batches_open(const struct batches *batches); /* the open one, or NULL */

/* The oldest waiting batch, now held by holder; NULL if none.  The open one only where its groups are wanted as they
 * come, in an order that they do come in. */
struct batch *batches_take(struct batches *batches, const void *holder, bool open_too, enum batch_order order);
int batches_waiting(const struct batches *batches); /* without a holder */
void batches_give_back(struct batches *batches, const void *holder);

/* ERR_STATE if another holds it or it is open; *known is false where no such batch is there (any more). */
int batches_ack(struct batches *batches, uint64_t id, const void *holder, bool *known, struct err *err);
void batches_clear(struct batches *batches);

/* One that is in no queue; owned by the caller by its reference. */
struct batch *batch_new(uint64_t id, int64_t step, int64_t version);
void batch_add(struct batch *batch, int64_t version, uint64_t completed, struct trajectory *const *trajectories, int n);
/* Trajectories from the first on that are of one group; n > 0. */
int batch_group_length(struct trajectory *const *trajectories, int n);
/* Indices of its groups in this order; owned by the caller. */
int *batch_in_order(const struct batch *batch, enum batch_order order);
void batch_reference(struct batch *batch);
void batch_release(struct batch *batch);

#endif
