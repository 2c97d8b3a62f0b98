/* draft.h - drafters that make drafts to order: they propose tokens, verification decides.  (Drafts that
 * are found rather than made: suffix.h.)
 *
 * Whatever a drafter proposes, the trajectory is the same bits; a better one only
 * makes it sooner.
 */
#ifndef ROLLOUT_SPECULATION_DRAFT_H
#define ROLLOUT_SPECULATION_DRAFT_H

#include "rollout/session.h"
#include "rollout/workspace.h"

/* The controller's numbers: the quantized copy, its int4 part (where the policy offers the choice), and from
 * DRAFTER_SUFFIX on classes of found drafts. */
enum { DRAFTER_QUANT, DRAFTER_QUANT_INT4, DRAFTER_SUFFIX };

struct drafter {
	const char *name;
	/* For each of n decoding sessions whose drafter makes drafts: fill draft[0 .. n_draft), or lower n_draft.  KV of positions
	 * n_tokens - 1 .. n_tokens - 1 + n_draft is reserved and may be written; rows that are already in
	 * the workspace stay. */
	void (*propose)(struct workspace *workspace, struct session *const *sessions, int n);
};

/* draft_given.c: the next tokens of the sample's proposal into draft [0 .. most), where all of the response so far is
 * that of the proposal; returns how many. */
int draft_given(struct session *session, int most);

/* Of n sessions with given drafts: who has said the same so far and tries the same next reads the rows of the first of
 * them, as `twin`.  O(n^2) comparisons of lengths, tokens where these agree. */
void draft_given_pair(struct session *const *sessions, int n);

/* Of n sessions the one that has said what `session` has, and has no twin itself; NULL if there is none. */
struct session *draft_find_twin(struct session *const *sessions, int n, const struct session *session);

/* Its tokens have been drawn from its twin's rows: its keys and values are the twin's. */
void draft_settle_twin(struct session *session);

extern const struct drafter draft_quant; /* draft_quant.c: the policy's own quantized copy */

#endif
