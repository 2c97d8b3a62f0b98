/* row_kernels_avx2.c - passes over a row of logits, 8 entries at a time.
 *
 * The plan of row_kernels_avx512.c.  AVX2 does not turn floats to 64-bit integers: a double to which
 * 2^52 is added holds the integer in its low bits, and integer sums of such doubles, less what the
 * 2^52 add up to, are the sums of the integers.
 */
#include "rollout/sampling/row_kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES8 = 8, PEAK_CHAINS = 4, LANES4 = 4 };

INLINE int32_t chunk_length(int32_t n, int32_t begin)
{
	return n - begin < ROW_CHUNK ? n - begin : ROW_CHUNK;
}

/* The first `left` of 8 entries; the others are -INFINITY and are not read. */
INLINE __m256 load_some(const float *x, int32_t left)
{
	if (left >= LANES8) return _mm256_loadu_ps(x);
	__m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	__m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane);
	return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_maskload_ps(x, mask), _mm256_castsi256_ps(mask));
}

INLINE float largest8(__m256 v)
{
	__m128 by4 = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	__m128 by2 = _mm_max_ps(by4, _mm_movehl_ps(by4, by4));
	return _mm_cvtss_f32(_mm_max_ss(by2, _mm_movehdup_ps(by2)));
}

static float row_peaks(float *peaks, const float *logits, int32_t n)
{
	const __m256 none = _mm256_set1_ps(-INFINITY);
	__m256 nan = _mm256_setzero_ps();
	float max = -INFINITY;

	for (int32_t begin = 0; begin < n; begin += ROW_CHUNK) {
		int32_t length = chunk_length(n, begin), i = 0;
		const float *x = logits + begin;
		__m256 peak[PEAK_CHAINS] = {none, none, none, none};
		for (; i + PEAK_CHAINS * LANES8 <= length; i += PEAK_CHAINS * LANES8) {
			__m256 v[PEAK_CHAINS];
			for (int c = 0; c < PEAK_CHAINS; c++) {
				v[c] = _mm256_loadu_ps(x + i + c * LANES8);
				peak[c] = _mm256_max_ps(v[c], peak[c]);
			}
			nan = _mm256_or_ps(nan, _mm256_or_ps(_mm256_cmp_ps(v[0], v[1], _CMP_UNORD_Q),
			                                     _mm256_cmp_ps(v[2], v[3], _CMP_UNORD_Q)));
		}
		for (; i < length; i += LANES8) {
			__m256 v = load_some(x + i, length - i);
			nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
			peak[0] = _mm256_max_ps(v, peak[0]);
		}
		float most = largest8(_mm256_max_ps(_mm256_max_ps(peak[0], peak[1]), _mm256_max_ps(peak[2], peak[3])));
		peaks[begin / ROW_CHUNK] = most;
		max = most > max ? most : max;
	}
	return _mm256_movemask_ps(nan) ? NAN : max;
}

#define HORNER8(c, f) p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c));

/* mass_of of 8 entries as floats, before they are rounded to integers. */
INLINE __m256 mass8(__m256 x, struct row_scale scale)
{
	const __m256 round = _mm256_set1_ps(MASS_ROUND);
	__m256 scaled = _mm256_mul_ps(_mm256_sub_ps(x, _mm256_set1_ps(scale.max)), _mm256_set1_ps(scale.log2_scale));
	__m256 clamped = _mm256_max_ps(scaled, _mm256_set1_ps(MASS_LOG2_CLAMP)); /* of a NaN: the clamp */
	__m256 rounded = _mm256_add_ps(clamped, round);
	__m256 f = _mm256_sub_ps(clamped, _mm256_sub_ps(rounded, round));
	__m256 p = _mm256_set1_ps(MASS_FIRST);
	MASS_POLY(HORNER8, f)
	__m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(rounded), 23);
	return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}

#undef HORNER8

/* 8 masses as integers, each above the bits of MASS_INTEGER. */
struct mass8 {
	__m256i low, high;
};

INLINE struct mass8 integers8(__m256 mass)
{
	const __m256d integer = _mm256_set1_pd(MASS_INTEGER);
	__m256d low = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(mass)), integer);
	__m256d high = _mm256_add_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(mass, 1)), integer);
	return (struct mass8){_mm256_castpd_si256(low), _mm256_castpd_si256(high)};
}

/* A sum of such integers that still holds the bits of MASS_INTEGER n times. */
struct mass_sum {
	__m256i sum;
	uint64_t n;
};

INLINE void mass_add(struct mass_sum *to, struct mass8 m)
{
	to->sum = _mm256_add_epi64(to->sum, _mm256_add_epi64(m.low, m.high));
	to->n += LANES8;
}

/* Of those of the mask, which are n. */
INLINE void mass_add_some(struct mass_sum *to, struct mass8 m, __m256 mask, uint64_t n)
{
	__m256i low = _mm256_cvtepi32_epi64(_mm_castps_si128(_mm256_castps256_ps128(mask)));
	__m256i high = _mm256_cvtepi32_epi64(_mm_castps_si128(_mm256_extractf128_ps(mask, 1)));
	__m256i sum = _mm256_add_epi64(_mm256_and_si256(m.low, low), _mm256_and_si256(m.high, high));
	to->sum = _mm256_add_epi64(to->sum, sum);
	to->n += n;
}

static uint64_t mass_total(const struct mass_sum *of)
{
	uint64_t lane[LANES4];
	_mm256_storeu_si256((__m256i *)(void *)lane, of->sum);
	return lane[0] + lane[1] + lane[2] + lane[3] - of->n * mass_bits_of(MASS_INTEGER);
}

/* The mass of x [n], n <= ROW_CHUNK */
INLINE void chunk_add(struct mass_sum *sum, const float *x, int32_t n, struct row_scale scale)
{
	int32_t i = 0;
	for (; i + LANES8 <= n; i += LANES8) mass_add(sum, integers8(mass8(_mm256_loadu_ps(x + i), scale)));
	if (i < n) mass_add(sum, integers8(mass8(load_some(x + i, n - i), scale)));
}

static uint64_t row_mass(const float *x, const float *peaks, int32_t n, struct row_scale scale)
{
	struct mass_sum sum = {_mm256_setzero_si256(), 0};

	for (int32_t begin = 0; begin < n; begin += ROW_CHUNK)
		if (!peaks || !mass_is_none(peaks[begin / ROW_CHUNK], scale))
			chunk_add(&sum, x + begin, chunk_length(n, begin), scale);
	return mass_total(&sum);
}

/* The chosen of 4 entries to the front; returns how many.  Writes all 4. */
INLINE int32_t store_chosen(float *to, __m128 v, uint32_t chosen)
{
	static const int32_t front[16][4] = {
		{0, 0, 0, 0}, {0, 0, 0, 0}, {1, 0, 0, 0}, {0, 1, 0, 0}, {2, 0, 0, 0}, {0, 2, 0, 0}, {1, 2, 0, 0}, {0, 1, 2, 0},
		{3, 0, 0, 0}, {0, 3, 0, 0}, {1, 3, 0, 0}, {0, 1, 3, 0}, {2, 3, 0, 0}, {0, 2, 3, 0}, {1, 2, 3, 0}, {0, 1, 2, 3},
	};
	__m128i order = _mm_loadu_si128((const __m128i *)(const void *)front[chosen]);
	_mm_storeu_ps(to, _mm_permutevar_ps(v, order));
	return __builtin_popcount(chosen);
}

struct split_sums {
	struct mass_sum above, total;
};

/* One chunk of row_split; returns where the band then ends. */
INLINE float *split_chunk(float *band, struct split_sums *sums, bool with_total, const float *x, int32_t n,
                          struct row_scale scale, float low, float high)
{
	for (int32_t i = 0; i < n; i += LANES8) {
		__m256 v = load_some(x + i, n - i);
		__m256 from_high = _mm256_cmp_ps(v, _mm256_set1_ps(high), _CMP_GE_OQ);
		__m256 from_low = _mm256_cmp_ps(v, _mm256_set1_ps(low), _CMP_GE_OQ);
		uint32_t is_from_low = (uint32_t)_mm256_movemask_ps(from_low);
		uint32_t is_above = (uint32_t)_mm256_movemask_ps(from_high);
		if (!with_total && !is_from_low) continue;
		struct mass8 m = integers8(mass8(v, scale));
		if (with_total) mass_add(&sums->total, m);
		if (!is_from_low) continue; /* the one branch that is easy to foresee */
		uint32_t inside = is_from_low & ~is_above;
		band += store_chosen(band, _mm256_castps256_ps128(v), inside & 15);
		band += store_chosen(band, _mm256_extractf128_ps(v, 1), inside >> 4);
		mass_add_some(&sums->above, m, from_high, (uint64_t)__builtin_popcount(is_above));
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
			chunk_add(&sums->total, x + begin, length, scale);
	}
	return (int32_t)(end - band);
}

static int32_t row_split(float *band, uint64_t *above, uint64_t *total, const float *x, const float *peaks,
                         int32_t n, struct row_scale scale, float low, float high)
{
	struct split_sums sums = {{_mm256_setzero_si256(), 0}, {_mm256_setzero_si256(), 0}};
	int32_t n_band = total ? split_row(band, &sums, true, x, peaks, n, scale, low, high)
	                       : split_row(band, &sums, false, x, peaks, n, scale, low, high);

	*above = mass_total(&sums.above);
	if (total) *total = mass_total(&sums.total);
	return n_band;
}

/* Shares of 4 entries, from their masses as floats. */
INLINE __m256d shares4(__m128 mass, __m128 kept, double of_mass)
{
	const __m256d integer = _mm256_set1_pd(MASS_INTEGER);
	__m256d whole = _mm256_sub_pd(_mm256_add_pd(_mm256_cvtps_pd(mass), integer), integer);
	__m256i mask = _mm256_cvtepi32_epi64(_mm_castps_si128(kept));
	return _mm256_and_pd(_mm256_mul_pd(whole, _mm256_set1_pd(of_mass)), _mm256_castsi256_pd(mask));
}

struct shares8 {
	__m256d low, high;
};

/* Of entries i .. i + 7, of which `left` are there. */
INLINE struct shares8 shares8(const struct row_shares *row, int32_t i, int32_t left)
{
	__m256i id = _mm256_add_epi32(_mm256_set1_epi32(i), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
	__m256 x = load_some(row->logits + i, left), cut = _mm256_set1_ps(row->cut.logit), mass = mass8(x, row->scale);
	__m256 behind = _mm256_castsi256_ps(_mm256_cmpgt_epi32(id, _mm256_set1_epi32(row->cut.id)));
	__m256 kept = _mm256_andnot_ps(behind, _mm256_cmp_ps(x, cut, _CMP_EQ_OQ));
	kept = _mm256_or_ps(kept, _mm256_cmp_ps(x, cut, _CMP_GT_OQ));
	return (struct shares8){shares4(_mm256_castps256_ps128(mass), _mm256_castps256_ps128(kept), row->of_mass),
	                        shares4(_mm256_extractf128_ps(mass, 1), _mm256_extractf128_ps(kept, 1), row->of_mass)};
}

/* What is above 0 of p - q, as integers above the bits of MASS_INTEGER. */
INLINE __m256i over4(__m256d p, __m256d q)
{
	__m256d over = _mm256_max_pd(_mm256_sub_pd(p, q), _mm256_setzero_pd());
	return _mm256_castpd_si256(_mm256_add_pd(over, _mm256_set1_pd(MASS_INTEGER)));
}

static uint64_t row_residual(uint64_t *sums, const struct row_shares *p, const struct row_shares *q, const float *peaks,
                             int32_t n)
{
	uint64_t total = 0;

	for (int32_t begin = 0; begin < n; begin += ROW_CHUNK) {
		int32_t end = begin + chunk_length(n, begin);
		struct mass_sum sum = {_mm256_setzero_si256(), 0};
		bool none = shares_are_none(p, peaks[begin / ROW_CHUNK]);
		for (int32_t i = begin; i < end && !none; i += LANES8) {
			struct shares8 of_p = shares8(p, i, end - i), of_q = {_mm256_setzero_pd(), _mm256_setzero_pd()};
			if (q) of_q = shares8(q, i, end - i);
			mass_add(&sum, (struct mass8){over4(of_p.low, of_q.low), over4(of_p.high, of_q.high)});
		}
		total += sums[begin / ROW_CHUNK] = mass_total(&sum);
	}
	return total;
}

const struct row_kernels row_kernels_avx2 = {
	.name = "avx2",
	.peaks = row_peaks,
	.mass = row_mass,
	.split = row_split,
	.residual = row_residual,
	.gumbel_argmax = gumbel_argmax_avx2,
};
#endif
