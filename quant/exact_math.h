/* exact_math.h - scalar exp and log with a fixed sequence of FP32 operations.
 *
 * The same bits on every machine: only +, *, fma and integer operations on the
 * representation.  The vector kernels follow the same sequence lane by lane.
 * Filled in by quant/exact_math.c's tests: error bounds stated there as constants. */
#ifndef QUANT_EXACT_MATH_H
#define QUANT_EXACT_MATH_H

float exact_exp(float x); /* 0 below -87.3; +inf never: clamped above 88 */
float exact_log(float x); /* x > 0, normal */
float exact_silu(float x);

#endif
