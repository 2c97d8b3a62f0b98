/* controller.c - the phases of a run and the loop that waits for ranks, trainer and person.
 *
 *   START -> [EVAL] -> STEP -> TRAIN -> BROADCAST -> [EVAL] -> STEP ... -> FINISH -> OVER
 *
 * One step off, STEP begins again as soon as a batch is out, and TRAIN and BROADCAST come between a batch that is
 * complete and its delivery.  Async, there is no BROADCAST but one that goes on beside everything else, and
 * WANTED -> STEP -> WANTED goes round until the trainer must be waited for: before an evaluation and at the end
 * every mode goes through TRAIN, so that what is evaluated is what the trainer made of all batches.
 *
 * One thread does everything here: it polls MPI and the socket, and hands events to the scheduler. */
#include "scheduler/controller/controller.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"
#include "scheduler/controller/sample_context.h"
#include "scheduler/controller/trainer_process.h"
#include "scheduler/ranks/rank_guard.h"

static const double GOODBYE_SECONDS = 10;
enum { POLL_MS = 1 };

void controller_enter(struct controller *c, enum phase phase)
{
	c->phase = phase;
	c->phase_began = c->last_progress = clock_seconds();
}

static double phase_seconds(const struct controller *c) { return clock_seconds() - c->phase_began; }

/* ---- phases ---- */

static void begin_step(struct controller *c)
{
	if (c->step == 0) c->steps_began = clock_seconds();
	c->step++;
	if (c->metrics.step != c->step || (c->asynchrony != ASYNCHRONY_ASYNC && c->step > c->stored.step + 1)) {
		step_metrics_begin_again(&c->metrics, c->step, c->version);
		c->step_began = clock_seconds();
	}
	controller_enter(c, PHASE_STEP);
	controller_event(c, "step_begin", ",\"version\":%" PRId64, c->version);
	scheduler_on_step_begin(c->scheduler, c->step, c->version);
}

static void begin_eval(struct controller *c)
{
	c->next_eval = 0;
	if (c->asynchrony != ASYNCHRONY_ASYNC) step_metrics_begin_again(&c->metrics, c->step, c->version);
	memset(c->lost[true], 0, sizeof c->lost[true]);
	controller_enter(c, PHASE_EVAL);
	controller_event(c, "evaluation", ",\"version\":%" PRId64, c->version);
	scheduler_on_eval_begin(c->scheduler, c->step, (int)c->in->eval_prompts->n);
}

static void begin_finish(struct controller *c)
{
	if (c->server) server_finish(c->server);
	controller_enter(c, PHASE_FINISH);
}

static bool eval_is_due(const struct controller *c)
{
	int64_t every = c->config->eval.every;
	if (c->in->eval_prompts->n == 0) return false;
	return c->step == 0 || c->step == c->config->run.steps || (every > 0 && c->step % every == 0);
}

/* The next step, under the newest weights: a trainer may push some that answer no batch, such as its own
 * initial ones. */
static void go_on(struct controller *c)
{
	c->phase = PHASE_EVAL; /* what a trainer wants evaluated comes first, and then this again */
	bool last = c->step == c->config->run.steps;
	if ((c->asynchrony != ASYNCHRONY_ASYNC || last) && controller_begin_requested(c)) return;
	if (last) begin_finish(c);
	else if (c->asynchrony == ASYNCHRONY_ASYNC && c->step > 0) controller_enter(c, PHASE_WANTED);
	else if (c->asynchrony == ASYNCHRONY_ASYNC) begin_step(c);
	else if (c->arriving) controller_broadcast_begin(c);
	else if (controller_lacks_prompts(c)) controller_enter(c, PHASE_WANTED);
	else begin_step(c);
}

int controller_write_metrics(struct controller *c, const char *json, struct err *err)
{
	int rc = run_directory_append(c->run_dir, "metrics.jsonl", json, err);
	controller_status_metrics(c, json);
	return rc ? rc : store_put_metrics(c->store, c->step, json, err);
}

int controller_write_step(struct controller *c, struct err *err)
{
	struct step_metrics *m = &c->out;

	if (m->step == 0) return 0;
	if (c->out_line) return controller_write_old_step(c, err);
	run_summary_add(&c->summary, m);
	progress_step(m, c->config->run.steps, (clock_seconds() - c->steps_began) / (double)(m->step - c->stored.step));
	char *json = step_metrics_json(m);
	int rc = controller_write_metrics(c, json, err);
	if (!rc) rc = store_put_number(c->store, STATE_LINE, m->step, err);
	free(json);
	m->step = 0;
	c->line_waits = false;
	return rc;
}

/* Weights may be everywhere before the trainer's next words, its report of the step: the line waits for them, or
 * until another batch goes out. */
static int settle_step(struct controller *c, struct err *err)
{
	c->line_waits = c->server && c->config->trainer.kind != TRAINER_SIMULATED && c->out.step && !c->out.has_report;
	return c->line_waits ? 0 : controller_write_step(c, err);
}

static int end_step(struct controller *c, struct err *err)
{
	int rc = settle_step(c, err);

	if (rc) return rc;
	if (eval_is_due(c)) begin_eval(c);
	else go_on(c);
	return 0;
}

static int end_requested(struct controller *c, struct err *err)
{
	int rc = controller_end_requested(c, err);

	if (!rc && c->phase == PHASE_EVAL) go_on(c);
	return rc;
}

static int end_eval(struct controller *c, struct err *err)
{
	int passed = 0, n = 0, rc = 0;
	char json[160];

	for (int i = 0; i < c->n_delivered; i++) {
		struct live_group *g = group_table_find(c->groups, c->delivered[i]);
		for (int k = 0; k < g->n_samples; k++) {
			passed += g->samples[k]->has_reward && g->samples[k]->reward_answer >= 1;
			n += g->samples[k]->finish != FINISH_ERROR; /* what could not be judged is not wrong */
			if (!rc) rc = store_put_trajectory(c->store, g->samples[k], STORE_DELIVERED, err);
		}
		if (!rc) rc = store_group_state(c->store, g->id, STORE_DELIVERED, c->step, err);
	}
	controller_release_delivered(c);
	double rate = n ? (double)passed / n : 0;
	if (c->step == 0) c->summary.pass_rate_start = rate;
	c->summary.pass_rate_end = rate;
	progress_eval(c->step, rate, n, phase_seconds(c));
	controller_event(c, "evaluation_end", ",\"pass_rate\":%.6f", rate);
	c->step_began += phase_seconds(c);
	c->summary.eval_seconds += phase_seconds(c);
	if (c->step > 0) c->steps_began += phase_seconds(c);
	snprintf(json, sizeof json, "{\"step\":%" PRId64 ",\"version\":%" PRId64 ",\"eval/pass_rate\":%.6f,\"eval/samples\":%d}",
	         c->step, c->version, rate, n);
	if (!rc) rc = controller_write_metrics(c, json, err);
	c->stored.evaluated = c->step;
	if (!rc) rc = store_put_number(c->store, STATE_EVALUATED, c->step, err);
	if (!rc) go_on(c);
	return rc;
}

/* Whether the next batch is generated while the trainer is at the one that has just been put. */
static bool goes_on_beside_training(const struct controller *c)
{
	return c->asynchrony != ASYNCHRONY_SYNC && c->step < c->config->run.steps && !eval_is_due(c);
}

static int deliver_batch(struct controller *c, struct err *err)
{
	int rc = controller_write_step(c, err);

	if (!rc) rc = controller_put_batch(c, err);
	if (rc) return rc;
	controller_live_step(c);
	if (!c->server) return end_step(c, err);
	c->batch_is_out = true;
	if (c->step == c->config->run.steps) scheduler_on_rest(c->scheduler);
	if (goes_on_beside_training(c)) go_on(c);
	else controller_enter(c, PHASE_TRAIN);
	return 0;
}

int controller_step_ready(struct controller *c, bool eval, struct err *err)
{
	double stopping = c->stop_began > 0 ? clock_seconds() - c->stop_began : 0;

	c->stop_began = 0;
	if (eval) return c->requested ? end_requested(c, err) : end_eval(c, err);
	c->metrics.rollout_seconds = clock_seconds() - c->step_began;
	c->metrics.stop_seconds = stopping;
	controller_event(c, "quiet", "%s", "");
	if (c->asynchrony != ASYNCHRONY_ONE_STEP_OFF || !c->batch_is_out) return deliver_batch(c, err);
	c->batch_is_held = true;
	controller_enter(c, PHASE_TRAIN);
	return 0;
}

/* Where a run that is resumed was. */
static void begin_again(struct controller *c)
{
	if (c->batch_is_out && !goes_on_beside_training(c)) controller_enter(c, PHASE_TRAIN);
	else if (!c->batch_is_out && eval_is_due(c) && c->stored.evaluated < c->step) begin_eval(c);
	else go_on(c);
}

static int end_broadcast(struct controller *c, struct err *err)
{
	bool answers = c->batch_is_out;

	if (c->restoring) {
		c->restoring = false;
		controller_broadcast_end(c);
		controller_scores_keep(c, c->version, &c->current->weights); /* a crash may have come before */
		begin_again(c);
		return 0;
	}
	c->batch_is_out = false;
	if (answers) {
		c->out.receive_seconds = c->arriving->ended - c->arriving->began;
		c->out.broadcast_seconds = clock_seconds() - c->broadcast_began;
		c->out.requantize_seconds = c->requantize_seconds;
	}
	controller_broadcast_end(c);
	c->version = c->current->version;
	controller_event(c, "weights", ",\"version\":%" PRId64, c->version);
	controller_drop_kv(c);
	server_set_version(c->server, c->version);
	int rc = controller_keep_version(c, err);
	controller_scores_keep(c, c->version, &c->current->weights);
	if (!rc) rc = settle_step(c, err);
	if (rc) return rc;
	if (c->asynchrony == ASYNCHRONY_ASYNC) {
		scheduler_on_version(c->scheduler, c->version);
		return 0;
	}
	if (c->batch_is_held) {
		c->batch_is_held = false;
		return deliver_batch(c, err);
	}
	if (answers) return end_step(c, err);
	go_on(c);
	return 0;
}

/* Async: weights go to the ranks as they come, and a batch is begun when the trainer asks for one.  None while a
 * version is on its way, so that a batch's version is the trainer's; and no more than it may lag are ahead of it. */
static int advance_async(struct controller *c, struct err *err)
{
	bool moving = c->phase == PHASE_WANTED || c->phase == PHASE_STEP || c->phase == PHASE_TRAIN;
	int rc = 0;

	if (moving && c->arriving) {
		rc = controller_announce_version(c, err);
		if (!rc) controller_broadcast_begin(c);
	} else if (c->phase == PHASE_WANTED && server_wants_batch(c->server) &&
	         server_unacknowledged(c->server) <= c->config->scheduler.max_staleness) begin_step(c);
	return rc;
}

static void begin_work(struct controller *c)
{
	const struct config *config = c->config;
	struct weights layout;
	const char *cpu = "";

	for (int r = c->n_ranks - 1; r > 0; r--)
		if (rank_serves(&c->ranks[r])) cpu = c->ranks[r].cpu;
	weights_layout(&layout, c->in->model);
	progress_banner(&(struct progress_banner){
		.run_name = config->run.name, .run_dir = c->run_dir, .model_path = config->model.path, .cpu = cpu,
		.bridge = c->server ? server_address(c->server) : NULL, .metrics = c->http ? http_server_address(c->http) : NULL, .model = c->in->model,
		.parameters = (double)layout.n_elements, .workers = c->n_ranks - 1, .threads = (int)config->worker.threads,
		.mode = config->rollout.mode, .draft_length = config->speculation.draft_length,
		.drafter = config->speculation.drafter, .draft = draft_options_of(&config->speculation, config->rollout.mode) });
	weights_free(&layout);
	if (!rank_guard_is_on())
		progress_note("a worker that dies may end the run: drumroll was not started by MPICH's mpirun (no PMI_FD)");
	else if (controller_ranks_serving(c) < 2) progress_note("there is one worker: the run ends if it dies");
	if (!c->restoring) {
		begin_again(c);
		return;
	}
	controller_broadcast_begin(c);
	controller_enter(c, PHASE_BROADCAST); /* async too: nothing is generated before */
}

/* What follows from what has arrived. */
static int advance(struct controller *c, struct err *err)
{
	bool all = true;

	int rc = controller_broadcast_pump(c, err);
	if (rc) return rc;
	if (c->broadcasting) {
		for (int r = 1; r < c->n_ranks; r++) all = all && (c->ranks[r].updated || !rank_serves(&c->ranks[r]));
		return all && !controller_scores_keeping(c) ? end_broadcast(c, err) : 0;
	}
	if (c->asynchrony == ASYNCHRONY_ASYNC) rc = advance_async(c, err);
	if (rc) return rc;
	bool waits = c->phase == PHASE_TRAIN || c->phase == PHASE_WANTED;
	if (waits && !c->broadcasting && !c->arriving && controller_begin_requested(c)) return 0;
	switch (c->phase) {
	case PHASE_START:
		if (controller_ranks_are_ready(c)) begin_work(c);
		return 0;
	case PHASE_WANTED:
		if (c->asynchrony != ASYNCHRONY_ASYNC && (c->arriving || !controller_lacks_prompts(c))) go_on(c);
		return 0;
	case PHASE_TRAIN:
		if (c->asynchrony == ASYNCHRONY_ASYNC)
			return c->batch_is_out || c->broadcasting || server_unacknowledged(c->server) > 0 ? 0 : end_step(c, err);
		if (c->arriving) controller_broadcast_begin(c);
		return 0;
	case PHASE_FINISH:
		if (!c->server || (server_unacknowledged(c->server) == 0 && !controller_has_requests(c))) controller_enter(c, PHASE_OVER);
		return 0;
	default:
		return 0;
	}
}

/* ---- events ---- */

int controller_on_message(struct controller *c, const struct transport_message *m, struct err *err)
{
	struct message *message;
	int64_t type;

	int rc = message_parse(&message, m->bytes, m->n_bytes, err);
	if (rc) return rc;
	const struct message_node *root = message_root(message);
	rc = message_get_int(root, "type", RANK_START, RANK_FAILED, &type, err);
	if (!rc && controller_rank_heard(c, m->rank, (enum rank_message)type, root, &rc, err)) switch (type) {
	case RANK_READY: rc = controller_on_ready(c, m->rank, root, err); break;
	case RANK_DONE:
	case RANK_PARTIAL:
	case RANK_RETURNED: rc = controller_on_result(c, m->rank, root, (enum rank_message)type, err); break;
	case RANK_RECALLED: rc = controller_on_recalled(c, m->rank, root, err); break;
	case RANK_STATS: rc = controller_on_stats(c, m->rank, root, err); break;
	case RANK_QUIET: scheduler_on_rank_quiet(c->scheduler, m->rank); break;
	case RANK_REACHED: rc = controller_on_reached(c, m->rank, root, err); break;
	case RANK_PROGRESS: rc = controller_on_progress(c, m->rank, root, err); break;
	case RANK_UPDATED: rc = controller_on_updated(c, m->rank, root, err); break;
	case RANK_FIRST: rc = controller_on_first(c, root, err); break;
	case RANK_ALIVE: break;
	case RANK_FAILED: rc = controller_on_failed(c, m->rank, root, err); break;
	default: rc = err_set(err, ERR_PEER, "rank %d sent message type %" PRId64 ", which is the controller's", m->rank, type);
	}
	message_close(message);
	if (type != RANK_ALIVE && type != RANK_STATS) c->last_progress = clock_seconds();
	return rc;
}

/* ---- the loop ---- */

static int watch(struct controller *c, struct err *err)
{
	int rc, signal_number;

	if (controller_signals(&signal_number) > 0) return controller_drain(c, err);
	rc = controller_ranks_turn(c, err);
	if (!rc) rc = controller_waits_check(c, err);
	if (!rc && c->trainer) rc = controller_watch_trainer(c, err);
	return rc ? rc : controller_keep_poll(c, err);
}

/* Weights are leaving: MPI moves them only when polled.  Once they are gone the ranks need the cores. */
static bool is_sending(const struct controller *c)
{
	for (int r = 1; r < c->n_ranks; r++)
		if (c->stream && rank_serves(&c->ranks[r]) && transport_backlog(c->transport, r) > 0) return true;
	return false;
}

static int loop(struct controller *c, struct err *err)
{
	int rc = 0;

	while (!rc && c->phase != PHASE_OVER) {
		struct transport_message m;
		bool busy = false;
		while (!rc && transport_poll(c->transport, &m)) {
			busy = true;
			rc = controller_on_message(c, &m, err);
			free(m.bytes);
			if (!rc) rc = controller_do_actions(c, err);
		}
		if (c->server && !c->restoring) server_poll(c->server, busy || is_sending(c) ? 0 : POLL_MS);
		else if (!busy) clock_sleep_ms(POLL_MS);
		if (!rc && c->failed.code) {
			*err = c->failed;
			rc = err->code;
		}
		if (!rc) rc = controller_rewards_turn(c, err);
		controller_answer_scores(c);
		controller_watch_streams(c);
		controller_watch_backpressure(c);
		if (!rc) rc = advance(c, err);
		if (!rc) rc = controller_do_actions(c, err);
		if (!rc) rc = watch(c, err);
		controller_live_turn(c);
		if (!rc) rc = controller_do_actions(c, err); /* ranks may have been given up */
	}
	if (!rc && c->line_waits) rc = controller_write_step(c, err); /* no report has come */
	return rc ? rc : controller_flush(c, err);
}

/* ---- opening and closing ---- */

static int start_ranks(struct controller *c, struct err *err)
{
	/* A submitted prompt may be as long as this one. */
	struct prompt longest = { .n_tokens = (int32_t)c->config->data.prompt_tokens_max };
	const struct prompts submitted = { .items = &longest, .n = c->config->data.source != PROMPTS_FROM_FILE };
	const struct prompts *sets[] = { c->in->prompts, c->in->eval_prompts, &submitted };
	struct sample_context context;

	sample_context_find(&context, c->in->model, sets, 3, c->config->rollout.max_tokens, "rollout.max_tokens");
	if (context.note[0]) fprintf(stderr, "drumroll run: %s\n", context.note);
	int rc = controller_requests_open(c, context.positions, err);
	for (int r = 1; r < c->n_ranks && !rc; r++) {
		rank_message_begin(c->writer, RANK_START, 1);
		message_key(c->writer, "context");
		message_put_int(c->writer, context.positions);
		rc = rank_message_send(c->transport, r, c->writer, err);
	}
	return rc;
}

static int controller_open(struct controller *c, struct err *err)
{
	const struct config *config = c->config;
	c->asynchrony = config->trainer.kind == TRAINER_NONE ? ASYNCHRONY_SYNC : (int)config->scheduler.asynchrony;
	struct scheduler_options options = {
		.groups_per_step = (int)config->scheduler.groups_per_step, .over_sampling = config->scheduler.over_sampling,
		.samples_per_group = controller_first_samples(c),
		.eval_samples = (int)config->eval.samples, .partial_rollouts = config->scheduler.partial_rollouts,
		.max_staleness = (int)config->scheduler.max_staleness, .max_deferrals = (int)config->scheduler.max_deferrals,
		.asynchrony = (enum asynchrony)c->asynchrony, .stale_action = (enum on_stale)config->scheduler.stale_action,
		.deferral_action = (enum on_deferrals)config->scheduler.deferral_action,
		.order = config->scheduler.order == LEASE_LONGEST ? ORDER_LONGEST : ORDER_OLDEST,
		.migrate = config->scheduler.migrate, .offered_only = config->data.source == PROMPTS_FROM_TRAINER,
		.samples_max = controller_samples_max(c), .extension_budget = (int)config->allocation.budget };

	c->run_began = clock_seconds();
	c->summary.pass_rate_start = c->summary.pass_rate_end = -1;
	int rc = c->in->resume_dir ? controller_resume_open(c, err) : controller_open_directory(c, err);
	if (!rc) rc = controller_keep_open(c, err);
	c->scheduler = scheduler_open(&options);
	c->groups = group_table_open();
	c->lengths = length_estimate_open();
	c->ranks = xcalloc((size_t)c->n_ranks, sizeof *c->ranks);
	if (!rc) rc = controller_live_open(c, err);
	if (!rc) rc = controller_bridge_open(c, err);
	if (!rc) rc = controller_rewards_open(c, err);
	if (!rc && c->in->resume_dir) rc = controller_resume(c, err);
	if (!rc) rc = start_ranks(c, err);
	controller_enter(c, PHASE_START);
	return rc;
}

static void write_summary(struct controller *c)
{
	struct err err;
	c->summary.seconds = clock_seconds() - c->run_began;
	if (c->step > 0) c->summary.steps_seconds += clock_seconds() - c->steps_began;
	char *json = run_summary_json(&c->summary);
	if (run_directory_write(c->run_dir, "summary.json", json, &err)) fprintf(stderr, "drumroll: %s\n", err.text);
	free(json);
}

/* Everybody is told that it is over, whatever the reason. */
static void controller_close(struct controller *c, bool well)
{
	struct err err;

	c->phase = PHASE_OVER; /* a trainer that leaves now is no news */
	controller_ranks_dismiss(c);
	if (c->server && well) /* the trainer reads BYE and goes */
		for (double start = clock_seconds(); server_peers(c->server) && clock_seconds() - start < GOODBYE_SECONDS;)
			server_poll(c->server, POLL_MS);
	controller_keep_close(c, well); /* it writes from the bridge's memory */
	if (c->server) server_close(c->server);
	verifier_pool_close(c->verifiers);
	controller_prune_close(c);
	controller_weights_close(c);
	controller_requests_close(c);
	trainer_process_stop(&c->trainer, well ? GOODBYE_SECONDS : 1);
	struct err last;
	int lost = c->store && c->groups ? controller_flush(c, &err) : 0;
	if (c->store && store_close(c->store, &last) && !lost) fprintf(stderr, "drumroll: %s\n", last.text);
	if (lost) fprintf(stderr, "drumroll: %s\n", err.text);
	if (c->scheduler) scheduler_close(c->scheduler);
	if (c->groups) group_table_close(c->groups);
	length_estimate_close(c->lengths);
	step_metrics_free(&c->metrics);
	step_metrics_free(&c->out);
	for (int r = 1; c->ranks && r < c->n_ranks; r++) free(c->ranks[r].keep);
	free(c->ranks);
	free(c->delivered);
	free(c->out_line);
	message_writer_close(c->writer);
}

void controller_dismiss(struct transport *transport)
{
	struct controller c = { .transport = transport, .writer = message_writer_open(), .n_ranks = transport_size(transport) };
	controller_ranks_dismiss(&c);
	message_writer_close(c.writer);
}

int controller_run(struct transport *transport, const struct controller_inputs *inputs)
{
	struct controller c = { .in = inputs, .config = inputs->config, .transport = transport,
		.writer = message_writer_open(), .n_ranks = transport_size(transport) };
	struct err err;
	int signal_number;

	controller_catch_signals();
	int rc = controller_open(&c, &err);
	bool began = rc == 0;
	run_directory_began();
	if (began) rc = loop(&c, &err);
	if (rc) {
		fflush(stdout);
		fprintf(stderr, "drumroll: %s\n", err.text);
	}
	bool stopped = rc && controller_signals(&signal_number) > 0;
	c.summary.status = !rc ? "finished" : stopped ? "stopped" : "failed";
	if (began) write_summary(&c);
	controller_live_close(&c, c.summary.status);
	if (!rc) progress_summary(&c.summary);
	controller_close(&c, rc == 0);
	if (began) progress_end(&c.summary, c.run_dir, rc ? err.text : NULL);
	else if (!inputs->resume_dir) run_directory_remove(c.run_dir);
	fflush(stdout);
	return rc ? (stopped ? 130 : 1) : 0;
}
