/* quantize_weights.h - inside quant only: the rules by which weights become codes, as constants that the
 * definition (quantize_scalar.c) and the vector versions (quantize_weights_lanes.h) share.
 *
 * A group is a run of weights w of one output; inputs beyond K are 0 and weigh nothing.  All arithmetic
 * is FP32, rounded once per operation, fma where it says so; sums are one chain over ascending inputs.
 * Scales and minimums are rounded to their type first, weights under them after.  RTN, round to nearest:
 *
 *     integers     scale = largest magnitude / 8, signed so that this weight becomes -8; its opposite clips at 7.
 *                  With low bits: the least scale that clips nothing, the largest on the negative side
 *     minimums     minimum = least weight, scale = (most - least) / 15
 *     mxfp4        2^(floor(log2(largest)) - 2): OCP MX v1.0, section 6.3; what lies above 6 becomes 6
 *     nvfp4        E4M3 nearest to largest / 6 / tensor_scale, at least its smallest: NVIDIA's recipe
 *
 * A group of magnitudes below Q8_TINY becomes zeros.  SEARCH starts there.  With x the weights in steps
 * of the RTN scale, h their importance (1 without) and v the integers of x * factor:
 *
 *     integers     the factor with the largest sum(h x v)^2 / sum(h v v), which is the squared error that
 *                  the best scale for these v removes; that scale, sum(h x v) / sum(h v v), is taken
 *     minimums     the same with a line, v -> slope v + intercept, by weighed least squares; the best
 *                  line's own integers are fitted once more
 *     mxfp4        the exponent, or the next, by squared error
 *     nvfp4        the E4M3 value and others that many codes away, by squared error: 4 or 5 away the
 *                  largest weight becomes 4, below which E2M1 is finer ("Four Over Six", 2025)
 *
 * A candidate must be better than those before it.  tests/quant/test_formats.c names the errors.
 */
#ifndef QUANT_QUANTIZE_WEIGHTS_H
#define QUANT_QUANTIZE_WEIGHTS_H

#include "quant/kernels.h"

enum {
	GROUP_MAX = 128,
	N_INT4_FACTORS = 4,
	N_LOW_FACTORS = 2, /* formats with low bits */
	N_MIN_FACTORS = 4,
	N_E8M0_CANDIDATES = 2,
	N_E4M3_CANDIDATES = 4,
	E4M3_LARGEST = 0x7e, /* 448 */
	MIN_LEVELS = 15,
	E2M1_TOP = 12 /* doubled */
};

static const float int4_factors[N_INT4_FACTORS] = {1.0f, 8.6f / 8, 7.4f / 8, 9.2f / 8};
static const float low_factors[N_LOW_FACTORS] = {1.0f, 1.04f};
static const float min_factors[N_MIN_FACTORS] = {1.0f, 15.8f / 15, 14.4f / 15, 16.8f / 15};
static const int e4m3_candidates[N_E4M3_CANDIDATES] = {0, 5, -1, 4};

/* A line is fitted only where the codes vary: their squared deviation must exceed this part of their
 * squares, or rounding would decide. */
#define LINE_VARIES 0x1p-12f

/* Integers: scale = max(largest * first, opposite * second). */
struct int_reach {
	float largest, opposite;
};

static inline struct int_reach int_reach_of(int low_bits, int zero)
{
	if (low_bits == 0) return (struct int_reach){1.0f / 8, 0.0f};
	float unit = (float)(1 << low_bits), most = 16.0f * unit - 1.0f - (float)zero;
	return (struct int_reach){unit / (float)zero, unit / most};
}

#endif
