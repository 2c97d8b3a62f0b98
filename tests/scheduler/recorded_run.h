/* recorded_run.h - the run directory of a small run that an engine of this process made: the quickstart model, three
 * versions of its weights, samples put aside and finished, as a controller stores them. */
#ifndef TESTS_SCHEDULER_RECORDED_RUN_H
#define TESTS_SCHEDULER_RECORDED_RUN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "configs/config.h"
#include "rollout/engine.h"
#include "rollout/prompts.h"
#include "rollout/reward/reward.h"
#include "scheduler/store/store_read.h"
#include "scheduler/store/weight_history.h"

#define RECORDED_MODEL "configs/quickstart"

enum { RECORDED_VERSIONS = 3, RECORDED_GROUPS = 6, RECORDED_SAMPLES = 3, RECORDED_ROUNDS = 12 /* of each version but the last */ };

struct recorded_options {
	int mode;            /* enum rollout_mode */
	bool keep_kv;        /* scheduler.kv: keep */
	bool maximal;        /* the config says so; it is drawn coupled all the same */
	int versions_kept;   /* the last so many */
};

struct recording {
	const struct recorded_options *options;
	char *dir;
	struct config config;
	struct model_config model;
	struct tokenizer *tokenizer;
	struct chat *chat;
	struct prompts prompts;
	struct reward *reward;
	struct store *store;
	struct weight_history *history;
	struct policy *policies[RECORDED_VERSIONS];
	struct engine *engine;
};

static inline void recorded_must(int code, const struct err *err)
{
	if (code) fail_msg("%s", err->text);
}

/* The same model with some last bits changed: other weights, and nothing diverges. */
static inline void recorded_weights(struct weights *weights, int version)
{
	struct err err = { 0 };

	recorded_must(weights_load(weights, RECORDED_MODEL, &err), &err);
	for (size_t i = 0; version > 0 && i < weights->n_elements; i += 1 + (size_t)version) weights->data[i] ^= 2;
}

static inline void recorded_open(struct recording *r)
{
	static const char yaml[] =
		"model:\n  path: " RECORDED_MODEL "\nrun:\n  seed: 7\nrollout:\n  max_tokens: 48\nreward:\n  kind: steps\n"
		"  pattern: '#(-?\\d+)'\nworker:\n  max_active: 5\n  kv_memory_mb: 16\nspeculation:\n  format: int8\n";
	static const char *const modes[] = { "exact", "speculative", "quantized" };
	char path[512], text[1024];
	struct err err = { 0 };

	snprintf(text, sizeof text, "%s  coupling: %s\n", yaml, r->options->maximal ? "maximal" : "coupled");
	snprintf(path, sizeof path, "%s/config.yaml", r->dir);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	snprintf(path, sizeof path, "rollout.mode=%s", modes[r->options->mode]);
	const char *set = path;
	char name[512];
	snprintf(name, sizeof name, "%s/config.yaml", r->dir);
	recorded_must(config_load(&r->config, name, &set, 1, &err), &err);
	recorded_must(model_config_read(&r->model, RECORDED_MODEL, &err), &err);
	recorded_must(tokenizer_open(&r->tokenizer, RECORDED_MODEL, &err), &err);
	recorded_must(chat_open(&r->chat, RECORDED_MODEL, &err), &err);
	const struct prompts_options options = { .limit = RECORDED_GROUPS, .max_context = r->model.max_context };
	recorded_must(prompts_load(&r->prompts, RECORDED_MODEL "/heldout.jsonl", r->tokenizer, r->chat, &options, &err), &err);
	recorded_must(reward_open(&r->reward, &r->config.reward, &err), &err);
	recorded_must(store_open(&r->store, r->dir, "recorded", text, &err), &err);
	recorded_must(weight_history_create(&r->history, r->dir, &r->model, r->options->versions_kept, &err), &err);
	for (int v = 0; v < RECORDED_VERSIONS; v++) {
		const struct draft_options draft = draft_options_of(&r->config.speculation, r->options->mode);
		struct weights weights;
		recorded_weights(&weights, v);
		if (v > 0) recorded_must(weight_history_put(r->history, v, &weights, &err), &err);
		recorded_must(policy_create(&r->policies[v], &weights, v, &draft, 1, &err), &err);
		weights_free(&weights);
	}
	const struct engine_options engine = { .mode = r->options->mode, .drafter = DRAFTER_KIND_QUANT, .draft_length = 3,
		.draft_length_max = 16, .suffix_tokens = 1024, .max_active = 5, .prefill_chunk = 16, .n_threads = 1,
		.kv_type = KV_F32, .kv_bytes = 16 << 20, .rank = 1, .stop_token = -1 };
	recorded_must(engine_open(&r->engine, r->policies[0], &engine, 128, &err), &err);
}

static inline void recorded_put(struct recording *r, struct trajectory *t, enum store_state state)
{
	struct err err = { 0 };
	size_t n_bytes;
	char *text;

	if (t->finish == FINISH_STOP || t->finish == FINISH_LENGTH) {
		recorded_must(tokenizer_decode(r->tokenizer, t->tokens + t->n_prompt, (size_t)trajectory_response_length(t), true, &text,
		                               &n_bytes, &err), &err);
		recorded_must(reward_score(r->reward, t, text, &err), &err);
		free(text);
		t->has_advantage = true;
		t->advantage = (float)t->reward - 0.5f;
	}
	recorded_must(store_put_trajectory(r->store, t, state, &err), &err);
	trajectory_free(t);
}

static inline void recorded_rounds(struct recording *r, int n)
{
	struct trajectory *t;

	for (; n != 0 && engine_pending(r->engine); n--) {
		engine_round(r->engine);
		while ((t = engine_take_finished(r->engine))) recorded_put(r, t, STORE_DONE);
	}
}

/* dir is an empty directory.  Groups 1 to 3 are of step 1, the others of step 2; those of an odd number stay undelivered
 * as partials if they are long. */
static inline void recorded_run_make(char *dir, const struct recorded_options *options)
{
	struct recording r = { .options = options, .dir = dir };
	const struct sampling_options sampling = { .temperature = 1.2f, .top_p = 0.98f };
	struct trajectory *t;
	struct err err = { 0 };

	recorded_open(&r);
	for (uint64_t g = 1; g <= RECORDED_GROUPS; g++) {
		recorded_must(store_put_group(r.store, g, r.prompts.items[g - 1].id, 0, RECORDED_SAMPLES, false, g - 1, &err), &err);
		for (int i = 0; i < RECORDED_SAMPLES; i++)
			engine_add(r.engine, prompts_open_sample(&r.prompts.items[g - 1], g, i, RECORDED_SAMPLES, 0, 7, &sampling, 48));
	}
	for (int v = 0; v < RECORDED_VERSIONS; v++) {
		if (v > 0) engine_set_policy(r.engine, r.policies[v], options->keep_kv);
		recorded_rounds(&r, RECORDED_ROUNDS);
	}
	recorded_rounds(&r, 4);
	while ((t = engine_withdraw(r.engine, 0))) recorded_put(&r, t, STORE_PARTIAL);
	for (uint64_t g = 1; g <= RECORDED_GROUPS; g++)
		recorded_must(store_group_state(r.store, g, g % 2 ? STORE_DONE : STORE_DELIVERED, g <= 3 ? 1 : 2, &err), &err);
	recorded_must(store_close(r.store, &err), &err);
	engine_close(r.engine);
	for (int v = 0; v < RECORDED_VERSIONS; v++) policy_free(r.policies[v]);
	weight_history_close(r.history);
	reward_close(r.reward);
	prompts_free(&r.prompts);
	chat_close(r.chat);
	tokenizer_close(r.tokenizer);
	config_free(&r.config);
}

/* The record as it is; owned by the caller. */
static inline struct trajectory *recorded_get(const char *dir, uint64_t id)
{
	struct trajectory *t;
	struct store *store;
	struct err err = { 0 };

	recorded_must(store_open_existing(&store, dir, &err), &err);
	recorded_must(store_get_trajectory(store, id, &t, &err), &err);
	store_close(store, &err);
	return t;
}

/* Another in its place, with the checksum that goes with it. */
static inline void recorded_replace(const char *dir, const struct trajectory *t)
{
	struct store *store;
	struct err err = { 0 };

	recorded_must(store_resume(&store, dir, &err), &err);
	recorded_must(store_put_trajectory(store, t, t->finish == FINISH_NONE ? STORE_PARTIAL : STORE_DONE, &err), &err);
	recorded_must(store_close(store, &err), &err);
}

#endif
