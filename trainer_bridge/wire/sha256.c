/* sha256.c - FIPS 180-4 section 6.2 and RFC 2104, as written there.  Checked against their vectors in
 * tests/trainer_bridge/test_auth.c. */
#include "trainer_bridge/wire/sha256.h"

#include <string.h>

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t round_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void compress(uint32_t state[8], const uint8_t block[SHA256_BLOCK_BYTES])
{
	uint32_t w[64], s[8];

	for (int t = 0; t < 16; t++)
		w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
		       (uint32_t)block[4 * t + 2] << 8 | (uint32_t)block[4 * t + 3];
	for (int t = 16; t < 64; t++) {
		uint32_t s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3;
		uint32_t s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10;
		w[t] = w[t - 16] + s0 + w[t - 7] + s1;
	}
	memcpy(s, state, sizeof s);
	for (int t = 0; t < 64; t++) {
		uint32_t s1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
		uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
		uint32_t t1 = s[7] + s1 + choice + round_constants[t] + w[t];
		uint32_t s0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
		uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
		memmove(s + 1, s, 7 * sizeof *s);
		s[4] += t1;
		s[0] = t1 + s0 + majority;
	}
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

void sha256_begin(struct sha256 *sha)
{
	/* First 32 bits of the fractional parts of the square roots of the first 8 primes. */
	static const uint32_t initial[8] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};

	memcpy(sha->state, initial, sizeof initial);
	sha->n_bytes = 0;
}

void sha256_add(struct sha256 *sha, const void *bytes, size_t n_bytes)
{
	const uint8_t *from = bytes;

	while (n_bytes > 0) {
		size_t used = sha->n_bytes % SHA256_BLOCK_BYTES, n = SHA256_BLOCK_BYTES - used;
		if (n > n_bytes)
			n = n_bytes;
		memcpy(sha->block + used, from, n);
		sha->n_bytes += n;
		from += n;
		n_bytes -= n;
		if (sha->n_bytes % SHA256_BLOCK_BYTES == 0)
			compress(sha->state, sha->block);
	}
}

static void put_big_endian(uint8_t *out, uint64_t value, int n_bytes)
{
	for (int i = 0; i < n_bytes; i++)
		out[i] = (uint8_t)(value >> 8 * (n_bytes - 1 - i));
}

void sha256_end(struct sha256 *sha, uint8_t digest[SHA256_BYTES])
{
	static const uint8_t padding[SHA256_BLOCK_BYTES] = {0x80};
	size_t used = sha->n_bytes % SHA256_BLOCK_BYTES;
	uint8_t n_bits[8];

	put_big_endian(n_bits, sha->n_bytes * 8, 8);
	sha256_add(sha, padding, used < 56 ? 56 - used : 120 - used);
	sha256_add(sha, n_bits, sizeof n_bits);
	for (int i = 0; i < 8; i++)
		put_big_endian(digest + 4 * i, sha->state[i], 4);
}

void hmac_sha256_begin(struct hmac_sha256 *hmac, const void *key, size_t key_bytes)
{
	uint8_t block[SHA256_BLOCK_BYTES] = {0}, inner_key[SHA256_BLOCK_BYTES];

	if (key_bytes > sizeof block) {
		sha256_begin(&hmac->inner);
		sha256_add(&hmac->inner, key, key_bytes);
		sha256_end(&hmac->inner, block);
	} else {
		memcpy(block, key, key_bytes);
	}
	for (int i = 0; i < SHA256_BLOCK_BYTES; i++) {
		inner_key[i] = block[i] ^ 0x36;
		hmac->outer_key[i] = block[i] ^ 0x5c;
	}
	sha256_begin(&hmac->inner);
	sha256_add(&hmac->inner, inner_key, sizeof inner_key);
}

void hmac_sha256_add(struct hmac_sha256 *hmac, const void *bytes, size_t n_bytes)
{
	sha256_add(&hmac->inner, bytes, n_bytes);
}

void hmac_sha256_end(struct hmac_sha256 *hmac, uint8_t mac[SHA256_BYTES])
{
	uint8_t digest[SHA256_BYTES];

	sha256_end(&hmac->inner, digest);
	sha256_begin(&hmac->inner);
	sha256_add(&hmac->inner, hmac->outer_key, sizeof hmac->outer_key);
	sha256_add(&hmac->inner, digest, sizeof digest);
	sha256_end(&hmac->inner, mac);
}
