/* score.h - the target's log-probabilities of given tokens, by chunked prefill. */
#ifndef ROLLOUT_SCORE_H
#define ROLLOUT_SCORE_H

#include "policy/forward.h"
#include "rollout/trajectory.h"

struct scorer; /* scratch memory and KV pages, kept between calls; one call at a time */

/* policy is borrowed until scorer_close. */
struct scorer *scorer_open(const struct policy *policy, enum kv_type kv_type, int n_threads);
void scorer_close(struct scorer *scorer); /* NULL is allowed */

/* logprobs[i] for tokens[i], i in [n_given, n_tokens), given all before it; entries below n_given
 * (at least 1) are not written.  Bit for bit what the engine recorded under the same policy, KV type
 * and sampling options. */
int score_tokens(struct scorer *scorer, const int32_t *tokens, int n_given, int n_tokens,
                 const struct sampling_options *sampling, float *logprobs, struct err *err);

#endif
