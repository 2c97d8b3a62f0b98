/* controller_bridge.c - the trainer's socket: opened, and what it tells of its peers. */
#include <inttypes.h>
#include <stdlib.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"
#include "trainer_bridge/server/auth.h"

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

/* Ends the run: a resume puts what is not on record as acknowledged once more, and the trainer is still there to say so. */
static void fail(struct controller *c, const struct err *err)
{
	if (!c->failed.code) c->failed = *err;
}

static void batch_acked(void *context, uint64_t batch_id)
{
	struct controller *c = context;
	struct err err;
	c->last_progress = clock_seconds();
	if (!store_ack_delivery(c->store, batch_id, &err) && !controller_flush(c, &err)) return;
	err_context(&err, "the acknowledgement of batch %" PRIu64 " is not stored", batch_id);
	fail(c, &err);
}

static void on_report(void *context, const struct trainer_report *report)
{
	struct controller *c = context;
	struct err err;
	c->last_progress = clock_seconds();
	if (report->step != c->out.step) return; /* of a batch whose line is already written */
	c->out.report = *report;
	c->out.has_report = true;
	if (c->line_waits && controller_write_step(c, &err)) fail(c, &err);
}

int controller_bridge_open(struct controller *c, struct err *err)
{
	const struct config *config = c->config;
	char *secret;

	if (config->trainer.kind == TRAINER_NONE) return 0;
	int rc = auth_secret_read(&secret, config->bridge.secret_file, err);
	if (rc) return rc;
	char *listen = run_directory_expand(config->bridge.listen, c->run_dir);
	struct server_options options = { .listen = listen, .secret = secret,
		.frame_bytes_max = (size_t)config->bridge.frame_bytes_max, .credits_max = (int)config->bridge.credits,
		.run_id = c->run_id, .model = c->in->model, .model_dir = config->model.path,
		.watch_dir = config->weights.watch_dir[0] ? config->weights.watch_dir : NULL, .version = c->stored.version,
		.versions_lost = c->stored.version - c->stored.kept };
	struct server_callbacks callbacks = { .context = c, .peer_joined = peer_joined, .peer_left = peer_left,
		.batch_acked = batch_acked, .weights_arrived = controller_weights_arrived, .report = on_report,
		.weights = controller_weights_observer(c) };
	rc = server_open(&c->server, &options, &callbacks, err);
	free(listen);
	free(secret);
	if (!rc && (config->trainer.kind == TRAINER_REFERENCE || config->trainer.kind == TRAINER_SIMULATED))
		rc = controller_start_trainer(c, err);
	return rc;
}
