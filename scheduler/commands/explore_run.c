/* explore_run.c - pools in the order of their prompts, what is chosen as soon as its pool is there. */
#include "scheduler/commands/explore_run.h"

#include <assert.h>
#include <stdlib.h>

struct run {
	struct engine *engine;
	const struct prompts *prompts;
	const struct reward *reward;
	const struct tokenizer *tokenizer;
	const struct explore_run_options *options;
	struct explore_group *groups; /* [prompts->n] */
	size_t n_added, n_done;       /* pool samples given to the engine; prompts that are told of */
};

void explore_run_reward(const struct reward *reward, const struct tokenizer *tokenizer, struct trajectory *t)
{
	struct err err;
	char *text;
	size_t n_bytes;

	if (t->finish == FINISH_ERROR) return;
	if (tokenizer_decode(tokenizer, t->tokens + t->n_prompt, (size_t)trajectory_response_length(t), true, &text, &n_bytes,
	                     &err)) {
		t->finish = FINISH_ERROR;
		t->error = xstrdup(err.text);
		return;
	}
	reward_score(reward, t, text, &err);
	free(text);
}

static void group_free(struct explore_group *g)
{
	for (int i = 0; i < g->n_pool; i++) trajectory_free(g->pool[i]);
	for (int i = 0; i < g->n_chosen; i++) trajectory_free(g->again[i]);
	free(g->pool);
	free(g->chosen);
	free(g->again);
	*g = (struct explore_group){0};
}

static void add_pools(struct run *r)
{
	const struct explore_run_options *o = r->options;
	size_t pool = (size_t)o->pool;

	while (r->n_added < r->prompts->n * pool && engine_pending(r->engine) < o->pending_max) {
		size_t prompt = r->n_added / pool;
		struct explore_group *g = &r->groups[prompt];
		struct trajectory *t = prompts_open_sample(&r->prompts->items[prompt], prompt + 1, (int32_t)(r->n_added % pool),
		                                           o->pool, 0, o->seed, &o->sampling, o->max_tokens);
		t->explored = !o->by_target;
		if (!g->pool) g->pool = xcalloc(pool, sizeof *g->pool);
		g->n_pool = o->pool;
		engine_add(r->engine, t);
		r->n_added++;
	}
}

/* The pool is rewarded: what is chosen begins again.  Its sample numbers in the engine follow the pool's. */
static void choose(struct run *r, struct explore_group *g)
{
	g->chosen = xcalloc((size_t)r->options->keep, sizeof *g->chosen);
	g->again = xcalloc((size_t)r->options->keep, sizeof *g->again);
	g->n_chosen = explore_choose(g->pool, g->n_pool, r->options->keep, g->chosen);
	g->choosing = true;
	g->n_ended = 0;
	if (r->options->by_target) g->n_ended = g->n_chosen;
	for (int i = 0; i < g->n_chosen && !r->options->by_target; i++) {
		struct trajectory *t = explore_again(g->pool[g->chosen[i].index]);
		t->sample = g->n_pool + i;
		t->id = trajectory_id(t->group_id, t->sample);
		engine_add(r->engine, t);
	}
}

static void take_ended(struct run *r)
{
	struct trajectory *t;

	while ((t = engine_take_finished(r->engine))) {
		struct explore_group *g = &r->groups[t->group_id - 1];
		explore_run_reward(r->reward, r->tokenizer, t);
		g->n_ended++;
		if (!g->choosing) {
			g->pool[t->sample] = t;
			if (g->n_ended == g->n_pool) choose(r, g);
			continue;
		}
		int i = t->sample - g->n_pool;
		const struct trajectory *explored = g->pool[g->chosen[i].index];
		g->again[i] = t;
		t->sample = explored->sample;
		t->id = explored->id;
		explore_note(t, explored, g->n_pool, g->chosen[i].rank);
	}
}

void explore_run(struct engine *engine, const struct prompts *prompts, const struct reward *reward,
                 const struct tokenizer *tokenizer, const struct explore_run_options *options,
                 void (*done)(void *context, size_t prompt, const struct explore_group *group), void *context)
{
	struct run r = {.engine = engine, .prompts = prompts, .reward = reward, .tokenizer = tokenizer, .options = options};

	assert(options->keep >= 1 && options->keep <= options->pool && 2 * options->pool <= TRAJECTORY_SAMPLES_MAX);
	r.groups = xcalloc(prompts->n, sizeof *r.groups);
	while (r.n_done < prompts->n) {
		add_pools(&r);
		engine_round(engine);
		take_ended(&r);
		for (; r.n_done < prompts->n; r.n_done++) {
			struct explore_group *g = &r.groups[r.n_done];
			if (!g->choosing || g->n_ended < g->n_chosen) break;
			done(context, r.n_done, g);
			group_free(g);
		}
	}
	free(r.groups);
}
