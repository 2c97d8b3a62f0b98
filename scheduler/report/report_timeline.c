/* report_timeline.c - see report_timeline.h.  Counters are cumulative since a rank began: one that came back begins
 * anew, which a counter that falls tells. */
#include "scheduler/report/report_timeline.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

enum { RANKS_MAX = 1 << 20, WHOLE_MAX = 1 << 30 };

const char *time_kind_name(enum time_kind kind)
{
#define X(name, text) text,
	static const char *const names[] = { TIME_KINDS(X) };
#undef X
	return names[kind];
}

static struct rank_line *rank_of(struct report_timeline *t, int rank)
{
	int at = 0, above = t->n_ranks;
	while (at < above) {
		int middle = (at + above) / 2;
		if (t->ranks[middle].rank < rank) at = middle + 1;
		else above = middle;
	}
	if (at < t->n_ranks && t->ranks[at].rank == rank) return &t->ranks[at];
	t->ranks = xrealloc(t->ranks, (size_t)(t->n_ranks + 1) * sizeof *t->ranks);
	memmove(t->ranks + at + 1, t->ranks + at, (size_t)(t->n_ranks++ - at) * sizeof *t->ranks);
	t->ranks[at] = (struct rank_line){ .rank = rank };
	return &t->ranks[at];
}

/* Steps come in order, with little mixing between ranks: search from the end. */
static struct position_counts *counts_of(struct report_timeline *t, int32_t step)
{
	int at = t->n_steps;
	while (at > 0 && t->by_step[at - 1].step > step) at--;
	if (at > 0 && t->by_step[at - 1].step == step) return &t->by_step[at - 1];
	if ((t->n_steps & (t->n_steps - 1)) == 0)
		t->by_step = xrealloc(t->by_step, (t->n_steps ? 2 * (size_t)t->n_steps : 1) * sizeof *t->by_step);
	memmove(t->by_step + at + 1, t->by_step + at, (size_t)(t->n_steps++ - at) * sizeof *t->by_step);
	t->by_step[at] = (struct position_counts){ .step = step };
	return &t->by_step[at];
}

/* What a cumulative counter grew by; *before follows it. */
static double growth(double *before, const json_t *value)
{
	double now = json_number_value(value), grown;
	if (!json_is_number(value)) return 0;
	grown = now >= *before ? now - *before : now;
	*before = now;
	return grown;
}

static enum rank_activity state_of(const json_t *value)
{
	static const char *const names[] = { "generating", "idle", "weights", "lost" };
	const char *text = json_string_value(value);
	for (int i = 0; text && i < RANK_STATES; i++)
		if (strcmp(text, names[i]) == 0) return (enum rank_activity)i;
	return RANK_IDLE;
}

static double number(const json_t *line, const char *key)
{
	return json_number_value(json_object_get(line, key));
}

static int32_t whole(const json_t *line, const char *key)
{
	double value = number(line, key);
	return value >= 0 && value <= WHOLE_MAX ? (int32_t)value : 0;
}

static void add_positions(struct report_timeline *t, struct rank_line *r, const json_t *line, int32_t step)
{
	const json_t *drafted = json_object_get(line, "drafted_by_position");
	const json_t *accepted = json_object_get(line, "accepted_by_position");
	if (json_array_size(drafted) == 0) return;
	struct position_counts *counts = counts_of(t, step);

	for (size_t i = 0; i < TIMELINE_POSITIONS && i < json_array_size(drafted); i++) {
		counts->drafted[i] += growth(&r->drafted_before[i], json_array_get(drafted, i));
		counts->accepted[i] += growth(&r->accepted_before[i], json_array_get(accepted, i));
	}
}

/* Seconds of the thread by kind, and how the interval divides; a rank that tells none is taken by its state. */
static void add_seconds(struct rank_line *r, struct rank_point *point, const json_t *line)
{
	const json_t *seconds = json_object_get(line, "seconds");
	double total = growth(&r->total_before, json_object_get(seconds, "total")), known = 0, part[TIME_COUNT];

	for (int k = 0; k < TIME_COUNT; k++) {
		part[k] = k == TIME_OTHER ? 0 : growth(&r->seconds_before[k], json_object_get(seconds, time_kind_name((enum time_kind)k)));
		known += part[k];
	}
	part[TIME_OTHER] = total > known ? total - known : 0;
	known += part[TIME_OTHER];
	for (int k = 0; k < TIME_COUNT; k++) r->seconds[k] += part[k];
	point->work = point->state == RANK_GENERATING;
	point->weights = point->state == RANK_WEIGHTS;
	if (known <= 0 || point->state == RANK_LOST) return;
	point->weights = (float)(part[TIME_WEIGHTS] / known);
	point->work = (float)(1 - (part[TIME_WEIGHTS] + part[TIME_WAIT]) / known);
}

static void add_rank_line(struct report_timeline *t, const json_t *line, int rank, double now)
{
	struct rank_line *r = rank_of(t, rank);
	struct rank_point *before = r->n ? &r->points[r->n - 1] : NULL;
	struct rank_point point = {
		.t = now, .interval = before ? now - before->t : fmin(now, 1), .state = state_of(json_object_get(line, "state")),
		.draft_length = (float)number(line, "draft_length"), .kv_used = (float)number(line, "kv_used"),
		.step = whole(line, "step"), .active = whole(line, "active"),
		.queued = whole(line, "queued"), .version = whole(line, "version") };

	if (point.interval < 0) { /* a run that was resumed begins anew at 0 */
		t->bad_lines++;
		return;
	}
	point.tokens = growth(&r->tokens_before, json_object_get(line, "tokens"));
	r->tokens += point.tokens;
	if (point.state == RANK_LOST) r->lost += point.interval;
	add_positions(t, r, line, point.step);
	add_seconds(r, &point, line);
	if (r->n == r->capacity) {
		r->capacity = r->capacity ? 2 * r->capacity : 64;
		r->points = xrealloc(r->points, (size_t)r->capacity * sizeof *r->points);
	}
	r->points[r->n++] = point;
}

static void add_event(struct report_timeline *t, const json_t *line, double now)
{
	const char *text = json_string_value(json_object_get(line, "event"));
	if (t->n_events == t->events_capacity) {
		t->events_capacity = t->events_capacity ? 2 * t->events_capacity : 64;
		t->events = xrealloc(t->events, (size_t)t->events_capacity * sizeof *t->events);
	}
	t->events[t->n_events++] = (struct timeline_event){ .t = now, .step = whole(line, "step"),
	                                                    .text = xstrdup(text ? text : "") };
}

void report_timeline_add(struct report_timeline *t, json_t *line)
{
	const json_t *time = json_object_get(line, "t"), *rank = json_object_get(line, "rank");
	double now = json_number_value(time);

	if (!json_is_number(time) || !(now >= 0)) t->bad_lines++;
	else if (json_is_string(json_object_get(line, "event"))) add_event(t, line, now);
	else if (json_is_integer(rank) && json_integer_value(rank) >= 0 && json_integer_value(rank) < RANKS_MAX)
		add_rank_line(t, line, (int)json_integer_value(rank), now);
	else t->bad_lines++;
	if (json_is_number(time) && now > t->end) t->end = now;
}

void report_timeline_load(struct report_timeline *t, const char *run_dir)
{
	char path[4096], *line = NULL;
	size_t capacity = 0;
	ssize_t n;

	*t = (struct report_timeline){0};
	snprintf(path, sizeof path, "%s/timeline.jsonl", run_dir);
	FILE *f = fopen(path, "r");
	if (!f) {
		if (errno == ENOENT) snprintf(t->absent, sizeof t->absent, "the run directory has no timeline.jsonl (an older run, one "
		                              "with run.timeline_seconds 0, or one that ended before its first second)");
		else snprintf(t->absent, sizeof t->absent, "timeline.jsonl cannot be read: %s", strerror(errno));
		return;
	}
	while ((n = getline(&line, &capacity, f)) > 0) {
		json_t *o = json_loadb(line, (size_t)n, 0, NULL);
		if (json_is_object(o)) report_timeline_add(t, o);
		else t->bad_lines++;
		json_decref(o);
	}
	free(line);
	fclose(f);
	if (t->n_ranks == 0) snprintf(t->absent, sizeof t->absent, "timeline.jsonl has no line of a rank");
}

void report_timeline_free(struct report_timeline *t)
{
	for (int i = 0; i < t->n_ranks; i++) free(t->ranks[i].points);
	for (int i = 0; i < t->n_events; i++) free(t->events[i].text);
	free(t->ranks);
	free(t->by_step);
	free(t->events);
	*t = (struct report_timeline){0};
}

int report_timeline_positions(const struct report_timeline *t, struct position_counts *total)
{
	int n = 0;

	*total = (struct position_counts){0};
	for (int s = 0; s < t->n_steps; s++)
		for (int i = 0; i < TIMELINE_POSITIONS; i++) {
			total->drafted[i] += t->by_step[s].drafted[i];
			total->accepted[i] += t->by_step[s].accepted[i];
		}
	for (int i = 0; i < TIMELINE_POSITIONS; i++)
		if (total->drafted[i] > 0) n = i + 1;
	return n;
}
