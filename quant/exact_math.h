/* exact_math.h - scalar exp, log and SiLU with a fixed sequence of FP32 operations.
 *
 * The same bits on every machine: only +, -, *, one division (SiLU) and integer operations on the
 * representation, each rounded once as IEEE 754 says.  No fused multiply-add, so that code compiled
 * for plain x86-64 inlines it without calling libm.  The vector kernels follow the same sequence
 * lane by lane.  Errors against the true functions are named constants in
 * tests/quant/test_exact_math.c (about 1 ulp each).
 *
 * Both are the usual argument reductions (Cody and Waite 1980) followed by a minimax polynomial:
 *     exp(x) = 2^n (1 + r + r^2 E(r)),             n = round(x / ln 2), r = x - n ln 2
 *     log(x) = n ln 2 + f - f^2/2 + f^3 L(f),      x = 2^n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
 */
#ifndef QUANT_EXACT_MATH_H
#define QUANT_EXACT_MATH_H

#include <stdint.h>
#include <string.h>

#define EXACT_EXP_MIN -87.3f          /* below: 0, so that no result is denormal */
#define EXACT_EXP_MAX 88.0f           /* above: clamped, so that no result is infinite */
#define EXACT_LOG2E 0x1.715476p+0f
#define EXACT_LN2_HI 0x1.62e4p-1f     /* 15 bits: its product with an exponent is exact */
#define EXACT_LN2_LO 0x1.7f7d1cp-20f
#define EXACT_ROUND 12582912.0f       /* 1.5 * 2^23: adding it rounds to an integer, ties to even */
#define EXACT_SQRT_HALF_BITS 0x3f3504f3

/* (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2 and (log(1+f) - f + f^2/2) / f^3, highest power first. */
#define EXACT_EXP_POLY(X, r) \
	X(0x1.6a2352p-10f, r) X(0x1.123a6cp-7f, r) X(0x1.5558f4p-5f, r) X(0x1.555490p-3f, r) X(0x1.fffffcp-2f, r)
#define EXACT_LOG_POLY(X, f) \
	X(0x1.14577ap-4f, f) X(-0x1.de3c04p-4f, f) X(0x1.e6f06ap-4f, f) X(-0x1.fc220ap-4f, f) \
	X(0x1.233768p-3f, f) X(-0x1.555c4ep-3f, f) X(0x1.99a4b6p-3f, f) X(-0x1.000006p-2f, f) X(0x1.555548p-2f, f)

static inline float float_from_bits(uint32_t u)
{
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}

static inline uint32_t float_bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof u);
	return u;
}

#define EXACT_HORNER(c, x) p = p * x + c;

/* 0 below EXACT_EXP_MIN; clamped above EXACT_EXP_MAX; NaN stays NaN. */
static inline float exact_exp(float x)
{
	float v = x > EXACT_EXP_MAX ? EXACT_EXP_MAX : x;
	float t = v * EXACT_LOG2E + EXACT_ROUND;
	float n = t - EXACT_ROUND;
	float r = v - n * EXACT_LN2_HI - n * EXACT_LN2_LO;
	float p = 0.0f;
	EXACT_EXP_POLY(EXACT_HORNER, r)
	p = p * (r * r) + r + 1.0f;
	p = p * float_from_bits((float_bits(t) << 23) + 0x3f800000u);
	return x < EXACT_EXP_MIN ? 0.0f : p;
}

/* x > 0, normal and finite. */
static inline float exact_log(float x)
{
	uint32_t bits = float_bits(x);
	int32_t n = (int32_t)(bits - EXACT_SQRT_HALF_BITS) >> 23;
	float f = float_from_bits(bits - ((uint32_t)n << 23)) - 1.0f;
	float e = (float)n;
	float z = f * f;
	float p = 0.0f;
	EXACT_LOG_POLY(EXACT_HORNER, f)
	p = p * (f * z) + e * EXACT_LN2_LO - 0.5f * z;
	return f + p + e * EXACT_LN2_HI;
}

#undef EXACT_HORNER

/* x / (1 + exp(-x)), for finite x. */
static inline float exact_silu(float x)
{
	float e = exact_exp(x < 0.0f ? x : -x);
	return (x < 0.0f ? x * e : x) / (1.0f + e);
}

#endif
