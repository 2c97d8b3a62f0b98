/* sha256.h - SHA-256 (FIPS 180-4) and HMAC-SHA256 (RFC 2104): the handshake's proofs, and checksums of
 * peers that have no XXH3.  The plain definition, without any instruction-set variant. */
#ifndef TRAINER_BRIDGE_WIRE_SHA256_H
#define TRAINER_BRIDGE_WIRE_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_BLOCK_BYTES = 64 };

struct sha256 {
	uint32_t state[8];
	uint64_t n_bytes;
	uint8_t block[SHA256_BLOCK_BYTES]; /* the last n_bytes % 64 bytes */
};

void sha256_begin(struct sha256 *sha);
void sha256_add(struct sha256 *sha, const void *bytes, size_t n_bytes);
void sha256_end(struct sha256 *sha, uint8_t digest[SHA256_BYTES]);

struct hmac_sha256 {
	struct sha256 inner;
	uint8_t outer_key[SHA256_BLOCK_BYTES];
};

void hmac_sha256_begin(struct hmac_sha256 *hmac, const void *key, size_t key_bytes);
void hmac_sha256_add(struct hmac_sha256 *hmac, const void *bytes, size_t n_bytes);
void hmac_sha256_end(struct hmac_sha256 *hmac, uint8_t mac[SHA256_BYTES]);

#endif
