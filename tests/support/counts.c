/* counts.c - see counts.h. */
#include "tests/support/counts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SIGMAS 5.0

void assert_distributed(const double *expected, const int *count, int n, const char *what)
{
	double chi2 = 0, rest = 0;
	int cells = 0, rest_count = 0;

	for (int i = 0; i < n; i++) {
		if (expected[i] == 0) assert_int_equal(count[i], 0);
		if (expected[i] < 10) {
			rest += expected[i];
			rest_count += count[i];
			continue;
		}
		chi2 += (count[i] - expected[i]) * (count[i] - expected[i]) / expected[i];
		cells++;
	}
	if (rest >= 10) chi2 += (rest_count - rest) * (rest_count - rest) / rest, cells++;
	else if (rest_count > rest + SIGMAS * sqrt(rest) + (rest > 1e-3 ? 5 : 0))
		fail_msg("%s: rare cells expect %.3f, found %d", what, rest, rest_count);
	if (cells < 2) return;
	/* Wilson and Hilferty 1931: the cube root of chi^2 / df is nearly normal. */
	double df = cells - 1, z = (cbrt(chi2 / df) - (1 - 2 / (9 * df))) / sqrt(2 / (9 * df));
	if (fabs(z) > SIGMAS) fail_msg("%s: chi^2 %.1f of %d cells, %.1f sigma", what, chi2, cells, z);
}

void assert_rate(int count, int n, double p, const char *what)
{
	double sigma = sqrt(n * p * (1 - p));
	if (fabs(count - n * p) > SIGMAS * sigma + 1e-6)
		fail_msg("%s: expected %.1f of %d (sigma %.1f), found %d", what, n * p, n, sigma, count);
}
