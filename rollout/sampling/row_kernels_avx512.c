/* row_kernels_avx512.c - passes over a row of logits, 16 entries at a time.
 *
 * Per 16 entries: 2 operations for the peaks; 20 for mass, of which 8 turn floats to 64-bit integers.
 * Tails are loaded as what leaves a result as it was.
 */
#include "rollout/sampling/row_kernels.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES16 = 16, PEAK_CHAINS = 4, PREFETCH_BYTES = 4096 };

/* The first `left` of 16 entries; the others are -INFINITY and are not read. */
INLINE __m512 load_some(const float *x, int32_t left)
{
	if (left >= LANES16) return _mm512_loadu_ps(x);
	return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), (__mmask16)((1u << left) - 1), x);
}

INLINE int32_t chunk_length(int32_t n, int32_t begin)
{
	return n - begin < ROW_CHUNK ? n - begin : ROW_CHUNK;
}

/* Fetch what lies some way ahead; past the end of a row is harmless. */
INLINE void prefetch(const float *x)
{
	_mm_prefetch((const char *)((uintptr_t)x + PREFETCH_BYTES), _MM_HINT_T0);
}

static float row_peaks(float *peaks, const float *logits, int32_t n)
{
	const __m512 none = _mm512_set1_ps(-INFINITY);
	__mmask16 nan = 0;
	float max = -INFINITY;

	for (int32_t begin = 0; begin < n; begin += ROW_CHUNK) {
		int32_t length = chunk_length(n, begin), i = 0;
		const float *x = logits + begin;
		__m512 peak[PEAK_CHAINS] = {none, none, none, none};
		for (; i + PEAK_CHAINS * LANES16 <= length; i += PEAK_CHAINS * LANES16) {
			__m512 v[PEAK_CHAINS];
			for (int c = 0; c < PEAK_CHAINS; c++) {
				v[c] = _mm512_loadu_ps(x + i + c * LANES16);
				prefetch(x + i + c * LANES16);
				peak[c] = _mm512_max_ps(v[c], peak[c]);
			}
			nan |= _mm512_cmp_ps_mask(v[0], v[1], _CMP_UNORD_Q);
			nan |= _mm512_cmp_ps_mask(v[2], v[3], _CMP_UNORD_Q);
		}
		for (; i < length; i += LANES16) {
			__m512 v = load_some(x + i, length - i);
			nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
			peak[0] = _mm512_max_ps(v, peak[0]);
		}
		peak[0] = _mm512_max_ps(_mm512_max_ps(peak[0], peak[1]), _mm512_max_ps(peak[2], peak[3]));
		float most = _mm512_reduce_max_ps(peak[0]);
		peaks[begin / ROW_CHUNK] = most;
		max = most > max ? most : max;
	}
	return nan ? NAN : max;
}

#define HORNER16(c, f) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));

/* mass_of of 16 entries as floats, before they are rounded to integers. */
INLINE __m512 mass16(__m512 x, struct row_scale scale)
{
	const __m512 round = _mm512_set1_ps(MASS_ROUND);
	__m512 scaled = _mm512_mul_ps(_mm512_sub_ps(x, _mm512_set1_ps(scale.max)), _mm512_set1_ps(scale.log2_scale));
	__m512 clamped = _mm512_max_ps(scaled, _mm512_set1_ps(MASS_LOG2_CLAMP)); /* of a NaN: the clamp */
	__m512 rounded = _mm512_add_ps(clamped, round);
	__m512 f = _mm512_sub_ps(clamped, _mm512_sub_ps(rounded, round));
	__m512 p = _mm512_set1_ps(MASS_FIRST);
	MASS_POLY(HORNER16, f)
	__m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(rounded), 23);
	return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent));
}

#undef HORNER16

/* 16 masses as integers. */
struct mass16 {
	__m512i low, high;
};

INLINE struct mass16 integers16(__m512 mass)
{
	return (struct mass16){_mm512_cvtps_epi64(_mm512_castps512_ps256(mass)),
	                       _mm512_cvtps_epi64(_mm512_extractf32x8_ps(mass, 1))};
}

INLINE __m512i mass_added(__m512i sum, struct mass16 m)
{
	return _mm512_add_epi64(sum, _mm512_add_epi64(m.low, m.high));
}

/* sum + the mass of x [n], n <= ROW_CHUNK */
INLINE __m512i chunk_added(__m512i sum, const float *x, int32_t n, struct row_scale scale)
{
	int32_t i = 0;
	for (; i + LANES16 <= n; i += LANES16) sum = mass_added(sum, integers16(mass16(_mm512_loadu_ps(x + i), scale)));
	return i < n ? mass_added(sum, integers16(mass16(load_some(x + i, n - i), scale))) : sum;
}

static uint64_t row_mass(const float *x, const float *peaks, int32_t n, struct row_scale scale)
{
	__m512i sum = _mm512_setzero_si512();

	for (int32_t begin = 0; begin < n; begin += ROW_CHUNK)
		if (!peaks || !mass_is_none(peaks[begin / ROW_CHUNK], scale))
			sum = chunk_added(sum, x + begin, chunk_length(n, begin), scale);
	return (uint64_t)_mm512_reduce_add_epi64(sum);
}

struct split_sums {
	__m512i above, total;
};

/* One chunk of row_split; returns where the band then ends. */
INLINE float *split_chunk(float *band, struct split_sums *sums, bool with_total, const float *x, int32_t n,
                          struct row_scale scale, float low, float high)
{
	for (int32_t i = 0; i < n; i += LANES16) {
		__m512 v = load_some(x + i, n - i);
		__mmask16 from_low = _mm512_cmp_ps_mask(v, _mm512_set1_ps(low), _CMP_GE_OQ);
		__mmask16 from_high = _mm512_cmp_ps_mask(v, _mm512_set1_ps(high), _CMP_GE_OQ);
		if (!with_total && !from_low) continue;
		struct mass16 m = integers16(mass16(v, scale));
		if (with_total) sums->total = mass_added(sums->total, m);
		if (!from_low) continue; /* the one branch that is easy to foresee */
		__mmask16 inside = (__mmask16)(from_low & ~from_high);
		_mm512_storeu_ps(band, _mm512_maskz_compress_ps(inside, v));
		band += __builtin_popcount(inside);
		sums->above = _mm512_mask_add_epi64(sums->above, (__mmask8)from_high, sums->above, m.low);
		sums->above = _mm512_mask_add_epi64(sums->above, (__mmask8)(from_high >> 8), sums->above, m.high);
	}
	return band;
}

INLINE int32_t split_row(float *band, struct split_sums *sums, bool with_total, const float *x,
                         const float *peaks, int32_t n, struct row_scale scale, float low, float high)
{
	float *end = band;

	for (int32_t begin = 0; begin < n; begin += ROW_CHUNK) {
		int32_t length = chunk_length(n, begin);
		if (!peaks || peaks[begin / ROW_CHUNK] >= low)
			end = split_chunk(end, sums, with_total, x + begin, length, scale, low, high);
		else if (with_total && !mass_is_none(peaks[begin / ROW_CHUNK], scale))
			sums->total = chunk_added(sums->total, x + begin, length, scale);
	}
	return (int32_t)(end - band);
}

static int32_t row_split(float *band, uint64_t *above, uint64_t *total, const float *x, const float *peaks,
                         int32_t n, struct row_scale scale, float low, float high)
{
	struct split_sums sums = {_mm512_setzero_si512(), _mm512_setzero_si512()};
	int32_t n_band = total ? split_row(band, &sums, true, x, peaks, n, scale, low, high)
	                       : split_row(band, &sums, false, x, peaks, n, scale, low, high);

	*above = (uint64_t)_mm512_reduce_add_epi64(sums.above);
	if (total) *total = (uint64_t)_mm512_reduce_add_epi64(sums.total);
	return n_band;
}

/* Shares of 8 entries, from their masses as floats. */
INLINE __m512d shares8(__m256 mass, __mmask8 kept, double of_mass)
{
	const __m512d integer = _mm512_set1_pd(MASS_INTEGER);
	__m512d whole = _mm512_sub_pd(_mm512_add_pd(_mm512_cvtps_pd(mass), integer), integer);
	return _mm512_maskz_mul_pd(kept, whole, _mm512_set1_pd(of_mass));
}

struct shares16 {
	__m512d low, high;
};

/* Of entries i .. i + 15, of which `left` are there. */
INLINE struct shares16 shares16(const struct row_shares *row, int32_t i, int32_t left)
{
	const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	__m512i id = _mm512_add_epi32(_mm512_set1_epi32(i), lane);
	__m512 x = load_some(row->logits + i, left), cut = _mm512_set1_ps(row->cut.logit), mass = mass16(x, row->scale);
	__mmask16 equal = _mm512_cmp_ps_mask(x, cut, _CMP_EQ_OQ);
	__mmask16 kept = _mm512_mask_cmple_epi32_mask(equal, id, _mm512_set1_epi32(row->cut.id));
	kept |= _mm512_cmp_ps_mask(x, cut, _CMP_GT_OQ);
	return (struct shares16){shares8(_mm512_castps512_ps256(mass), (__mmask8)kept, row->of_mass),
	                         shares8(_mm512_extractf32x8_ps(mass, 1), (__mmask8)(kept >> 8), row->of_mass)};
}

/* What is above 0 of p - q, as integers. */
INLINE __m512i over8(__m512d p, __m512d q)
{
	return _mm512_cvtpd_epi64(_mm512_max_pd(_mm512_sub_pd(p, q), _mm512_setzero_pd()));
}

static uint64_t row_residual(uint64_t *sums, const struct row_shares *p, const struct row_shares *q, const float *peaks,
                             int32_t n)
{
	uint64_t total = 0;

	for (int32_t begin = 0; begin < n; begin += ROW_CHUNK) {
		int32_t end = begin + chunk_length(n, begin);
		__m512i sum = _mm512_setzero_si512();
		bool none = shares_are_none(p, peaks[begin / ROW_CHUNK]);
		for (int32_t i = begin; i < end && !none; i += LANES16) {
			struct shares16 of_p = shares16(p, i, end - i), of_q = {_mm512_setzero_pd(), _mm512_setzero_pd()};
			if (q) of_q = shares16(q, i, end - i);
			sum = _mm512_add_epi64(sum, _mm512_add_epi64(over8(of_p.low, of_q.low), over8(of_p.high, of_q.high)));
		}
		total += sums[begin / ROW_CHUNK] = (uint64_t)_mm512_reduce_add_epi64(sum);
	}
	return total;
}

const struct row_kernels row_kernels_avx512 = {
	.name = "avx512",
	.peaks = row_peaks,
	.mass = row_mass,
	.split = row_split,
	.residual = row_residual,
	.gumbel_argmax = gumbel_argmax_avx512,
};
#endif
