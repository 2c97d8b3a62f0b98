/* gumbel_argmax.h - the draw itself: one pass over a row of logits that needs noise for few entries.
 *
 * token = argmax over kept entries i of (logit[i] - max) * inv_t + noise_gumbel(key, position, i),
 * ties to the lowest id.  The scalar form is the definition; the AVX2 form gives the same token.
 */
#ifndef ROLLOUT_GUMBEL_ARGMAX_H
#define ROLLOUT_GUMBEL_ARGMAX_H

#include <stdint.h>

#include "rollout/truncation.h"

struct gumbel_row {
	const float *logits; /* [n] */
	int32_t n;
	float max;           /* largest logit, and where it is */
	int32_t max_at;
	float inv_t;         /* 1 / temperature */
	struct ranked cut;   /* last entry that is kept */
	uint64_t key;
	int32_t position;
};

int32_t gumbel_argmax_scalar(const struct gumbel_row *row);
int32_t gumbel_argmax_avx2(const struct gumbel_row *row);

/* The form that suits the kernels' table of this CPU. */
typedef int32_t gumbel_argmax_fn(const struct gumbel_row *row);
gumbel_argmax_fn *gumbel_argmax_best(void);

/* The best entry so far. */
struct gumbel_best {
	float score;
	int32_t token;
};

static inline void gumbel_offer(struct gumbel_best *best, float score, int32_t token)
{
	if (score > best->score || (score == best->score && token < best->token))
		*best = (struct gumbel_best){score, token};
}

#endif
