/* engine_internal.h - inside rollout only: the engine's state, shared by engine.c (rounds) and
 * admission.c (who is active, and whose KV has to go). */
#ifndef ROLLOUT_ENGINE_INTERNAL_H
#define ROLLOUT_ENGINE_INTERNAL_H

#include "rollout/engine.h"
#include "rollout/session.h"
#include "rollout/speculation/draft.h"
#include "rollout/speculation/speculation.h"
#include "rollout/speculation/suffix.h"
#include "rollout/workspace.h"

/* A controller, and for how many rounds its last plan stands, no drafts; the sessions that it was for. */
struct drafting_control {
	struct speculation speculation;
	int rest, n;
};

struct engine {
	struct engine_options options;
	struct workspace workspace;
	bool drafts;               /* speculative and explore mode */
	bool explores;             /* explore mode: the copy draws samples of its own */
	struct drafting_control control[2]; /* [explored]: of the target's samples; of those that the copy draws */
	struct suffix_memory *suffix; /* NULL: not asked for */
	struct plan_session *plan; /* [max_active] */
	struct session **order;    /* [max_active], scratch; NULL but in explore mode */
	struct kv_cache *cache;
	struct prefix_table prefixes;
	struct session_list queue, finished;
	struct session **active;   /* [max_active], in order of admission */
	int n_active;
	struct session **decoding; /* [max_active], this round's */
	int logits_max;            /* rows of logits in one call */
	int draft_length_max;      /* 0 in exact mode */
	int explore_chunk;         /* 0 but in explore mode */
	size_t parcel_bytes;       /* of queued sessions that brought their KV along */
};

/* Move sessions from the queue to the active ones while both limits allow. */
void engine_admit(struct engine *engine);

/* Release KV so that active[index] can get some: idle prefixes first, then the newest session goes
 * back to the front of the queue.  False if that was active[index] itself. */
bool engine_make_room(struct engine *engine, int index);

/* The same for a sequence that is nobody's: any session may be put back. */
void engine_make_room_for_all(struct engine *engine);

/* rescore.c: the target's log-probabilities of what the session drew and has none for, under the current
 * policy.  Its own KV must have been released. */
void engine_rescore(struct engine *engine, struct session *session);

/* engine_drafts.c: decide the drafts of the first n of `decoding` (and look up those that are to be
 * found), and learn what came of them. */
void engine_drafts_open(struct engine *e);
void engine_drafts_close(struct engine *e);
/* The part of the policy that draws has changed, and with it who controls. */
void engine_drafts_turn(struct engine *e);
void engine_drafts_plan(struct engine *e, int n);
void engine_drafts_learn(struct engine *e, int n);

/* What draws a sample. */
enum policy_part engine_part(const struct engine *e, const struct trajectory *t);

/* engine_kv.c: a queued session keeps a copy of a parcel that fits; drops it; becomes active by it, with the
 * KV computed so far (false: there is none, or no room).  Queued or active session by id, NULL if none. */
void engine_parcel_accept(struct engine *e, struct session *s, const struct kv_parcel *parcel);
void engine_parcel_drop(struct engine *e, struct session *s);
bool engine_parcel_unpack(struct engine *e, struct session *s);
struct session *engine_find(const struct engine *e, uint64_t trajectory_id);

/* Take a session out of the active ones, keeping the order. */
void engine_remove_active(struct engine *engine, int index);

#endif
