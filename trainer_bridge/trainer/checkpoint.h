/* checkpoint.h - what the reference trainer needs to go on where it was: FP32 master weights, Adam's moments, and which
 * batch they have in them.
 *
 * One file: a header, master, m and v as f32 little endian, and the XXH3-64 of all before it.  It is replaced as a
 * whole: a crash leaves the one before or the new one. */
#ifndef TRAINER_BRIDGE_TRAINER_CHECKPOINT_H
#define TRAINER_BRIDGE_TRAINER_CHECKPOINT_H

#include <stdbool.h>

#include "trainer_bridge/trainer/learner.h"

enum { CHECKPOINT_RUN_ID_MAX = 64 };

struct checkpoint {
	char run_id[CHECKPOINT_RUN_ID_MAX];
	int64_t version;   /* of the weights, as they were pushed or are about to be */
	uint64_t batch_id; /* the last batch that is in them */
};

/* Blocks other trainers from the file while this process lives; waits up to `seconds` for one that is at its last step. */
int checkpoint_lock(const char *path, double seconds, struct err *err);

/* sync: it is on the disk when this returns; else it survives the process, not a power cut (the checksum tells). */
int checkpoint_write(const char *path, const struct checkpoint *checkpoint, struct learner *learner, bool sync,
                     struct err *err);

/* Into the learner and its weights.  ERR_MISSING: there is none; ERR_INVALID: damaged, or of another model. */
int checkpoint_read(const char *path, struct checkpoint *checkpoint, struct learner *learner, struct err *err);

#endif
