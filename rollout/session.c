/* session.c - a session's life: joined to its prompt, forked from it, rewound, closed. */
#include "rollout/session.h"

#include <assert.h>
#include <stdlib.h>

struct session *session_open(struct trajectory *t, enum policy_part part, struct prefix_table *prefixes, int max_context)
{
	struct session *session = xcalloc(1, sizeof *session);
	int64_t wanted = (int64_t)t->n_prompt + t->max_tokens;

	session->trajectory = t;
	session->part = part;
	session->phase = PHASE_OVER;
	session->n_scored = t->n_tokens;
	session->length_max = wanted < max_context ? (int32_t)wanted : max_context;
	session->prefix = prefix_join(prefixes, part, t->group_id, t->tokens, t->n_prompt);
	/* A prompt that comes with a sample already begun has been computed before, here or elsewhere. */
	if (session->prefix->users == 1 && t->n_tokens > t->n_prompt) session->prefix->n_reached = t->n_prompt - 1;
	kv_seq_open(&session->kv, prefixes->cache);
	return session;
}

void session_observe(struct session *session, int32_t n_response, int dim)
{
	const struct trajectory *t = session->trajectory;

	if (trajectory_response_length(t) > n_response) return;
	session->observe_at = t->n_prompt + n_response;
	session->observed = xmalloc((size_t)dim * sizeof *session->observed);
	session->observed_version = -1;
}

struct trajectory *session_close(struct session *session, struct prefix_table *prefixes)
{
	struct trajectory *t = session->trajectory;

	kv_seq_close(&session->kv);
	kv_parcel_free(&session->parcel);
	prefix_leave(prefixes, session->prefix);
	free(session->observed);
	free(session);
	return t;
}

void session_rewind(struct session *session)
{
	kv_seq_truncate(&session->kv, 0);
	session->forked = session->unshared = false;
	session->kv_kept = false;
	session->n_computed = 0;
}

int32_t session_fork(struct session *session)
{
	assert(!session->forked);
	session->forked = true;
	session->n_computed = prefix_positions(session->prefix);
	session->prefix->waiting--;
	return prefix_fork(session->prefix, &session->kv);
}

void session_enter(struct session *session, enum session_phase phase, double now)
{
	struct trajectory *t = session->trajectory;
	double seconds = now - session->phase_start;

	if (session->phase == PHASE_QUEUED) t->queue_seconds += seconds;
	if (session->phase == PHASE_PREFILL) t->prefill_seconds += seconds;
	if (session->phase == PHASE_DECODE) t->decode_seconds += seconds;
	session->phase = phase;
	session->phase_start = now;
}

void session_list_append(struct session_list *list, struct session *session)
{
	session->next = NULL;
	if (list->last) list->last->next = session;
	else list->first = session;
	list->last = session;
	list->n++;
}

void session_list_push_front(struct session_list *list, struct session *session)
{
	session->next = list->first;
	list->first = session;
	if (!list->last) list->last = session;
	list->n++;
}

struct session *session_list_remove(struct session_list *list, uint64_t trajectory_id)
{
	struct session *before = NULL, *session = list->first;

	while (session && trajectory_id != 0 && session->trajectory->id != trajectory_id) {
		before = session;
		session = session->next;
	}
	if (!session) return NULL;
	if (before) before->next = session->next;
	else list->first = session->next;
	if (list->last == session) list->last = before;
	list->n--;
	return session;
}

struct session *session_list_pop(struct session_list *list)
{
	return session_list_remove(list, 0);
}
