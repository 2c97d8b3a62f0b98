/* sampling.h - one row of logits to one token and its log-probability.
 *
 * token = argmax over the kept set of logit/T + gumbel(key, position, token); ties to the lowest
 * id.  The kept set: top_k largest, then the smallest set of largest whose mass (row_kernels.h: the
 * probability after temperature, as a whole number of 2^-40 of the largest) reaches top_p of that of
 * the top_k; of these, those with logit >= max + T log(min_p).  Ties to the lowest id.  T = 0 is the
 * plain argmax with log-probability 0.  The log-probability is that of the token after temperature and
 * truncation, within 1e-6 of its value and of 1 of what double precision gives; the same bits on every
 * instruction set.  A row with a NaN, with +infinity or with nothing finite is no distribution: the token
 * is the argmax, its log-probability NaN.
 */
#ifndef ROLLOUT_SAMPLING_SAMPLING_H
#define ROLLOUT_SAMPLING_SAMPLING_H

#include "rollout/sampling/truncation.h"
#include "rollout/trajectory.h"

struct sampler; /* scratch for one thread */

struct sampler *sampler_open(int vocab_size);
void sampler_close(struct sampler *sampler);

/* position: index in the sequence (prompt included) of the token that is drawn. */
int32_t sampler_draw(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                     uint64_t key, int32_t position, float *logprob);

/* Only the token, for drafting (no log-probability; same kept set, same noise). */
int32_t sampler_draw_token(struct sampler *sampler, const float *logits,
                           const struct sampling_options *options, uint64_t key, int32_t position);

/* Log-probability of a given token; -INFINITY outside the kept set. */
float sampler_score(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                    int32_t token);

/* ---- a row's distribution by itself, for rules that weigh one row against another (verify_maximal.c) ---- */

/* What a row's distribution is once the options are applied. */
struct distribution {
	bool broken;       /* a logit is NaN or +infinite, or none is finite: there is no distribution */
	bool greedy;       /* temperature 0 */
	float max;
	int32_t max_at;
	float inv_t;       /* 1 / temperature */
	uint64_t mass;     /* of the kept set */
	struct ranked cut; /* its last entry */
};

/* mass and cut are set unless it is broken or greedy. */
void sampler_distribution(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                          struct distribution *distribution);

/* Of the row whose distribution was taken last with this sampler: the draw of sampler_draw. */
int32_t sampler_draw_from(struct sampler *sampler, const float *logits, const struct distribution *distribution,
                          uint64_t key, int32_t position);

/* Probability of a token: mass over mass, 0 outside the kept set; neither broken nor greedy. */
double distribution_probability(const struct distribution *distribution, const float *logits, int32_t token);

/* Log-probability of a token of the kept set: what sampler_draw tells; NaN where it is broken. */
float distribution_logprob(const struct distribution *distribution, float logit);

/* A proposal: a token and the distribution that it was drawn from; without logits, the token for certain. */
struct proposal {
	int32_t token;
	const float *logits;                     /* [vocab_size], or NULL */
	const struct distribution *distribution; /* of these, not broken; or NULL */
};

/* The token where a sum over max(0, p - q), in order of ids, passes the share u in (0, 1) of its total: p the
 * row whose distribution was taken last with this sampler, q the proposal's.  The same bits on every
 * instruction set (row_kernels.h: residual).  -1 if nothing of p is above q. */
int32_t sampler_draw_residual(struct sampler *sampler, const float *logits, const struct distribution *p,
                              const struct proposal *q, double u);

#endif
