/* pretrain.c - `drumroll pretrain CONFIG --out DIR`: prompts, tokenizer and a small model from nothing.
 *
 * The model learns to continue prompts with demonstrations (cross-entropy on response and end token,
 * AdamW, cosine step size).  The first WORKED_PERCENT of the steps show every problem worked out; in the
 * rest, as in text found in the world, most demonstrations state the answer at once.  What comes out
 * knows how to work a problem out, not always without a slip, and seldom cares to: right often enough to
 * learn from, wrong often enough to have something to learn.  Everything follows from pretrain.seed; the
 * last bits of the weights also from the BLAS kernel and trainer.threads.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "configs/config.h"
#include "configs/config_arguments.h"
#include "quant/bf16.h"
#include "rollout/sampling/noise.h"
#include "trainer_bridge/trainer/arithmetic_data.h"
#include "trainer_bridge/trainer/learner.h"
#include "trainer_bridge/trainer/objective.h"
#include "trainer_bridge/trainer/pass_rate.h"
#include "trainer_bridge/trainer/tokenizer_build.h"
#include "trainer_bridge/trainer/trainer.h"

enum { N_PROMPTS = 4096, N_HELD_OUT = 256, MERGES = 8, MERGE_COUNT_MIN = 16 };
enum { WARMUP_STEPS = 30, PRINT_EVERY = 20, WORKED_PERCENT = 80, AT_ONCE_PERCENT = 60 };
enum { STREAM_EXAMPLES, STREAM_PROMPTS, STREAM_HELD_OUT, N_STREAMS }; /* of problems, from one seed */

static const char end_token[] = "<|endoftext|>";

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t stream_seed(const struct config *config, int stream)
{
	return (uint64_t)config->pretrain.seed * N_STREAMS + (uint64_t)stream;
}

static struct model_config shape(const struct tokenizer *tokenizer)
{
	struct model_config c = {
		.model_type = "llama", .dim = 128, .n_layers = 4, .n_heads = 4, .n_kv_heads = 2, .head_dim = 32,
		.ffn_dim = 352, .max_context = 256, .rms_eps = 1e-5f, .rope_theta = 10000, .tied = true, .bos_id = -1,
		.n_eos = 1,
	};
	c.vocab_size = tokenizer_vocab_size(tokenizer);
	c.eos_ids[0] = tokenizer_id(tokenizer, end_token);
	return c;
}

/* Standard normal number i of tensor t (Box, Muller 1958, on Philox). */
static double normal(uint64_t seed, uint32_t tensor, uint32_t i)
{
	const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
	const uint32_t counter[4] = { i, tensor, 0, 0x77656967u };
	uint32_t out[4];
	philox4x32(out, counter, key);
	double radius = sqrt(-2 * log((out[0] + 0.5) / 4294967296.0));
	return radius * cos(2 * 3.14159265358979323846 * (out[1] + 0.5) / 4294967296.0);
}

/* Norms 1, matrices normal; those that write to the residual stream smaller (GPT-2). */
static void initialize(struct weights *weights, uint64_t seed)
{
	for (int i = 0; i < weights->n_tensors; i++) {
		const struct weight_tensor *t = &weights->tensors[i];
		bool to_stream = strstr(t->name, "o_proj") || strstr(t->name, "down_proj");
		double deviation = to_stream ? 0.02 / sqrt(2.0 * weights->config.n_layers) : 0.05;
		size_t n = (size_t)t->rows * (size_t)t->cols;
		for (size_t j = 0; j < n; j++)
			weights->data[t->offset + j] = bf16_from_f32(
				t->n_dims == 1 ? 1.0f : (float)(deviation * normal(seed, (uint32_t)i, (uint32_t)j)));
	}
}

static float step_size(const struct config *config, int64_t step)
{
	double peak = config->pretrain.learning_rate, part = (double)step / (double)config->pretrain.steps;
	double warm = step < WARMUP_STEPS ? (double)(step + 1) / WARMUP_STEPS : 1;
	return (float)(peak * warm * (0.1 + 0.9 * 0.5 * (1 + cos(3.14159265358979323846 * part))));
}

struct cross_entropy {
	const struct train_sequence *sequences;
	int vocab_size;
	float weight;
	double *losses; /* [n sequences] */
};

static void cross_entropy_row(void *context, int sequence, int token, float *logits)
{
	struct cross_entropy *c = context;
	int32_t target = c->sequences[sequence].tokens[token];
	c->losses[sequence] -= objective_softmax(logits, c->vocab_size, 1, target, NULL) * c->weight;
	objective_backward(logits, c->vocab_size, 1, target, -c->weight);
}

static int train(struct learner *learner, const struct config *config, const struct weights *weights,
                 const struct tokenizer *tokenizer, struct err *err)
{
	int n = (int)config->pretrain.batch;
	double *losses = xmalloc((size_t)n * sizeof *losses), start = now();
	uint64_t index = 0;
	for (int64_t step = 0; step < config->pretrain.steps; step++) {
		struct arithmetic_batch batch;
		int at_once = step * 100 < config->pretrain.steps * WORKED_PERCENT ? 0 : AT_ONCE_PERCENT;
		if (arithmetic_batch_open(&batch, n, stream_seed(config, STREAM_EXAMPLES), &index, at_once, tokenizer,
		                          weights->config.eos_ids[0], err)) break;
		struct cross_entropy context = { batch.sequences, weights->config.vocab_size,
			                             1.0f / (float)batch.n_predicted, losses };
		memset(losses, 0, (size_t)n * sizeof *losses);
		learner_pass(learner, NULL, batch.sequences, n, true, cross_entropy_row, &context);
		struct adamw_options options = { step_size(config, step), (float)config->trainer.beta1,
			                             (float)config->trainer.beta2, (float)config->trainer.weight_decay };
		double norm = learner_update(learner, &options, config->trainer.grad_clip), loss = 0;
		for (int i = 0; i < n; i++) loss += losses[i];
		if (step % PRINT_EVERY == 0 || step + 1 == config->pretrain.steps)
			printf("step %lld of %lld  loss %.4f  gradient norm %.2f  %.0f s\n", (long long)step + 1,
			       (long long)config->pretrain.steps, loss, norm, now() - start);
		fflush(stdout);
		arithmetic_batch_close(&batch);
		err->code = 0;
	}
	free(losses);
	return err->code;
}

/* Prompt files and tokenizer.json in dir; the tokenizer, open. */
static int make_data(struct tokenizer **tokenizer, const char *dir, const char *held_out_path,
                     const struct config *config, struct err *err)
{
	char path[4096];
	const char *texts[2 * N_PROMPTS];
	struct arithmetic_problem *prompts = arithmetic_collect(stream_seed(config, STREAM_PROMPTS), false,
	                                                        N_PROMPTS);
	struct arithmetic_problem *held_out = arithmetic_collect(stream_seed(config, STREAM_HELD_OUT), true,
	                                                         N_HELD_OUT);
	struct tokenizer_build_options options = { end_token, MERGES, MERGE_COUNT_MIN };
	for (int i = 0; i < N_PROMPTS; i++) {
		texts[2 * i] = prompts[i].prompt;
		texts[2 * i + 1] = prompts[i].response;
	}
	snprintf(path, sizeof path, "%s/prompts.jsonl", dir);
	int code = arithmetic_write(path, "train", prompts, N_PROMPTS, err);
	if (!code) code = arithmetic_write(held_out_path, "held", held_out, N_HELD_OUT, err);
	if (!code) code = tokenizer_build(dir, texts, 2 * N_PROMPTS, &options, err);
	if (!code) code = tokenizer_open(tokenizer, dir, err);
	free(prompts);
	free(held_out);
	return code;
}

static int pretrain(const struct config *config, const char *dir, struct err *err)
{
	char held_out[4096];
	struct tokenizer *tokenizer;
	snprintf(held_out, sizeof held_out, "%s/heldout.jsonl", dir);
	if (mkdir(dir, 0777) != 0 && errno != EEXIST) return err_set_errno(err, ERR_IO, "cannot make %s", dir);
	if (make_data(&tokenizer, dir, held_out, config, err)) return err->code;

	struct model_config model = shape(tokenizer);
	struct weights weights;
	struct pass_rate rate;
	weights_alloc(&weights, &model);
	initialize(&weights, (uint64_t)config->pretrain.seed);
	printf("%zu parameters, %d prompts, %d held out\n", weights.n_elements, N_PROMPTS, N_HELD_OUT);
	struct learner *learner = learner_open(&weights, (int)config->trainer.threads);
	int code = train(learner, config, &weights, tokenizer, err);
	learner_close(learner);
	if (!code) code = weights_save(&weights, dir, err);
	if (!code) code = model_config_write(&model, dir, err);
	if (!code)
		code = pass_rate_measure(&rate, &weights, tokenizer, held_out, config, (int)config->trainer.threads,
		                         err);
	if (!code)
		printf("held out: pass rate %.3f, mean reward %.3f, responses of %d to %d tokens, %.0f on average\n",
		       rate.strict, rate.reward, rate.tokens_min, rate.tokens_max, rate.tokens_mean);
	weights_free(&weights);
	tokenizer_close(tokenizer);
	return code;
}

int pretrain_command(int argc, char **argv)
{
	static const char usage[] = "usage: drumroll pretrain CONFIG --out DIR [--set section.key=value ...]\n";
	struct config_arguments arguments;
	struct config config;
	struct err err = { 0 };
	int code = config_arguments_read(&arguments, argc, argv, "--out", NULL, &err);
	if (!code && !arguments.value) code = err_set(&err, ERR_USAGE, "expected --out DIR");
	if (code) {
		fprintf(stderr, "drumroll: %s\n%s", err.text, usage);
		return EXIT_USAGE;
	}
	if (config_load(&config, arguments.path, arguments.sets, arguments.n_sets, &err)) {
		fprintf(stderr, "drumroll: %s\n", err.text);
		return EXIT_USAGE;
	}
	code = pretrain(&config, arguments.value, &err);
	config_free(&config);
	if (code) fprintf(stderr, "drumroll: %s\n", err.text);
	return code ? EXIT_FAILURE : EXIT_SUCCESS;
}
