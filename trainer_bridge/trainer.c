/* trainer.c - `drumroll trainer CONFIG [--connect ADDRESS]`: pull a batch, train on it, push the weights,
 * acknowledge the batch, report, until the run says that it is over.
 *
 * A batch is acknowledged only after the engine has taken the weights that were made from it.  If this
 * process dies in between, the engine sends the batch again and nothing that was generated is lost; the
 * other order would lose the batch's step for good.
 */
#include "trainer_bridge/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "configs/config.h"
#include "configs/config_arguments.h"
#include "trainer_bridge/auth.h"
#include "trainer_bridge/client.h"
#include "trainer_bridge/policy_update.h"

enum { CONNECT_SECONDS = 60, PULL_SECONDS = 60 };

struct trainer {
	struct config config;
	struct weights weights;
	struct learner *learner;
	float *reference; /* [n_elements] or NULL */
	struct client *client;
	int64_t version;
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
	trainer->version = client_version(trainer->client);
	printf("connected to run %s, policy version %lld\n", client_run_id(trainer->client),
	       (long long)trainer->version);
	if (trainer->version > 0)
		return err_set(err, ERR_STATE,
		               "the run's policy is at version %lld and this trainer starts from version 0 in %s: it would "
		               "throw away what the run has learned; start a new run",
		               (long long)trainer->version, config->model.path);
	return 0;
}

static int train_batch(struct trainer *trainer, const struct client_batch *batch, struct err *err)
{
	const struct config *config = &trainer->config;
	struct trainer_report report;
	double start = now();
	if (policy_update(trainer->learner, &trainer->weights.config, trainer->reference, batch->trajectories,
	                  batch->n, &config->trainer, batch->step, &report, err))
		return err->code;
	report.seconds = now() - start;
	/* Before the weights: they end the step, and its line is written then. */
	if (client_report(trainer->client, &report, err)) return err->code;
	if (client_push_weights(trainer->client, trainer->version + 1, &trainer->weights,
	                        (size_t)config->bridge.chunk_bytes, err)) return err->code;
	trainer->version++;
	if (client_ack(trainer->client, batch->batch_id, err)) return err->code;
	printf("step %lld  version %lld  tokens %lld  loss %.4f  gradient norm %.3f  entropy %.3f  kl %.4f  "
	       "clipped %.4f  "
	       "importance %.3f  %.2f s, %.2f s with push\n",
	       (long long)batch->step, (long long)trainer->version, (long long)report.tokens, report.loss,
	       report.grad_norm, report.entropy, report.kl, report.clip_frac, report.tis_mean, report.seconds,
	       now() - start);
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

static void keep_reference(struct trainer *trainer)
{
	if (!(trainer->config.trainer.kl_coef > 0)) return;
	size_t bytes = trainer->weights.n_elements * sizeof *trainer->reference;
	trainer->reference = xmalloc(bytes);
	memcpy(trainer->reference, learner_params(trainer->learner), bytes);
}

static int run(struct trainer *trainer, const char *address, struct err *err)
{
	const struct config *config = &trainer->config;
	if (!*config->model.path)
		return err_set(err, ERR_CONFIG, "model.path: expected a model directory, found nothing");
	if (weights_load(&trainer->weights, config->model.path, err)) return err->code;
	if (model_train_check(&trainer->weights.config, err)) return err->code;
	trainer->learner = learner_open(&trainer->weights, (int)config->trainer.threads);
	keep_reference(trainer);
	int code = connect_to(trainer, address, err);
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
	weights_free(&trainer.weights);
	config_free(&trainer.config);
	return code ? EXIT_FAILURE : EXIT_SUCCESS;
}
