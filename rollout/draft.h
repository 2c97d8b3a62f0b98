/* draft.h - drafters that make drafts to order: they propose tokens, verification decides.  (Drafts that
 * are found rather than made: suffix.h.)
 *
 * Whatever a drafter proposes, the trajectory is the same bits (DESIGN section 2); a better one only
 * makes it sooner.
 */
#ifndef ROLLOUT_DRAFT_H
#define ROLLOUT_DRAFT_H

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

extern const struct drafter draft_quant; /* draft_quant.c: the policy's own quantized copy */

#endif
