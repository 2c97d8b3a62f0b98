/* kernel_cases.h - what the tests of kernels share: every case runs once per table, and a table that
 * this CPU lacks is reported as skipped.  Include after <cmocka.h>. */
#ifndef TESTS_SUPPORT_KERNEL_CASES_H
#define TESTS_SUPPORT_KERNEL_CASES_H

#include "quant/kernels.h"

static inline const struct kernels *table(void **state)
{
	const struct kernels *kernels = kernels_named(*state);
	if (!kernels) {
		print_message("skipped: this CPU has no %s\n", (const char *)*state);
		skip();
	}
	return kernels;
}

static inline const struct kernels *scalar(void) { return kernels_named("scalar"); }

static const struct shape {
	int k, n;
} shapes[] = {{1, 1},    {2, 16},   {31, 17},   {64, 48},  {96, 130},
              {255, 33}, {256, 16}, {257, 100}, {300, 80}, {513, 65}};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0], ROWS_MAX = 33 };

#define PER_TABLE(test) \
	{#test "/avx2", test, NULL, NULL, (void *)(uintptr_t)"avx2"}, \
	{#test "/avx512", test, NULL, NULL, (void *)(uintptr_t)"avx512"}

#endif
