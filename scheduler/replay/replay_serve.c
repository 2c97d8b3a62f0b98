/* replay_serve.c - see replay_serve.h. */
#include "scheduler/replay/replay_serve.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scheduler/clock.h"
#include "scheduler/controller/progress.h"
#include "scheduler/controller/trainer_process.h"
#include "scheduler/replay/serving_state.h"
#include "scheduler/store/run_directory.h"
#include "scheduler/store/store_read.h"
#include "scheduler/store/weights_keeper.h"
#include "trainer_bridge/server/auth.h"
#include "trainer_bridge/server/server.h"
#include "trainer_bridge/wire/checksum.h"

enum { POLL_MS = 10 };
static const double GOODBYE_SECONDS = 10;

struct serving {
	const struct replay_serve_options *options;
	const struct config *config;
	struct model_config model;
	struct store *store;
	struct server *server;
	struct weights_keeper *keeper; /* NULL: no weights are kept */
	char dir[RUN_PATH_MAX];
	pid_t trainer;
	struct serving_state state;    /* as serving.json has it */
	int64_t reported;              /* the last step with a line in metrics.jsonl */
	bool all_put;
	double began, heard;           /* clock_seconds(): of this process; when the trainer last did something */
};

static int keep_state(struct serving *s, struct err *err)
{
	struct serving_state now = s->state;

	now.seconds += clock_seconds() - s->began;
	return serving_state_write(&now, s->dir, err);
}

/* ---- what the trainer says ---- */

static void peer_joined(void *context, const char *name)
{
	struct serving *s = context;
	s->heard = clock_seconds();
	if (s->config->trainer.kind == TRAINER_EXTERNAL) progress_note("trainer '%s' has joined", name);
}

static void peer_left(void *context, const char *name, const char *why)
{
	struct serving *s = context;
	s->heard = clock_seconds();
	if (!s->all_put || server_unacknowledged(s->server) > 0)
		progress_note("trainer '%s' has left (%s); its unacknowledged batches are kept for its return", name, why);
}

static void put_report(json_t *line, const struct trainer_report *r)
{
	const struct { const char *key; double value; } numbers[] = {
		{ "trainer/loss", r->loss }, { "trainer/grad_norm", r->grad_norm }, { "trainer/kl", r->kl },
		{ "trainer/clip_frac", r->clip_frac }, { "trainer/entropy", r->entropy }, { "rollout_corr/rollout_is_mean", r->tis_mean },
		{ "trainer/learning_rate", r->learning_rate }, { "trainer/seconds", r->seconds } };

	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		json_t *value = json_real(numbers[i].value); /* NULL: not finite */
		if (value) json_object_set_new(line, numbers[i].key, value);
	}
	json_object_set_new(line, "trainer/tokens", json_integer(r->tokens));
}

/* The recording's line of the step, as it was before it was trained on, with what the trainer says now. */
static void write_line(struct serving *s, int64_t step, const struct trainer_report *report)
{
	json_t *line = NULL;
	char *recorded = NULL;
	struct err err;

	if (step <= s->reported) return;
	s->reported = step;
	if (store_get_delivery_metrics(s->store, step, &recorded, &err) == 0 && recorded) line = json_loads(recorded, 0, NULL);
	if (!line) line = json_object();
	json_object_set_new(line, "step", json_integer(step));
	if (report) put_report(line, report);
	char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
	if (run_directory_append(s->dir, "metrics.jsonl", text, &err)) progress_note("%s", err.text);
	free(text);
	free(recorded);
	json_decref(line);
}

static void on_report(void *context, const struct trainer_report *report)
{
	struct serving *s = context;

	s->heard = clock_seconds();
	if (report->step < 1 || report->step > s->state.put) return;
	write_line(s, report->step, report);
	printf("  step %" PRId64 ": %" PRId64 " tokens, loss %.4f, gradient norm %.3f, %.2f s\n", report->step, report->tokens,
	       report->loss, report->grad_norm, report->seconds);
	fflush(stdout);
}

static void batch_acked(void *context, uint64_t batch_id)
{
	struct serving *s = context;
	struct err err;

	s->heard = clock_seconds();
	write_line(s, (int64_t)batch_id, NULL);
	serving_acknowledge(&s->state, (int64_t)batch_id);
	if (keep_state(s, &err)) progress_note("the acknowledgement of batch %" PRIu64 " was not stored: %s", batch_id, err.text);
}

static int weights_arrived(void *context, int64_t version, const struct weights *weights, struct err *err)
{
	struct serving *s = context;
	uint64_t recorded, found = checksum(weights->data, 2 * weights->n_elements);
	bool known;

	int rc = store_get_version(s->store, version, &recorded, &known, err);
	if (rc) return rc;
	s->heard = clock_seconds();
	s->state.version = version;
	s->state.n_versions++;
	s->state.n_same += known && recorded == found;
	rc = keep_state(s, err);
	if (rc) return rc;
	server_set_version(s->server, version);
	if (s->keeper && version % s->config->run.keep_weights == 0) weights_keeper_put(s->keeper, version, weights);
	return 0;
}

/* May the memory of a version be written again? */
static bool is_ready(void *context, const uint16_t *data)
{
	const struct serving *s = context;
	return !s->keeper || !weights_keeper_uses(s->keeper, data);
}

/* ---- batches ---- */

static int check_batch(const struct serving *s, const struct stored_batch *batch, struct err *err)
{
	for (int i = 0; i < batch->n; i++) {
		const struct trajectory *t = batch->trajectories[i];
		bool truncated = t->sampling.top_p < 1 || t->sampling.top_k > 0 || t->sampling.min_p > 0;
		if (truncated && s->config->trainer.kind == TRAINER_REFERENCE)
			return err_set(err, ERR_UNSUPPORTED, "the reference trainer computes untruncated log-probabilities, and the run was drawn "
			               "with top_p, top_k or min_p: set trainer.kind to external");
		for (int32_t k = 0; k < t->n_tokens; k++)
			if (t->tokens[k] < 0 || t->tokens[k] >= s->model.vocab_size)
				return err_set(err, ERR_INVALID, "batch %" PRIu64 " has token %d, but %s has %d: name the model of the run in "
				               "model.path", batch->id, t->tokens[k], s->config->model.path, s->model.vocab_size);
	}
	return 0;
}

static int put_batch(struct serving *s, const struct stored_batch *batch, struct err *err)
{
	serving_put(&s->state, batch->step);
	s->state.n_trajectories += batch->n;
	for (int i = 0; i < batch->n; i++) s->state.n_tokens += trajectory_response_length(batch->trajectories[i]);
	int rc = keep_state(s, err);
	if (!rc) server_put_batch(s->server, batch->id, batch->step, batch->version, batch->trajectories, batch->n);
	return rc;
}

/* Those that were put before this process, and not acknowledged: before the server first turns, so that an acknowledgement
 * finds its batch. */
static int put_again(struct serving *s, struct err *err)
{
	int rc = 0;

	for (int i = 0; i < s->state.n_unacknowledged && !rc; i++) {
		struct stored_batch batch;
		rc = store_next_batch(s->store, s->state.unacknowledged[i] - 1, &batch, err);
		if (!rc && batch.step == s->state.unacknowledged[i]) rc = check_batch(s, &batch, err);
		if (!rc && batch.step != s->state.unacknowledged[i])
			rc = err_set(err, ERR_MISSING, "%s has no batch of step %" PRId64 ", which was served before", s->options->run_dir,
			             s->state.unacknowledged[i]);
		if (!rc) server_put_batch(s->server, batch.id, batch.step, batch.version, batch.trajectories, batch.n);
		stored_batch_free(&batch);
	}
	return rc;
}

/* Nothing is left to put, so that nobody has to come for it. */
static int look_ahead(struct serving *s, struct err *err)
{
	struct stored_batch batch;

	int rc = store_next_batch(s->store, s->state.put, &batch, err);
	s->all_put = !rc && (batch.step == 0 || batch.step > s->state.last);
	if (!rc) stored_batch_free(&batch);
	return rc;
}

/* As many as the trainer has credit for. */
static int put_batches(struct serving *s, struct err *err)
{
	int rc = 0;

	while (!rc && !s->all_put && server_wants_batch(s->server)) {
		struct stored_batch batch;
		rc = store_next_batch(s->store, s->state.put, &batch, err);
		if (rc) break;
		s->all_put = batch.step == 0 || batch.step > s->state.last;
		if (!s->all_put) {
			rc = check_batch(s, &batch, err);
			if (!rc && batch.n > 0) rc = put_batch(s, &batch, err);
			s->state.put = batch.step;
		}
		stored_batch_free(&batch);
	}
	return rc;
}

static int check_waits(struct serving *s, struct err *err)
{
	bool joined = server_peers(s->server) > 0;
	double limit = joined ? s->config->trainer.stall_seconds : s->config->run.stall_seconds;

	if (clock_seconds() - s->heard <= limit) return 0;
	return err_set(err, ERR_TIMEOUT, "%s for %.0f s (%s)", joined ? "the trainer has said nothing" : "no trainer was there", limit,
	               joined ? "trainer.stall_seconds" : "run.stall_seconds");
}

static void poll_keeper(struct serving *s)
{
	struct err err;
	int64_t version;

	if (s->keeper && weights_keeper_poll(s->keeper, &version, &err) < 0)
		progress_note("the weights of version %" PRId64 " are not kept: %s", version, err.text);
}

static int serve_batches(struct serving *s, struct err *err)
{
	int rc = 0;

	while (!rc && !(s->all_put && server_unacknowledged(s->server) == 0)) {
		server_poll(s->server, POLL_MS);
		rc = put_batches(s, err);
		poll_keeper(s);
		if (!rc && s->trainer) rc = trainer_process_check(&s->trainer, s->dir, err);
		if (!rc) rc = check_waits(s, err);
	}
	if (rc) return rc;
	server_finish(s->server);
	for (double start = clock_seconds(); server_peers(s->server) && clock_seconds() - start < GOODBYE_SECONDS;)
		server_poll(s->server, POLL_MS);
	return 0;
}

/* ---- opening and closing ---- */

static int open_recording(struct serving *s, struct err *err)
{
	struct store_progress progress;

	int rc = store_open_existing(&s->store, s->options->run_dir, err);
	if (!rc) rc = store_read_progress(s->store, &progress, err);
	if (rc) return rc;
	/* A name of its own: a trainer must not take this for the run itself and go on from that one's checkpoint. */
	char run_id[sizeof s->state.run_id];
	snprintf(run_id, sizeof run_id, "%s-replay", progress.run_id);
	if (s->options->resume && strcmp(run_id, s->state.run_id) != 0)
		return err_set(err, ERR_STATE, "%s is the serving of another recording: expected run %s, found %s", s->dir, s->state.run_id, run_id);
	memcpy(s->state.run_id, run_id, sizeof run_id);
	if (progress.step >= s->options->steps.first && progress.step > 0) return 0;
	return err_set(err, ERR_MISSING, "%s has no batch%s", s->options->run_dir, progress.step ? " of these steps" : "");
}

/* The last step that metrics.jsonl has a line of: one more may be there than serving.json knows. */
static int64_t last_reported(const char *dir)
{
	char path[RUN_PATH_MAX + 16], *line = NULL;
	size_t size = 0;
	int64_t step = 0;

	snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
	FILE *file = fopen(path, "r");
	while (file && getline(&line, &size, file) > 0) {
		json_t *o = json_loads(line, 0, NULL);
		json_int_t found = json_integer_value(json_object_get(o, "step"));
		if (found > step) step = found;
		json_decref(o);
	}
	free(line);
	if (file) fclose(file);
	return step;
}

static bool keeps_weights(const struct config *c)
{
	return c->run.durability != DURABILITY_OFF && c->run.keep_weights > 0;
}

/* Weights that came and had not reached the disk come again: a trainer pushes what the run does not have. */
static int64_t version_there_is(const struct serving *s)
{
	int64_t version = s->state.version;
	char path[RUN_PATH_MAX + 64];

	snprintf(path, sizeof path, "%s/weights/version-%" PRId64, s->dir, version);
	bool lost = version > 0 && keeps_weights(s->config) && version % s->config->run.keep_weights == 0 && access(path, F_OK) != 0;
	return lost ? version - 1 : version;
}

/* Where a serving was that ended before all was acknowledged. */
static int resume(struct serving *s, struct err *err)
{
	const char *dir = s->options->resume;
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/') n--;
	if (n >= sizeof s->dir) return err_set(err, ERR_TOO_BIG, "--resume: a path of %zu characters, at most %zu are taken", n, sizeof s->dir - 1);
	snprintf(s->dir, sizeof s->dir, "%.*s", (int)n, dir);
	int rc = serving_state_read(&s->state, s->dir, err);
	if (rc) return rc;
	s->state.version = version_there_is(s);
	s->reported = last_reported(s->dir);
	return 0;
}

static int open_directory(struct serving *s, struct err *err)
{
	int rc = s->options->resume ? 0 : run_directory_create(s->dir, s->config, err);
	if (rc) return rc;
	char *yaml = run_directory_config_text(s->config);
	rc = run_directory_write(s->dir, "config.yaml", yaml, err);
	free(yaml);
	if (!rc && keeps_weights(s->config))
		rc = weights_keeper_open(&s->keeper, s->dir, s->config->model.path, s->state.version, err);
	return rc ? rc : keep_state(s, err);
}

static int open_bridge(struct serving *s, struct err *err)
{
	const struct config *c = s->config;
	char *secret;

	int rc = auth_secret_read(&secret, c->bridge.secret_file, err);
	if (rc) return rc;
	char *listen = run_directory_expand(c->bridge.listen, s->dir);
	struct server_options options = { .listen = listen, .secret = secret, .frame_bytes_max = (size_t)c->bridge.frame_bytes_max,
		.credits_max = (int)c->bridge.credits, .run_id = s->state.run_id, .model = &s->model, .model_dir = c->model.path, .version = s->state.version,
		.watch_dir = c->weights.watch_dir[0] ? c->weights.watch_dir : NULL };
	struct server_callbacks callbacks = { .context = s, .peer_joined = peer_joined, .peer_left = peer_left,
		.batch_acked = batch_acked, .weights_arrived = weights_arrived, .report = on_report,
		.weights = { .context = s, .ready = is_ready } };
	rc = server_open(&s->server, &options, &callbacks, err);
	free(listen);
	free(secret);
	return rc;
}

static int start_trainer(struct serving *s, struct err *err)
{
	const struct config *c = s->config;

	if (c->trainer.kind != TRAINER_REFERENCE) return 0;
	char *checkpoint = run_directory_expand(c->run.durability != DURABILITY_OFF ? c->trainer.checkpoint : "", s->dir);
	int rc = trainer_process_start(&s->trainer, s->dir, server_address(s->server), checkpoint, err);
	free(checkpoint);
	return rc;
}

static void close_all(struct serving *s, bool well)
{
	struct err err;
	double until = clock_seconds() + (well ? s->config->run.stall_seconds : 0);

	while (s->keeper && weights_keeper_busy(s->keeper) && clock_seconds() < until) {
		poll_keeper(s);
		clock_sleep_ms(1);
	}
	weights_keeper_close(s->keeper, well ? GOODBYE_SECONDS : 0.1);
	if (s->server) server_close(s->server);
	trainer_process_stop(&s->trainer, well ? GOODBYE_SECONDS : 1);
	if (s->store) store_close(s->store, &err);
}

static void write_summary(struct serving *s, double seconds, bool well)
{
	struct err err;

	const struct serving_state *n = &s->state;
	json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:I, s:I}", "status", well ? "finished" : "failed", "recording",
	                      s->options->run_dir, "steps", (json_int_t)n->n_batches, "trajectories", (json_int_t)n->n_trajectories,
	                      "tokens", (json_int_t)n->n_tokens, "seconds", seconds, "versions", (json_int_t)n->n_versions,
	                      "versions_as_recorded", (json_int_t)n->n_same);
	char *json = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	if (run_directory_write(s->dir, "summary.json", json, &err)) progress_note("%s", err.text);
	free(json);
	json_decref(o);
	printf("%" PRId64 " batches acknowledged, %" PRId64 " trajectories in %.1f s; %" PRId64 " versions of weights came, %" PRId64
	       " of them with the bits that the run had\nrun directory: %s\n", n->n_batches, n->n_trajectories, seconds, n->n_versions,
	       n->n_same, s->dir);
	if (!well) printf("go on with: drumroll replay %s --resume %s\n", s->options->run_dir, s->dir);
	fflush(stdout);
}

int replay_serve(const struct replay_serve_options *options, struct err *err)
{
	struct serving s = { .options = options, .config = options->config, .began = clock_seconds() };

	s.state.put = options->steps.first > 0 ? options->steps.first - 1 : 0;
	s.state.last = options->steps.last;
	if (options->config->trainer.kind == TRAINER_NONE)
		return err_set(err, ERR_CONFIG, "trainer.kind is none, so nobody would take the batches: set it to reference or external");
	int rc = model_config_read(&s.model, options->config->model.path, err);
	if (!rc && options->resume) rc = resume(&s, err);
	if (!rc) rc = open_recording(&s, err);
	if (!rc) rc = open_directory(&s, err);
	if (!rc) rc = open_bridge(&s, err);
	if (!rc) rc = put_again(&s, err);
	if (!rc) rc = look_ahead(&s, err);
	if (!rc) rc = start_trainer(&s, err);
	bool began_well = rc == 0;
	run_directory_began();
	s.heard = clock_seconds();
	if (!rc) {
		printf("serving %s as run %s on %s", options->run_dir, s.state.run_id, server_address(s.server));
		if (options->resume) printf(", %" PRId64 " batches were acknowledged before", s.state.n_batches);
		printf("\nif this is killed, go on with: drumroll replay %s --resume %s\n", options->run_dir, s.dir);
		fflush(stdout);
		rc = serve_batches(&s, err);
		write_summary(&s, s.state.seconds + clock_seconds() - s.began, rc == 0);
	}
	close_all(&s, rc == 0);
	if (!began_well && !options->resume) run_directory_remove(s.dir);
	return rc;
}
