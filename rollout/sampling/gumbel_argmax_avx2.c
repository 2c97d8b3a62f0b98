/* gumbel_argmax_avx2.c - the draw, 32 entries at a time: the plan of gumbel_argmax_avx512.c. */
#include "rollout/sampling/gumbel_argmax.h"

#if defined(__AVX2__)
#include <immintrin.h>
#include <math.h>

#include "rollout/sampling/row_kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum {
	LANES32 = 8,
	LANES64 = 4, /* counters in a vector */
	CHAINS = 2,  /* vectors in flight: one alone would wait for its multiplications */
	VECTORS = CHAINS * PHILOX_WORDS / 2,
	ENTRIES = CHAINS * LANES64 * PHILOX_WORDS,
	LOW_HALVES = 0x55
};

/* Words of a vector of blocks, as 64-bit lanes whose low halves count. */
struct lanes {
	__m256i c0, c1, c2, c3;
};

INLINE __m256i xor3(__m256i a, __m256i b, __m256i c) { return _mm256_xor_si256(a, _mm256_xor_si256(b, c)); }
INLINE __m256i all(uint64_t word) { return _mm256_set1_epi64x((long long)word); }

/* philox_blocks in every lane: read as operands, as there are more of them than registers. */
struct blocks {
	__m256i mix[PHILOX_MIX], k0[PHILOX_ROUNDS], k1[PHILOX_ROUNDS];
};

static void blocks_of(struct blocks *blocks, uint64_t key, int32_t position)
{
	struct philox_blocks b;

	philox_blocks_of(&b, key, position);
	for (int i = 0; i < PHILOX_MIX; i++) blocks->mix[i] = all(b.mix[i]);
	for (int i = 0; i < PHILOX_ROUNDS; i++) blocks->k0[i] = all(b.k0[i]), blocks->k1[i] = all(b.k1[i]);
}

INLINE struct lanes philox_start(const struct blocks *blocks, uint32_t block)
{
	__m256i b = _mm256_add_epi64(_mm256_set1_epi64x(block), _mm256_setr_epi64x(0, 1, 2, 3));
	__m256i p = _mm256_mul_epu32(_mm256_xor_si256(b, blocks->mix[0]), all(PHILOX_M0));
	__m256i c2 = _mm256_xor_si256(_mm256_srli_epi64(p, 32), blocks->mix[1]);
	__m256i q = _mm256_mul_epu32(c2, all(PHILOX_M1));
	return (struct lanes){_mm256_xor_si256(_mm256_srli_epi64(q, 32), blocks->mix[2]), q,
	                      _mm256_xor_si256(p, blocks->mix[3]), blocks->mix[4]};
}

/* Words 0 to 3 of CHAINS * 4 blocks from `block`. */
INLINE void philox(struct lanes l[CHAINS], const struct blocks *blocks, uint32_t block)
{
	for (int c = 0; c < CHAINS; c++) l[c] = philox_start(blocks, block + (uint32_t)(c * LANES64));
	for (int round = PHILOX_SHARED; round < PHILOX_ROUNDS; round++) {
		for (int c = 0; c < CHAINS; c++) {
			__m256i p0 = _mm256_mul_epu32(l[c].c0, all(PHILOX_M0));
			__m256i p1 = _mm256_mul_epu32(l[c].c2, all(PHILOX_M1));
			l[c].c0 = xor3(_mm256_srli_epi64(p1, 32), l[c].c1, blocks->k0[round]);
			l[c].c2 = xor3(_mm256_shuffle_epi32(p0, 0xf5), l[c].c3, blocks->k1[round]); /* high half to low */
			l[c].c1 = p1;
			l[c].c3 = p0;
		}
	}
}

/* The least word of each lane. */
INLINE __m256i least_words(const struct lanes l[CHAINS])
{
	__m256i least = _mm256_set1_epi32(-1);
	for (int c = 0; c < CHAINS; c++)
		least = _mm256_min_epu32(least, _mm256_min_epu32(_mm256_min_epu32(l[c].c0, l[c].c1),
		                                                 _mm256_min_epu32(l[c].c2, l[c].c3)));
	return least;
}

/* True if a low half is at most bits_max. */
INLINE bool any_at_most(__m256i words, __m256i bits_max)
{
	__m256i at_most = _mm256_cmpeq_epi32(_mm256_min_epu32(words, bits_max), words);
	return _mm256_movemask_ps(_mm256_castsi256_ps(at_most)) & LOW_HALVES;
}

/* Words of 4 blocks to 16 entries in vocabulary order. */
INLINE void in_order(__m256i out[2], struct lanes l)
{
	__m256i words01 = _mm256_blend_epi32(l.c0, _mm256_slli_epi64(l.c1, 32), 0xaa);
	__m256i words23 = _mm256_blend_epi32(l.c2, _mm256_slli_epi64(l.c3, 32), 0xaa);
	__m256i even = _mm256_unpacklo_epi64(words01, words23), odd = _mm256_unpackhi_epi64(words01, words23);
	out[0] = _mm256_permute2x128_si256(even, odd, 0x20);
	out[1] = _mm256_permute2x128_si256(even, odd, 0x31);
}

/* Offer what can win of ENTRIES entries from `first`, whose logits are given. */
static void offer_entries(const struct gumbel_row *row, struct gumbel_best *best, const struct lanes l[CHAINS],
                          const float *logits, int32_t first)
{
	/* half of each word, which a signed conversion takes, against half of what it may be */
	const __m256 slope = _mm256_set1_ps(GUMBEL_SLOPE), offset = _mm256_set1_ps(gumbel_offset(best->score) - 0x1p23f);
	__m256i words[VECTORS];

	for (int c = 0; c < CHAINS; c++) in_order(words + 2 * c, l[c]);
	for (int v = 0; v < VECTORS; v++) {
		__m256 x = _mm256_loadu_ps(logits + LANES32 * v);
		__m256 scaled = _mm256_mul_ps(_mm256_sub_ps(x, _mm256_set1_ps(row->max)), _mm256_set1_ps(row->inv_t));
		__m256i most = _mm256_cvtps_epi32(_mm256_fmadd_ps(scaled, slope, offset));
		__m256i half = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_srli_epi32(words[v], 1)));
		__m256 cut = _mm256_cmp_ps(x, _mm256_set1_ps(row->cut.logit), _CMP_GE_OQ);
		__m256 passed = _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(half, most)), cut);
		uint32_t word[LANES32];
		_mm256_storeu_si256((__m256i *)(void *)word, words[v]);
		for (uint32_t left = (uint32_t)_mm256_movemask_ps(passed); left; left &= left - 1) {
			int lane = __builtin_ctz(left);
			int32_t i = LANES32 * v + lane, id = first + i;
			if (!cut_keeps(row->cut, logits[i], id)) continue;
			gumbel_offer(best, (logits[i] - row->max) * row->inv_t + gumbel_of_bits(word[lane]), id);
		}
	}
}

INLINE void draw_entries(const struct gumbel_row *row, const struct blocks *blocks,
                         struct gumbel_best *best, const float *logits, int32_t first, __m256i bits_max)
{
	struct lanes l[CHAINS];

	philox(l, blocks, (uint32_t)first / PHILOX_WORDS);
	if (any_at_most(least_words(l), bits_max)) offer_entries(row, best, l, logits, first);
}

int32_t gumbel_argmax_avx2(const struct gumbel_row *row)
{
	struct gumbel_best best = {noise_gumbel(row->key, row->position, row->max_at), row->max_at};
	struct blocks blocks;

	blocks_of(&blocks, row->key, row->position);
	for (int32_t begin = 0; begin < row->n; begin += ROW_CHUNK) {
		float peak = row->peaks[begin / ROW_CHUNK];
		if (gumbel_passes_over(row, peak, best.score)) continue;
		__m256i bits_max = _mm256_set1_epi32((int)gumbel_bits_max((peak - row->max) * row->inv_t, best.score));
		int32_t end = row->n - begin < ROW_CHUNK ? row->n : begin + ROW_CHUNK, i = begin;
		for (; i + ENTRIES <= end; i += ENTRIES)
			draw_entries(row, &blocks, &best, row->logits + i, i, bits_max);
		if (i == end) continue;
		float tail[ENTRIES];
		for (int t = 0; t < ENTRIES; t++) tail[t] = i + t < end ? row->logits[i + t] : -INFINITY;
		draw_entries(row, &blocks, &best, tail, i, bits_max);
	}
	return best.token;
}
#endif
