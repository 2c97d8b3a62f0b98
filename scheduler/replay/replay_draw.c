/* replay_draw.c - an engine that is fed stretches of one version after the other. */
#include <assert.h>
#include <stdlib.h>

#include "scheduler/clock.h"
#include "scheduler/replay/replay_internal.h"

static const double TICK_SECONDS = 0.2;

/* A stretch in the engine, whose trajectory has the place in flight as its id there. */
struct flight {
	struct trajectory *recorded; /* NULL: the place is free */
	size_t work;
};

struct drawing {
	struct replay *replay;
	struct policy *policy;
	struct engine *engine;
	int mode;                /* of the engine */
	struct flight *flights;  /* [n_flights] */
	size_t n_flights, next;  /* next: of work, to be added */
	uint64_t tokens_before;  /* drawn by engines before this one */
	double ticked;
};

static int context_needed(const struct replay *r)
{
	int longest = 1;

	for (size_t i = 0; i < r->n_samples; i++)
		if (r->samples[i].n_positions > longest) longest = r->samples[i].n_positions;
	return longest < r->model.max_context ? longest : r->model.max_context;
}

static int open_engine(struct drawing *d, int mode, struct err *err)
{
	const struct config *c = d->replay->config;
	struct engine_options options = {
		.mode = mode, .drafter = c->speculation.drafter, .coupling = COUPLING_COUPLED,
		.draft_length = (int)c->speculation.draft_length, .draft_length_max = (int)c->speculation.draft_length_max,
		.suffix_tokens = c->speculation.suffix_tokens, .max_active = (int)c->worker.max_active,
		.prefill_chunk = (int)c->worker.prefill_chunk, .n_threads = (int)c->worker.threads,
		.kv_type = (enum kv_type)c->worker.kv_format, .kv_bytes = (size_t)c->worker.kv_memory_mb << 20,
		.rank = d->replay->options.rank, .stop_token = d->replay->stop_token, .clock = clock_seconds };

	if ((size_t)options.max_active > d->replay->n_work) options.max_active = (int)d->replay->n_work;
	d->mode = mode;
	int rc = engine_open(&d->engine, d->policy, &options, context_needed(d->replay), err);
	return rc ? err_context(err, "--kv-memory-mb") : 0;
}

static void close_engine(struct drawing *d)
{
	struct engine_stats stats;

	if (!d->engine) return;
	engine_stats_read(d->engine, &stats);
	d->tokens_before += stats.tokens;
	engine_close(d->engine);
	d->engine = NULL;
}

/* The engine draws under this version in this mode from now on; it is empty. */
static int take_version(struct drawing *d, int mode, int32_t version, struct err *err)
{
	const struct config *c = d->replay->config;
	struct draft_options draft = draft_options_of(&c->speculation, mode);
	struct policy *policy;
	struct weights weights;

	int rc = replay_weights_load(d->replay->weights, version, &weights, err);
	if (rc) return rc;
	rc = policy_create(&policy, &weights, version, mode != ROLLOUT_EXACT ? &draft : NULL, (int)c->worker.threads, err);
	weights_free(&weights);
	if (rc) return err_context(err, "version %d", version);
	if (d->engine && d->mode == mode) engine_set_policy(d->engine, policy, false);
	else close_engine(d);
	policy_free(d->policy);
	d->policy = policy;
	return d->engine ? 0 : open_engine(d, mode, err);
}

/* ---- a stretch in, a stretch out ---- */

static int add_stretch(struct drawing *d, size_t place, struct err *err)
{
	struct replay *r = d->replay;
	struct flight *f = &d->flights[place];
	const struct replay_work *work = &r->work[d->next];

	int rc = store_get_trajectory(r->store, r->samples[work->sample].id, &f->recorded, err);
	if (rc) return rc;
	if (f->recorded->n_tokens < work->stretch.end) /* a run that goes on has put another one */
		rc = err_set(err, ERR_STATE, "trajectory %llu has changed meanwhile: replay a run that is not running, or its delivered "
		             "steps (--steps)", (unsigned long long)f->recorded->id);
	if (rc) return rc;
	f->work = d->next++;
	struct trajectory *t = replay_begin(f->recorded, &work->stretch);
	t->id = place + 1;
	engine_add(d->engine, t);
	return 0;
}

/* The verdict of a verifier that runs here; true if there is one to compare. */
static bool judge(struct replay *r, const struct replay_stretch *stretch, const struct trajectory *recorded,
                  struct trajectory *t)
{
	int kind = r->config->reward.kind;
	size_t n_bytes;
	char *text;
	struct err err;

	if (!replay_ends_by_itself(recorded, stretch) || !recorded->has_reward || t->finish == FINISH_ERROR) return false;
	if (kind == REWARD_PROGRAM || kind == REWARD_NONE) {
		r->result->rewards_not_asked++;
		return false;
	}
	size_t n = (size_t)trajectory_response_length(t);
	if (tokenizer_decode(r->tokenizer, t->tokens + t->n_prompt, n, true, &text, &n_bytes, &err)) return false;
	reward_score(r->reward, t, text, &err);
	free(text);
	r->result->rewards++;
	return true;
}

static void compare(struct drawing *d, struct trajectory *t)
{
	struct replay *r = d->replay;
	struct flight *f = &d->flights[t->id - 1];
	const struct replay_work *work = &r->work[f->work];
	const struct replay_stretch *stretch = &work->stretch;
	char *error = t->error ? xstrdup(t->error) : NULL; /* the engine's */

	t->id = f->recorded->id;
	t->max_tokens = f->recorded->max_tokens;
	bool judged = judge(r, stretch, f->recorded, t);
	struct replay_verdict verdict = replay_compare(stretch, f->recorded, t, (uint64_t)r->config->run.seed, judged);
	r->result->checksums += stretch->end == f->recorded->n_tokens && !error;
	if (verdict.fields) {
		r->different[work->sample] = true;
		replay_result_add_difference(r->result, replay_describe(&verdict, stretch, &r->samples[work->sample], f->recorded, t,
		                                                        r->tokenizer, error));
	}
	free(error);
	trajectory_free(f->recorded);
	f->recorded = NULL;
	trajectory_free(t);
}

/* Keep the engine supplied with stretches before `end`. */
static int supply(struct drawing *d, size_t end, struct err *err)
{
	for (size_t place = 0; place < d->n_flights && d->next < end; place++) {
		if (d->flights[place].recorded) continue;
		int rc = add_stretch(d, place, err);
		if (rc) return rc;
	}
	return 0;
}

static int turn(struct drawing *d, struct err *err)
{
	struct engine_stats stats;
	double now = clock_seconds();

	if (now - d->ticked < TICK_SECONDS) return 0;
	d->ticked = now;
	engine_stats_read(d->engine, &stats);
	d->replay->progress.tokens = d->tokens_before + stats.tokens;
	return replay_tick(d->replay, err);
}

/* Stretches from d->next to `end`: of one version, in one mode. */
static int draw_version(struct drawing *d, size_t end, struct err *err)
{
	const struct replay_stretch *first = &d->replay->work[d->next].stretch;
	struct trajectory *t;
	size_t left = end - d->next;

	int rc = take_version(d, first->mode, first->version, err);
	while (!rc && left > 0) {
		rc = supply(d, end, err);
		if (!rc && engine_pending(d->engine)) engine_round(d->engine);
		for (; !rc && (t = engine_take_finished(d->engine)); left--) compare(d, t);
		if (!rc) rc = turn(d, err);
	}
	return rc;
}

int replay_draw(struct replay *r, struct err *err)
{
	struct drawing d = { .replay = r, .n_flights = 2 * (size_t)r->config->worker.max_active };
	int rc = 0;

	d.flights = xcalloc(d.n_flights, sizeof *d.flights);
	while (!rc && d.next < r->n_work) {
		const struct replay_stretch *first = &r->work[d.next].stretch;
		size_t end = d.next;
		while (end < r->n_work && r->work[end].stretch.mode == first->mode && r->work[end].stretch.version == first->version) end++;
		rc = draw_version(&d, end, err);
	}
	close_engine(&d);
	r->progress.tokens = d.tokens_before;
	policy_free(d.policy);
	for (size_t i = 0; i < d.n_flights; i++) trajectory_free(d.flights[i].recorded);
	free(d.flights);
	return rc;
}
