/* report_sweep.c - see report_sweep.h. */
#include "scheduler/report/report_sweep.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/err.h"

enum { FILE_PATH_MAX = 4096, ABOUT_MAX = 32 /* paragraphs */ };

static void file_path(char path[FILE_PATH_MAX], const char *dir, const char *name)
{
	snprintf(path, FILE_PATH_MAX, "%s/%s", dir, name);
}

bool sweep_is_here(const char *dir)
{
	char path[FILE_PATH_MAX];
	file_path(path, dir, "results.jsonl");
	if (access(path, F_OK) == 0) return true;
	file_path(path, dir, "sweep.json");
	return access(path, F_OK) == 0;
}

static char *text_of(const json_t *o, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(o, key));
	return xstrdup(text ? text : otherwise);
}

/* ---- results ---- */

static struct sweep_variant *variant_of(struct report_sweep *sweep, const json_t *line, const char *name)
{
	for (int i = 0; i < sweep->n; i++)
		if (strcmp(sweep->variants[i].name, name) == 0) return &sweep->variants[i];
	sweep->variants = xrealloc(sweep->variants, (size_t)(sweep->n + 1) * sizeof *sweep->variants);
	sweep->variants[sweep->n] = (struct sweep_variant){
		.name = xstrdup(name), .baseline = -1, .baseline_name = text_of(line, "baseline", ""),
		.set = json_incref(json_object_get(line, "set")) };
	return &sweep->variants[sweep->n++];
}

static void sweep_run_free(struct sweep_run *run)
{
	free(run->dir);
	json_decref(run->metrics);
	table_free(&run->evals);
	table_free(&run->steps);
}

/* The steps and evaluations of a run; directories may have moved together with the sweep's. */
static void load_curves(const struct report_sweep *sweep, struct sweep_run *run)
{
	char path[FILE_PATH_MAX], *line = NULL;
	size_t capacity = 0;
	ssize_t n;
	const char *base = strrchr(run->dir, '/');

	if (!run->dir[0]) return;
	file_path(path, run->dir, "metrics.jsonl");
	FILE *f = fopen(path, "r");
	if (!f) {
		snprintf(path, sizeof path, "%s/runs/%s/metrics.jsonl", sweep->dir, base ? base + 1 : run->dir);
		f = fopen(path, "r");
	}
	while (f && (n = getline(&line, &capacity, f)) > 0) {
		json_t *o = json_loadb(line, (size_t)n, 0, NULL);
		if (json_is_number(json_object_get(o, "step")))
			table_add(json_is_number(json_object_get(o, "eval/pass_rate")) ? &run->evals : &run->steps, o);
		json_decref(o);
	}
	free(line);
	if (f) fclose(f);
}

/* A later line of the same run replaces an earlier one. */
static void add_result(struct report_sweep *sweep, json_t *line)
{
	const char *name = json_string_value(json_object_get(line, "variant"));
	const json_t *repetition = json_object_get(line, "repetition"), *status = json_object_get(line, "exit"), *value;
	int at = 0;

	if (!name || !json_is_integer(repetition)) {
		sweep->bad_lines++;
		return;
	}
	struct sweep_variant *variant = variant_of(sweep, line, name);
	struct sweep_run run = {
		.repetition = (int)json_integer_value(repetition), .status = (int)json_integer_value(status), .value = (double)NAN,
		.seconds = json_number_value(json_object_get(line, "seconds")), .dir = text_of(line, "run_dir", ""),
		.metrics = json_incref(json_object_get(line, "metrics")) };
	value = json_object_get(run.metrics, sweep->metric);
	if (run.status == 0 && json_is_number(value)) run.value = json_number_value(value);
	while (at < variant->n && variant->runs[at].repetition != run.repetition) at++;
	if (at < variant->n) sweep_run_free(&variant->runs[at]);
	else variant->runs = xrealloc(variant->runs, (size_t)++variant->n * sizeof *variant->runs);
	variant->runs[at] = run;
	load_curves(sweep, &variant->runs[at]);
}

static double number_of(const json_t *value)
{
	const char *text = json_string_value(value);
	char *end;
	double number = text ? strtod(text, &end) : json_is_number(value) ? json_number_value(value) : (double)NAN;
	return text && (!*text || *end) ? (double)NAN : number;
}

/* Interleaving mixes the order of the file; what is set tells a better one. */
static int compare_variants(const void *a, const void *b)
{
	const struct sweep_variant *x = a, *y = b;
	const char *key;
	json_t *value;

	json_object_foreach(x->set, key, value) {
		const json_t *other = json_object_get(y->set, key);
		double p = number_of(value), q = number_of(other);
		const char *s = json_string_value(value), *t = json_string_value(other);
		int order = isfinite(p) && isfinite(q) ? double_compare(&p, &q) : s && t ? strcmp(s, t) : 0;
		if (order) return order;
	}
	return strcmp(x->name, y->name);
}

/* What sweep.json lists comes first, in its order; what it does not know keeps the order it has. */
static void order_as_listed(struct report_sweep *sweep, const json_t *names)
{
	const json_t *name;
	size_t i;
	int placed = 0;

	json_array_foreach(names, i, name) {
		const char *text = json_string_value(name);
		int at = placed;
		while (text && at < sweep->n && strcmp(sweep->variants[at].name, text) != 0) at++;
		if (!text || at == sweep->n) continue;
		struct sweep_variant variant = sweep->variants[at];
		memmove(&sweep->variants[placed + 1], &sweep->variants[placed], (size_t)(at - placed) * sizeof variant);
		sweep->variants[placed++] = variant;
	}
}

/* "Claim: ...", "Takes ...": a new paragraph of a head comment. */
static bool begins_paragraph(const char *text)
{
	size_t n = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
	return !*text || (n && text[n] == ':') || strncmp(text, "Takes ", 6) == 0;
}

/* The comment before the first key, without the command and the minutes of the whole: the report has those of this one. */
static void load_about(struct report_sweep *sweep)
{
	char path[FILE_PATH_MAX], *line = NULL;
	size_t capacity = 0;
	ssize_t n;

	file_path(path, sweep->dir, "sweep.yaml");
	FILE *f = fopen(path, "r");
	while (f && (n = getline(&line, &capacity, f)) > 0 && line[0] == '#' && sweep->n_about < ABOUT_MAX) {
		char *text = line + 1 + strspn(line + 1, "# ");
		text[strcspn(text, "\r\n")] = '\0';
		if (!sweep->n_about || begins_paragraph(text)) {
			sweep->about = xrealloc(sweep->about, (size_t)(sweep->n_about + 1) * sizeof *sweep->about);
			sweep->about[sweep->n_about++] = xstrdup(text);
			continue;
		}
		char **last = &sweep->about[sweep->n_about - 1];
		size_t length = strlen(*last);
		*last = xrealloc(*last, length + strlen(text) + 2);
		snprintf(*last + length, strlen(text) + 2, "%s%s", length ? " " : "", text);
	}
	free(line);
	if (f) fclose(f);
	int kept = 0;
	for (int i = 0; i < sweep->n_about; i++) {
		char *text = sweep->about[i];
		if (*text && strncmp(text, "Command:", 8) != 0 && strncmp(text, "Takes ", 6) != 0) sweep->about[kept++] = text;
		else free(text);
	}
	sweep->n_about = kept;
}

static void find_baselines(struct report_sweep *sweep, const char *otherwise)
{
	for (int i = 0; i < sweep->n; i++)
		for (int k = 0; k < sweep->n; k++) {
			const char *own = sweep->variants[i].baseline_name;
			if (strcmp(sweep->variants[k].name, *own ? own : otherwise) == 0) sweep->variants[i].baseline = k;
		}
}

void report_sweep_load(struct report_sweep *sweep, const char *dir)
{
	char path[FILE_PATH_MAX], *line = NULL;
	size_t capacity = 0, length = strlen(dir);
	ssize_t n;

	*sweep = (struct report_sweep){ .dir = xstrdup(dir) };
	while (length > 1 && sweep->dir[length - 1] == '/') sweep->dir[--length] = '\0';
	const char *slash = strrchr(sweep->dir, '/');
	file_path(path, sweep->dir, "sweep.json");
	json_t *head = json_load_file(path, 0, NULL), *higher = json_object_get(head, "higher_is_better");
	sweep->label = xstrdup(slash && slash[1] ? slash + 1 : sweep->dir);
	sweep->name = text_of(head, "name", sweep->label);
	sweep->metric = text_of(head, "metric", "tokens_per_sec");
	sweep->command = text_of(head, "command", "");
	sweep->machine = text_of(head, "machine", "");
	sweep->higher_is_better = !higher || json_is_true(higher);
	char *baseline = text_of(head, "baseline", "");
	file_path(path, sweep->dir, "results.jsonl");
	FILE *f = fopen(path, "r");
	while (f && (n = getline(&line, &capacity, f)) > 0) {
		json_t *o = json_loadb(line, (size_t)n, 0, NULL);
		if (json_is_object(o)) add_result(sweep, o);
		else sweep->bad_lines++;
		json_decref(o);
	}
	free(line);
	if (f) fclose(f);
	if (sweep->n == 0) snprintf(sweep->absent, sizeof sweep->absent, "results.jsonl has no result yet");
	if (sweep->n > 1) qsort(sweep->variants, (size_t)sweep->n, sizeof *sweep->variants, compare_variants);
	order_as_listed(sweep, json_object_get(head, "variants"));
	json_decref(head);
	find_baselines(sweep, baseline);
	free(baseline);
	load_about(sweep);
}

void report_sweep_free(struct report_sweep *sweep)
{
	for (int i = 0; i < sweep->n; i++) {
		struct sweep_variant *v = &sweep->variants[i];
		for (int k = 0; k < v->n; k++) sweep_run_free(&v->runs[k]);
		free(v->runs);
		free(v->name);
		free(v->baseline_name);
		json_decref(v->set);
	}
	for (int i = 0; i < sweep->n_about; i++) free(sweep->about[i]);
	free(sweep->about);
	free(sweep->variants);
	free(sweep->dir);
	free(sweep->label);
	free(sweep->name);
	free(sweep->metric);
	free(sweep->command);
	free(sweep->machine);
	*sweep = (struct report_sweep){0};
}

/* ---- statistics ---- */

double sweep_median(const struct sweep_variant *v, const char *key)
{
	double *values = xcalloc((size_t)v->n + 1, sizeof *values), median = (double)NAN;
	int n = 0;

	for (int i = 0; i < v->n; i++) {
		const json_t *value = json_object_get(v->runs[i].metrics, key);
		if (v->runs[i].status == 0 && json_is_number(value)) values[n++] = json_number_value(value);
	}
	qsort(values, (size_t)n, sizeof *values, double_compare);
	if (n) median = quantile(values, n, 0.5);
	free(values);
	return median;
}

static double value_at(const struct sweep_variant *v, int repetition)
{
	for (int i = 0; i < v->n; i++)
		if (v->runs[i].repetition == repetition) return v->runs[i].value;
	return (double)NAN;
}

static void compare(struct sweep_statistics *s, const struct sweep_variant *v, const struct sweep_variant *base)
{
	double *logs = xcalloc((size_t)v->n + 1, sizeof *logs), *differences = xcalloc((size_t)v->n + 1, sizeof *logs), mean, half;

	for (int i = 0; i < v->n; i++) {
		double own = v->runs[i].value, other = value_at(base, v->runs[i].repetition);
		if (!isfinite(own / other) || !(own / other > 0)) continue;
		differences[s->pairs] = own - other;
		s->ratio_min = fmin(s->ratio_min, own / other); /* of NAN and a number: the number */
		s->ratio_max = fmax(s->ratio_max, own / other);
		logs[s->pairs++] = log(own / other);
	}
	s->difference_half = mean_interval(differences, s->pairs, &s->difference);
	free(differences);
	half = mean_interval(logs, s->pairs, &mean);
	s->ratio = exp(mean);
	s->ratio_low = exp(mean - half);
	s->ratio_high = exp(mean + half);
	free(logs);
}

void sweep_statistics(struct sweep_statistics *s, const struct report_sweep *sweep, int variant)
{
	const struct sweep_variant *v = &sweep->variants[variant];
	double nan = (double)NAN, *values = xcalloc((size_t)v->n + 1, sizeof *values);

	*s = (struct sweep_statistics){ .median = nan, .min = nan, .max = nan, .ratio = nan, .ratio_low = nan, .ratio_high = nan,
	                                .ratio_min = nan, .ratio_max = nan, .difference = nan, .difference_half = nan };
	for (int i = 0; i < v->n; i++) {
		if (isfinite(v->runs[i].value)) values[s->n++] = v->runs[i].value;
		else s->failed++;
	}
	qsort(values, (size_t)s->n, sizeof *values, double_compare);
	if (s->n) {
		s->median = quantile(values, s->n, 0.5);
		s->min = values[0];
		s->max = values[s->n - 1];
	}
	if (v->baseline >= 0) compare(s, v, &sweep->variants[v->baseline]);
	free(values);
}
