/* sampling.h - one row of logits to one token and its log-probability.
 *
 * token = argmax over the kept set of logit/T + gumbel(key, position, token); ties to the lowest
 * id.  The kept set: top_k largest, then the smallest set of largest whose mass (row_kernels.h: the
 * probability after temperature, as a whole number of 2^-40 of the largest) reaches top_p of that of
 * the top_k; ties to the lowest id.  T = 0 is the plain argmax with log-probability 0.  The
 * log-probability is that of the token after temperature and truncation, within 1e-6 of its value and
 * of 1 of what double precision gives; the same bits on every instruction set.  A row with a NaN, with
 * +infinity or with nothing finite is no distribution: the token is the argmax, its log-probability NaN.
 */
#ifndef ROLLOUT_SAMPLING_H
#define ROLLOUT_SAMPLING_H

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

#endif
