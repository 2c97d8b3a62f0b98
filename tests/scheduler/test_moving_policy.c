/* test_moving_policy.c - what the drafter is worth when the policy moves: real updates of the reference trainer on
 * the quickstart task, and the acceptance of a drafter made of the old weights beside one made anew. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "configs/config.h"
#include "rollout/advantage/advantage.h"
#include "rollout/engine.h"
#include "rollout/prompts.h"
#include "rollout/reward/reward.h"
#include "scheduler/bench/bench_acceptance.h"
#include "trainer_bridge/trainer/policy_update.h"

#define MODEL "configs/quickstart"
enum { STEPS = 12, GROUPS = 12, GROUP_SIZE = 9, N_SAMPLES = GROUPS * GROUP_SIZE, KEPT_PROMPTS = 40 };

static struct {
	struct config config;
	struct tokenizer *tokenizer;
	struct reward *reward;
	struct prompts prompts, heldout;
	struct weights weights;
	struct learner *learner;
} world;

static void must(int rc, const struct err *err)
{
	if (rc) fail_msg("%s", err->text);
}

static int world_open(void **state)
{
	(void)state;
	struct prompts_options options = {.max_context = 256};
	struct err err;

	must(config_load(&world.config, MODEL "/run.yaml", NULL, 0, &err), &err);
	world.config.trainer.learning_rate = 2e-4; /* a dozen steps are to go as far as some fifty of the run's */
	must(tokenizer_open(&world.tokenizer, MODEL, &err), &err);
	must(reward_open(&world.reward, &world.config.reward, &err), &err);
	must(prompts_load(&world.prompts, MODEL "/prompts.jsonl", world.tokenizer, NULL, &options, &err), &err);
	options.limit = KEPT_PROMPTS;
	must(prompts_load(&world.heldout, MODEL "/heldout.jsonl", world.tokenizer, NULL, &options, &err), &err);
	must(weights_load(&world.weights, MODEL, &err), &err);
	world.learner = learner_open(&world.weights, 1);
	return 0;
}

static int world_close(void **state)
{
	(void)state;
	learner_close(world.learner);
	weights_free(&world.weights);
	prompts_free(&world.prompts);
	prompts_free(&world.heldout);
	reward_close(world.reward);
	tokenizer_close(world.tokenizer);
	config_free(&world.config);
	return 0;
}

static struct policy *policy_of_weights(enum format format, int64_t version)
{
	struct draft_options draft = {.format = format, .head_format = format, .quantizer = QUANTIZE_SEARCH};
	struct policy *policy;
	struct err err;

	must(policy_create(&policy, &world.weights, version, &draft, 1, &err), &err);
	return policy;
}

/* ---- one step of training ---- */

static void generate(const struct policy *policy, int step, struct trajectory **samples)
{
	struct sampling_options sampling = {.temperature = 1, .top_p = 1};
	struct engine_options options = {
		.mode = ROLLOUT_SPECULATIVE, .draft_length = 3, .max_active = N_SAMPLES, .prefill_chunk = 64, .n_threads = 1,
		.kv_type = KV_F32, .kv_bytes = 128 << 20, .stop_token = -1,
	};
	struct engine *engine;
	struct trajectory *t;
	struct err err;

	must(engine_open(&engine, policy, &options, 256, &err), &err);
	for (int i = 0; i < N_SAMPLES; i++) {
		const struct prompt *prompt = &world.prompts.items[(size_t)(step * GROUPS + i / GROUP_SIZE) % world.prompts.n];
		engine_add(engine, prompts_open_sample(prompt, (uint64_t)(i / GROUP_SIZE), i % GROUP_SIZE, GROUP_SIZE, 0,
		                                       (uint64_t)step, &sampling, (int32_t)world.config.rollout.max_tokens));
	}
	while (engine_pending(engine)) engine_round(engine);
	while ((t = engine_take_finished(engine))) samples[t->group_id * GROUP_SIZE + (uint64_t)t->sample] = t;
	engine_close(engine);
}

static void judge(struct trajectory **samples)
{
	struct group_advantage advantage;
	struct err err;

	for (int i = 0; i < N_SAMPLES; i++) {
		struct trajectory *t = samples[i];
		char *text;
		size_t n_bytes;
		must(tokenizer_decode(world.tokenizer, t->tokens + t->n_prompt, (size_t)trajectory_response_length(t), true,
		                      &text, &n_bytes, &err), &err);
		must(reward_score(world.reward, t, text, &err), &err);
		free(text);
	}
	for (int g = 0; g < GROUPS; g++)
		advantage_compute(samples + g * GROUP_SIZE, GROUP_SIZE, &world.config.advantage, &advantage);
}

static void train_step(int step)
{
	struct trajectory *samples[N_SAMPLES];
	struct policy *policy = policy_of_weights(FORMAT_INT4, step);
	struct trainer_report report;
	struct err err;

	generate(policy, step, samples);
	judge(samples);
	must(policy_update(world.learner, &world.weights.config, NULL, samples, N_SAMPLES, &world.config.trainer, step,
	                   &report, &err), &err);
	assert_true(report.tokens > 0 && isfinite(report.loss));
	for (int i = 0; i < N_SAMPLES; i++) trajectory_free(samples[i]);
	policy_free(policy);
}

/* ---- acceptance ---- */

static void swap_linear(struct linear *a, struct linear *b)
{
	struct qmatrix draft = a->draft;
	a->draft = b->draft;
	b->draft = draft;
}

/* Two policies of one shape exchange their drafters. */
static void swap_drafters(struct policy *a, struct policy *b)
{
	for (int l = 0; l < a->config.n_layers; l++) {
		swap_linear(&a->layers[l].qkv, &b->layers[l].qkv);
		swap_linear(&a->layers[l].o, &b->layers[l].o);
		swap_linear(&a->layers[l].gate_up, &b->layers[l].gate_up);
		swap_linear(&a->layers[l].down, &b->layers[l].down);
	}
	swap_linear(&a->head, &b->head);
}

/* Of the first token of a draft, under the same noise, along samples that the policy's target draws. */
static double acceptance_of(const struct policy *policy)
{
	struct acceptance_options options = {.kv_type = KV_F32, .temperature = 1, .tokens = 96, .n_threads = 1, .seed = 3};
	struct acceptance_samples samples;
	struct acceptance acceptance;
	struct err err;

	must(acceptance_samples_draw(&samples, policy, &world.heldout, &options, &err), &err);
	must(acceptance_measure(&acceptance, policy, &samples, &options, &err), &err);
	acceptance_samples_free(&samples);
	return acceptance.coupled;
}

static void requantizing_keeps_acceptance(void **state)
{
	(void)state;
	static const enum format formats[] = {FORMAT_INT4, FORMAT_INT8};
	enum { N = sizeof formats / sizeof *formats };
	struct policy *old[N];
	double before[N];

	for (int f = 0; f < N; f++) {
		old[f] = policy_of_weights(formats[f], 0);
		before[f] = acceptance_of(old[f]);
	}
	for (int step = 0; step < STEPS; step++) train_step(step);
	for (int f = 0; f < N; f++) {
		struct policy *new = policy_of_weights(formats[f], STEPS);
		double requantized = acceptance_of(new);
		swap_drafters(new, old[f]);
		double stale = acceptance_of(new);
		swap_drafters(new, old[f]);
		print_message("%s: before %.4f; after %d updates requantized %.4f, with the old drafter %.4f\n",
		              format_info(formats[f])->name, before[f], STEPS, requantized, stale);
		assert_true(1 - requantized < 2 * (1 - before[f]) + 0.01); /* a copy of the weights stays a copy */
		assert_true(1 - stale > 2 * (1 - requantized));            /* the old one does not follow the policy */
		policy_free(new);
		policy_free(old[f]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(requantizing_keeps_acceptance)};
	return cmocka_run_group_tests(tests, world_open, world_close);
}
