/* controller_ranks.c - ranks that come, fall silent, come back, fail or never come.
 *
 * Silence is all that tells: MPI says nothing of a dead rank, and a send to it may seem to succeed.  A rank that is
 * not heard for cluster.silence_seconds is given up.  Its samples wait again as they were last known and others
 * generate them, with the same bits; its leases are void, so what it still answers changes nothing.  If
 * it was only stopped, slow or cut off, it speaks again: it is told to throw away what it holds (RESET), gets the
 * current weights if it has others, and serves again.  Messages of one rank stay in order, so that all it says
 * before its READY to the RESET is of the time before. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "scheduler/controller/controller_internal.h"

static const double PACK_MARGIN = 4; /* how much longer than last time a policy may take to be made */

/* A line of events.jsonl, for who wants to know when; and the same as text for a person. */
static void note_event(struct controller *c, const char *event, int rank, const char *format, ...)
{
	char json[512], text[256];
	struct timespec now;
	struct err err;
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(json, sizeof json, "{\"time\":%lld.%03ld,\"event\":\"%s\",\"rank\":%d,\"step\":%" PRId64 ",\"text\":\"%s\"}",
	         (long long)now.tv_sec, now.tv_nsec / 1000000, event, rank, c->step, text);
	progress_note("rank %d %s", rank, text);
	char name[32];
	snprintf(name, sizeof name, "rank_%s", strcmp(event, "back") == 0 ? "returned" : event);
	controller_event(c, name, ",\"of_rank\":%d", rank);
	if (run_directory_append(c->run_dir, "events.jsonl", json, &err)) progress_note("events.jsonl: %s", err.text);
}

int controller_ranks_serving(const struct controller *c)
{
	int n = 0;
	for (int r = 1; r < c->n_ranks; r++) n += rank_serves(&c->ranks[r]);
	return n;
}

/* ---- coming and going ---- */

static void serve_again(struct controller *c, int rank)
{
	struct rank_state *r = &c->ranks[rank];
	bool returns = r->losses > 0;

	r->life = RANK_IS_SERVING;
	r->updated = true; /* a version on its way would have kept it waiting */
	if (returns) {
		c->metrics.ranks_returned++;
		note_event(c, "back", rank, "is back after %.1f s, at version %" PRId64, clock_seconds() - r->silent_since, r->version);
	} else if (c->phase != PHASE_START) note_event(c, "joined", rank, "has joined late, at version %" PRId64, r->version);
	scheduler_on_rank_joined_slots(c->scheduler, rank, r->capacity, r->active);
}

/* Its samples wait as they were before it got them; what it answers about them is late. */
static int void_leases(struct controller *c, int rank)
{
	int n = 0;

	for (struct live_group *g = group_table_next(c->groups, 0); g; g = group_table_next(c->groups, g->id + 1))
		for (int i = 0; i < g->n_samples; i++) {
			if (g->leases[i] == 0 || g->holders[i] != rank) continue;
			if (g->orphans[i]) c->ranks[g->orphans[i]].orphans--; /* of an earlier loss: it is this rank's now */
			g->leases[i] = 0;
			g->moving[i] = false;
			g->orphans[i] = rank;
			n++;
		}
	return n;
}

/* Returns how many samples it held. */
static int give_up(struct controller *c, int rank, enum rank_life life)
{
	struct rank_state *r = &c->ranks[rank];
	bool served = rank_serves(r);

	r->life = life;
	r->silent_since = clock_seconds();
	transport_lost(c->transport, rank);
	weights_stream_close(r->catch_up);
	r->catch_up = NULL;
	if (!served) return 0;
	controller_broadcast_lost(c, rank);
	r->losses++;
	r->holding = r->n_keep = 0;
	int n = void_leases(c, rank);
	r->orphans += n;
	c->metrics.ranks_lost++;
	c->metrics.orphans += n;
	scheduler_on_rank_lost(c->scheduler, rank);
	return n;
}

void controller_orphan_settled(struct controller *c, struct live_group *g, int sample)
{
	int rank = g->orphans[sample];

	if (rank == 0) return;
	g->orphans[sample] = 0;
	if (--c->ranks[rank].orphans == 0)
		note_event(c, "recovered", rank, "is made up for: what it held is done or put aside, %.2f s after it was given up",
		           clock_seconds() - c->ranks[rank].silent_since);
}

static int quit(struct controller *c, int rank, bool alone, struct err *err)
{
	rank_message_begin(c->writer, RANK_QUIT, 1);
	message_key(c->writer, "alone");
	message_put_int(c->writer, alone);
	return rank_message_send(c->transport, rank, c->writer, err);
}

static int reset(struct controller *c, int rank, struct err *err)
{
	struct rank_state *r = &c->ranks[rank];

	transport_found(c->transport, rank);
	if (r->losses > c->config->cluster.losses_max) {
		note_event(c, "ended", rank, "speaks again, but was given up %d times (cluster.losses_max): it is told to end", r->losses);
		r->life = RANK_IS_ENDED;
		return quit(c, rank, true, err);
	}
	r->life = RANK_IS_RESETTING;
	rank_message_begin(c->writer, RANK_RESET, 1);
	message_key(c->writer, "epoch");
	message_put_uint(c->writer, ++r->epoch);
	return rank_message_send(c->transport, rank, c->writer, err);
}

/* ---- what ranks say ---- */

static bool is_answer(enum rank_message type)
{
	return type == RANK_DONE || type == RANK_PARTIAL || type == RANK_RETURNED;
}

bool controller_rank_heard(struct controller *c, int rank, enum rank_message type, const struct message_node *root,
                           int *rc, struct err *err)
{
	struct rank_state *r = &c->ranks[rank];
	uint64_t number;

	*rc = 0;
	r->heard = c->patience.seconds;
	if (r->life == RANK_IS_ENDED) return false;
	if (type == RANK_FAILED) return true;
	if (type == RANK_ALIVE && message_get_uint(root, "rounds", &number, err) == 0) {
		if (number > r->rounds && rank_serves(r)) c->last_progress = clock_seconds();
		r->rounds = number;
	}
	if (r->life == RANK_IS_SILENT || r->life == RANK_IS_RESETTING) c->metrics.late_answers += is_answer(type);
	if (r->life == RANK_IS_SILENT) {
		*rc = reset(c, rank, err);
		return false;
	}
	if (r->life == RANK_IS_RESETTING)
		return type == RANK_READY && message_get_uint(root, "epoch", &number, err) == 0 && number == r->epoch;
	return true;
}

/* It has the weights that samples are drawn with, or gets them first. */
static void take_in(struct controller *c, int rank)
{
	struct rank_state *r = &c->ranks[rank];

	bool restored = c->restoring && !c->broadcasting; /* what is kept goes to all that are there */

	if (restored || (r->version == c->version && !c->broadcasting)) {
		serve_again(c, rank);
		return;
	}
	r->life = RANK_IS_CATCHING_UP;
}

int controller_on_ready(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	struct rank_state *r = &c->ranks[rank];
	int64_t capacity, active;
	const char *cpu;

	int rc = message_get_int(root, "capacity", 1, INT32_MAX, &capacity, err);
	if (!rc) rc = message_get_int(root, "active", 1, capacity, &active, err);
	if (!rc) rc = message_get_text(root, "cpu", &cpu, err);
	if (!rc) rc = message_get_int(root, "version", 0, INT64_MAX, &r->version, err);
	if (!rc) rc = message_get_real(root, "pack_seconds", &r->pack_seconds, err);
	if (rc) return rc;
	snprintf(r->cpu, sizeof r->cpu, "%s", cpu ? cpu : "?");
	r->capacity = (int)capacity;
	r->active = (int)active;
	take_in(c, rank);
	return 0;
}

/* Before the work begins a rank that fails is a fault of the set-up, and ends the run; later the others go on. */
int controller_on_failed(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	const char *text = NULL;
	int rc = message_get_text(root, "text", &text, err);

	if (!text) text = "failed without a reason";
	if (rc) return rc;
	if (c->phase == PHASE_START) return err_set(err, ERR_PEER, "rank %d: %s", rank, text);
	progress_note("rank %d has failed: %s", rank, text);
	note_event(c, "ended", rank, "has failed and is done without; %d samples go to others", give_up(c, rank, RANK_IS_ENDED));
	return 0;
}

/* ---- weights for those that come back ---- */

int controller_on_caught_up(struct controller *c, int rank, int64_t version, struct err *err)
{
	(void)err;
	weights_stream_close(c->ranks[rank].catch_up);
	c->ranks[rank].catch_up = NULL;
	c->ranks[rank].version = version;
	take_in(c, rank); /* or once more, if there are newer ones by now */
	return 0;
}

/* While a version is broadcast they wait for the end of it. */
static int catch_up(struct controller *c, int rank, struct err *err)
{
	struct rank_state *r = &c->ranks[rank];

	if (!r->catch_up && r->version == c->version) {
		serve_again(c, rank);
		return 0;
	}
	return controller_catch_up(c, rank, err);
}

/* ---- once a turn ---- */

/* A rank that makes a policy of new weights says nothing meanwhile. */
static double patience_with(const struct controller *c, const struct rank_state *r)
{
	bool packs = r->life == RANK_IS_CATCHING_UP || (c->stream && !(c->broadcasting && r->updated));
	return c->config->cluster.silence_seconds + (packs ? PACK_MARGIN * r->pack_seconds : 0);
}

static void look_for_silence(struct controller *c)
{
	for (int rank = 1; rank < c->n_ranks; rank++) {
		struct rank_state *r = &c->ranks[rank];
		bool speaks = r->life == RANK_IS_SERVING || r->life == RANK_IS_RESETTING || r->life == RANK_IS_CATCHING_UP;
		double silent = c->patience.seconds - r->heard;
		if (r->life != RANK_IS_ENDED && transport_is_broken(c->transport, rank)) {
			int n = give_up(c, rank, RANK_IS_ENDED);
			note_event(c, "lost", rank, "cannot be reached any more: %d samples go to others, %d ranks left", n, controller_ranks_serving(c));
			continue;
		}
		if (!speaks || silent <= patience_with(c, r)) continue;
		int n = give_up(c, rank, RANK_IS_SILENT);
		note_event(c, "lost", rank, "has not been heard for %.2f s (cluster.silence_seconds): %d samples go to others, %d ranks left",
		           silent, n, controller_ranks_serving(c));
	}
}

static int look_for_anybody(struct controller *c, struct err *err)
{
	bool some = false, back = false; /* is there hope; is it on its way */

	for (int r = 1; r < c->n_ranks; r++) {
		some = some || c->ranks[r].life != RANK_IS_ENDED;
		back = back || c->ranks[r].life == RANK_IS_RESETTING || c->ranks[r].life == RANK_IS_CATCHING_UP;
	}
	if (back || (c->phase == PHASE_START && some) || c->phase == PHASE_FINISH || c->phase == PHASE_OVER || controller_ranks_serving(c) > 0) {
		c->alone_since = -1;
		return 0;
	}
	if (c->alone_since < 0) c->alone_since = c->patience.seconds;
	double alone = c->patience.seconds - c->alone_since;
	if (some && alone <= c->config->cluster.wait_seconds) return 0;
	return err_set(err, ERR_PEER, "no worker is left%s; stopped in step %" PRId64 ", and what was delivered and put aside is stored",
	               some ? ", and none came back within cluster.wait_seconds" : ": all have failed", c->step);
}

static int say_alive(struct controller *c, struct err *err)
{
	double now = clock_seconds();
	int rc = 0;

	if (now - c->last_alive < rank_alive_seconds(&c->config->cluster)) return 0;
	c->last_alive = now;
	for (int r = 1; r < c->n_ranks && !rc; r++) {
		if (c->ranks[r].life == RANK_IS_SILENT || c->ranks[r].life == RANK_IS_ENDED) continue;
		rank_message_begin(c->writer, RANK_ALIVE, 0);
		rc = rank_message_send(c->transport, r, c->writer, err);
	}
	return rc;
}

int controller_ranks_turn(struct controller *c, struct err *err)
{
	int rc = 0;

	c->last_progress += patience_turn(&c->patience); /* while this process was stopped nothing could happen */
	if (c->last_progress > c->patience.turned) c->last_progress = c->patience.turned;
	look_for_silence(c);
	for (int r = 1; r < c->n_ranks && !rc && !c->broadcasting; r++)
		if (c->ranks[r].life == RANK_IS_CATCHING_UP) rc = catch_up(c, r, err);
	if (!rc) rc = look_for_anybody(c, err);
	return rc ? rc : say_alive(c, err);
}

bool controller_ranks_are_ready(const struct controller *c)
{
	bool all = true;

	for (int r = 1; r < c->n_ranks; r++) all = all && c->ranks[r].life != RANK_IS_ABSENT;
	return controller_ranks_serving(c) > 0 && (all || clock_seconds() - c->phase_began > c->config->cluster.start_seconds);
}

/* It is over.  Where a rank was lost nobody waits for everybody. */
void controller_ranks_dismiss(struct controller *c)
{
	bool alone = false;
	struct err err;

	for (int r = 1; c->ranks && r < c->n_ranks; r++) alone = alone || c->ranks[r].losses > 0 || c->ranks[r].life != RANK_IS_SERVING;
	for (int r = 1; r < c->n_ranks; r++) {
		if (c->ranks && c->ranks[r].life == RANK_IS_ENDED) continue;
		if (quit(c, r, alone, &err)) continue;
	}
	if (alone) transport_leave_alone(c->transport);
}
