/* session.h - one sample being generated: a trajectory, its KV and what this round does with it.
 *
 * Invariant between rounds: kv holds the keys and values of what draws (the target or the quantized copy), made under the engine's current policy unless kv_kept,
 * of positions [0, n_computed), and n_computed < n_tokens: the last token has no KV yet, since the
 * row that computes it is the one whose logits draw the next token.  A session decodes when
 * n_computed == n_tokens - 1.  KV beyond n_computed is junk of rejected drafts, to be overwritten.
 */
#ifndef ROLLOUT_SESSION_H
#define ROLLOUT_SESSION_H

#include "policy/kv_cache.h"
#include "rollout/kv_parcel.h"
#include "rollout/prefix.h"
#include "rollout/speculation/speculation.h"
#include "rollout/speculation/suffix.h"
#include "rollout/trajectory.h"

enum { DRAFT_LENGTH_MAX = SPECULATION_LENGTH_MAX };

enum session_phase { PHASE_QUEUED, PHASE_PREFILL, PHASE_DECODE, PHASE_OVER };

struct session {
	struct session *next;          /* in a session_list */
	struct trajectory *trajectory; /* owned */
	enum policy_part part;         /* what draws: the target, or the quantized copy */
	struct prefix *prefix;         /* the prompt's KV, joined */
	struct kv_seq kv;
	bool forked;                   /* kv begins with the prompt's */
	bool kv_kept;                  /* some of kv was made under older weights (engine_set_policy) */
	bool unshared;                 /* and shares no page with it: it came in a parcel */
	struct kv_parcel parcel;       /* what it brought along, while it is queued */
	int32_t n_computed;
	int32_t length_max;            /* tokens at which it ends with FINISH_LENGTH */
	int32_t n_scored;              /* quantized mode: tokens whose target_logprobs are there */
	int32_t observe_at;            /* tokens after which the hidden state is kept; 0: it is not */
	float *observed;               /* [dim] it, owned */
	int32_t observed_version;      /* of the policy that computed it, -1: not yet, or handed out */
	enum session_phase phase;
	double phase_start;            /* seconds */
	uint64_t prompt_key;           /* of the prompt's tokens; 0: not computed yet */
	int32_t n_agreed;              /* response tokens that were found to be those of the proposal */
	bool differed;                 /* and one that was not: the proposal is of no use any more */
	struct suffix_cursor cursor;   /* what the suffix memory knows of it */
	struct session_acceptance acceptance[SPECULATION_DRAFTERS];

	/* this round */
	int32_t n_prefill;             /* positions computed from n_computed on */
	int drafter;                   /* who proposes, as the controller counts them */
	bool given;                    /* the draft is of the sample's proposal */
	int32_t n_draft;               /* proposed tokens */
	int32_t draft[DRAFT_LENGTH_MAX];
	struct session *twin;          /* one whose rows are also this one's (draft_given.c), NULL: it has its own */
	int batch;                     /* of the round's calls, where the one it is in begins */
	int32_t logits_row;            /* first row of logits in the call */
	int32_t kept_row, n_kept;      /* maximal coupling: distributions of draft[0 .. n_kept) in the store */
	int32_t n_accepted;            /* of those */
	int32_t n_made;                /* tokens appended */
};

/* Takes the trajectory, joins its prefix; part: what draws it. */
struct session *session_open(struct trajectory *trajectory, enum policy_part part, struct prefix_table *prefixes,
                             int max_context);

/* From here on: its hidden state [dim] after n_response tokens, if it has not gone past them, is kept. */
void session_observe(struct session *session, int32_t n_response, int dim);

/* Releases KV and prefix; the trajectory goes back to the caller. */
struct trajectory *session_close(struct session *session, struct prefix_table *prefixes);

/* Forget the KV: it is computed anew before the session goes on. */
void session_rewind(struct session *session);

/* Time since the last change is booked on the trajectory. */
void session_enter(struct session *session, enum session_phase phase, double now);

/* Take the prompt's KV from the prefix, which must be ready; returns what prefix_fork does. */
int32_t session_fork(struct session *session);

static inline bool session_decodes(const struct session *session)
{
	return session->forked && session->n_computed == session->trajectory->n_tokens - 1;
}

/* First in, first out. */
struct session_list {
	struct session *first, *last;
	int n;
};

void session_list_append(struct session_list *list, struct session *session);
void session_list_push_front(struct session_list *list, struct session *session);
struct session *session_list_pop(struct session_list *list); /* NULL if empty */

/* Remove by trajectory id, 0 for the first; NULL if there is none. */
struct session *session_list_remove(struct session_list *list, uint64_t trajectory_id);

#endif
