/* step_range.h - `--steps A-B`: which steps of a run a command is about. */
#ifndef SCHEDULER_STORE_STEP_RANGE_H
#define SCHEDULER_STORE_STEP_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "configs/err.h"

struct step_range {
	int64_t first, last; /* first -1: also what is of no step yet */
};

/* A-B, A-, -B or A; NULL: everything. */
int step_range_parse(struct step_range *range, const char *text, struct err *err);

static inline bool step_range_has(const struct step_range *range, int64_t step)
{
	return step >= range->first && step <= range->last;
}

#endif
