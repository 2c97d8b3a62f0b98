/* noise.c - Philox4x32-10 and the Gumbel variate of 32 of its bits; about 30 ns per entry.
 *
 * 32 bits x give y = (x + 1/2) 2^-32 in (0, 1), E = -log(1 - y) exponential, and -log(E) Gumbel.
 * Large Gumbel values, which decide the draw, are small E, that is small y: there y keeps full
 * float precision and log1p is evaluated without cancellation (as log(u) y / (1 - u) with u = 1 - y
 * rounded: the error of rounding u divides out, Goldberg 1991, theorem 4).  The other half takes
 * 1 - y exactly from the complement of x.  So the values lie in [-log(33 log 2), 33 log 2].
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

#include "quant/exact_math.h"
#include "rollout/sampling/noise.h"

uint64_t noise_key(uint64_t run_seed, const char *prompt_id, int32_t epoch, int32_t sample)
{
	XXH3_state_t state;
	int32_t tail[2] = {epoch, sample};

	XXH3_INITSTATE(&state);
	XXH3_64bits_reset_withSeed(&state, run_seed);
	XXH3_64bits_update(&state, prompt_id, strlen(prompt_id));
	XXH3_64bits_update(&state, tail, sizeof tail);
	return XXH3_64bits_digest(&state);
}

void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
	uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
	uint32_t k0 = key[0], k1 = key[1];

	for (int round = 0; round < PHILOX_ROUNDS; round++) {
		uint64_t p0 = (uint64_t)PHILOX_M0 * c0, p1 = (uint64_t)PHILOX_M1 * c2;
		c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
		c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
		c1 = (uint32_t)p1;
		c3 = (uint32_t)p0;
		k0 += PHILOX_W0;
		k1 += PHILOX_W1;
	}
	out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void philox_blocks_of(struct philox_blocks *blocks, uint64_t key, int32_t position)
{
	for (uint32_t round = 0; round < PHILOX_ROUNDS; round++) {
		blocks->k0[round] = (uint32_t)key + round * PHILOX_W0;
		blocks->k1[round] = (uint32_t)(key >> 32) + round * PHILOX_W1;
	}
	/* The products of what does not depend on b, one a round. */
	uint64_t p0 = (uint64_t)PHILOX_M0 * (uint32_t)position;
	uint64_t p1 = (uint64_t)PHILOX_M1 * ((p0 >> 32) ^ blocks->k1[0]);
	uint64_t p2 = (uint64_t)PHILOX_M0 * ((p1 >> 32) ^ blocks->k0[1]);
	blocks->mix[0] = blocks->k0[0];
	blocks->mix[1] = (uint32_t)p0 ^ blocks->k1[1];
	blocks->mix[2] = (uint32_t)p1 ^ blocks->k0[2];
	blocks->mix[3] = (p2 >> 32) ^ blocks->k1[2];
	blocks->mix[4] = (uint32_t)p2;
}

/* (x + 1/2) 2^-32, correctly rounded for x < 2^24 and to nearest of x beyond. */
static float unit_of_bits(uint32_t x)
{
	return ((float)x + 0.5f) * 0x1p-32f;
}

float gumbel_of_bits(uint32_t bits)
{
	float exponential;

	if (bits < 0x80000000u) {
		float y = unit_of_bits(bits), u = 1.0f - y;
		exponential = u == 1.0f ? y : -exact_log(u) * (y / (1.0f - u));
	} else {
		exponential = -exact_log(unit_of_bits(~bits));
	}
	return -exact_log(exponential);
}

float noise_gumbel(uint64_t key, int32_t position, int32_t token)
{
	uint32_t words[PHILOX_WORDS];

	philox4x32(words, (uint32_t[4]){(uint32_t)position, (uint32_t)token / PHILOX_WORDS, 0, 0},
	           (uint32_t[2]){(uint32_t)key, (uint32_t)(key >> 32)});
	return gumbel_of_bits(words[(uint32_t)token % PHILOX_WORDS]);
}

enum { KIND_UNIFORM = 1, KIND_KEY };

static double unit_of_words(uint32_t high, uint32_t low)
{
	return ((double)(((uint64_t)high << 32 | low) >> 12) + 0.5) * 0x1p-52;
}

struct noise_pair noise_uniform(uint64_t key, int32_t position)
{
	uint32_t words[PHILOX_WORDS];

	philox4x32(words, (uint32_t[4]){(uint32_t)position, 0, 0, KIND_UNIFORM},
	           (uint32_t[2]){(uint32_t)key, (uint32_t)(key >> 32)});
	return (struct noise_pair){unit_of_words(words[0], words[1]), unit_of_words(words[2], words[3])};
}

uint64_t noise_stream(uint64_t key, uint32_t stream, int32_t a, int32_t b)
{
	uint32_t words[PHILOX_WORDS];

	philox4x32(words, (uint32_t[4]){(uint32_t)a, (uint32_t)b, stream, KIND_KEY},
	           (uint32_t[2]){(uint32_t)key, (uint32_t)(key >> 32)});
	return (uint64_t)words[1] << 32 | words[0];
}
