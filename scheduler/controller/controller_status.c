/* controller_status.c - the run's state for who looks at it: status.json, and pages over HTTP where metrics.listen says so.
 *
 * status.json is replaced every run.timeline_seconds, with more than STATUS_RANKS ranks less often: what it costs the
 * controller stays the same.  It works where no port can be reached, over a shared file system too. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"
#include "scheduler/status/run_status.h"

enum { STATUS_RANKS = 200 };
static const double HTTP_POLL_SECONDS = 0.002;

static const char *phase_text(const struct controller *c)
{
	switch (c->phase) {
	case PHASE_START: return "loading";
	case PHASE_EVAL: return "evaluation";
	case PHASE_STEP: return "rollouts";
	case PHASE_WANTED: return "ahead of the trainer";
	case PHASE_TRAIN: return "training";
	case PHASE_BROADCAST: return "weights";
	case PHASE_FINISH: return "finishing";
	default: return "over";
	}
}

static double status_interval(const struct controller *c)
{
	return c->config->run.timeline_seconds * (1 + (double)c->n_ranks / STATUS_RANKS);
}

/* As the line of progress has it: steps so far and the evaluations between them. */
static double eta_seconds(const struct controller *c)
{
	int64_t made = c->summary.steps - c->stored.step;
	if (made <= 0 || c->steps_began <= 0) return -1;
	return (clock_seconds() - c->steps_began) / (double)made * (double)(c->config->run.steps - c->summary.steps);
}

static void rank_status_fill(const struct controller *c, int rank, struct rank_status *s)
{
	const struct rank_state *r = &c->ranks[rank];

	*s = (struct rank_status){ .rank = rank, .state = controller_rank_shown(c, rank), .holding = r->holding, .losses = r->losses,
		.heard_seconds = c->patience.seconds - r->heard, .tokens_per_sec = r->tokens_per_sec, .acceptance = r->acceptance,
		.draft_length = r->draft_length, .sums = r->stats };
	if (c->timeline) timeline_sums(c->timeline, rank, &r->stats, &s->sums);
	if (s->state == SHOWN_LOST) s->tokens_per_sec = 0;
}

struct status_texts {
	char mode[CONFIG_VALUE_MAX], trainer[CONFIG_VALUE_MAX];
};

/* ranks: [n_ranks - 1], where those of *s go. */
static void status_fill(const struct controller *c, const char *state, struct run_status *s, struct status_texts *texts,
                        struct rank_status *ranks)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	*s = (struct run_status){ .name = c->config->run.name, .id = c->run_id, .dir = c->run_dir, .state = state,
		.phase = phase_text(c), .mode = config_value(c->config, "rollout", "mode", texts->mode),
		.http = c->http ? http_server_address(c->http) : NULL, .time = (double)now.tv_sec + (double)now.tv_nsec * 1e-9,
		.interval = status_interval(c), .seconds = clock_seconds() - c->run_began, .eta_seconds = eta_seconds(c), .step = c->step,
		.steps = c->config->run.steps, .version = c->version, .groups_wanted = (int)c->config->scheduler.groups_per_step,
		.trainer = config_value(c->config, "trainer", "kind", texts->trainer), .trainer_connected = c->server && server_peers(c->server) > 0,
		.eval_pass_rate = c->summary.pass_rate_end, .last_step = c->last_line, .ranks = ranks, .n_ranks = c->n_ranks - 1 };
	if (c->timeline) s->seconds += timeline_before(c->timeline);
	scheduler_counts_read(c->scheduler, &s->counts);
	if (c->server) s->batches_out = c->asynchrony == ASYNCHRONY_ASYNC ? server_unacknowledged(c->server) : c->batch_is_out;
	if (c->loop_clock > 0 && c->batch_put > 0) s->trainer_seconds = clock_seconds() - c->batch_put;
	for (int r = 1; r < c->n_ranks; r++) rank_status_fill(c, r, &ranks[r - 1]);
}

static char *status_text(const struct controller *c, const char *state, char *(*print)(const struct run_status *status))
{
	struct rank_status *ranks = xcalloc((size_t)c->n_ranks, sizeof *ranks);
	struct status_texts texts;
	struct run_status status;

	status_fill(c, state, &status, &texts, ranks);
	char *text = print(&status);
	free(ranks);
	return text;
}

/* ---- pages ---- */

static char *get_page(void *context, const char *path, const char **type, size_t *n_bytes)
{
	static const char *const index = "drumroll: /metrics is for Prometheus, /status (or /metrics.json) is JSON\n";
	const struct controller *c = context;
	char *text = NULL;

	if (strcmp(path, "/metrics") == 0) {
		*type = "text/plain; version=0.0.4; charset=utf-8";
		text = status_text(c, "running", run_status_prometheus);
	} else if (strcmp(path, "/status") == 0 || strcmp(path, "/metrics.json") == 0) {
		*type = "application/json";
		text = status_text(c, "running", run_status_json);
	} else if (strcmp(path, "/") == 0) {
		*type = "text/plain; charset=utf-8";
		text = xstrdup(index);
	}
	*n_bytes = text ? strlen(text) : 0;
	return text;
}

int controller_status_open(struct controller *c, struct err *err)
{
	if (!c->config->metrics.listen[0]) return 0;
	char *listen = run_directory_expand(c->config->metrics.listen, c->run_dir);
	struct http_server_options options = { .listen = listen, .option = "metrics.listen", .context = c, .get = get_page };
	int rc = http_server_open(&c->http, &options, err);
	free(listen);
	return rc;
}

/* ---- status.json ---- */

static void write_status(struct controller *c, const char *state)
{
	struct err err;

	c->status_written = clock_seconds();
	char *text = status_text(c, state, run_status_json);
	if (run_directory_write(c->run_dir, "status.json", text, &err)) {
		progress_note("no status.json from now on: %s", err.text);
		c->status_lost = true;
	}
	free(text);
}

void controller_status_turn(struct controller *c)
{
	double now = clock_seconds();

	if (c->http && now - c->http_polled >= HTTP_POLL_SECONDS) {
		c->http_polled = now;
		http_server_poll(c->http);
	}
	if (c->config->run.timeline_seconds > 0 && !c->status_lost && now - c->status_written >= status_interval(c))
		write_status(c, "running");
}

void controller_status_close(struct controller *c, const char *state)
{
	if (c->run_dir[0] && c->scheduler && c->ranks && c->config->run.timeline_seconds > 0 && !c->status_lost) write_status(c, state);
	http_server_close(c->http);
	c->http = NULL;
	free(c->last_line);
	c->last_line = NULL;
}

void controller_status_metrics(struct controller *c, const char *json)
{
	if (strstr(json, "\"eval/pass_rate\"")) return;
	free(c->last_line);
	c->last_line = xstrdup(json);
}
