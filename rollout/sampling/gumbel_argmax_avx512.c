/* gumbel_argmax_avx512.c - the draw, 64 entries at a time: about 0.3 ns per entry that needs bits.
 *
 * Two sieves on the random bits (gumbel_argmax.h): all of a group against what its chunk's peak would
 * need, unordered; and in some groups of a hundred, each against what its own logit needs.  Exact noise
 * only for what passes both: some tens of entries of a row.
 */
#include "rollout/sampling/gumbel_argmax.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#include <math.h>

#include "rollout/sampling/row_kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum {
	LANES32 = 16,
	LANES64 = 8, /* counters in a vector */
	CHAINS = 2,  /* vectors in flight: one alone would wait for its multiplications */
	VECTORS = CHAINS * PHILOX_WORDS / 2,
	ENTRIES = CHAINS * LANES64 * PHILOX_WORDS,
	XOR3 = 0x96, /* truth table */
	LOW_HALVES = 0x5555
};

/* Words of a vector of blocks, as 64-bit lanes whose low halves count. */
struct lanes {
	__m512i c0, c1, c2, c3;
};

INLINE __m512i xor3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi64(a, b, c, XOR3); }
INLINE __m512i all(uint64_t word) { return _mm512_set1_epi64((long long)word); }

/* philox_blocks in every lane: read as operands, as there are more of them than registers. */
struct blocks {
	__m512i mix[PHILOX_MIX], k0[PHILOX_ROUNDS], k1[PHILOX_ROUNDS];
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
	__m512i b = _mm512_add_epi64(_mm512_set1_epi64(block), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
	__m512i p = _mm512_mul_epu32(_mm512_xor_si512(b, blocks->mix[0]), all(PHILOX_M0));
	__m512i c2 = _mm512_xor_si512(_mm512_srli_epi64(p, 32), blocks->mix[1]);
	__m512i q = _mm512_mul_epu32(c2, all(PHILOX_M1));
	return (struct lanes){_mm512_xor_si512(_mm512_srli_epi64(q, 32), blocks->mix[2]), q,
	                      _mm512_xor_si512(p, blocks->mix[3]), blocks->mix[4]};
}

/* Words 0 to 3 of CHAINS * 8 blocks from `block`. */
INLINE void philox(struct lanes l[CHAINS], const struct blocks *blocks, uint32_t block)
{
	for (int c = 0; c < CHAINS; c++) l[c] = philox_start(blocks, block + (uint32_t)(c * LANES64));
	for (int round = PHILOX_SHARED; round < PHILOX_ROUNDS; round++) {
		for (int c = 0; c < CHAINS; c++) {
			__m512i p0 = _mm512_mul_epu32(l[c].c0, all(PHILOX_M0));
			__m512i p1 = _mm512_mul_epu32(l[c].c2, all(PHILOX_M1));
			l[c].c0 = xor3(_mm512_srli_epi64(p1, 32), l[c].c1, blocks->k0[round]);
			l[c].c2 = xor3(_mm512_shuffle_epi32(p0, _MM_PERM_DDBB), l[c].c3, blocks->k1[round]); /* high half to low */
			l[c].c1 = p1;
			l[c].c3 = p0;
		}
	}
}

/* The least word of each lane. */
INLINE __m512i least_words(const struct lanes l[CHAINS])
{
	__m512i least = _mm512_set1_epi32(-1);
	for (int c = 0; c < CHAINS; c++)
		least = _mm512_min_epu32(least, _mm512_min_epu32(_mm512_min_epu32(l[c].c0, l[c].c1),
		                                                 _mm512_min_epu32(l[c].c2, l[c].c3)));
	return least;
}

/* Words of 8 blocks to 32 entries in vocabulary order. */
INLINE void in_order(__m512i out[2], struct lanes l)
{
	__m512i words01 = _mm512_mask_shuffle_epi32(l.c0, 0xaaaa, l.c1, _MM_PERM_CCAA);
	__m512i words23 = _mm512_mask_shuffle_epi32(l.c2, 0xaaaa, l.c3, _MM_PERM_CCAA);
	out[0] = _mm512_permutex2var_epi64(words01, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), words23);
	out[1] = _mm512_permutex2var_epi64(words01, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), words23);
}

/* Offer what can win of ENTRIES entries from `first`, whose logits are given. */
static void offer_entries(const struct gumbel_row *row, struct gumbel_best *best, const struct lanes l[CHAINS],
                          const float *logits, int32_t first)
{
	const __m512 slope = _mm512_set1_ps(GUMBEL_SLOPE), offset = _mm512_set1_ps(gumbel_offset(best->score));
	__m512i words[VECTORS];

	for (int c = 0; c < CHAINS; c++) in_order(words + 2 * c, l[c]);
	for (int v = 0; v < VECTORS; v++) {
		__m512 x = _mm512_loadu_ps(logits + LANES32 * v);
		__m512 scaled = _mm512_mul_ps(_mm512_sub_ps(x, _mm512_set1_ps(row->max)), _mm512_set1_ps(row->inv_t));
		__m512i most = _mm512_cvtps_epi32(_mm512_fmadd_ps(scaled, slope, offset));
		__mmask16 passed = _mm512_cmp_ps_mask(x, _mm512_set1_ps(row->cut.logit), _CMP_GE_OQ);
		passed = _mm512_mask_cmple_epi32_mask(passed, _mm512_castps_si512(_mm512_cvtepu32_ps(words[v])), most);
		uint32_t word[LANES32];
		_mm512_storeu_si512(word, words[v]);
		for (uint32_t left = passed; left; left &= left - 1) {
			int lane = __builtin_ctz(left);
			int32_t i = LANES32 * v + lane, id = first + i;
			if (!cut_keeps(row->cut, logits[i], id)) continue;
			gumbel_offer(best, (logits[i] - row->max) * row->inv_t + gumbel_of_bits(word[lane]), id);
		}
	}
}

INLINE void draw_entries(const struct gumbel_row *row, const struct blocks *blocks,
                         struct gumbel_best *best, const float *logits, int32_t first, __m512i bits_max)
{
	struct lanes l[CHAINS];

	philox(l, blocks, (uint32_t)first / PHILOX_WORDS);
	if (_mm512_mask_cmple_epu32_mask(LOW_HALVES, least_words(l), bits_max))
		offer_entries(row, best, l, logits, first);
}

int32_t gumbel_argmax_avx512(const struct gumbel_row *row)
{
	struct gumbel_best best = {noise_gumbel(row->key, row->position, row->max_at), row->max_at};
	struct blocks blocks;

	blocks_of(&blocks, row->key, row->position);
	for (int32_t begin = 0; begin < row->n; begin += ROW_CHUNK) {
		float peak = row->peaks[begin / ROW_CHUNK];
		if (gumbel_passes_over(row, peak, best.score)) continue;
		__m512i bits_max = _mm512_set1_epi32((int)gumbel_bits_max((peak - row->max) * row->inv_t, best.score));
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
