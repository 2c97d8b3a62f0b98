/* sampling.h - one row of logits to one token and its log-probability.
 *
 * token = argmax over the kept set of logit/T + gumbel(key, position, token); ties to the lowest
 * id.  The kept set: top_k largest, then the smallest set of largest whose probability (after
 * temperature, within top_k) reaches top_p; ties to the lowest id.  T = 0 is the plain argmax with
 * log-probability 0.  The log-probability is that of the token after temperature and truncation.
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
