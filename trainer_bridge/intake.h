/* intake.h - assembles one new version of the weights from chunks; pure, no I/O.
 *
 * begin -> chunk... -> commit.  A version is complete iff every tensor has all its bytes, every
 * checksum holds and the commit names it; otherwise what was there stays and the peer is told why.
 */
#ifndef TRAINER_BRIDGE_INTAKE_H
#define TRAINER_BRIDGE_INTAKE_H

#include "policy/weights.h"

struct intake;

/* Shapes are those of config. */
struct intake *intake_open(const struct model_config *config);
void intake_close(struct intake *intake);

const struct weights *intake_layout(const struct intake *intake); /* borrowed; data is NULL */

/* version must be current + 1 or more. */
int intake_begin(struct intake *intake, int64_t version, int64_t current_version, struct err *err);
/* Bytes [offset, offset + n_bytes) of the BF16 tensor `name`, in ascending order without gaps. */
int intake_chunk(struct intake *intake, int64_t version, const char *name, uint64_t offset, const void *bytes,
                 size_t n_bytes, struct err *err);
/* XXH3-64 of the whole tensor's bytes as stated by the peer, after its last chunk. */
int intake_checksum(struct intake *intake, int64_t version, const char *name, uint64_t xxh3, struct err *err);
/* The same with SHA-256, for peers whose language brings no XXH3: slower, here about 0.3 GB/s. */
int intake_checksum_sha256(struct intake *intake, int64_t version, const char *name, const uint8_t digest[32],
                           struct err *err);
/* On success *weights is the complete set, owned by the caller, and the intake is free for the next
 * version.  After any error the version is still begun: intake_abandon drops it.  NaN and infinity are
 * refused. */
int intake_commit(struct intake *intake, int64_t version, struct weights *weights, struct err *err);
void intake_abandon(struct intake *intake); /* the peer went away */

#endif
