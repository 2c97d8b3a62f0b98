/* counts.h - counts of random events against what they must be, at 5 sigma; fails the cmocka test. */
#ifndef TESTS_SUPPORT_COUNTS_H
#define TESTS_SUPPORT_COUNTS_H

/* chi^2 of n cells that partition all events; cells that expect fewer than 10 are taken together, and one that
 * expects none must be empty. */
void assert_distributed(const double *expected, const int *count, int n, const char *what);

/* count of n independent events of probability p. */
void assert_rate(int count, int n, double p, const char *what);

#endif
