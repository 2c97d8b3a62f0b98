/* controller_live.c - what one sees of a run while it runs: what the ranks tell of themselves, into timeline.jsonl.
 *
 * Nothing here may end a run, or change it: a timeline that cannot be written is given up with a word. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"

static const double SILENCE_SECONDS = 30;

static double live_now(const struct controller *c) { return clock_seconds() - c->run_began; }

int controller_live_open(struct controller *c, struct err *err)
{
	const struct config_run *run = &c->config->run;
	char path[RUN_PATH_MAX + 16];

	for (int r = 1; r < c->n_ranks; r++) c->ranks[r].acceptance = -1;
	int rc = controller_status_open(c, err);
	if (rc || run->timeline_seconds <= 0) return rc;
	snprintf(path, sizeof path, "%s/timeline.jsonl", c->run_dir);
	rc = timeline_open(&c->timeline, path, run->timeline_seconds, (size_t)run->timeline_mb << 20, c->n_ranks, err);
	if (rc) return rc;
	c->step = c->stored.step;
	controller_event(c, c->in->resume_dir ? "run_resumed" : "run_begin", ",\"ranks\":%d", c->n_ranks - 1);
	return 0;
}

void controller_live_close(struct controller *c, const char *status)
{
	controller_status_close(c, status);
	controller_event(c, "run_end", ",\"status\":\"%s\"", status);
	struct err err;
	if (c->timeline) timeline_flush(c->timeline, &err);
	timeline_close(c->timeline);
	c->timeline = NULL;
}

void controller_event(struct controller *c, const char *event, const char *format, ...)
{
	char fields[256];
	va_list args;

	if (!c->timeline) return;
	va_start(args, format);
	vsnprintf(fields, sizeof fields, format, args);
	va_end(args);
	timeline_event(c->timeline, live_now(c), c->step, event, fields);
}

enum rank_shown controller_rank_shown(const struct controller *c, int rank)
{
	const struct rank_state *r = &c->ranks[rank];

	if (r->life == RANK_IS_CATCHING_UP) return SHOWN_WEIGHTS;
	if (!rank_serves(r)) return c->phase == PHASE_START ? SHOWN_IDLE : SHOWN_LOST;
	if (r->holding > 0) return SHOWN_GENERATING;
	return c->broadcasting && !r->updated ? SHOWN_WEIGHTS : SHOWN_IDLE;
}

/* Rates over the last interval, whatever else was told meanwhile. */
static void measure(const struct controller *c, struct rank_state *r)
{
	const struct engine_stats *now = &r->stats.engine, *before = &r->mark.engine;
	double seconds = r->stats.seconds - r->mark.seconds, drafted = (double)(now->drafted - before->drafted);
	double rows = (double)(now->decode_rows - before->decode_rows) + (double)(now->verify_rows - before->verify_rows);

	if (seconds < 0.9 * c->config->run.timeline_seconds || seconds <= 0) return;
	r->tokens_per_sec = (double)(now->tokens - before->tokens) / seconds;
	r->acceptance = drafted > 0 ? (double)(now->accepted - before->accepted) / drafted : -1;
	r->draft_length = rows > drafted ? drafted / (rows - drafted) : 0;
	r->mark = r->stats;
}

/* Rounds are progress; that a rank still speaks is not. */
int controller_on_stats(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	struct rank_state *r = &c->ranks[rank];
	struct rank_stats added, step = { .engine = c->metrics.engine };

	int rc = rank_message_get_stats(root, &added, err);
	if (rc) return err_context(err, "rank %d", rank);
	rank_stats_add(&r->stats, &added);
	measure(c, r);
	rank_stats_add(&step, &added);
	c->metrics.engine = step.engine;
	c->metrics.ranks_weights_seconds += added.weights_seconds;
	c->metrics.ranks_reward_seconds += added.reward_seconds;
	c->metrics.ranks_wait_seconds += added.wait_seconds;
	c->metrics.ranks_seconds += added.seconds;
	if (added.engine.rounds > 0) c->last_progress = clock_seconds();
	if (c->timeline && timeline_wants(c->timeline, rank, live_now(c)))
		timeline_rank(c->timeline, live_now(c), c->step, rank, controller_rank_shown(c, rank), &r->stats);
	return 0;
}

void controller_live_step(struct controller *c)
{
	double now = live_now(c);

	controller_event(c, "batch", ",\"version\":%" PRId64 ",\"trajectories\":%d", c->version, c->out.trajectories);
	for (int r = 1; c->timeline && r < c->n_ranks; r++)
		if (timeline_lacks(c->timeline, r, c->step, &c->ranks[r].stats))
			timeline_rank(c->timeline, now, c->step, r, controller_rank_shown(c, r), &c->ranks[r].stats);
}

/* How many sessions are at work: until the next turn. */
static void watch_slots(struct controller *c)
{
	double now = clock_seconds(), seconds = c->slots_clock > 0 ? now - c->slots_clock : 0;
	int serving = 0, slots = 0, busy = 0, sessions = 0;

	c->slots_clock = now;
	for (int i = 1; i < c->n_ranks; i++) {
		const struct rank_state *r = &c->ranks[i];
		if (!rank_serves(r)) continue;
		serving++;
		slots += r->active;
		busy += r->holding > 0;
		sessions += r->holding < r->active ? r->holding : r->active;
	}
	if (c->phase != PHASE_EVAL && c->phase != PHASE_START && (c->phase == PHASE_STEP || busy > 0))
		step_metrics_watched(&c->metrics, seconds, serving, slots, busy, sessions);
}

/* A log of long steps should not be silent. */
static void speak(const struct controller *c)
{
	struct scheduler_counts counts;
	double rate = 0;

	if (c->phase != PHASE_STEP || progress_silence() < SILENCE_SECONDS) return;
	for (int r = 1; r < c->n_ranks; r++) rate += rank_serves(&c->ranks[r]) ? c->ranks[r].tokens_per_sec : 0;
	scheduler_counts_read(c->scheduler, &counts);
	progress_within(c->step, c->config->run.steps, counts.groups_complete, (int)c->config->scheduler.groups_per_step,
	                counts.leased, rate);
}

void controller_live_turn(struct controller *c)
{
	struct err err;

	speak(c);
	watch_slots(c);
	controller_status_turn(c);
	if (!c->timeline || !timeline_flush(c->timeline, &err)) return;
	progress_note("no timeline from now on: %s", err.text);
	timeline_close(c->timeline);
	c->timeline = NULL;
}

/* Time in which ranks have nothing to do since the trainer has not taken, or not answered, what there is. */
void controller_watch_backpressure(struct controller *c)
{
	bool waits = c->server && (c->phase == PHASE_TRAIN || c->phase == PHASE_WANTED);
	double now = clock_seconds();

	for (int r = 1; r < c->n_ranks && waits; r++) waits = c->ranks[r].holding == 0;
	if (waits && c->loop_clock > 0) c->out.blocked_seconds += now - c->loop_clock;
	c->loop_clock = waits ? now : 0;
	if (c->server) c->out.unacknowledged = server_unacknowledged(c->server);
	c->out.prompts_waiting = controller_prompts_waiting(c);
}
