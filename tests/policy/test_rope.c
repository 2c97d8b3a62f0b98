/* test_rope.c - angles against libm, at every scale of position. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "policy/rope.h"
#include "tests/support/random_model.h"

enum { PAIRS = 32 };

/* Our doubles are within 1e-14 of libm's, so a float may differ in its last place only at a tie. */
#define ANGLE_BOUND 6.0e-8

static void check_positions(const float *frequency, int first, int step, int n)
{
	float cosine[PAIRS], sine[PAIRS];
	for (int position = first; n > 0; position += step, n--) {
		rope_angles(cosine, sine, frequency, 1.0f, PAIRS, position);
		for (int i = 0; i < PAIRS; i++) {
			double angle = (double)((float)position * frequency[i]);
			assert_true(fabs((double)cosine[i] - cos(angle)) <= ANGLE_BOUND);
			assert_true(fabs((double)sine[i] - sin(angle)) <= ANGLE_BOUND);
		}
	}
}

static void test_angles(void **state)
{
	(void)state;
	float frequency[PAIRS];
	struct model_config c = random_model_small();
	c.head_dim = 2 * PAIRS;
	rope_frequencies(frequency, &c);
	check_positions(frequency, 0, 1, 3000);
	check_positions(frequency, 1 << 15, 997, 500);
	check_positions(frequency, MODEL_CONTEXT_MAX - 2000, 1, 2000);
}

static void test_frequencies(void **state)
{
	(void)state;
	static const double thetas[] = {1.0, 10000.0, 500000.0, 1e6, 1e12};
	float frequency[PAIRS];
	struct model_config c = random_model_small();
	c.head_dim = 2 * PAIRS;
	for (int t = 0; t < 5; t++) {
		c.rope_theta = thetas[t];
		rope_frequencies(frequency, &c);
		for (int i = 0; i < PAIRS; i++) {
			double expected = pow(thetas[t], -(double)i / PAIRS);
			assert_true(fabs((double)frequency[i] / expected - 1.0) < 6.0e-8);
		}
		assert_true(frequency[0] == 1.0f);
	}
}

/* Llama 3.1's numbers: the shortest wavelengths are kept, the longest divided by 8. */
static void test_scaling(void **state)
{
	(void)state;
	float plain[PAIRS], scaled[PAIRS];
	struct model_config c = random_model_small();
	c.head_dim = 2 * PAIRS;
	c.rope_theta = 500000.0;
	rope_frequencies(plain, &c);
	c.rope_factor = 8.0;
	c.rope_scaling = ROPE_LINEAR;
	rope_frequencies(scaled, &c);
	for (int i = 0; i < PAIRS; i++) assert_true(scaled[i] == plain[i] / 8.0f);
	c.rope_scaling = ROPE_LLAMA3;
	c.rope_low_freq_factor = 1.0;
	c.rope_high_freq_factor = 4.0;
	c.rope_original_context = 8192;
	rope_frequencies(scaled, &c);
	int n_kept = 0, n_divided = 0, n_blended = 0;
	for (int i = 0; i < PAIRS; i++) {
		double ratio = (double)(plain[i] / scaled[i]);
		assert_true(ratio >= 1.0 && ratio <= 8.0);
		n_kept += ratio == 1.0;
		n_divided += ratio == 8.0;
		n_blended += ratio > 1.0 && ratio < 8.0;
		if (i > 0) assert_true(scaled[i] < scaled[i - 1]);
	}
	assert_true(n_kept > 0 && n_divided > 0 && n_blended > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_angles),
		cmocka_unit_test(test_frequencies),
		cmocka_unit_test(test_scaling),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
