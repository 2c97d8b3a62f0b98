/* truncation.h - top-k and top-p as a cut in the one order of vocabulary entries: larger logit
 * first, then lower id.  A kept set is always a prefix of that order, so one entry describes it. */
#ifndef ROLLOUT_TRUNCATION_H
#define ROLLOUT_TRUNCATION_H

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

/* The k-th entry, 0 < k < n.  scratch [k].  O(n + m log k), m: entries that enter the heap. */
struct ranked truncate_top_k(struct ranked *scratch, const float *logits, int32_t n, int32_t k);

/* The last entry of the shortest prefix whose mass reaches top_p in (0, 1) of `total`, which is the
 * mass of what `cut` keeps; mass of an entry: exp((logit - max) * inv_t).  scratch [n].
 * O(n + c + k log c), c: entries that are not negligible, k: entries kept. */
struct ranked truncate_top_p(struct ranked *scratch, const float *logits, int32_t n, struct ranked cut,
                             float max, float inv_t, float total, float top_p);

#endif
