/* row_kernels.h - what sampling does to a whole row of logits: one table of functions per instruction
 * set.  The scalar table is the definition, and the others equal it bit for bit.
 *
 * Mass.  The weight of an entry is 2^((logit - max) * log2_scale), as a whole number of 2^-MASS_BITS,
 * rounded half to even.  Sums of whole numbers do not depend on order, so a sum over any part of a
 * row, by any number of lanes or threads, is exact.  What lies more than 41 binary orders (28 nat)
 * below the largest logit weighs nothing.
 *
 * Peaks.  The largest logit of every ROW_CHUNK entries, taken once per row; later passes skip the
 * chunks in which nothing can matter.
 *
 * Residual.  By how much an entry's probability in one row exceeds that in another, or 0, as a whole
 * number of 2^-RESIDUAL_BITS: sums are exact again.
 *
 * Legend:  n entries, C = row_chunks(n) chunks.
 */
#ifndef ROLLOUT_SAMPLING_ROW_KERNELS_H
#define ROLLOUT_SAMPLING_ROW_KERNELS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "rollout/sampling/gumbel_argmax.h"

enum {
	ROW_CHUNK = 256, /* entries that share a peak */
	ROW_PAD = 16,    /* entries that a kernel may write beyond those that it says it wrote */
	MASS_BITS = 40,
	RESIDUAL_BITS = 50
};

static inline int32_t row_chunks(int32_t n) { return (n + ROW_CHUNK - 1) / ROW_CHUNK; }

/* From logits to mass. */
struct row_scale {
	float max;        /* largest logit */
	float log2_scale; /* log2(e) / temperature; 0: every entry above -INFINITY weighs 1 */
};

/* A row as a distribution. */
struct row_shares {
	const float *logits; /* [n] */
	struct row_scale scale;
	struct ranked cut;   /* last entry that is kept */
	double of_mass;      /* 2^RESIDUAL_BITS / the mass of what is kept */
};

struct row_kernels {
	const char *name;

	/* peaks [C]: largest logit of each chunk.  Returns the largest of all, or NaN if a logit is NaN
	 * (the peaks are then unspecified). */
	float (*peaks)(float *peaks, const float *logits, int32_t n);

	/* Mass of x [n]; peaks [C] of x, or NULL. */
	uint64_t (*mass)(const float *x, const float *peaks, int32_t n, struct row_scale scale);

	/* Copy those of x [n] with low <= x < high to band [n + ROW_PAD], in order, and return how many;
	 * above: the mass of those with x >= high; total: the mass of all, or NULL.  band may not overlap
	 * x.  low > -INFINITY.  Without total, chunks with a peak below low are passed over. */
	int32_t (*split)(float *band, uint64_t *above, uint64_t *total, const float *x, const float *peaks,
	                 int32_t n, struct row_scale scale, float low, float high);

	/* sums [C]: the residual of p over q in each chunk; q NULL: all of p.  peaks [C] of p.  Returns the
	 * sum of sums. */
	uint64_t (*residual)(uint64_t *sums, const struct row_shares *p, const struct row_shares *q, const float *peaks,
	                     int32_t n);

	gumbel_argmax_fn *gumbel_argmax;
};

/* The table that suits kernels_best() of quant/. */
const struct row_kernels *row_kernels_best(void);

/* By name; NULL if not compiled in or not supported by this CPU. */
const struct row_kernels *row_kernels_named(const char *name);

/* ---- shared by the tables ---- */

#define MASS_ONE (UINT64_C(1) << MASS_BITS)
#define MASS_LOG2_MIN -41.0f    /* below: rounds to no mass */
#define MASS_LOG2_CLAMP -60.0f  /* keeps the exponent of what has no mass in range */
#define MASS_ROUND 12582912.0f  /* 1.5 * 2^23: adding it rounds to an integer, ties to even */
#define MASS_INTEGER 0x1p52     /* the same for a double; its low bits are then the integer */

/* 2^f * 2^MASS_BITS on |f| <= 1/2 with relative error below 1e-7 and exact at 0; highest power first. */
#define MASS_FIRST 0x1.5bd978p+30f
#define MASS_POLY(X, f) \
	X(0x1.3ce8b2p+33f, f) X(0x1.c6b6dap+35f, f) X(0x1.ebf9c2p+37f, f) \
	X(0x1.62e42ap+39f, f) X(0x1p+40f, f)

static inline uint64_t mass_bits_of(double d)
{
	uint64_t bits;
	memcpy(&bits, &d, sizeof bits);
	return bits;
}

#define MASS_HORNER(c, f) p = fmaf(p, f, c);

/* The definition of mass, one operation at a time; 0 for a NaN. */
static inline uint64_t mass_of(float logit, struct row_scale scale)
{
	float x = (logit - scale.max) * scale.log2_scale;
	float clamped = x > MASS_LOG2_CLAMP ? x : MASS_LOG2_CLAMP;
	float rounded = clamped + MASS_ROUND;
	float f = clamped - (rounded - MASS_ROUND);
	float p = MASS_FIRST;
	uint32_t bits, exponent;

	MASS_POLY(MASS_HORNER, f)
	memcpy(&bits, &p, sizeof bits);
	memcpy(&exponent, &rounded, sizeof exponent);
	bits += exponent << 23;
	memcpy(&p, &bits, sizeof p);
	return mass_bits_of((double)p + MASS_INTEGER) - mass_bits_of(MASS_INTEGER);
}

#undef MASS_HORNER

/* True if a chunk with this peak has no mass. */
static inline int mass_is_none(float peak, struct row_scale scale)
{
	return (peak - scale.max) * scale.log2_scale < MASS_LOG2_MIN;
}

/* True if no entry of a chunk with this peak has a share. */
static inline int shares_are_none(const struct row_shares *row, float peak)
{
	return !(peak >= row->cut.logit) || mass_is_none(peak, row->scale);
}

/* An entry's share, not yet rounded. */
static inline double share_of_entry(const struct row_shares *row, int32_t i)
{
	if (!cut_keeps(row->cut, row->logits[i], i)) return 0.0;
	return (double)mass_of(row->logits[i], row->scale) * row->of_mass;
}

/* The definition of residual. */
static inline uint64_t residual_of(const struct row_shares *p, const struct row_shares *q, int32_t i)
{
	double over = share_of_entry(p, i) - (q ? share_of_entry(q, i) : 0.0);

	return mass_bits_of((over > 0 ? over : 0.0) + MASS_INTEGER) - mass_bits_of(MASS_INTEGER);
}

extern const struct row_kernels row_kernels_scalar;
#if defined(__x86_64__)
extern const struct row_kernels row_kernels_avx2, row_kernels_avx512;
#endif

#endif
