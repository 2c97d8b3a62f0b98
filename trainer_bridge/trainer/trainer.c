/* trainer.c - `drumroll trainer CONFIG [--connect ADDRESS]`: pull a batch, train on it, push the weights,
 * acknowledge the batch, report, until the run says that it is over.
 *
 * Train, checkpoint, push, acknowledge: wherever this process or the run dies, no batch is trained on twice and none is
 * left out.  What dies before the checkpoint is on disk: the batch comes again and is trained on from the state before.
 * After it: the checkpoint names the batch, which is acknowledged first thing, and weights that the run does not have
 * are pushed again.
 */
#include "trainer_bridge/trainer/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "configs/config.h"
#include "configs/config_arguments.h"
#include "trainer_bridge/client/client.h"
#include "trainer_bridge/server/auth.h"
#include "trainer_bridge/trainer/checkpoint.h"
#include "trainer_bridge/trainer/policy_update.h"
#include "trainer_bridge/trainer/trainer_simulated.h"

enum { CONNECT_SECONDS = 60, PULL_SECONDS = 60 };

struct trainer {
	struct config config;
	struct weights weights;
	struct weights base; /* as last pushed, where deltas pay; data NULL: they do not */
	struct learner *learner;
	float *reference; /* [n_elements] or NULL */
	struct client *client;
	int64_t version;      /* of the weights, as they are or will be pushed */
	char *checkpoint;     /* file; NULL: none */
	struct checkpoint at; /* run_id "": nothing was trained on yet */
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* text with `mark` replaced by value; owned by the caller. */
static char *fill_in(const char *text, const char *mark, const char *value)
{
	const char *at = strstr(text, mark);
	if (!at) return xstrdup(text);
	size_t size = strlen(text) + strlen(value) + 1;
	char *out = xmalloc(size);
	snprintf(out, size, "%.*s%s%s", (int)(at - text), text, value, at + strlen(mark));
	return out;
}

static int connect_to(struct trainer *trainer, const char *address, struct err *err)
{
	const struct config *config = &trainer->config;
	char *run = fill_in(config->run.dir, "{name}", config->run.name), *secret = NULL;
	char *listen = fill_in(config->bridge.listen, "{run}", run);
	int code = auth_secret_read(&secret, config->bridge.secret_file, err);
	if (!code)
		code = client_open(&trainer->client, address ? address : listen, secret, "reference trainer",
		                   CONNECT_SECONDS, config->run.stall_seconds, err);
	free(run);
	free(listen);
	free(secret);
	if (code) return code;
	printf("connected to run %s, policy version %lld\n", client_run_id(trainer->client),
	       (long long)client_version(trainer->client));
	return 0;
}

/* What changed since the version before, where that pays, or everything. */
static int push(struct trainer *trainer, int64_t version, struct err *err)
{
	size_t chunk_bytes = (size_t)trainer->config.bridge.chunk_bytes, bytes = 2 * trainer->weights.n_elements;
	int code = ERR_BASE;

	if (trainer->base.data)
		code = client_push_delta(trainer->client, version, &trainer->weights, trainer->version, &trainer->base,
		                         chunk_bytes, err);
	if (code == ERR_BASE) code = client_push_weights(trainer->client, version, &trainer->weights, chunk_bytes, err);
	if (code) return code;
	if (trainer->base.data) memcpy(trainer->base.data, trainer->weights.data, bytes);
	trainer->version = version;
	return 0;
}

/* Before the first batch: this trainer and the run agree on who has what. */
static int agree(struct trainer *trainer, struct err *err)
{
	struct client *client = trainer->client;
	struct checkpoint *at = &trainer->at;
	int64_t version = client_version(client), weights = client_weights_version(client);

	if (!at->run_id[0]) {
		snprintf(at->run_id, sizeof at->run_id, "%s", client_run_id(client));
		trainer->version = version;
		if (version == 0) return 0;
		return err_set(err, ERR_STATE, "the run's policy is at version %lld and this trainer starts from version 0 in %s%s%s: it "
		               "would throw away what the run has learned; restore the file, or start a new run", (long long)version,
		               trainer->config.model.path, trainer->checkpoint ? ", for there is no " : "",
		               trainer->checkpoint ? trainer->checkpoint : "");
	}
	if (strncmp(at->run_id, client_run_id(client), sizeof at->run_id - 1) != 0)
		return err_set(err, ERR_STATE, "trainer.checkpoint %s is of run %s, expected %s: name another file", trainer->checkpoint,
		               at->run_id, client_run_id(client));
	int code = client_ack(client, at->batch_id, err);
	printf("going on from %s: version %lld, batch %llu; the run has weights of version %lld\n", trainer->checkpoint,
	       (long long)at->version, (unsigned long long)at->batch_id, (long long)weights);
	trainer->version = version > at->version ? version : at->version;
	if (code || weights >= at->version) return code;
	bool known = version < at->version;
	trainer->version = known ? at->version : version + 1;
	code = push(trainer, trainer->version, err);
	/* It had arrived, and was on its way to the ranks when the run greeted this trainer.  Nothing else is forgiven: weights
	 * that are not finite would be trained on for ever. */
	return known && code && client_push_was_not_new(client) ? 0 : code;
}

/* The state with the batch in it is on disk before anybody hears of it. */
static int keep(struct trainer *trainer, uint64_t batch_id, struct err *err)
{
	trainer->at.version = trainer->version + 1;
	trainer->at.batch_id = batch_id;
	if (!trainer->checkpoint) return 0;
	return checkpoint_write(trainer->checkpoint, &trainer->at, trainer->learner,
	                        trainer->config.run.durability == DURABILITY_POWER, err);
}

static int train_batch(struct trainer *trainer, const struct client_batch *batch, struct err *err)
{
	const struct config *config = &trainer->config;
	struct trainer_report report;
	double start = now();
	if (policy_update(trainer->learner, &trainer->weights.config, trainer->reference, batch->trajectories,
	                  batch->n, &config->trainer, batch->step, &report, err))
		return err->code;
	if (keep(trainer, batch->batch_id, err)) return err->code;
	report.seconds = now() - start;
	/* Before the weights: they end the step, and its line is written then. */
	if (client_report(trainer->client, &report, err)) return err->code;
	uint64_t sent = client_sent_bytes(trainer->client);
	if (push(trainer, trainer->version + 1, err)) return err->code;
	double megabytes = (double)(client_sent_bytes(trainer->client) - sent) / 1e6;
	if (client_ack(trainer->client, batch->batch_id, err)) return err->code;
	printf("step %lld  version %lld  tokens %lld  loss %.4f  gradient norm %.3f  entropy %.3f  kl %.4f  "
	       "clipped %.4f  "
	       "importance %.3f  %.2f s, %.2f s with push of %.3f MB\n",
	       (long long)batch->step, (long long)trainer->version, (long long)report.tokens, report.loss,
	       report.grad_norm, report.entropy, report.kl, report.clip_frac, report.tis_mean, report.seconds,
	       now() - start, megabytes);
	fflush(stdout);
	return 0;
}

static int serve(struct trainer *trainer, struct err *err)
{
	for (;;) {
		struct client_batch batch;
		int code = client_pull(trainer->client, &batch, PULL_SECONDS, err);
		if (code == ERR_TIMEOUT) continue; /* a long step; a run that is gone closes the connection */
		if (code) return code;
		if (batch.n == 0) return 0;
		code = train_batch(trainer, &batch, err);
		client_batch_free(&batch);
		if (code) return code;
	}
}

/* Over a network a delta is a seventh of the bytes; on one machine packing takes longer than sending. */
static bool delta_pays(const struct trainer *trainer)
{
	return trainer->config.trainer.push == PUSH_DELTA ||
	       (trainer->config.trainer.push == PUSH_AUTO && !client_is_local(trainer->client));
}

static void keep_base(struct trainer *trainer)
{
	if (!delta_pays(trainer)) return;
	weights_alloc(&trainer->base, &trainer->weights.config);
	memcpy(trainer->base.data, trainer->weights.data, 2 * trainer->weights.n_elements);
}

static void keep_reference(struct trainer *trainer)
{
	if (!(trainer->config.trainer.kl_coef > 0)) return;
	size_t bytes = trainer->weights.n_elements * sizeof *trainer->reference;
	trainer->reference = xmalloc(bytes);
	memcpy(trainer->reference, learner_params(trainer->learner), bytes);
}

/* Where there is one it goes on from it; where its folder is not even there, none is kept. */
static int open_checkpoint(struct trainer *trainer, struct err *err)
{
	const struct config *config = &trainer->config;
	if (!config->trainer.checkpoint[0] || config->run.durability == DURABILITY_OFF) return 0;
	char *run = fill_in(config->run.dir, "{name}", config->run.name), *path = fill_in(config->trainer.checkpoint, "{run}", run);
	char *folder = xstrdup(path), *slash = strrchr(folder, '/');
	if (slash) *slash = '\0';
	bool there = !slash || !folder[0] || access(folder, W_OK) == 0;
	if (!there) printf("no checkpoint is kept: cannot write to %s (trainer.checkpoint)\n", folder);
	free(folder);
	free(run);
	if (!there) {
		free(path);
		return 0;
	}
	trainer->checkpoint = path;
	int code = checkpoint_lock(path, CONNECT_SECONDS, err);
	if (code || access(path, F_OK) != 0) return code;
	return checkpoint_read(path, &trainer->at, trainer->learner, err);
}

static int simulate(struct trainer *trainer, const char *address, struct err *err)
{
	int code = connect_to(trainer, address, err);
	if (code) return code;
	return trainer_simulated_serve(&(struct trainer_simulated){ .config = &trainer->config, .weights = &trainer->weights,
	                                                            .client = trainer->client }, err);
}

static int run(struct trainer *trainer, const char *address, struct err *err)
{
	const struct config *config = &trainer->config;
	if (!*config->model.path)
		return err_set(err, ERR_CONFIG, "model.path: expected a model directory, found nothing");
	if (weights_load(&trainer->weights, config->model.path, err)) return err->code;
	if (config->trainer.kind == TRAINER_SIMULATED) return simulate(trainer, address, err);
	if (model_train_check(&trainer->weights.config, err)) return err->code;
	trainer->learner = learner_open(&trainer->weights, (int)config->trainer.threads);
	keep_reference(trainer);
	int code = open_checkpoint(trainer, err);
	if (!code) code = connect_to(trainer, address, err);
	if (!code) code = agree(trainer, err);
	if (!code) keep_base(trainer);
	if (!code) code = serve(trainer, err);
	if (!code) printf("the run is over\n");
	return code;
}

int trainer_command(int argc, char **argv)
{
	static const char usage[] =
		"usage: drumroll trainer CONFIG [--connect ADDRESS] [--set section.key=value ...]\n";
	struct config_arguments arguments;
	struct trainer trainer = { 0 };
	struct err err = { 0 };
	if (config_arguments_read(&arguments, argc, argv, "--connect", NULL, &err)) {
		fprintf(stderr, "drumroll: %s\n%s", err.text, usage);
		return EXIT_USAGE;
	}
	if (config_load(&trainer.config, arguments.path, arguments.sets, arguments.n_sets, &err)) {
		fprintf(stderr, "drumroll: %s\n", err.text);
		return EXIT_USAGE;
	}
	int code = run(&trainer, arguments.value, &err);
	if (code) fprintf(stderr, "drumroll: trainer: %s\n", err.text);
	client_close(trainer.client);
	learner_close(trainer.learner);
	free(trainer.reference);
	free(trainer.checkpoint);
	weights_free(&trainer.weights);
	weights_free(&trainer.base);
	config_free(&trainer.config);
	return code ? EXIT_FAILURE : EXIT_SUCCESS;
}
