/* test_noise.c - Philox against Random123's known answers; Gumbel noise against libm in double
 * precision and, at 5 sigma with fixed keys, against its distribution. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rollout/sampling/noise.h"

/* Largest error of gumbel_of_bits against double: 2 ulp of the value or of 1 near its zero. */
#define GUMBEL_ERROR_MAX 3e-7
#define EULER_GAMMA 0.57721566490153286
#define PI 3.14159265358979324

enum { N_DRAWS = 400000 };

/* kat_vectors of the Random123 distribution, philox4x32 with 10 rounds. */
static void philox_known_answers(void **state)
{
	(void)state;
	static const struct {
		uint32_t counter[4], key[2], out[4];
	} known[] = {
		{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
		 {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		uint32_t out[4];
		philox4x32(out, known[i].counter, known[i].key);
		assert_memory_equal(out, known[i].out, sizeof out);
	}
}

/* The rounds that blocks of one key share, as the vector forms finish them. */
static void philox_shared_rounds(void **state)
{
	(void)state;
	for (uint32_t b = 0; b < 50000; b += b / 7 + 1) {
		uint64_t key = 0x9876543210fedcbau * (b + 1);
		uint32_t expected[4], c[4];
		struct philox_blocks blocks;
		philox4x32(expected, (uint32_t[4]){77 * b, b, 0, 0}, (uint32_t[2]){(uint32_t)key, (uint32_t)(key >> 32)});
		philox_blocks_of(&blocks, key, (int32_t)(77 * b));
		uint64_t p = (uint64_t)PHILOX_M0 * (b ^ (uint32_t)blocks.mix[0]);
		uint64_t q = (uint64_t)PHILOX_M1 * (uint32_t)((p >> 32) ^ blocks.mix[1]);
		c[0] = (uint32_t)((q >> 32) ^ blocks.mix[2]), c[1] = (uint32_t)q;
		c[2] = (uint32_t)(p ^ blocks.mix[3]), c[3] = (uint32_t)blocks.mix[4];
		for (int round = PHILOX_SHARED; round < PHILOX_ROUNDS; round++) {
			uint64_t p0 = (uint64_t)PHILOX_M0 * c[0], p1 = (uint64_t)PHILOX_M1 * c[2];
			c[0] = (uint32_t)((p1 >> 32) ^ c[1] ^ blocks.k0[round]), c[1] = (uint32_t)p1;
			c[2] = (uint32_t)((p0 >> 32) ^ c[3] ^ blocks.k1[round]), c[3] = (uint32_t)p0;
		}
		assert_memory_equal(c, expected, sizeof c);
	}
}

static double gumbel_double(uint32_t bits)
{
	return -log(-log1p(-((double)bits + 0.5) * 0x1p-32));
}

static void assert_gumbel(uint32_t bits)
{
	double expected = gumbel_double(bits), found = (double)gumbel_of_bits(bits);
	double bound = GUMBEL_ERROR_MAX * (fabs(expected) > 1 ? fabs(expected) : 1);
	if (!(fabs(found - expected) <= bound))
		fail_msg("bits %08x: expected %.9g, found %.9g", bits, expected, found);
}

static void gumbel_is_accurate(void **state)
{
	(void)state;
	for (int shift = 0; shift < 32; shift++) {
		for (int32_t near = -3; near <= 3; near++) {
			assert_gumbel((1u << shift) + (uint32_t)near);
			assert_gumbel(~((1u << shift) + (uint32_t)near));
		}
	}
	uint32_t bits = 1;
	for (int i = 0; i < 200000; i++) assert_gumbel(bits = bits * 1664525u + 1013904223u);
}

static void gumbel_falls_with_its_bits(void **state)
{
	(void)state;
	float before = gumbel_of_bits(0);
	assert_true(before < NOISE_GUMBEL_MAX);
	for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 4093) {
		float now = gumbel_of_bits((uint32_t)bits);
		assert_true(now <= before + 1e-6f);
		before = now;
	}
	assert_true(isfinite(gumbel_of_bits(UINT32_MAX)) && gumbel_of_bits(UINT32_MAX) > -3.2f);
}

/* Mean and variance over tokens, over positions, over keys; correlation of neighbours. */
static void gumbel_moments(void **state)
{
	(void)state;
	const double variance = PI * PI / 6;
	for (int axis = 0; axis < 3; axis++) {
		double sum = 0, squares = 0, products = 0, before = 0;
		for (int i = 0; i < N_DRAWS; i++) {
			double g =
				(double)noise_gumbel(axis == 2 ? 77 + (uint64_t)i : 77, axis == 1 ? i : 5, axis == 0 ? i : 9);
			g -= EULER_GAMMA;
			sum += g;
			squares += g * g;
			products += g * before;
			before = g;
		}
		/* Standard deviations of the three means; the fourth central moment of a Gumbel is 5.4 variance^2. */
		assert_true(fabs(sum / N_DRAWS) < 5 * sqrt(variance / N_DRAWS));
		assert_true(fabs(squares / N_DRAWS - variance) < 5 * variance * sqrt(4.4 / N_DRAWS));
		assert_true(fabs(products / N_DRAWS) < 5 * variance / sqrt(N_DRAWS));
	}
}

/* Chi-square over bins of equal probability, the tail cut ever finer. */
static void gumbel_distribution(void **state)
{
	(void)state;
	enum { BINS = 16 };
	int count[BINS] = {0};
	for (int i = 0; i < N_DRAWS; i++) {
		double tail = -expm1(-exp(-(double)noise_gumbel(0x123456789abcdefu, i / 1000, i % 1000)));
		int bin = (int)-log2(tail); /* bin b holds a share 2^-(b+1) */
		count[bin < BINS - 1 ? bin : BINS - 1]++;
	}
	for (int b = 0; b < BINS; b++) {
		double share = b < BINS - 1 ? exp2(-b - 1) : exp2(1 - BINS), expected = share * N_DRAWS;
		assert_true(fabs(count[b] - expected) < 5 * sqrt(expected * (1 - share)) + 1);
	}
}

static void key_depends_on_everything(void **state)
{
	(void)state;
	uint64_t key = noise_key(1, "prompt", 0, 0);
	assert_int_equal(key, noise_key(1, "prompt", 0, 0));
	assert_int_not_equal(key, noise_key(2, "prompt", 0, 0));
	assert_int_not_equal(key, noise_key(1, "prompT", 0, 0));
	assert_int_not_equal(key, noise_key(1, "prompt", 1, 0));
	assert_int_not_equal(key, noise_key(1, "prompt", 0, 1));
	assert_int_not_equal(noise_key(1, "prompt", 1, 0), noise_key(1, "prompt", 0, 1));
	assert_int_not_equal(noise_key(1, "", 0, 0), noise_key(1, "a", 0, 0));
	/* Recorded runs are replayed from their seeds: the key may never change. */
	assert_int_equal(key, 0xb6e5c23a4dcc37ebu);
}

/* Uniform numbers of a position, and keys of a key: mean and variance of many, and all of them different. */
static void uniforms_and_streams(void **state)
{
	(void)state;
	enum { N = 100000 };
	double sum[2] = {0}, squares[2] = {0}, product = 0;

	for (int32_t i = 0; i < N; i++) {
		struct noise_pair u = noise_uniform(noise_stream(77, 1, 0, 3), i);
		assert_true(u.first > 0 && u.first < 1 && u.second > 0 && u.second < 1);
		sum[0] += u.first, sum[1] += u.second;
		squares[0] += u.first * u.first, squares[1] += u.second * u.second;
		product += (u.first - 0.5) * (u.second - 0.5);
	}
	for (int i = 0; i < 2; i++) {
		assert_true(fabs(sum[i] / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
		assert_true(fabs(squares[i] / N - 1.0 / 3) < 5 * sqrt(4.0 / 45 / N));
	}
	assert_true(fabs(product / N) < 5 * sqrt(1.0 / 144 / N));
	assert_true(noise_uniform(77, 5).first == noise_uniform(77, 5).first);
	const uint64_t keys[] = {77, noise_stream(77, 0, 0, 0), noise_stream(77, 1, 0, 0), noise_stream(77, 0, 1, 0),
	                         noise_stream(77, 0, 0, 1), noise_stream(78, 0, 0, 0)};
	for (int i = 0; i < 6; i++)
		for (int k = 0; k < i; k++) assert_true(keys[i] != keys[k]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(philox_known_answers), cmocka_unit_test(philox_shared_rounds),
		cmocka_unit_test(gumbel_is_accurate),
		cmocka_unit_test(gumbel_falls_with_its_bits), cmocka_unit_test(gumbel_moments),
		cmocka_unit_test(gumbel_distribution), cmocka_unit_test(key_depends_on_everything),
		cmocka_unit_test(uniforms_and_streams),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
