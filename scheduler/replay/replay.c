/* replay.c - opening, selecting, and the list of what is to be drawn. */
#include "scheduler/replay/replay_internal.h"

#include <stdlib.h>
#include <string.h>

#include "rollout/sampling/noise.h"

int replay_open(struct replay **out, const struct replay_options *options, struct err *err)
{
	struct replay *r = xcalloc(1, sizeof *r);
	const struct config *c = options->config;

	r->options = *options;
	r->config = c;
	r->stop_token = -1;
	int rc = model_config_read(&r->model, c->model.path, err);
	if (!rc) rc = tokenizer_open(&r->tokenizer, c->model.path, err);
	if (!rc && c->rollout.stop[0]) rc = tokenizer_single(r->tokenizer, c->rollout.stop, &r->stop_token, err);
	if (!rc) rc = reward_open(&r->reward, &c->reward, err);
	if (!rc) rc = store_open_existing(&r->store, options->run_dir, err);
	if (!rc) r->weights = replay_weights_open(options->run_dir, c->model.path, &r->model, r->store);
	if (rc) replay_close(r);
	*out = rc ? NULL : r;
	return rc;
}

void replay_close(struct replay *r)
{
	struct err err;

	if (!r) return;
	replay_weights_close(r->weights);
	if (r->store) store_close(r->store, &err);
	if (r->reward) reward_close(r->reward);
	if (r->tokenizer) tokenizer_close(r->tokenizer);
	free(r);
}

/* ---- selecting ---- */

struct gathering {
	const struct replay_selection *selection;
	struct stored_sample *samples;
	size_t n, capacity;
};

static int order_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static int gather(void *context, const struct stored_sample *sample, struct err *err)
{
	struct gathering *g = context;
	const struct replay_selection *s = g->selection;

	(void)err;
	if (s->ids && !bsearch(&sample->id, s->ids, s->n_ids, sizeof *s->ids, order_ids)) return 0;
	if (!step_range_has(&s->steps, sample->step)) return 0;
	if (g->n == g->capacity) {
		g->capacity = g->capacity ? 2 * g->capacity : 256;
		g->samples = xrealloc(g->samples, g->capacity * sizeof *g->samples);
	}
	g->samples[g->n++] = *sample;
	return 0;
}

static int missing_id(const struct gathering *g, struct err *err)
{
	const struct replay_selection *s = g->selection;
	size_t at = 0;

	while (at < g->n && g->samples[at].id == s->ids[at]) at++;
	return err_set(err, ERR_MISSING, "trajectory %llu is not in the run, or not of these steps (drumroll export lists them)",
	               (unsigned long long)s->ids[at]);
}

struct ticket {
	uint64_t key, at;
};

static int order_tickets(const void *a, const void *b)
{
	const struct ticket *x = a, *y = b;
	return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : order_ids(&x->at, &y->at);
}

/* Those whose keys, made of seed and id, are least: of a growing run the same ones stay in. */
static void draw_sample(struct gathering *g)
{
	size_t wanted = g->selection->sample;

	if (wanted == 0 || wanted >= g->n) return;
	struct ticket *tickets = xmalloc(g->n * sizeof *tickets);
	bool *chosen = xcalloc(g->n, sizeof *chosen);
	for (size_t i = 0; i < g->n; i++) {
		uint64_t id = g->samples[i].id;
		int32_t low = (int32_t)(id & INT32_MAX), high = (int32_t)(id >> 31 & INT32_MAX);
		tickets[i] = (struct ticket){ noise_stream(g->selection->seed, 0, low, high), i };
	}
	qsort(tickets, g->n, sizeof *tickets, order_tickets);
	for (size_t i = 0; i < wanted; i++) chosen[tickets[i].at] = true;
	size_t n = 0;
	for (size_t i = 0; i < g->n; i++)
		if (chosen[i]) g->samples[n++] = g->samples[i];
	g->n = n;
	free(tickets);
	free(chosen);
}

int replay_select(struct replay *r, const struct replay_selection *selection, struct stored_sample **samples, size_t *n,
                  struct err *err)
{
	struct gathering g = { .selection = selection };
	int rc = store_each_sample(r->store, gather, &g, err);

	if (!rc && selection->ids && g.n < selection->n_ids) rc = missing_id(&g, err);
	if (!rc && g.n == 0)
		rc = err_set(err, ERR_MISSING, "%s has no trajectories%s", r->options.run_dir,
		             selection->steps.first >= 0 ? " of these steps" : ": was run.durability off?");
	if (rc) {
		free(g.samples);
		return rc;
	}
	draw_sample(&g);
	*samples = g.samples;
	*n = g.n;
	return 0;
}

/* ---- what is to be drawn ---- */

static bool weights_kept(void *context, int32_t version)
{
	struct replay *r = context;

	if (version < 0) return false;
	if (r->known_version != version + 1) r->known = replay_weights_has(r->weights, version);
	r->known_version = version + 1;
	return r->known;
}

static void add_work(struct replay *r, const struct replay_stretch *stretch, size_t sample)
{
	if (r->n_work == r->work_capacity) {
		r->work_capacity = r->work_capacity ? 2 * r->work_capacity : 256;
		r->work = xrealloc(r->work, r->work_capacity * sizeof *r->work);
	}
	r->work[r->n_work++] = (struct replay_work){ *stretch, sample };
	r->progress.tokens_all += (uint64_t)(stretch->end - stretch->start);
}

/* What the stretches of one trajectory add to the counts. */
static void count(struct replay *r, const struct replay_stretch *stretches, int n)
{
	struct replay_result *result = r->result;
	uint64_t *tokens[FATE_COUNT] = { &result->tokens_replayed, &result->tokens_not_kept, &result->tokens_kv_kept,
	                                 &result->tokens_maximal };
	uint64_t *with[FATE_COUNT] = { NULL, &result->with_not_kept, &result->with_kv_kept, &result->with_maximal };
	bool has[FATE_COUNT] = { false };

	for (int i = 0; i < n; i++) {
		const struct replay_stretch *s = &stretches[i];
		uint64_t length = (uint64_t)(s->end - s->start);
		result->tokens += length;
		*tokens[s->fate] += length;
		has[s->fate] = true;
		if (s->fate == FATE_NOT_KEPT) replay_result_add_not_kept(result, s->version, length);
	}
	for (int f = FATE_NOT_KEPT; f < FATE_COUNT; f++) *with[f] += has[f];
	if (n == 0) result->empty++;
	else if (!has[FATE_DRAW]) result->not_replayed++;
	else if (has[FATE_NOT_KEPT] || has[FATE_KV_KEPT] || has[FATE_MAXIMAL]) result->replayed_partly++;
	else result->replayed++;
}

static void note_difference(struct replay *r, size_t sample, enum replay_field field, const struct trajectory *t,
                            const char *note)
{
	const struct replay_verdict verdict = { .fields = 1u << field, .position = -1 };

	r->different[sample] = true;
	replay_result_add_difference(r->result, replay_describe(&verdict, NULL, &r->samples[sample], t, NULL, r->tokenizer, note));
}

static int plan_sample(struct replay *r, size_t sample, struct err *err)
{
	const struct replay_rules rules = { .mode = r->options.mode, .maximal = r->config->speculation.coupling == COUPLING_MAXIMAL,
	                                    .kept = weights_kept, .context = r };
	struct replay_stretch *stretches;
	struct trajectory *t;
	struct err why;
	int n;

	r->result->trajectories++;
	int rc = store_get_trajectory(r->store, r->samples[sample].id, &t, &why);
	if (rc == ERR_INVALID) {
		note_difference(r, sample, FIELD_RECORD, NULL, why.text);
		return 0;
	}
	if (rc) {
		*err = why;
		return rc;
	}
	if (replay_split(t, &rules, &stretches, &n, &why)) {
		note_difference(r, sample, FIELD_SEGMENTS, t, why.text);
	} else {
		count(r, stretches, n);
		for (int i = 0; i < n; i++)
			if (stretches[i].fate == FATE_DRAW) add_work(r, &stretches[i], sample);
		free(stretches);
	}
	trajectory_free(t);
	return 0;
}

/* By mode and version, siblings together. */
static int order_work(const void *a, const void *b)
{
	const struct replay_work *x = a, *y = b;

	if (x->stretch.mode != y->stretch.mode) return x->stretch.mode - y->stretch.mode;
	if (x->stretch.version != y->stretch.version) return x->stretch.version < y->stretch.version ? -1 : 1;
	if (x->sample != y->sample) return x->sample < y->sample ? -1 : 1;
	return (x->stretch.start > y->stretch.start) - (x->stretch.start < y->stretch.start);
}

/* A trajectory is equal if none of its stretches differs, and some were compared. */
static void settle(struct replay *r)
{
	bool *compared = xcalloc(r->n_samples, sizeof *compared);

	for (size_t i = 0; i < r->n_work; i++) compared[r->work[i].sample] = true;
	for (size_t i = 0; i < r->n_samples; i++) {
		r->result->different += r->different[i];
		r->result->equal += compared[i] && !r->different[i];
	}
	free(compared);
}

int replay_run(struct replay *r, const struct stored_sample *samples, size_t n, struct replay_result *result,
               bool (*tick)(void *context, const struct replay_progress *progress), void *context, struct err *err)
{
	int rc = 0;

	r->samples = samples;
	r->n_samples = n;
	r->result = result;
	r->tick = tick;
	r->tick_context = context;
	r->progress = (struct replay_progress){ 0 };
	r->n_work = 0;
	r->different = xcalloc(n ? n : 1, sizeof *r->different);
	for (size_t i = 0; i < n && !rc; i++) {
		rc = plan_sample(r, i, err);
		if (!rc && i % 64 == 63) rc = replay_tick(r, err);
	}
	if (!rc && r->n_work) qsort(r->work, r->n_work, sizeof *r->work, order_work);
	if (!rc) rc = replay_draw(r, err);
	if (!rc) settle(r);
	free(r->work);
	free(r->different);
	r->work = NULL;
	r->work_capacity = 0;
	return rc;
}

int replay_tick(struct replay *r, struct err *err)
{
	if (r->tick(r->tick_context, &r->progress)) return 0;
	return err_set(err, ERR_STATE, "the replay was stopped");
}
