/* gumbel_argmax_avx2.c - the draw, 32 entries at a time: about 0.3 ns per entry that cannot win,
 * 1 ns per entry that needs bits.
 *
 * Three sieves, each an upper bound of an entry's score, and exact noise only for what passes all:
 *   1. kept, and within NOISE_GUMBEL_MAX of the best score so far (no random bits needed);
 *   2. with its random bits x: -log(E) <= -log(y), since E = -log(1 - y) >= y = (x + 1/2) 2^-32, and
 *      the exponent and mantissa of x as a float, read as one number, bound log2(x) from below;
 *   3. the score itself.
 * After the first few entries the best score is so high that about one entry in a hundred is exact.
 */
#include "rollout/gumbel_argmax.h"

#if defined(__AVX2__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "rollout/noise.h"

enum {
	LANES64 = 4,                      /* counters in a vector */
	CHAINS = 2,                       /* vectors in flight: one alone would wait for its multiplications */
	VECTORS = CHAINS * PHILOX_WORDS / 2,
	ENTRIES = CHAINS * LANES64 * PHILOX_WORDS,
};

struct round_keys {
	__m256i k0[PHILOX_ROUNDS], k1[PHILOX_ROUNDS];
};

static void round_keys_of(struct round_keys *keys, uint64_t key)
{
	uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

	for (int round = 0; round < PHILOX_ROUNDS; round++) {
		keys->k0[round] = _mm256_set1_epi64x(k0 + (uint32_t)round * PHILOX_W0);
		keys->k1[round] = _mm256_set1_epi64x(k1 + (uint32_t)round * PHILOX_W1);
	}
}

/* Random bits of ENTRIES entries in vocabulary order, from counter blocks [block, block + 8).  A
 * counter sits in the low half of a 64-bit lane; the high halves are junk that _mm256_mul_epu32
 * does not read. */
static inline void philox_blocks(__m256i out[VECTORS], uint32_t position, uint32_t block,
                                 const struct round_keys *keys)
{
	const __m256i m0 = _mm256_set1_epi64x(PHILOX_M0), m1 = _mm256_set1_epi64x(PHILOX_M1);
	__m256i c0[CHAINS], c1[CHAINS], c2[CHAINS], c3[CHAINS];

	for (int c = 0; c < CHAINS; c++) {
		c0[c] = _mm256_set1_epi64x(position);
		c1[c] = _mm256_add_epi64(_mm256_set1_epi64x(block + (uint32_t)(c * LANES64)),
		                         _mm256_setr_epi64x(0, 1, 2, 3));
		c2[c] = c3[c] = _mm256_setzero_si256();
	}
	for (int round = 0; round < PHILOX_ROUNDS; round++) {
		for (int c = 0; c < CHAINS; c++) {
			__m256i p0 = _mm256_mul_epu32(c0[c], m0), p1 = _mm256_mul_epu32(c2[c], m1);
			c0[c] = _mm256_xor_si256(_mm256_srli_epi64(p1, 32), _mm256_xor_si256(c1[c], keys->k0[round]));
			c2[c] = _mm256_xor_si256(_mm256_srli_epi64(p0, 32), _mm256_xor_si256(c3[c], keys->k1[round]));
			c1[c] = p1;
			c3[c] = p0;
		}
	}
	for (int c = 0; c < CHAINS; c++) {
		__m256i words01 = _mm256_blend_epi32(c0[c], _mm256_slli_epi64(c1[c], 32), 0xaa);
		__m256i words23 = _mm256_blend_epi32(c2[c], _mm256_slli_epi64(c3[c], 32), 0xaa);
		__m256i even = _mm256_unpacklo_epi64(words01, words23), odd = _mm256_unpackhi_epi64(words01, words23);
		out[2 * c] = _mm256_permute2x128_si256(even, odd, 0x20);
		out[2 * c + 1] = _mm256_permute2x128_si256(even, odd, 0x31);
	}
}

/* An upper bound of gumbel_of_bits.  x >> 1 fits a signed conversion and is no larger than x / 2. */
static inline __m256 gumbel_bound(__m256i x)
{
	const float ln2 = 0.69314718f, slack = 1e-3f; /* slack covers every rounding here and in the score */
	__m256i as_int = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_srli_epi32(x, 1)));
	__m256 log2_low = _mm256_mul_ps(_mm256_cvtepi32_ps(as_int), _mm256_set1_ps(0x1p-23f)); /* + 127 */
	return _mm256_sub_ps(_mm256_set1_ps(ln2 * (127 + 31) + slack),
	                     _mm256_mul_ps(log2_low, _mm256_set1_ps(ln2)));
}

/* Which of ENTRIES bounds reach the least; a NaN never does, nor could it win. */
static inline uint32_t sieve(const __m256 bound[VECTORS], __m256 least)
{
	uint32_t passed = 0;

	for (int v = 0; v < VECTORS; v++)
		passed |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(bound[v], least, _CMP_GE_OQ)) << (8 * v);
	return passed;
}

/* Offer what passes of entries [first, first + ENTRIES), whose logits are given. */
static inline void offer_entries(const struct gumbel_row *row, const struct round_keys *keys,
                                 struct gumbel_best *best, const float *logits, int32_t first)
{
	__m256 bound[VECTORS], scaled[VECTORS], least = _mm256_set1_ps(best->score);
	__m256i bits[VECTORS];

	for (int v = 0; v < VECTORS; v++) {
		__m256 above = _mm256_sub_ps(_mm256_loadu_ps(logits + 8 * v), _mm256_set1_ps(row->max));
		scaled[v] = _mm256_mul_ps(above, _mm256_set1_ps(row->inv_t));
		bound[v] = _mm256_add_ps(scaled[v], _mm256_set1_ps(NOISE_GUMBEL_MAX));
	}
	uint32_t passed = sieve(bound, least);
	for (int v = 0; v < VECTORS; v++) bound[v] = _mm256_loadu_ps(logits + 8 * v);
	passed &= sieve(bound, _mm256_set1_ps(row->cut.logit));
	if (!passed) return;

	philox_blocks(bits, (uint32_t)row->position, (uint32_t)first / PHILOX_WORDS, keys);
	for (int v = 0; v < VECTORS; v++) bound[v] = _mm256_add_ps(scaled[v], gumbel_bound(bits[v]));
	passed &= sieve(bound, least);
	if (!passed) return;

	uint32_t word[ENTRIES];
	memcpy(word, bits, sizeof word);
	for (; passed; passed &= passed - 1) {
		int i = __builtin_ctz(passed);
		if (!cut_keeps(row->cut, logits[i], first + i)) continue;
		gumbel_offer(best, (logits[i] - row->max) * row->inv_t + gumbel_of_bits(word[i]), first + i);
	}
}

int32_t gumbel_argmax_avx2(const struct gumbel_row *row)
{
	struct gumbel_best best = {noise_gumbel(row->key, row->position, row->max_at), row->max_at};
	int32_t full = row->n / ENTRIES * ENTRIES;
	struct round_keys keys;

	round_keys_of(&keys, row->key);
	for (int32_t i = 0; i < full; i += ENTRIES) offer_entries(row, &keys, &best, row->logits + i, i);
	if (full < row->n) {
		float tail[ENTRIES];
		for (int i = 0; i < ENTRIES; i++) tail[i] = full + i < row->n ? row->logits[full + i] : -INFINITY;
		offer_entries(row, &keys, &best, tail, full);
	}
	return best.token;
}
#endif
