/* engine_internal.h - inside rollout only: the engine's state, shared by engine.c (rounds) and
 * admission.c (who is active, and whose KV has to go). */
#ifndef ROLLOUT_ENGINE_INTERNAL_H
#define ROLLOUT_ENGINE_INTERNAL_H

#include "rollout/draft.h"
#include "rollout/engine.h"
#include "rollout/session.h"
#include "rollout/workspace.h"

struct engine {
	struct engine_options options;
	struct workspace workspace;
	const struct drafter *drafter; /* NULL: exact mode */
	struct kv_cache *cache;
	struct prefix_table prefixes;
	struct session_list queue, finished;
	struct session **active;   /* [max_active], in order of admission */
	int n_active;
	struct session **decoding; /* [max_active], this round's */
	int batch_max;             /* sessions verified in one call */
	int draft_length;          /* 0 in exact mode */
};

/* Move sessions from the queue to the active ones while both limits allow. */
void engine_admit(struct engine *engine);

/* Release KV so that active[index] can get some: idle prefixes first, then the newest session goes
 * back to the front of the queue.  False if that was active[index] itself. */
bool engine_make_room(struct engine *engine, int index);

/* Take a session out of the active ones, keeping the order. */
void engine_remove_active(struct engine *engine, int index);

#endif
