/* noise.h - counter-based sampling noise: no generator state anywhere.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011),
 * key = a sample's 64-bit noise key, counter = (position, vocabulary index / 4, 0, 0); word
 * (vocabulary index % 4) of the block is the entry's.  Where one noise per position and entry is not
 * enough (verify_maximal.c), the last word of the counter tells the kinds apart: 1 for a position's
 * uniform numbers, 2 for keys made of a key.
 */
#ifndef ROLLOUT_SAMPLING_NOISE_H
#define ROLLOUT_SAMPLING_NOISE_H

#include <stdint.h>

/* The key of one sample: XXH3-64 over prompt id, epoch and sample, seeded with the run seed. */
uint64_t noise_key(uint64_t run_seed, const char *prompt_id, int32_t epoch, int32_t sample);

/* Ten rounds; known-answer tests from the Random123 distribution. */
void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* Standard Gumbel noise of 32 random bits. */
float gumbel_of_bits(uint32_t bits);

/* Standard Gumbel noise of one vocabulary entry at one position. */
float noise_gumbel(uint64_t key, int32_t position, int32_t token);

/* Two numbers of one position, uniform in (0, 1): the middles of 2^52 equal parts. */
struct noise_pair {
	double first, second;
};
struct noise_pair noise_uniform(uint64_t key, int32_t position);

/* A key of its own for every (key, stream, a, b). */
uint64_t noise_stream(uint64_t key, uint32_t stream, int32_t a, int32_t b);

/* Upper bound of noise_gumbel: entries whose logit lies further below the best need no noise. */
#define NOISE_GUMBEL_MAX 23.0f

/* The constants of Philox4x32, for its vector forms. */
enum { PHILOX_ROUNDS = 10, PHILOX_WORDS = 4 };
#define PHILOX_M0 0xd2511f53u
#define PHILOX_M1 0xcd9e8d57u
#define PHILOX_W0 0x9e3779b9u
#define PHILOX_W1 0xbb67ae85u

/* What blocks (position, b, 0, 0) of one key share: their first three rounds hold one product each
 * that depends on b.  With 32-bit words and full products p, q:
 *     p = M0 * (b ^ mix[0]),  q = M1 * (high(p) ^ mix[1]),
 *     words after three rounds: high(q) ^ mix[2], low(q), low(p) ^ mix[3], mix[4];
 * then rounds 3 to 9 with their keys. */
enum { PHILOX_SHARED = 3, PHILOX_MIX = 5 };
struct philox_blocks {
	uint64_t mix[PHILOX_MIX];
	uint64_t k0[PHILOX_ROUNDS], k1[PHILOX_ROUNDS]; /* 32 bits each, by round */
};

void philox_blocks_of(struct philox_blocks *blocks, uint64_t key, int32_t position);

#endif
