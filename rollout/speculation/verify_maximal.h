/* verify_maximal.h - the maximal coupling: a draft stands as often as any rule allows that keeps the target's
 * distribution.  The rule on plain rows, and what it keeps of a batch's drafts between draft and verify. */
#ifndef ROLLOUT_SPECULATION_VERIFY_MAXIMAL_H
#define ROLLOUT_SPECULATION_VERIFY_MAXIMAL_H

#include "rollout/sampling/sampling.h"
#include "rollout/session.h"
#include "rollout/workspace.h"

/* ---- the rule ---- */

/* Keys of a sample's noise under one policy version: of all that the target decides, and of the drafts of the
 * round that begins with n_tokens tokens made. */
uint64_t maximal_target_key(uint64_t key, int32_t version);
uint64_t maximal_draft_key(uint64_t key, int32_t version, int32_t n_tokens);

/* The token at a position, by the target's logits and what was drafted there (NULL: nothing); logprob: the
 * target's, NaN for a row that is no distribution.  The draft stands if it is the token. */
int32_t maximal_draw(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                     uint64_t target_key, int32_t position, const struct proposal *draft, float *logprob);

/* ---- in a round ---- */

struct maximal_store;

/* For n rows of `stride` floats. */
struct maximal_store *maximal_store_open(int n, size_t stride);
void maximal_store_close(struct maximal_store *store); /* NULL is allowed */

/* Before sessions draft: each gets rows for its n_draft.  Does nothing under coupled verification, as
 * workspace->maximal is NULL. */
void maximal_begin(struct workspace *workspace, struct session *const *sessions, int n);

/* Draw draft[step] from the logits at session->logits_row, keep its distribution, and end the draft behind a
 * stop token; where the logits are no distribution, before it. */
void maximal_propose(struct workspace *workspace, struct sampler *sampler, struct session *session, int step);

/* The session's next token, beside draft[n_made]; drafts without a distribution of their own were found. */
int32_t maximal_verify(const struct workspace *workspace, struct sampler *sampler, const struct session *session,
                       const float *logits, float *logprob);

#endif
