/* run_status_prometheus.c - a run's state in Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/
 * exposition_formats): for each name HELP and TYPE, then its samples, together. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/status/run_status.h"

enum kind { GAUGE, COUNTER };

static void begin(FILE *f, const char *name, enum kind kind, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind == GAUGE ? "gauge" : "counter");
}

static void print_value(FILE *f, double value)
{
	if (isnan(value)) fprintf(f, " NaN\n");
	else if (isinf(value)) fprintf(f, value > 0 ? " +Inf\n" : " -Inf\n");
	else fprintf(f, " %.17g\n", value);
}

static void put(FILE *f, const char *name, enum kind kind, const char *help, double value)
{
	begin(f, name, kind, help);
	fprintf(f, "%s", name);
	print_value(f, value);
}

/* A label's value: \, " and the end of a line are escaped. */
static void print_label(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n') fputs("\\n", f);
		else if (*text == '\\' || *text == '"') fprintf(f, "\\%c", *text);
		else fputc(*text, f);
	}
}

/* ---- the run ---- */

static void put_info(FILE *f, const struct run_status *s)
{
	const struct { const char *name, *value; } labels[] = { { "name", s->name }, { "id", s->id }, { "mode", s->mode },
		{ "trainer", s->trainer }, { "state", s->state }, { "phase", s->phase } };

	begin(f, "drumroll_run_info", GAUGE, "The run, its state and phase as labels; always 1.");
	fprintf(f, "drumroll_run_info{");
	for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
		fprintf(f, "%s%s=\"", i ? "," : "", labels[i].name);
		print_label(f, labels[i].value);
		fputc('"', f);
	}
	fprintf(f, "} 1\n");
}

static void put_samples(FILE *f, const struct scheduler_counts *c)
{
	const struct { const char *state; int n; } states[] = { { "waiting", c->waiting }, { "leased", c->leased },
		{ "aside", c->aside }, { "done", c->done } };

	begin(f, "drumroll_run_samples", GAUGE, "Samples of groups that are not delivered yet.");
	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		fprintf(f, "drumroll_run_samples{state=\"%s\"} %d\n", states[i].state, states[i].n);
}

static void put_run(FILE *f, const struct run_status *s)
{
	const struct scheduler_counts *c = &s->counts;

	put_info(f, s);
	put(f, "drumroll_run_step", GAUGE, "Step that is being made.", (double)s->step);
	put(f, "drumroll_run_steps", GAUGE, "Steps that the run makes in all.", (double)s->steps);
	put(f, "drumroll_run_version", GAUGE, "Version of the weights.", (double)s->version);
	put(f, "drumroll_run_seconds_total", COUNTER, "Seconds since the run began.", s->seconds);
	if (s->eta_seconds >= 0) put(f, "drumroll_run_eta_seconds", GAUGE, "Seconds until its end, as steps so far have taken.", s->eta_seconds);
	put(f, "drumroll_run_groups_open", GAUGE, "Groups in flight.", c->groups_open);
	put(f, "drumroll_run_groups_complete", GAUGE, "Groups that are complete and not delivered yet.", c->groups_complete);
	put(f, "drumroll_run_groups_wanted", GAUGE, "Groups of a step.", s->groups_wanted);
	put(f, "drumroll_run_groups_delivered_total", COUNTER, "Groups delivered, those of evaluations included.", (double)c->groups_delivered);
	put(f, "drumroll_run_groups_dropped_total", COUNTER, "Groups dropped by a filter or for their age.", (double)(c->groups_dropped + c->groups_given_up));
	put_samples(f, c);
	put(f, "drumroll_run_samples_resumed_total", COUNTER, "Partial samples taken up again.", (double)c->resumed);
	put(f, "drumroll_run_samples_deferred_total", COUNTER, "Times a sample was put aside.", (double)c->deferred);
	put(f, "drumroll_run_samples_migrated_total", COUNTER, "Samples moved from a loaded rank to an idle one.", (double)c->migrated);
	put(f, "drumroll_run_trainer_connected", GAUGE, "1 while a trainer is connected.", s->trainer_connected);
	put(f, "drumroll_run_batches_out", GAUGE, "Batches of which the trainer has made no version yet.", s->batches_out);
	put(f, "drumroll_run_trainer_wait_seconds", GAUGE, "Seconds for which generation has been waiting for the trainer, now.", s->trainer_seconds);
	if (s->eval_pass_rate >= 0) put(f, "drumroll_eval_pass_rate", GAUGE, "Pass rate of the last evaluation.", s->eval_pass_rate);
}

/* ---- ranks ---- */

typedef double rank_value(const struct rank_status *r);

static double active(const struct rank_status *r) { return r->sums.engine.active; }
static double queued(const struct rank_status *r) { return r->sums.engine.queued; }
static double holding(const struct rank_status *r) { return r->holding; }
static double rate(const struct rank_status *r) { return r->tokens_per_sec; }
static double draft_length(const struct rank_status *r) { return r->draft_length; }
static double version(const struct rank_status *r) { return (double)r->sums.version; }
static double up(const struct rank_status *r) { return r->state != SHOWN_LOST; }
static double losses(const struct rank_status *r) { return r->losses; }
static double tokens(const struct rank_status *r) { return (double)r->sums.engine.tokens; }
static double drafted(const struct rank_status *r) { return (double)r->sums.engine.drafted; }
static double accepted(const struct rank_status *r) { return (double)r->sums.engine.accepted; }
static double prefilled(const struct rank_status *r) { return (double)r->sums.engine.prefill_rows; }
static double preempted(const struct rank_status *r) { return (double)r->sums.engine.preemptions; }

static double kv_used(const struct rank_status *r)
{
	const struct engine_stats *e = &r->sums.engine;
	return e->kv_pages_max > 0 ? (double)e->kv_pages_used / e->kv_pages_max : 0;
}

static void put_ranks(FILE *f, const struct run_status *s)
{
	static const struct { const char *name; enum kind kind; const char *help; rank_value *value; } rows[] = {
		{ "drumroll_rank_up", GAUGE, "1 while the rank serves, 0 when it was given up.", up },
		{ "drumroll_rank_losses_total", COUNTER, "Times the rank was given up.", losses },
		{ "drumroll_rank_active_sessions", GAUGE, "Samples that are decoded together.", active },
		{ "drumroll_rank_queued_sessions", GAUGE, "Samples that wait on the rank.", queued },
		{ "drumroll_rank_leased_samples", GAUGE, "Samples leased to the rank.", holding },
		{ "drumroll_rank_kv_used_ratio", GAUGE, "Share of the KV cache in use.", kv_used },
		{ "drumroll_rank_version", GAUGE, "Version of the rank's weights.", version },
		{ "drumroll_rank_tokens_per_sec", GAUGE, "Response tokens per second, lately.", rate },
		{ "drumroll_rank_draft_length", GAUGE, "Tokens drafted per round and sample, lately.", draft_length },
		{ "drumroll_rank_tokens_total", COUNTER, "Response tokens made.", tokens },
		{ "drumroll_rank_drafted_tokens_total", COUNTER, "Tokens drafted.", drafted },
		{ "drumroll_rank_accepted_tokens_total", COUNTER, "Drafted tokens that the target drew too.", accepted },
		{ "drumroll_rank_prefill_tokens_total", COUNTER, "Prompt tokens computed.", prefilled },
		{ "drumroll_rank_preemptions_total", COUNTER, "Samples put back for want of KV memory.", preempted },
	};

	for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
		begin(f, rows[k].name, rows[k].kind, rows[k].help);
		for (int i = 0; i < s->n_ranks; i++) {
			fprintf(f, "%s{rank=\"%d\"}", rows[k].name, s->ranks[i].rank);
			print_value(f, rows[k].value(&s->ranks[i]));
		}
	}
	begin(f, "drumroll_rank_seconds_total", COUNTER, "Seconds of the rank's thread by kind of work; total is all of them and the rest.");
	for (int i = 0; i < s->n_ranks; i++) {
#define PUT(name, field) \
		fprintf(f, "drumroll_rank_seconds_total{rank=\"%d\",kind=\"" name "\"}", s->ranks[i].rank); \
		print_value(f, s->ranks[i].sums.field);
		TIMELINE_SECONDS(PUT)
#undef PUT
	}
}

static void put_positions(FILE *f, const char *name, const char *help, const uint64_t values[ENGINE_POSITIONS])
{
	int n = ENGINE_POSITIONS;

	while (n > 0 && values[n - 1] == 0) n--;
	if (n > 0) begin(f, name, COUNTER, help);
	for (int i = 0; i < n; i++) fprintf(f, "%s{position=\"%d\"} %" PRIu64 "\n", name, i + 1, values[i]);
}

/* ---- the last step ---- */

/* rollout/sd/acceptance_rate -> drumroll_rollout_sd_acceptance_rate; `_total` at the end is for counters alone. */
static void metric_name(char name[128], const char *key)
{
	size_t n_key = strlen(key), n_total = strlen("_total");
	if (n_key > n_total && strcmp(key + n_key - n_total, "_total") == 0) n_key -= n_total;
	int n = snprintf(name, 128, "drumroll_%.*s", (int)n_key, key);
	for (int i = 0; i < n && i < 127; i++)
		if (name[i] == '/' || name[i] == '-' || name[i] == '.') name[i] = '_';
}

static void put_last_step(FILE *f, const char *line)
{
	json_t *o = line ? json_loads(line, 0, NULL) : NULL, *value;
	char name[128], help[192];
	const char *key;

	json_object_foreach(o, key, value) {
		bool position = strstr(key, "_by_position") && json_array_size(value) > 0;
		if (!json_is_number(value) && !position) continue;
		if (strcmp(key, "step") == 0) snprintf(name, sizeof name, "drumroll_last_step");
		else if (strcmp(key, "version") == 0) snprintf(name, sizeof name, "drumroll_last_step_version");
		else metric_name(name, key);
		snprintf(help, sizeof help, "Of the last step: %s of metrics.jsonl.", key);
		begin(f, name, GAUGE, help);
		if (!position) {
			fprintf(f, "%s", name);
			print_value(f, json_number_value(value));
		}
		for (size_t i = 0; position && i < json_array_size(value); i++) {
			fprintf(f, "%s{position=\"%zu\"}", name, i + 1);
			print_value(f, json_number_value(json_array_get(value, i)));
		}
	}
	json_decref(o);
}

char *run_status_prometheus(const struct run_status *s)
{
	struct rank_stats all = { 0 };
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	if (!f) return NULL;
	put_run(f, s);
	put_ranks(f, s);
	for (int i = 0; i < s->n_ranks; i++) rank_stats_add(&all, &s->ranks[i].sums);
	put_positions(f, "drumroll_drafted_tokens_total", "Tokens drafted at a place of the draft, by all ranks.", all.engine.drafted_by_position);
	put_positions(f, "drumroll_accepted_tokens_total", "Those of them that the target drew too.", all.engine.accepted_by_position);
	put_last_step(f, s->last_step);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}
