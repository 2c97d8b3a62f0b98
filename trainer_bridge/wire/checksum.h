/* checksum.h - XXH3-64 (seed 0) with the widest vectors that the CPU has, whole or piece by piece. */
#ifndef TRAINER_BRIDGE_WIRE_CHECKSUM_H
#define TRAINER_BRIDGE_WIRE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t checksum(const void *bytes, size_t n_bytes);

struct checksum; /* of bytes that come in pieces */

struct checksum *checksum_open(void);
void checksum_close(struct checksum *sum); /* NULL is allowed */
void checksum_begin(struct checksum *sum); /* also anew */
void checksum_add(struct checksum *sum, const void *bytes, size_t n_bytes);
uint64_t checksum_end(const struct checksum *sum);

#endif
