/* verify.h - the target decides: one forward call over the last tokens and drafts of all sessions. */
#ifndef ROLLOUT_SPECULATION_VERIFY_H
#define ROLLOUT_SPECULATION_VERIFY_H

#include "rollout/session.h"
#include "rollout/workspace.h"

/* What a token's segment says besides the version. */
struct verify_label {
	int32_t rank, mode;
};

/* Rows already in the workspace (prefill) go into the same call.  Appends n_made >= 1 tokens to each
 * session, sets finish where it ended, and moves n_computed on. */
void verify_run(struct workspace *workspace, struct session *const *sessions, int n,
                struct verify_label label);

#endif
