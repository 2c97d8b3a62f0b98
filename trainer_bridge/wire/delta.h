/* delta.h - a piece of new weights as what differs from the old: exclusive or, two planes of bytes, zstd.
 *
 * Of an update by a small learning rate most numbers stay and most others move by one unit in the last place: the
 * plane of high bytes is nearly all zeros, and zstd sees the low bytes without them in between.  Pure.
 */
#ifndef TRAINER_BRIDGE_WIRE_DELTA_H
#define TRAINER_BRIDGE_WIRE_DELTA_H

#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

struct delta; /* contexts and scratch memory, reused from piece to piece */

struct delta *delta_open(void);
void delta_close(struct delta *delta); /* NULL is allowed */

/* new and base: [n_bytes], n_bytes even and at most DELTA_BYTES_MAX.  The piece is borrowed until the next call. */
const void *delta_pack(struct delta *delta, const uint8_t *new, const uint8_t *base, size_t n_bytes,
                       size_t *packed_bytes);

/* new [n_bytes] from base [n_bytes] and a piece; a piece that is damaged, or does not hold exactly n_bytes, is
 * ERR_INVALID or ERR_TOO_BIG and leaves new as it was. */
int delta_unpack(struct delta *delta, uint8_t *new, const uint8_t *base, size_t n_bytes, const void *packed,
                 size_t packed_bytes, struct err *err);

#endif
