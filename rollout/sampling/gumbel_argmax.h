/* gumbel_argmax.h - the draw itself: one pass over a row of logits that needs noise for few entries.
 *
 * token = argmax over kept entries i of (logit[i] - max) * inv_t + noise_gumbel(key, position, i),
 * ties to the lowest id.  The scalar form is the definition; the vector forms give the same token.
 * They compute the random bits of every chunk whose peak can win at all, but noise, and even the
 * logits, of few entries: with random bits x, y = (x + 1/2) 2^-32 and E = -log(1 - y) >= y, the noise
 * -log(E) is at most -log(y).  So an entry can only win if
 *     x < 2^32 exp(scaled - best),
 * where the peak stands for all entries of its chunk first, and then each for itself.  As e^a = 2^f 2^n
 * is at most (1 + f) 2^n, a float whose bits are 2^23 (a / ln 2 + 127), the exponential is a
 * multiplication.  A slack covers every rounding here and in the score.
 */
#ifndef ROLLOUT_SAMPLING_GUMBEL_ARGMAX_H
#define ROLLOUT_SAMPLING_GUMBEL_ARGMAX_H

#include <stdint.h>
#include <string.h>

#include "rollout/sampling/noise.h"
#include "rollout/sampling/truncation.h"

struct gumbel_row {
	const float *logits; /* [n], none NaN */
	const float *peaks;  /* [row_chunks(n)], of row_kernels.h */
	int32_t n;
	float max;           /* largest logit, finite, and where it first is */
	int32_t max_at;
	float inv_t;         /* 1 / temperature */
	struct ranked cut;   /* last entry that is kept */
	uint64_t key;
	int32_t position;
};

typedef int32_t gumbel_argmax_fn(const struct gumbel_row *row);

int32_t gumbel_argmax_scalar(const struct gumbel_row *row);
int32_t gumbel_argmax_avx2(const struct gumbel_row *row);
int32_t gumbel_argmax_avx512(const struct gumbel_row *row);

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

/* The bits of a float no less than 2^32 exp(scaled - best), as slope * scaled + offset(best). */
#define GUMBEL_SLOPE (0x1p23f / 0.69314718f)
static inline float gumbel_offset(float best_score)
{
	const float slack = 1e-3f;
	return 0x1p23f * (127.0f + 32.0f) + (slack - best_score) * GUMBEL_SLOPE;
}

/* The largest random bits with which a scaled logit can win. */
static inline uint32_t gumbel_bits_max(float scaled, float best_score)
{
	uint32_t bits = (uint32_t)(GUMBEL_SLOPE * scaled + gumbel_offset(best_score));
	float x;

	memcpy(&x, &bits, sizeof x);
	return x < 0x1p32f ? (uint32_t)x : UINT32_MAX;
}

/* True if nothing in a chunk with this peak can win. */
static inline bool gumbel_passes_over(const struct gumbel_row *row, float peak, float best_score)
{
	return !(peak >= row->cut.logit) || (peak - row->max) * row->inv_t + NOISE_GUMBEL_MAX < best_score;
}

#endif
