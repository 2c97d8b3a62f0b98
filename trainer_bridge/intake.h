/* intake.h - assembles one new version of the weights from chunks; pure, no I/O.
 *
 * begin -> chunk... -> commit.  A version is complete iff every tensor has all its bytes, every
 * XXH3-64 holds and the commit names it; otherwise what was there stays and the peer is told why.
 */
#ifndef TRAINER_BRIDGE_INTAKE_H
#define TRAINER_BRIDGE_INTAKE_H

#include "policy/weights.h"

struct intake;

/* Shapes are those of config. */
struct intake *intake_open(const struct model_config *config);
void intake_close(struct intake *intake);

/* version must be current + 1 or more. */
int intake_begin(struct intake *intake, int64_t version, int64_t current_version, struct err *err);
/* Bytes [offset, offset + n_bytes) of the BF16 tensor `name`. */
int intake_chunk(struct intake *intake, int64_t version, const char *name, uint64_t offset, const void *bytes,
                 size_t n_bytes, struct err *err);
/* XXH3-64 of the whole tensor's bytes as stated by the peer. */
int intake_checksum(struct intake *intake, int64_t version, const char *name, uint64_t xxh3, struct err *err);
/* On success *weights is the complete set, owned by the caller. */
int intake_commit(struct intake *intake, int64_t version, struct weights *weights, struct err *err);
void intake_abandon(struct intake *intake); /* the peer went away */

#endif
