/* score.h - the target's log-probabilities of given tokens, by chunked prefill.  The scorer brings its own
 * memory; rescore.c lends the engine's. */
#ifndef ROLLOUT_SCORE_H
#define ROLLOUT_SCORE_H

#include "policy/forward.h"
#include "rollout/trajectory.h"

/* What scoring computes with; all borrowed. */
struct score_scratch {
	struct forward *forward;   /* of at least rows_max rows */
	float *logits;             /* [rows_max][stride] */
	size_t stride;
	struct sampler **samplers; /* [n_threads] */
	int n_threads, rows_max;   /* at most SCORE_ROWS_MAX rows are used */
};

enum { SCORE_ROWS_MAX = 64 };

/* As score_tokens, of tokens that are valid, in a sequence whose positions [0, n_computed) hold the target's
 * keys and values and those up to n_tokens - 1 are reserved; all of them are computed when it returns.
 * n_computed < n_given; with n_given == n_tokens nothing is scored, and sampling and logprobs are not read. */
void score_sequence(const struct score_scratch *scratch, const struct policy *policy, struct kv_seq *seq,
                    int n_computed, const int32_t *tokens, int n_given, int n_tokens,
                    const struct sampling_options *sampling, float *logprobs);

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
