/* replay_ranks.c - see replay_ranks.h. */
#include "scheduler/replay/replay_ranks.h"

#include <stdlib.h>
#include <string.h>

#include "scheduler/clock.h"
#include "scheduler/replay/replay_progress.h"

/* What follows the u32: PLAN struct stored_sample[], PROGRESS struct replay_progress, RESULT JSON, FAILED text. */
enum { MESSAGE_PLAN = 1, MESSAGE_PROGRESS, MESSAGE_RESULT, MESSAGE_FAILED, MESSAGE_QUIT };

static int send(struct transport *transport, int rank, uint32_t type, const void *bytes, size_t n_bytes, struct err *err)
{
	char *message = xmalloc(sizeof type + n_bytes);

	memcpy(message, &type, sizeof type);
	if (n_bytes) memcpy(message + sizeof type, bytes, n_bytes);
	int rc = transport_send(transport, rank, message, sizeof type + n_bytes, err);
	free(message);
	return rc;
}

/* ---- dealing ---- */

struct share {
	size_t first, n;  /* of samples */
	uint64_t tokens;
};

static int order_shares(const void *a, const void *b)
{
	const struct share *x = a, *y = b;
	if (x->tokens != y->tokens) return x->tokens > y->tokens ? -1 : 1;
	return (x->first > y->first) - (x->first < y->first);
}

void replay_deal(const struct stored_sample *samples, size_t n, int n_ranks, int *owner)
{
	struct share *shares = xcalloc(n ? n : 1, sizeof *shares);
	uint64_t *load = xcalloc((size_t)n_ranks, sizeof *load);
	size_t n_shares = 0;

	for (size_t i = 0; i < n; i++) {
		if (i == 0 || samples[i].group_id != samples[i - 1].group_id) shares[n_shares++].first = i;
		shares[n_shares - 1].n++;
		shares[n_shares - 1].tokens += (uint64_t)samples[i].n_response + 1;
	}
	qsort(shares, n_shares, sizeof *shares, order_shares);
	for (size_t s = 0; s < n_shares; s++) {
		int least = 0;
		for (int r = 1; r < n_ranks; r++)
			if (load[r] < load[least]) least = r;
		load[least] += shares[s].tokens;
		for (size_t i = 0; i < shares[s].n; i++) owner[shares[s].first + i] = least;
	}
	free(shares);
	free(load);
}

/* ---- rank 0 ---- */

struct lead {
	const struct replay_team *team;
	struct replay_result *result;
	int n_ranks, n_results;
	struct replay_progress *ranks; /* [n_ranks] */
	struct progress_line line;
	struct err failure;            /* of another rank; code 0: none */
};

static int take_result(struct lead *l, const char *text, size_t n_bytes, struct err *err)
{
	json_error_t error;
	json_t *json = json_loadb(text, n_bytes, 0, &error);
	int rc = json ? replay_result_add(l->result, json, err) : err_set(err, ERR_PEER, "a rank's result is no JSON: %s", error.text);

	json_decref(json);
	l->n_results++;
	return rc;
}

static int on_message(struct lead *l, const struct transport_message *m, struct err *err)
{
	uint32_t type = 0;
	const char *body = (const char *)m->bytes + sizeof type;

	if (m->n_bytes >= sizeof type) memcpy(&type, m->bytes, sizeof type);
	size_t n_bytes = m->n_bytes - sizeof type;
	if (type == MESSAGE_PROGRESS && n_bytes == sizeof *l->ranks) memcpy(&l->ranks[m->rank], body, n_bytes);
	else if (type == MESSAGE_RESULT) return take_result(l, body, n_bytes, err);
	else if (type == MESSAGE_FAILED) return err_set(err, ERR_PEER, "rank %d: %.*s", m->rank, (int)n_bytes, body);
	else return err_set(err, ERR_PEER, "rank %d sent what is no message of a replay", m->rank);
	return 0;
}

static int poll_ranks(struct lead *l, struct err *err)
{
	struct transport_message m;
	int rc = 0;

	while (l->team->transport && !rc && transport_poll(l->team->transport, &m)) {
		rc = on_message(l, &m, err);
		free(m.bytes);
	}
	for (int r = 1; r < l->n_ranks && !rc; r++)
		if (transport_is_broken(l->team->transport, r)) rc = err_set(err, ERR_PEER, "rank %d is gone", r);
	return rc;
}

static void show(struct lead *l)
{
	struct replay_progress all = { 0 };

	for (int r = 0; r < l->n_ranks; r++) {
		all.tokens += l->ranks[r].tokens;
		all.tokens_all += l->ranks[r].tokens_all;
	}
	progress_line_show(&l->line, all.tokens, all.tokens_all);
}

static bool lead_tick(void *context, const struct replay_progress *progress)
{
	struct lead *l = context;

	l->ranks[0] = *progress;
	if (poll_ranks(l, &l->failure)) return false;
	l->failure.code = 0;
	show(l);
	return true;
}

/* Each rank's samples to it; rank 0's are moved to the front. */
static int deal_out(struct lead *l, struct stored_sample *samples, size_t *n, struct err *err)
{
	int *owner = xmalloc((*n ? *n : 1) * sizeof *owner), rc = 0;
	struct stored_sample *share = xmalloc((*n ? *n : 1) * sizeof *share);

	replay_deal(samples, *n, l->n_ranks, owner);
	for (int r = l->n_ranks - 1; r >= 0 && !rc; r--) {
		size_t mine = 0;
		for (size_t i = 0; i < *n; i++)
			if (owner[i] == r) share[mine++] = samples[i];
		if (r > 0) rc = send(l->team->transport, r, MESSAGE_PLAN, share, mine * sizeof *share, err);
		else {
			memcpy(samples, share, mine * sizeof *share);
			*n = mine;
		}
	}
	free(owner);
	free(share);
	return rc;
}

static int draw_all(struct lead *l, struct replay *replay, struct err *err)
{
	struct stored_sample *samples = NULL;
	size_t n;

	int rc = replay_select(replay, l->team->selection, &samples, &n, err);
	if (!rc && l->n_ranks > 1) rc = deal_out(l, samples, &n, err);
	if (!rc) rc = replay_run(replay, samples, n, l->result, lead_tick, l, err);
	if (rc && l->failure.code) *err = l->failure;
	while (!rc && l->n_results < l->n_ranks - 1) {
		rc = poll_ranks(l, err);
		show(l);
		if (!rc) clock_sleep_ms(1);
	}
	free(samples);
	return rc;
}

int replay_lead(const struct replay_team *team, struct replay_result *result, struct err *err)
{
	struct lead l = { .team = team, .result = result, .n_ranks = team->transport ? transport_size(team->transport) : 1 };
	struct replay *replay = NULL;
	struct err ignored;

	l.ranks = xcalloc((size_t)l.n_ranks, sizeof *l.ranks);
	progress_line_open(&l.line, "drumroll replay", team->quiet);
	int rc = replay_open(&replay, team->options, err);
	if (!rc) rc = draw_all(&l, replay, err);
	progress_line_close(&l.line);
	for (int r = 1; r < l.n_ranks; r++) send(team->transport, r, MESSAGE_QUIT, NULL, 0, &ignored);
	replay_close(replay);
	free(l.ranks);
	return rc;
}

/* ---- the others ---- */

struct follow {
	struct transport *transport;
	struct stored_sample *samples; /* NULL: they have not come yet */
	size_t n;
	bool quit;
};

static void take_messages(struct follow *f)
{
	struct transport_message m;
	uint32_t type;

	while (transport_poll(f->transport, &m)) {
		memcpy(&type, m.bytes, sizeof type);
		if (type == MESSAGE_QUIT) f->quit = true;
		if (type == MESSAGE_PLAN && !f->samples) {
			f->n = (m.n_bytes - sizeof type) / sizeof *f->samples;
			f->samples = xmalloc((f->n ? f->n : 1) * sizeof *f->samples);
			memcpy(f->samples, (const char *)m.bytes + sizeof type, f->n * sizeof *f->samples);
		}
		free(m.bytes);
	}
}

static bool follow_tick(void *context, const struct replay_progress *progress)
{
	struct follow *f = context;
	struct err ignored;

	take_messages(f);
	if (transport_backlog(f->transport, 0) == 0) send(f->transport, 0, MESSAGE_PROGRESS, progress, sizeof *progress, &ignored);
	return !f->quit;
}

static int send_result(struct follow *f, const struct replay_result *result, struct err *err)
{
	json_t *json = replay_result_json(result);
	char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(17));
	int rc = send(f->transport, 0, MESSAGE_RESULT, text, strlen(text), err);

	free(text);
	json_decref(json);
	return rc;
}

int replay_follow(const struct replay_team *team, struct err *err)
{
	struct follow f = { .transport = team->transport };
	struct replay *replay = NULL;
	struct replay_result result;
	struct err ignored;

	replay_result_open(&result);
	int rc = replay_open(&replay, team->options, err);
	while (!rc && !f.samples && !f.quit) {
		take_messages(&f);
		clock_sleep_ms(1);
	}
	if (!rc && !f.quit) rc = replay_run(replay, f.samples, f.n, &result, follow_tick, &f, err);
	if (!rc && !f.quit) rc = send_result(&f, &result, err);
	if (rc && !f.quit) send(f.transport, 0, MESSAGE_FAILED, err->text, strlen(err->text), &ignored);
	while (!f.quit) { /* MPI moves what is queued only while it is polled */
		take_messages(&f);
		clock_sleep_ms(1);
	}
	replay_result_close(&result);
	replay_close(replay);
	free(f.samples);
	return rc;
}
