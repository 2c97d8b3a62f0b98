/* cmd_run.c - `drumroll run CONFIG [--set section.key=value ...]`, or `drumroll run --resume DIR [--set ...]`, one process
 * per MPI rank.
 *
 * Everything that can be refused is refused here, before any work starts: the config by every rank
 * alike, before MPI; model, tokenizer, prompts and memory by rank 0.  Only rank 0 complains. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config_arguments.h"
#include "rollout/advantage/advantage.h"
#include "rollout/allocation.h"
#include "rollout/explore.h"
#include "rollout/reward/reward.h"
#include "scheduler/commands/commands.h"
#include "scheduler/commands/model_memory.h"
#include "scheduler/commands/prune_check.h"
#include "scheduler/commands/run_check.h"
#include "scheduler/controller/controller.h"
#include "scheduler/controller/progress.h"
#include "scheduler/ranks/rank_guard.h"
#include "scheduler/worker/worker.h"
#include "trainer_bridge/wire/address.h"

int run_check_config(const struct config *c, struct err *err)
{
	if (!c->model.path[0]) return err_set(err, ERR_CONFIG, "model.path is empty: name a model directory");
	if (!c->data.prompts[0] && c->data.source != PROMPTS_FROM_TRAINER) return err_set(err, ERR_CONFIG, "data.prompts is empty: name a file of JSON lines");
	if (c->rollout.group_size < 2 && c->advantage.estimator != ADVANTAGE_MC_GRPO && c->reward.kind != REWARD_NONE)
		return err_set(err, ERR_CONFIG, "rollout.group_size is 1, but the estimator compares samples of a group: set at least 2");
	if (advantage_samples_to_draw(&c->advantage, (int)c->rollout.group_size) > TRAJECTORY_SAMPLES_MAX)
		return err_set(err, ERR_TOO_BIG, "rollout.group_size is beyond %d samples per group", TRAJECTORY_SAMPLES_MAX - 1);
	if (c->trainer.kind == TRAINER_REFERENCE && (c->rollout.top_p < 1 || c->rollout.top_k > 0 || c->rollout.min_p > 0))
		return err_set(err, ERR_CONFIG, "the reference trainer computes untruncated log-probabilities: set rollout.top_p to 1, rollout.top_k to 0 and rollout.min_p to 0, or use trainer.kind external");
	if (c->data.source != PROMPTS_FROM_FILE && c->trainer.kind == TRAINER_NONE)
		return err_set(err, ERR_CONFIG, "data.source has prompts come from a trainer, but trainer.kind is none: set it to external, or data.source to file");
	if (c->data.source == PROMPTS_FROM_TRAINER && (c->trainer.kind == TRAINER_REFERENCE || c->trainer.kind == TRAINER_SIMULATED))
		return err_set(err, ERR_CONFIG, "data.source is trainer, but the %s trainer submits no prompts: set trainer.kind to external, or data.source to file",
		               c->trainer.kind == TRAINER_SIMULATED ? "simulated" : "reference");
	if (c->weights.keep_versions > 0 && c->trainer.kind == TRAINER_NONE)
		return err_set(err, ERR_CONFIG, "weights.keep_versions keeps versions, but trainer.kind is none: there are no others than the model itself; set it to 0");
	if (c->reward.kind == REWARD_NONE && c->trainer.kind == TRAINER_REFERENCE)
		return err_set(err, ERR_CONFIG, "reward.kind is none, but the reference trainer needs advantages: choose a verifier, or trainer.kind external");
	if (c->reward.kind == REWARD_PROGRAM && (c->reward.program_timeout >= c->run.stall_seconds || c->reward.program_start >= c->run.stall_seconds))
		return err_set(err, ERR_CONFIG, "a verifier may be silent for longer than the run (run.stall_seconds): set reward.program_timeout and reward.program_start below it");
	if (c->scheduler.asynchrony != ASYNCHRONY_SYNC && c->scheduler.max_staleness == 0 && c->trainer.kind != TRAINER_NONE)
		return err_set(err, ERR_CONFIG, "scheduler.max_staleness is 0, but what is generated beside the training is a version old when it is delivered: set it to at least 1, or scheduler.asynchrony to sync");
	if (c->scheduler.kv == WEIGHTS_KEEP_KV && c->rollout.mode == ROLLOUT_QUANTIZED)
		return err_set(err, ERR_CONFIG, "scheduler.kv is keep, but in quantized mode new weights need the room of the old keys and values to rescore what was drawn: set scheduler.kv to recompute, or another rollout.mode");
	int rc = explore_check(c, err);
	if (!rc) rc = allocation_check(c, err);
	return rc ? rc : prune_check_config(c, err);
}

struct inputs {
	struct model_config model;
	struct tokenizer *tokenizer;
	struct chat *chat;
	struct prompts prompts, eval_prompts;
};

/* {run} in a path is still open here; the server looks at it again. */
static int check_address(const struct config *c, struct err *err)
{
	struct address address;

	if (c->metrics.listen[0] && address_parse(&address, c->metrics.listen, err)) return err_context(err, "metrics.listen");
	if (c->trainer.kind == TRAINER_NONE || !address_parse(&address, c->bridge.listen, err)) return 0;
	return err_context(err, "bridge.listen");
}

static int inputs_load(struct inputs *in, const struct config *c, struct err *err)
{
	struct reward *reward = NULL;
	int32_t stop;

	int rc = check_address(c, err);
	if (!rc) rc = model_config_read(&in->model, c->model.path, err);
	if (!rc) rc = model_memory_check(&in->model, c, err);
	if (!rc) rc = reward_open(&reward, &c->reward, err);
	if (reward) reward_close(reward);
	if (!rc) rc = tokenizer_open(&in->tokenizer, c->model.path, err);
	if (!rc && c->rollout.stop[0] && tokenizer_single(in->tokenizer, c->rollout.stop, &stop, err))
		rc = err_context(err, "rollout.stop");
	if (!rc) rc = chat_open(&in->chat, c->model.path, err);
	if (!rc && chat_variables_set(in->chat, c->data.template_kwargs, err)) rc = err_context(err, "data.template_kwargs");
	struct prompts_options options = { .prompt_key = c->data.prompt_key, .answer_key = c->data.answer_key,
		.template = c->data.template, .limit = (size_t)c->data.limit, .max_context = in->model.max_context };
	if (!rc && c->data.source != PROMPTS_FROM_TRAINER)
		rc = prompts_load(&in->prompts, c->data.prompts, in->tokenizer, in->chat, &options, err);
	options.limit = (size_t)c->eval.limit;
	if (!rc && c->data.eval_prompts[0])
		rc = prompts_load(&in->eval_prompts, c->data.eval_prompts, in->tokenizer, in->chat, &options, err);
	return rc;
}

static void inputs_free(struct inputs *in)
{
	prompts_free(&in->prompts);
	prompts_free(&in->eval_prompts);
	if (in->chat) chat_close(in->chat);
	if (in->tokenizer) tokenizer_close(in->tokenizer);
}

/* Rank 0: check everything, then control; a refusal lets the waiting workers go. */
static int lead(struct transport *transport, const struct config *config, const char *resume_dir, struct err *err)
{
	struct inputs in = { 0 };

	int rc = inputs_load(&in, config, err);
	if (rc) {
		controller_dismiss(transport);
	} else {
		struct controller_inputs inputs = { .config = config, .model = &in.model, .tokenizer = in.tokenizer,
		                                    .chat = in.chat, .prompts = &in.prompts,
		                                    .eval_prompts = &in.eval_prompts, .resume_dir = resume_dir };
		rc = controller_run(transport, &inputs);
	}
	inputs_free(&in);
	return rc;
}

static const double CLOSE_SECONDS = 5, LEADER_CLOSE_SECONDS = 30; /* a rank may be in the middle of a long round */

/* A negative code with err set, or the exit status. */
static int run_ranks(const struct config *config, const char *resume_dir, struct err *err)
{
	struct transport *transport;

	rank_guard_enter();
	int rc = transport_open(&transport, err);
	if (rc) return rc;
	if (transport_size(transport) < 2)
		rc = err_set(err, ERR_USAGE, "a run needs a controller and at least one worker: mpirun -n 3 drumroll run CONFIG");
	else if (transport_rank(transport) > 0) rc = worker_run(transport, config);
	else rc = lead(transport, config, resume_dir, err);
	transport_close(transport, transport_rank(transport) == 0 ? LEADER_CLOSE_SECONDS : CLOSE_SECONDS);
	return rc;
}

struct request {
	const char *resume_dir;        /* NULL: a new run */
	char path[4096];               /* of its config */
	struct config_arguments arguments;
};

/* `--resume DIR` stands for DIR/config.yaml; `--json` is for progress. */
static int read_request(struct request *r, int argc, char **argv, struct err *err)
{
	char **rest = xcalloc((size_t)argc + 1, sizeof *rest);
	int n = 0, rc = 0;

	r->resume_dir = NULL;
	for (int i = 0; i < argc && !rc; i++) {
		if (i > 0 && strcmp(argv[i], "--json") == 0) {
			progress_use_json();
			continue;
		}
		if (i == 0 || strcmp(argv[i], "--resume") != 0) {
			rest[n++] = argv[i];
			continue;
		}
		if (i + 1 == argc || r->resume_dir) rc = err_set(err, ERR_USAGE, "--resume: expected one run directory after it");
		else if (snprintf(r->path, sizeof r->path, "%s/config.yaml", argv[++i]) >= (int)sizeof r->path)
			rc = err_set(err, ERR_TOO_BIG, "--resume: the path is too long");
		else {
			r->resume_dir = argv[i];
			rest[n++] = r->path;
		}
	}
	if (!rc) rc = config_arguments_read(&r->arguments, n, rest, NULL, NULL, err);
	free(rest);
	return rc;
}

/* That of a run that is resumed is its own, with what may be changed. */
static int load_config(struct config *config, const struct request *r, struct err *err)
{
	const struct config_arguments *a = &r->arguments;
	struct config before;

	if (!r->resume_dir) return config_load(config, a->path, a->sets, a->n_sets, err);
	if (config_load(&before, a->path, NULL, 0, err)) return err_context(err, "--resume %s: expected the directory of a run", r->resume_dir);
	int rc = config_load(config, a->path, a->sets, a->n_sets, err);
	if (!rc && config_check_resume(&before, config, err)) {
		rc = err_context(err, "--resume");
		config_free(config);
	}
	config_free(&before);
	return rc;
}

int run_command(int argc, char **argv)
{
	struct request request;
	struct config config;
	struct err err;

	int rc = read_request(&request, argc, argv, &err);
	if (!rc) rc = load_config(&config, &request, &err);
	if (!rc) {
		rc = run_check_config(&config, &err);
		if (!rc) rc = run_ranks(&config, request.resume_dir, &err);
		config_free(&config);
	}
	if (rc >= 0) return rc; /* a status: what went wrong has been said */
	if (!transport_is_follower()) fprintf(stderr, "drumroll: %s\n", err.text);
	return rc == ERR_USAGE || rc == ERR_CONFIG ? EXIT_USAGE : EXIT_FAILURE;
}
