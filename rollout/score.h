/* score.h - the target's log-probabilities of given tokens, by chunked prefill. */
#ifndef ROLLOUT_SCORE_H
#define ROLLOUT_SCORE_H

#include "policy/forward.h"
#include "rollout/trajectory.h"

/* logprobs[i] for tokens[i], i in [n_given, n_tokens), given all before it; entries below n_given
 * (at least 1) are not written.  Bit for bit what the engine recorded under the same policy and
 * sampling options. */
int score_tokens(const struct policy *policy, const int32_t *tokens, int n_given, int n_tokens,
                 const struct sampling_options *sampling, int n_threads, float *logprobs, struct err *err);

#endif
