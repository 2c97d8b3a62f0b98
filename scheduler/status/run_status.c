/* run_status.c - the JSON of a run's state; see run_status.h. */
#include "scheduler/status/run_status.h"

#include <jansson.h>
#include <stdlib.h>

static json_t *positions(const uint64_t values[ENGINE_POSITIONS])
{
	json_t *array = json_array();
	int n = ENGINE_POSITIONS;

	while (n > 0 && values[n - 1] == 0) n--;
	for (int i = 0; i < n; i++) json_array_append_new(array, json_integer((json_int_t)values[i]));
	return array;
}

static json_t *seconds_json(const struct rank_stats *s)
{
	json_t *o = json_object();
#define PUT(name, field) json_object_set_new(o, name, json_real(s->field));
	TIMELINE_SECONDS(PUT)
#undef PUT
	return o;
}

static json_t *rank_json(const struct rank_status *r)
{
	const struct engine_stats *e = &r->sums.engine;
	json_t *o = json_pack("{s:i, s:s, s:i, s:i, s:i, s:I, s:f, s:I, s:I, s:f, s:I, s:f, s:i, s:f}",
		"rank", r->rank, "state", rank_shown_text(r->state), "active", e->active, "queued", e->queued, "holding", r->holding,
		"tokens", (json_int_t)e->tokens, "tokens_per_sec", r->tokens_per_sec, "drafted", (json_int_t)e->drafted,
		"accepted", (json_int_t)e->accepted, "draft_length", r->draft_length, "version", (json_int_t)r->sums.version,
		"kv_used", e->kv_pages_max > 0 ? (double)e->kv_pages_used / e->kv_pages_max : 0.0, "losses", r->losses,
		"heard_seconds", r->heard_seconds);

	json_object_set_new(o, "acceptance", r->acceptance < 0 ? json_null() : json_real(r->acceptance));
	json_object_set_new(o, "seconds", seconds_json(&r->sums));
	return o;
}

static json_t *ranks_json(const struct run_status *s, struct rank_stats *all, double *rate)
{
	json_t *ranks = json_array();

	for (int i = 0; i < s->n_ranks; i++) {
		rank_stats_add(all, &s->ranks[i].sums);
		*rate += s->ranks[i].tokens_per_sec;
		json_array_append_new(ranks, rank_json(&s->ranks[i]));
	}
	return ranks;
}

/* -1 and the like stand for nothing. */
static json_t *known(double value) { return value < 0 ? json_null() : json_real(value); }

char *run_status_json(const struct run_status *s)
{
	const struct scheduler_counts *c = &s->counts;
	struct rank_stats all = { 0 };
	double rate = 0;
	json_t *ranks = ranks_json(s, &all, &rate);
	json_t *o = json_pack("{s:f, s:s, s:s, s:s, s:s, s:s, s:s, s:s?, s:f, s:f, s:o, s:I, s:I, s:I}",
		"time", s->time, "run", s->name, "run_id", s->id, "run_dir", s->dir, "state", s->state, "phase", s->phase,
		"mode", s->mode, "http", s->http, "interval", s->interval, "seconds", s->seconds, "eta_seconds", known(s->eta_seconds),
		"step", (json_int_t)s->step, "steps", (json_int_t)s->steps, "version", (json_int_t)s->version);

	json_object_set_new(o, "tokens", json_integer((json_int_t)all.engine.tokens));
	json_object_set_new(o, "tokens_per_sec", json_real(rate));
	json_object_set_new(o, "drafted_by_position", positions(all.engine.drafted_by_position));
	json_object_set_new(o, "accepted_by_position", positions(all.engine.accepted_by_position));
	json_object_set_new(o, "seconds_by_kind", seconds_json(&all));
	json_object_set_new(o, "groups", json_pack("{s:i, s:i, s:i, s:I, s:I}", "wanted", s->groups_wanted, "open", c->groups_open,
		"complete", c->groups_complete, "delivered", (json_int_t)c->groups_delivered, "dropped", (json_int_t)(c->groups_dropped + c->groups_given_up)));
	json_object_set_new(o, "samples", json_pack("{s:i, s:i, s:i, s:i, s:I, s:I, s:I}", "waiting", c->waiting, "leased", c->leased,
		"aside", c->aside, "done", c->done, "resumed", (json_int_t)c->resumed, "deferred", (json_int_t)c->deferred,
		"migrated", (json_int_t)c->migrated));
	json_object_set_new(o, "trainer", json_pack("{s:s, s:b, s:i, s:f}", "kind", s->trainer, "connected", s->trainer_connected,
		"batches_out", s->batches_out, "waiting_seconds", s->trainer_seconds));
	json_object_set_new(o, "eval_pass_rate", known(s->eval_pass_rate));
	json_t *last = s->last_step ? json_loads(s->last_step, 0, NULL) : NULL;
	json_object_set_new(o, "last_step", last ? last : json_null());
	json_object_set_new(o, "ranks", ranks);
	char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
	json_decref(o);
	return text;
}
