/* intake.h - assembles one new version of the weights from what a push brings; no I/O but the base's files.
 *
 * begin -> chunk... -> checksum -> ... -> commit -> adopt.  A version is complete iff every tensor has all its
 * bytes, every checksum holds and the commit names it; otherwise what was there stays and the peer is told why.
 *
 * Memory: two sets of weights, the base and the incoming one, taken when first needed and then used in turn, so
 * a push touches no fresh memory.  Whoever reads the incoming one (the broadcast to the ranks) is told as bytes
 * become final, and says through `ready` when the memory may be written again.
 */
#ifndef TRAINER_BRIDGE_SERVER_INTAKE_H
#define TRAINER_BRIDGE_SERVER_INTAKE_H

#include "policy/weights.h"

struct intake;

enum intake_encoding { INTAKE_FULL, INTAKE_DELTA, INTAKE_LORA };

struct intake_push {
	int64_t version;
	enum intake_encoding encoding;
	int64_t base;   /* delta, lora */
	int64_t rank;   /* lora */
	double alpha;   /* lora */
};

/* Who wants to see a version grow; any of the calls may be NULL. */
struct intake_observer {
	void *context;
	/* May [n_elements] of data be overwritten now?  NULL: always. */
	bool (*ready)(void *context, const uint16_t *data);
	void (*begun)(void *context, int64_t version, const struct weights *weights); /* borrowed until a later `ready` */
	void (*bytes)(void *context, size_t begin, size_t end); /* [begin, end) of weights->data have their bytes */
	void (*tensor)(void *context, int tensor, uint64_t xxh3); /* it has all its bytes and was checked */
	void (*dropped)(void *context); /* none of it counts */
};

/* Shapes are those of config. */
struct intake *intake_open(const struct model_config *config);
void intake_close(struct intake *intake);
void intake_observe(struct intake *intake, const struct intake_observer *observer);
/* The model directory that version 0 was loaded from: it is the base until a version comes.  Copied. */
void intake_set_model(struct intake *intake, const char *dir);

/* A version from before a restart is the base; takes the weights.  Returns them, borrowed as in `begun`. */
const struct weights *intake_restore(struct intake *intake, int64_t version, struct weights *weights);

const struct weights *intake_layout(const struct intake *intake); /* borrowed; data is NULL */
bool intake_ready(const struct intake *intake); /* there is memory for a version now */
bool intake_busy(const struct intake *intake);  /* one is being taken in */

/* version must be current + 1 or more, and intake_ready. */
int intake_begin_push(struct intake *intake, const struct intake_push *push, int64_t current_version, struct err *err);
int intake_begin(struct intake *intake, int64_t version, int64_t current_version, struct err *err); /* full */

/* Bytes [offset, offset + n_bytes) of the tensor `name` (BF16, or one of a LoRA pair in FP32), in ascending order
 * without gaps. */
int intake_chunk(struct intake *intake, int64_t version, const char *name, uint64_t offset, const void *bytes,
                 size_t n_bytes, struct err *err);
/* The same without a copy: where the next bytes of such a chunk go (intake_at), which is told as they lie there. */
int intake_place(struct intake *intake, int64_t version, const char *name, uint64_t offset, size_t n_bytes,
                 struct err *err);
void *intake_at(const struct intake *intake, size_t *left); /* NULL: no chunk is open */
void intake_filled(struct intake *intake, size_t n_bytes);
/* xor_bytes of a tensor, packed as in delta.h. */
int intake_delta(struct intake *intake, int64_t version, const char *name, uint64_t offset, int64_t xor_bytes,
                 const void *packed, size_t packed_bytes, struct err *err);

/* XXH3-64 of the whole tensor's bytes as stated by the peer, after its last chunk.  NaN and infinity are refused. */
int intake_checksum(struct intake *intake, int64_t version, const char *name, uint64_t xxh3, struct err *err);
/* The same with SHA-256, for peers whose language brings no XXH3: slower, here about 0.3 GB/s. */
int intake_checksum_sha256(struct intake *intake, int64_t version, const char *name, const uint8_t digest[32],
                           struct err *err);

/* The same for a tensor that nobody states a sum of: it was read from a file. */
int intake_seal(struct intake *intake, int64_t version, const char *name, struct err *err);

/* On success *weights is the complete set, borrowed until a later `ready`; then intake_adopt keeps it, and
 * intake_abandon drops it after all.  After any error the version is still begun. */
int intake_commit(struct intake *intake, int64_t version, const struct weights **weights, struct err *err);
void intake_adopt(struct intake *intake);
void intake_abandon(struct intake *intake); /* the peer went away */

#endif
