/* pass_rate.c - see pass_rate.h. */
#include "trainer_bridge/trainer/pass_rate.h"

#include <stdlib.h>
#include <time.h>

#include "policy/policy.h"
#include "rollout/engine.h"
#include "rollout/prompts.h"
#include "rollout/reward/reward.h"

static double clock_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int count(struct pass_rate *rate, const struct reward *reward, const struct tokenizer *tokenizer,
                 struct trajectory *sample, struct err *err)
{
	char *text;
	size_t n_bytes;
	int length = trajectory_response_length(sample);
	if (tokenizer_decode(tokenizer, sample->tokens + sample->n_prompt, (size_t)length, true, &text, &n_bytes,
	                     err))
		return err->code;
	int code = reward_score(reward, sample, text, err);
	free(text);
	if (code) return code;
	if (!rate->samples || length < rate->tokens_min) rate->tokens_min = length;
	if (length > rate->tokens_max) rate->tokens_max = length;
	rate->samples++;
	rate->strict += sample->reward_answer;
	rate->reward += sample->reward;
	rate->tokens_mean += length;
	return 0;
}

static int run(struct pass_rate *rate, struct engine *engine, const struct prompts *prompts,
               const struct reward *reward, const struct tokenizer *tokenizer, const struct config *config,
               struct err *err)
{
	struct sampling_options sampling = { (float)config->rollout.temperature, (float)config->rollout.top_p,
		                                 (int32_t)config->rollout.top_k, (float)config->rollout.min_p };
	for (size_t i = 0; i < prompts->n; i++)
		engine_add(engine, prompts_open_sample(&prompts->items[i], i + 1, 0, 1, 0, (uint64_t)config->run.seed,
		                                       &sampling, (int32_t)config->rollout.max_tokens));
	int code = 0;
	while (!code && engine_pending(engine)) {
		struct trajectory *done;
		engine_round(engine);
		while (!code && (done = engine_take_finished(engine))) {
			code = count(rate, reward, tokenizer, done, err);
			trajectory_free(done);
		}
	}
	if (code || !rate->samples) return code;
	rate->strict /= rate->samples;
	rate->reward /= rate->samples;
	rate->tokens_mean /= rate->samples;
	return 0;
}

int pass_rate_measure(struct pass_rate *rate, const struct weights *weights,
                      const struct tokenizer *tokenizer, const char *path, const struct config *config,
                      int n_threads, struct err *err)
{
	struct prompts_options options = { config->data.prompt_key, config->data.answer_key,
		                               config->data.template, 0, weights->config.max_context };
	struct engine_options engine_options = {
		.mode = ROLLOUT_EXACT, .max_active = (int)config->worker.max_active,
		.prefill_chunk = (int)config->worker.prefill_chunk, .n_threads = n_threads,
		.kv_type = (enum kv_type)config->worker.kv_format, .kv_bytes = (size_t)config->worker.kv_memory_mb << 20,
		.stop_token = -1, .clock = clock_now,
	};
	struct prompts prompts = { 0 };
	struct reward *reward = NULL;
	struct policy *policy = NULL;
	struct engine *engine = NULL;
	*rate = (struct pass_rate){ 0 };
	int code = prompts_load(&prompts, path, tokenizer, NULL, &options, err);
	if (!code) code = reward_open(&reward, &config->reward, err);
	if (!code) code = policy_create(&policy, weights, 0, NULL, n_threads, err);
	if (!code) code = engine_open(&engine, policy, &engine_options, weights->config.max_context, err);
	if (!code) code = run(rate, engine, &prompts, reward, tokenizer, config, err);
	engine_close(engine);
	policy_free(policy);
	reward_close(reward);
	prompts_free(&prompts);
	return code;
}
