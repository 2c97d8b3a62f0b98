/* test_exact_math.c - exp, log and SiLU against libm in double precision, over a stride of all
 * floats in their range; and the vector sequence against the scalar one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quant/exact_math.h"
#include "quant/kernels.h"

/* Largest errors in units in the last place, as measured and rounded up. */
#define EXP_ULP_MAX 1.0
#define LOG_ULP_MAX 0.9
#define SILU_ULP_MAX 3.0

enum { STRIDE = 1999 }; /* between the floats that are tried */

static double ulps(float got, double want)
{
	int exponent;
	frexp(want, &exponent);
	return fabs((double)got - want) / ldexp(1.0, exponent - 24 < -149 ? -149 : exponent - 24);
}

static double largest(double a, double b) { return b > a ? b : a; }

static void exp_error(void **state)
{
	(void)state;
	double worst = 0.0;
	for (uint32_t bits = 0; float_from_bits(bits) <= EXACT_EXP_MAX; bits += STRIDE) {
		float x = float_from_bits(bits);
		worst = largest(worst, ulps(exact_exp(x), exp((double)x)));
		if (-x >= EXACT_EXP_MIN) worst = largest(worst, ulps(exact_exp(-x), exp(-(double)x)));
	}
	print_message("exp: %.3f ulp\n", worst);
	assert_true(worst <= EXP_ULP_MAX);
}

static void exp_edges(void **state)
{
	(void)state;
	assert_true(exact_exp(0.0f) == 1.0f);
	assert_true(exact_exp(-0.0f) == 1.0f);
	assert_true(exact_exp(EXACT_EXP_MIN) >= 0x1p-126f);
	assert_true(exact_exp(nextafterf(EXACT_EXP_MIN, -100.0f)) == 0.0f);
	assert_true(exact_exp(-INFINITY) == 0.0f);
	assert_true(isfinite(exact_exp(INFINITY)));
	assert_true(exact_exp(1e30f) == exact_exp(EXACT_EXP_MAX));
	assert_true(isnan(exact_exp(NAN)));
}

/* Softmax weights keep the order of their logits: checked on neighbouring floats around every place
 * where the reduction changes its exponent, and on a grid. */
static void exp_never_decreases(void **state)
{
	(void)state;
	for (int n = -125; n <= 126; n++) {
		float x = (float)(((double)n + 0.5) * 0.6931471805599453);
		for (int i = 0; i < 2000; i++) x = nextafterf(x, -100.0f);
		float last = exact_exp(x);
		for (int i = 0; i < 4000; i++) {
			x = nextafterf(x, 100.0f);
			float now = exact_exp(x);
			assert_true(now >= last);
			last = now;
		}
	}
	float last = 0.0f;
	for (float x = -88.0f; x < 89.0f; x += 0x1p-12f) {
		assert_true(exact_exp(x) >= last);
		last = exact_exp(x);
	}
}

static void log_error(void **state)
{
	(void)state;
	double worst = 0.0;
	for (uint32_t bits = 0x00800000u; bits < 0x7f800000u; bits += STRIDE)
		worst = largest(worst, ulps(exact_log(float_from_bits(bits)), log((double)float_from_bits(bits))));
	for (uint32_t bits = 0x3f7f0000u; bits < 0x3f810000u; bits++) /* every float near 1 */
		if (bits != 0x3f800000u)
			worst =
				largest(worst, ulps(exact_log(float_from_bits(bits)), log((double)float_from_bits(bits))));
	print_message("log: %.3f ulp\n", worst);
	assert_true(worst <= LOG_ULP_MAX);
	assert_true(exact_log(1.0f) == 0.0f);
}

/* Noise is two logarithms of a uniform number: order must survive where the reduction changes its
 * exponent. */
static void log_never_decreases(void **state)
{
	(void)state;
	for (int n = -126; n <= 127; n++) {
		uint32_t bits = EXACT_SQRT_HALF_BITS + ((uint32_t)n << 23);
		for (uint32_t b = bits - 2000; b < bits + 2000; b++) {
			if (float_from_bits(b) < 0x1p-126f || b >= 0x7f7fffffu) continue;
			assert_true(exact_log(float_from_bits(b + 1)) >= exact_log(float_from_bits(b)));
		}
	}
}

static void silu_error(void **state)
{
	(void)state;
	double worst = 0.0;
	for (uint32_t bits = 0x00800000u; bits < 0x7f000000u; bits += STRIDE) {
		for (int sign = -1; sign <= 1; sign += 2) {
			float x = (float)sign * float_from_bits(bits);
			if (x < EXACT_EXP_MIN) continue;
			worst = largest(worst, ulps(exact_silu(x), (double)x / (1.0 + exp(-(double)x))));
		}
	}
	print_message("silu: %.3f ulp\n", worst);
	assert_true(worst <= SILU_ULP_MAX);
	assert_true(exact_silu(0.0f) == 0.0f);
	assert_true(exact_silu(-1000.0f) == 0.0f);
	assert_true(exact_silu(1e30f) == 1e30f);
}

/* One value per call, so that each result is seen alone. */
static void vectors_follow_the_sequence(void **state)
{
	const struct kernels *kernels = kernels_named(*state);
	if (!kernels) {
		print_message("skipped: this CPU has no %s\n", (const char *)*state);
		skip();
	}
	enum { N = 16 };
	float ones[N], x[N], y[N];
	for (int i = 0; i < N; i++) ones[i] = 1.0f;
	for (uint64_t at = 0; at < 0x100000000u; at += (uint64_t)N * 7919) {
		for (int i = 0; i < N; i++) {
			uint32_t bits = (uint32_t)at + (uint32_t)i * 7919;
			x[i] = (bits & 0x7fffffffu) > 0x7f800000u ? -0.0f : float_from_bits(bits);
		}
		for (int i = 0; i < N; i++)
			assert_int_equal(float_bits(kernels->sum_exp(&x[i], 1, 0.0f, 1.0f)), float_bits(exact_exp(x[i])));
		for (int i = 0; i < N; i++)
			if (isinf(x[i])) x[i] = 1.0f;
		kernels->silu_mul(y, x, ones, N);
		for (int i = 0; i < N; i++) assert_int_equal(float_bits(y[i]), float_bits(exact_silu(x[i])));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exp_error),
		cmocka_unit_test(exp_edges),
		cmocka_unit_test(exp_never_decreases),
		cmocka_unit_test(log_error),
		cmocka_unit_test(log_never_decreases),
		cmocka_unit_test(silu_error),
		{"vectors_follow_the_sequence/avx2", vectors_follow_the_sequence, NULL, NULL,
	     (void *)(uintptr_t)"avx2"},
		{"vectors_follow_the_sequence/avx512", vectors_follow_the_sequence, NULL, NULL,
	     (void *)(uintptr_t)"avx512"},
	};
	return cmocka_run_group_tests_name("exact_math", tests, NULL, NULL);
}
