/* truncation.h - top-k, top-p and min-p as a cut in the one order of vocabulary entries: larger logit
 * first, then lower id.  A kept set is always a prefix of that order, so one entry describes it. */
#ifndef ROLLOUT_SAMPLING_TRUNCATION_H
#define ROLLOUT_SAMPLING_TRUNCATION_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* A vocabulary entry in the order; as a cut, the last entry that is kept. */
struct ranked {
	float logit;
	int32_t id;
};

#define CUT_NONE ((struct ranked){-INFINITY, INT32_MAX})

static inline bool ranked_before(struct ranked a, struct ranked b)
{
	return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static inline bool cut_keeps(struct ranked cut, float logit, int32_t id)
{
	return logit > cut.logit || (logit == cut.logit && id <= cut.id);
}

struct row_kernels;
struct row_scale;

/* A row of logits, none NaN and the largest finite. */
struct truncation_row {
	const float *logits; /* [n] */
	const float *peaks;  /* [row_chunks(n)], of row_kernels.h */
	int32_t n;
};

struct truncation; /* scratch for one thread */

struct truncation *truncation_open(const struct row_kernels *kernels, int32_t n_max);
void truncation_close(struct truncation *truncation);

/* The cut after the k largest (0 < k < n, or no top-k), then after the shortest prefix of these whose
 * mass reaches top_p (in (0, 1), or 1 for no top-p) of theirs, and before what lies below least (at most
 * the largest logit; -INFINITY: no such bound); mass [out]: that of what is kept, by scale. */
struct ranked truncation_cut(struct truncation *truncation, const struct truncation_row *row,
                       const struct row_scale *scale, int32_t k, float top_p, float least, uint64_t *mass);

#endif
