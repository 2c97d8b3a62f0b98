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
#include "scheduler/controller.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "scheduler/clock.h"
#include "scheduler/controller_internal.h"
#include "scheduler/sample_context.h"
#include "scheduler/trainer_process.h"
#include "trainer_bridge/auth.h"

static const double FLUSH_SECONDS = 1, GOODBYE_SECONDS = 10;
enum { POLL_MS = 1 };

static volatile sig_atomic_t stop_signal;

static void on_stop_signal(int signal_number) { stop_signal = signal_number; }

static const char *phase_name(enum phase phase)
{
	static const char *const names[] = { "the ranks to load the model", "held-out samples", "samples of this step",
	                                     "the trainer to ask for a batch",
	                                     "new weights from the trainer", "the ranks to take new weights",
	                                     "the trainer's acknowledgement", "nothing" };
	return names[phase];
}

void controller_enter(struct controller *c, enum phase phase)
{
	c->phase = phase;
	c->phase_began = c->last_progress = clock_seconds();
}

static double phase_seconds(const struct controller *c) { return clock_seconds() - c->phase_began; }

static int tell_ranks(struct controller *c, enum rank_message type, struct err *err)
{
	int rc = 0;
	for (int r = 1; r < c->n_ranks && !rc; r++) {
		rank_message_begin(c->writer, type, 0);
		rc = rank_message_send(c->transport, r, c->writer, err);
	}
	return rc;
}

/* ---- phases ---- */

static void begin_step(struct controller *c)
{
	if (c->step == 0) c->steps_began = clock_seconds();
	c->step++;
	if (c->metrics.step != c->step || c->asynchrony != ASYNCHRONY_ASYNC) {
		step_metrics_begin(&c->metrics, c->step, c->version);
		c->step_began = clock_seconds();
	}
	controller_enter(c, PHASE_STEP);
	scheduler_on_step_begin(c->scheduler, c->step, c->version);
}

static void begin_eval(struct controller *c)
{
	c->next_eval = 0;
	if (c->asynchrony != ASYNCHRONY_ASYNC) step_metrics_begin(&c->metrics, c->step, c->version);
	controller_enter(c, PHASE_EVAL);
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
	if (c->step == c->config->run.steps) begin_finish(c);
	else if (c->asynchrony == ASYNCHRONY_ASYNC && c->step > 0) controller_enter(c, PHASE_WANTED);
	else if (c->asynchrony == ASYNCHRONY_ASYNC) begin_step(c);
	else if (c->arriving.data) controller_broadcast_begin(c);
	else begin_step(c);
}

static int write_metrics(struct controller *c, const char *json, struct err *err)
{
	int rc = run_directory_append(c->run_dir, "metrics.jsonl", json, err);
	return rc ? rc : store_put_metrics(c->store, c->step, json, err);
}

/* The line of the batch that is out, once weights have come for it or another batch goes out. */
static int write_step(struct controller *c, struct err *err)
{
	struct run_summary *s = &c->summary;
	struct step_metrics *m = &c->out;
	double reward = step_metrics_reward(m);

	if (m->step == 0) return 0;
	s->steps = m->step;
	s->tokens += m->tokens;
	s->drafted += m->drafted;
	s->accepted += m->accepted;
	s->trajectories += m->trajectories;
	s->rollout_seconds += m->rollout_seconds;
	s->train_seconds += m->train_seconds;
	s->broadcast_seconds += m->broadcast_seconds;
	if (m->step == 1) s->reward_first = reward;
	s->reward_last = reward;
	progress_step(m, c->config->run.steps, (clock_seconds() - c->steps_began) / (double)m->step);
	char *json = step_metrics_json(m);
	int rc = write_metrics(c, json, err);
	free(json);
	m->step = 0;
	return rc;
}

static int end_step(struct controller *c, struct err *err)
{
	int rc = write_step(c, err);

	if (rc) return rc;
	if (eval_is_due(c)) begin_eval(c);
	else go_on(c);
	return 0;
}

static int end_eval(struct controller *c, struct err *err)
{
	int passed = 0, n = 0, rc = 0;
	char json[160];

	for (int i = 0; i < c->n_delivered; i++) {
		struct live_group *g = group_table_find(c->groups, c->delivered[i]);
		for (int k = 0; k < g->n_samples; k++) {
			passed += g->samples[k]->has_reward && g->samples[k]->reward_answer >= 1;
			n++;
			if (!rc) rc = store_put_trajectory(c->store, g->samples[k], STORE_DELIVERED, err);
		}
		if (!rc) rc = store_group_state(c->store, g->id, STORE_DELIVERED, c->step, err);
	}
	controller_release_delivered(c);
	double rate = n ? (double)passed / n : 0;
	if (c->step == 0) c->summary.pass_rate_start = rate;
	c->summary.pass_rate_end = rate;
	progress_eval(c->step, rate, n, phase_seconds(c));
	c->step_began += phase_seconds(c);
	snprintf(json, sizeof json, "{\"step\":%" PRId64 ",\"version\":%" PRId64 ",\"eval/pass_rate\":%.6f,\"eval/samples\":%d}",
	         c->step, c->version, rate, n);
	if (!rc) rc = write_metrics(c, json, err);
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
	int rc = write_step(c, err);

	if (!rc) rc = controller_put_batch(c, err);
	if (rc) return rc;
	if (!c->server) return end_step(c, err);
	c->batch_is_out = true;
	if (c->step == c->config->run.steps) scheduler_on_rest(c->scheduler);
	if (goes_on_beside_training(c)) go_on(c);
	else controller_enter(c, PHASE_TRAIN);
	return 0;
}

int controller_step_ready(struct controller *c, bool eval, struct err *err)
{
	if (eval) return end_eval(c, err);
	c->metrics.rollout_seconds = clock_seconds() - c->step_began;
	if (c->asynchrony != ASYNCHRONY_ONE_STEP_OFF || !c->batch_is_out) return deliver_batch(c, err);
	c->batch_is_held = true;
	controller_enter(c, PHASE_TRAIN);
	return 0;
}

static int end_broadcast(struct controller *c, struct err *err)
{
	bool answers = c->batch_is_out;

	c->broadcasting = c->batch_is_out = false;
	c->version = c->arriving_version;
	controller_drop_kv(c);
	server_set_version(c->server, c->version);
	int rc = store_put_version(c->store, c->version, c->step, c->arriving_xxh3, 2 * c->arriving.n_elements, err);
	weights_free(&c->arriving);
	c->arriving.data = NULL;
	if (answers) c->out.broadcast_seconds = clock_seconds() - c->broadcast_began;
	if (!rc) rc = write_step(c, err);
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
	begin_step(c);
	return 0;
}

/* Async: weights go to the ranks as they come, and a batch is begun when the trainer asks for one.  None while a
 * version is on its way, so that a batch's version is the trainer's; and no more than it may lag are ahead of it. */
static void advance_async(struct controller *c)
{
	bool moving = c->phase == PHASE_WANTED || c->phase == PHASE_STEP || c->phase == PHASE_TRAIN;

	if (moving && c->arriving.data) controller_broadcast_begin(c);
	else if (c->phase == PHASE_WANTED && server_wants_batch(c->server) &&
	         server_unacknowledged(c->server) <= c->config->scheduler.max_staleness) begin_step(c);
}

static void begin_work(struct controller *c)
{
	const struct config *config = c->config;
	struct weights layout;

	weights_layout(&layout, c->in->model);
	progress_banner(&(struct progress_banner){
		.run_name = config->run.name, .run_dir = c->run_dir, .model_path = config->model.path, .cpu = c->ranks[1].cpu,
		.bridge = c->server ? server_address(c->server) : NULL, .model = c->in->model,
		.parameters = (double)layout.n_elements, .workers = c->n_ranks - 1, .threads = (int)config->worker.threads,
		.mode = config->rollout.mode, .draft_length = config->speculation.draft_length,
		.drafter = config->speculation.drafter, .draft = draft_options_of(&config->speculation, config->rollout.mode) });
	weights_free(&layout);
	if (eval_is_due(c)) begin_eval(c);
	else go_on(c);
}

/* What follows from what has arrived. */
static int advance(struct controller *c, struct err *err)
{
	bool all = true;

	if (c->broadcasting) {
		for (int r = 1; r < c->n_ranks; r++) all = all && c->ranks[r].updated;
		return all ? end_broadcast(c, err) : controller_broadcast_pump(c, err);
	}
	if (c->asynchrony == ASYNCHRONY_ASYNC) advance_async(c);
	switch (c->phase) {
	case PHASE_START:
		for (int r = 1; r < c->n_ranks; r++) all = all && c->ranks[r].ready;
		if (all) begin_work(c);
		return 0;
	case PHASE_TRAIN:
		if (c->asynchrony == ASYNCHRONY_ASYNC)
			return c->batch_is_out || c->broadcasting || server_unacknowledged(c->server) > 0 ? 0 : end_step(c, err);
		if (c->arriving.data) controller_broadcast_begin(c);
		return 0;
	case PHASE_FINISH:
		if (!c->server || server_unacknowledged(c->server) == 0) controller_enter(c, PHASE_OVER);
		return 0;
	default:
		return 0;
	}
}

/* ---- events ---- */

static int on_ready(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	int64_t capacity, active;
	const char *cpu;
	int rc = message_get_int(root, "capacity", 1, INT32_MAX, &capacity, err);

	if (!rc) rc = message_get_int(root, "active", 1, capacity, &active, err);

	if (!rc) rc = message_get_text(root, "cpu", &cpu, err);
	if (rc) return rc;
	snprintf(c->ranks[rank].cpu, sizeof c->ranks[rank].cpu, "%s", cpu ? cpu : "?");
	c->ranks[rank].ready = true;
	scheduler_on_rank_joined_slots(c->scheduler, rank, (int)capacity, (int)active);
	return 0;
}

static int on_failed(int rank, const struct message_node *root, struct err *err)
{
	const char *text = NULL;
	int rc = message_get_text(root, "text", &text, err);
	return rc ? rc : err_set(err, ERR_PEER, "rank %d: %s", rank, text ? text : "failed without a reason");
}

static int on_message(struct controller *c, const struct transport_message *m, struct err *err)
{
	struct message *message;
	int64_t type;

	int rc = message_parse(&message, m->bytes, m->n_bytes, err);
	if (rc) return rc;
	const struct message_node *root = message_root(message);
	rc = message_get_int(root, "type", RANK_START, RANK_FAILED, &type, err);
	if (!rc) switch (type) {
	case RANK_READY: rc = on_ready(c, m->rank, root, err); break;
	case RANK_DONE:
	case RANK_PARTIAL:
	case RANK_RETURNED: rc = controller_on_result(c, m->rank, root, (enum rank_message)type, err); break;
	case RANK_RECALLED: rc = controller_on_recalled(c, m->rank, root, err); break;
	case RANK_STATS: rc = rank_message_add_stats(root, &c->metrics.engine, err); break;
	case RANK_QUIET: scheduler_on_rank_quiet(c->scheduler, m->rank); break;
	case RANK_UPDATED: rc = controller_on_updated(c, m->rank, root, err); break;
	case RANK_ALIVE: break;
	case RANK_FAILED: rc = on_failed(m->rank, root, err); break;
	default: rc = err_set(err, ERR_PEER, "rank %d sent message type %" PRId64 ", which is the controller's", m->rank, type);
	}
	message_close(message);
	c->last_progress = clock_seconds();
	return rc;
}

static void peer_joined(void *context, const char *name)
{
	struct controller *c = context;
	c->last_progress = clock_seconds();
	if (c->config->trainer.kind == TRAINER_EXTERNAL) progress_note("trainer '%s' has joined", name);
}

static void peer_left(void *context, const char *name, const char *why)
{
	struct controller *c = context;
	if (c->phase != PHASE_FINISH && c->phase != PHASE_OVER)
		progress_note("trainer '%s' has left (%s); its unacknowledged batches are kept for its return", name, why);
}

static void batch_acked(void *context, uint64_t batch_id)
{
	struct controller *c = context;
	struct err err;
	c->last_progress = clock_seconds();
	if (store_ack_delivery(c->store, batch_id, &err)) progress_note("the acknowledgement of batch %" PRIu64 " was not stored: %s", batch_id, err.text);
}

static void on_report(void *context, const struct trainer_report *report)
{
	struct controller *c = context;
	c->last_progress = clock_seconds();
	if (report->step != c->out.step) return; /* of a batch whose line is already written */
	c->out.report = *report;
	c->out.has_report = true;
}

/* ---- the loop ---- */

static int watch(struct controller *c, struct err *err)
{
	double now = clock_seconds();
	int rc = 0;

	if (stop_signal)
		return err_set(err, ERR_STATE, "stopped by signal %d in step %" PRId64 "; what was delivered and put aside is stored",
		               (int)stop_signal, c->step);
	if (now - c->last_progress > c->config->run.stall_seconds) {
		char held[256] = "";
		for (int r = 1; r < c->n_ranks; r++)
			if (c->ranks[r].holding && strlen(held) < sizeof held - 48)
				snprintf(held + strlen(held), sizeof held - strlen(held), "; rank %d holds %d samples", r, c->ranks[r].holding);
		return err_set(err, ERR_TIMEOUT, "nothing has happened for %.0f s (run.stall_seconds) while waiting for %s%s",
		               now - c->last_progress, phase_name(c->phase), held);
	}
	if (c->trainer) rc = trainer_process_check(&c->trainer, c->run_dir, err);
	if (!rc && now - c->last_alive > rank_alive_seconds(c->config->run.stall_seconds)) {
		c->last_alive = now;
		rc = tell_ranks(c, RANK_ALIVE, err);
	}
	if (!rc && now - c->last_flush > FLUSH_SECONDS) {
		c->last_flush = now;
		rc = store_flush(c->store, err);
	}
	return rc;
}

/* Weights are leaving: MPI moves them only when polled.  Once they are gone the ranks need the cores. */
static bool is_sending(const struct controller *c)
{
	for (int r = 1; r < c->n_ranks; r++)
		if (c->broadcasting && transport_backlog(c->transport, r) > 0) return true;
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
			rc = on_message(c, &m, err);
			free(m.bytes);
			if (!rc) rc = controller_do_actions(c, err);
		}
		if (c->server) server_poll(c->server, busy || is_sending(c) ? 0 : POLL_MS);
		else if (!busy) clock_sleep_ms(POLL_MS);
		if (!rc) rc = advance(c, err);
		if (!rc) rc = controller_do_actions(c, err);
		if (!rc) rc = watch(c, err);
	}
	return rc;
}

/* ---- opening and closing ---- */

static int open_bridge(struct controller *c, struct err *err)
{
	const struct config *config = c->config;
	char *secret;

	if (config->trainer.kind == TRAINER_NONE) return 0;
	int rc = auth_secret_read(&secret, config->bridge.secret_file, err);
	if (rc) return rc;
	char *listen = run_directory_expand(config->bridge.listen, c->run_dir);
	struct server_options options = { .listen = listen, .secret = secret,
		.frame_bytes_max = (size_t)config->bridge.frame_bytes_max, .credits_max = (int)config->bridge.credits,
		.run_id = c->run_id, .model = c->in->model, .version = 0 };
	struct server_callbacks callbacks = { .context = c, .peer_joined = peer_joined, .peer_left = peer_left,
		.batch_acked = batch_acked, .weights_arrived = controller_weights_arrived, .report = on_report };
	rc = server_open(&c->server, &options, &callbacks, err);
	free(listen);
	free(secret);
	if (!rc && config->trainer.kind == TRAINER_REFERENCE)
		rc = trainer_process_start(&c->trainer, c->run_dir, server_address(c->server), err);
	return rc;
}

static int start_ranks(struct controller *c, struct err *err)
{
	const struct prompts *sets[] = { c->in->prompts, c->in->eval_prompts };
	struct sample_context context;
	int rc = 0;

	sample_context_find(&context, c->in->model, sets, 2, c->config->rollout.max_tokens, "rollout.max_tokens");
	if (context.note[0]) fprintf(stderr, "drumroll run: %s\n", context.note);
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
		.samples_per_group = advantage_samples_to_draw(&config->advantage, (int)config->rollout.group_size),
		.eval_samples = (int)config->eval.samples, .partial_rollouts = config->scheduler.partial_rollouts,
		.max_staleness = (int)config->scheduler.max_staleness, .max_deferrals = (int)config->scheduler.max_deferrals,
		.asynchrony = (enum asynchrony)c->asynchrony, .stale_action = (enum on_stale)config->scheduler.stale_action,
		.deferral_action = (enum on_deferrals)config->scheduler.deferral_action,
		.order = config->scheduler.order == LEASE_LONGEST ? ORDER_LONGEST : ORDER_OLDEST,
		.migrate = config->scheduler.migrate };

	c->run_began = clock_seconds();
	c->summary.pass_rate_start = c->summary.pass_rate_end = -1;
	int rc = run_directory_create(c->run_dir, config, err);
	if (rc) return rc;
	snprintf(c->run_id, sizeof c->run_id, "%.40s-%08lx", config->run.name, (unsigned long)time(NULL));
	char *yaml = run_directory_config_text(config);
	rc = run_directory_write(c->run_dir, "config.yaml", yaml, err);
	if (!rc) rc = store_open(&c->store, c->run_dir, c->run_id, yaml, err);
	free(yaml);
	c->scheduler = scheduler_open(&options);
	c->groups = group_table_open();
	c->lengths = length_estimate_open();
	c->ranks = xcalloc((size_t)c->n_ranks, sizeof *c->ranks);
	if (!rc) rc = open_bridge(c, err);
	if (!rc) rc = start_ranks(c, err);
	controller_enter(c, PHASE_START);
	return rc;
}

static void write_summary(struct controller *c)
{
	struct err err;
	c->summary.seconds = clock_seconds() - c->run_began;
	char *json = run_summary_json(&c->summary);
	if (run_directory_write(c->run_dir, "summary.json", json, &err)) fprintf(stderr, "drumroll: %s\n", err.text);
	free(json);
}

/* Everybody is told that it is over, whatever the reason. */
static void controller_close(struct controller *c, bool well)
{
	struct err err;

	c->phase = PHASE_OVER; /* a trainer that leaves now is no news */
	tell_ranks(c, RANK_QUIT, &err);
	if (c->server && well) /* the trainer reads BYE and goes */
		for (double start = clock_seconds(); server_peers(c->server) && clock_seconds() - start < GOODBYE_SECONDS;)
			server_poll(c->server, POLL_MS);
	if (c->server) server_close(c->server);
	trainer_process_stop(&c->trainer, well ? GOODBYE_SECONDS : 1);
	if (c->store && store_close(c->store, &err)) fprintf(stderr, "drumroll: %s\n", err.text);
	if (c->arriving.data) weights_free(&c->arriving);
	if (c->scheduler) scheduler_close(c->scheduler);
	if (c->groups) group_table_close(c->groups);
	length_estimate_close(c->lengths);
	step_metrics_free(&c->metrics);
	step_metrics_free(&c->out);
	for (int r = 1; c->ranks && r < c->n_ranks; r++) free(c->ranks[r].keep);
	free(c->ranks);
	free(c->delivered);
	message_writer_close(c->writer);
}

void controller_dismiss(struct transport *transport)
{
	struct controller c = { .transport = transport, .writer = message_writer_open(), .n_ranks = transport_size(transport) };
	struct err err;
	tell_ranks(&c, RANK_QUIT, &err);
	message_writer_close(c.writer);
}

int controller_run(struct transport *transport, const struct controller_inputs *inputs)
{
	struct controller c = { .in = inputs, .config = inputs->config, .transport = transport,
		.writer = message_writer_open(), .n_ranks = transport_size(transport) };
	struct sigaction action = { .sa_handler = on_stop_signal };
	struct err err;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	int rc = controller_open(&c, &err);
	bool began = rc == 0;
	if (began) rc = loop(&c, &err);
	if (rc) {
		fflush(stdout);
		fprintf(stderr, "drumroll: %s\n", err.text);
	}
	c.summary.status = !rc ? "finished" : stop_signal ? "stopped" : "failed";
	if (began) write_summary(&c);
	if (!rc) progress_summary(&c.summary);
	controller_close(&c, rc == 0);
	if (began) printf("run directory: %s\n", c.run_dir);
	else run_directory_remove(c.run_dir);
	fflush(stdout);
	return rc ? (stop_signal ? 130 : 1) : 0;
}
