/* report_run.c - see report_run.h. */
#include "scheduler/report/report_run.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scheduler/store/store_read.h"

enum { FILE_PATH_MAX = 4096 };

static void file_path(char path[FILE_PATH_MAX], const char *dir, const char *name)
{
	snprintf(path, FILE_PATH_MAX, "%s/%s", dir, name);
}

static bool file_is_here(const char *dir, const char *name)
{
	char path[FILE_PATH_MAX];
	file_path(path, dir, name);
	return access(path, F_OK) == 0;
}

bool run_is_here(const char *dir)
{
	return file_is_here(dir, "metrics.jsonl") || file_is_here(dir, "config.yaml") || file_is_here(dir, "drumroll.db");
}

/* ---- metrics.jsonl, summary.json ---- */

/* A step that was made again after a crash is on record twice: the later line holds. */
static void add_line(struct report_run *run, json_t *line)
{
	bool eval = json_is_number(json_object_get(line, "eval/pass_rate"));
	struct report_table *t = eval ? &run->evals : &run->steps;
	double step = json_number_value(json_object_get(line, "step"));

	if (!json_is_number(json_object_get(line, "step"))) run->bad_lines++;
	else {
		int row = t->n_rows;
		while (row > 0 && !(table_value(t, row - 1, "step") < step)) row--;
		table_cut(t, row);
		table_add(t, line);
	}
}

static void load_metrics(struct report_run *run)
{
	char path[FILE_PATH_MAX], *line = NULL;
	size_t capacity = 0;
	ssize_t n;

	file_path(path, run->dir, "metrics.jsonl");
	FILE *f = fopen(path, "r");
	while (f && (n = getline(&line, &capacity, f)) > 0) {
		json_t *o = json_loadb(line, (size_t)n, 0, NULL);
		if (json_is_object(o)) add_line(run, o);
		else run->bad_lines++;
		json_decref(o);
	}
	if (!f) snprintf(run->steps_absent, sizeof run->steps_absent, "metrics.jsonl cannot be read: %s", strerror(errno));
	else if (run->steps.n_rows == 0)
		snprintf(run->steps_absent, sizeof run->steps_absent, "metrics.jsonl has no step yet: the run ended, or was looked "
		         "at, before its first batch");
	free(line);
	if (f) fclose(f);
}

/* Another process holds the lock of the run's store. */
static bool is_locked(const char *dir)
{
	char path[FILE_PATH_MAX];
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	file_path(path, dir, "drumroll.lock");
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0) return false;
	bool locked = fcntl(file, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
	close(file);
	return locked;
}

static void load_summary(struct report_run *run)
{
	char path[FILE_PATH_MAX];

	file_path(path, run->dir, "summary.json");
	json_t *o = json_load_file(path, 0, NULL);
	const char *status = json_string_value(json_object_get(o, "status"));
	if (is_locked(run->dir)) run->state = RUN_GOES_ON;
	else if (!status) run->state = RUN_ENDED_EARLY;
	else if (strcmp(status, "finished") == 0) run->state = RUN_FINISHED;
	else run->state = strcmp(status, "stopped") == 0 ? RUN_STOPPED : RUN_FAILED;
	if (json_is_object(o)) table_add(&run->summary, o);
	json_decref(o);
}

/* ---- config.yaml ---- */

static char *text_copy(const char *from, const char *to)
{
	char *text = xmalloc((size_t)(to - from) + 1);
	memcpy(text, from, (size_t)(to - from));
	text[to - from] = '\0';
	return text;
}

static struct report_setting setting_of(const char *section, int n_section, const char *line, const char *colon, const char *end)
{
	const char *value = colon + 1;
	char *key = xmalloc((size_t)n_section + (size_t)(colon - line) + 2);

	while (value < end && *value == ' ') value++;
	if (end - value >= 2 && *value == '"' && end[-1] == '"') {
		value++;
		end--;
	}
	sprintf(key, "%.*s.%.*s", n_section, section, (int)(colon - line), line);
	return (struct report_setting){ .key = key, .value = text_copy(value, end) };
}

struct report_setting *settings_read(const char *text, int *n)
{
	struct report_setting *settings = NULL;
	const char *section = "", *end;
	int n_section = 0;

	*n = 0;
	for (const char *line = text; *line; line = *end ? end + 1 : end) {
		end = line + strcspn(line, "\n");
		const char *start = line + strspn(line, " "), *colon = memchr(line, ':', (size_t)(end - line));
		if (!colon || start >= end || *start == '#') continue;
		if (start == line) {
			section = line;
			n_section = (int)(colon - line);
			continue;
		}
		settings = xrealloc(settings, (size_t)(*n + 1) * sizeof *settings);
		settings[(*n)++] = setting_of(section, n_section, start, colon, end);
	}
	return settings;
}

void settings_free(struct report_setting *settings, int n)
{
	for (int i = 0; i < n; i++) {
		free(settings[i].key);
		free(settings[i].value);
	}
	free(settings);
}

static void load_settings(struct report_run *run)
{
	char path[FILE_PATH_MAX], *text = NULL;
	size_t capacity = 0;

	file_path(path, run->dir, "config.yaml");
	FILE *f = fopen(path, "r");
	if (f && getdelim(&text, &capacity, '\0', f) > 0) run->settings = settings_read(text, &run->n_settings);
	if (run->n_settings == 0)
		snprintf(run->settings_absent, sizeof run->settings_absent, "config.yaml %s%s", f ? "is empty" : "cannot be read: ",
		         f ? "" : strerror(errno));
	free(text);
	if (f) fclose(f);
}

const char *run_setting(const struct report_run *run, const char *key)
{
	for (int i = 0; i < run->n_settings; i++)
		if (strcmp(run->settings[i].key, key) == 0) return run->settings[i].value;
	return NULL;
}

/* ---- drumroll.db ---- */

static void count_other(struct report_samples *s, const struct stored_sample *sample)
{
	if (sample->eval) s->evals++;
	else if (sample->state == STORE_DROPPED) s->dropped++;
	else if (sample->finish == FINISH_NONE) s->partial++;
	else s->waiting++;
}

static int add_sample(void *context, const struct stored_sample *sample, struct err *err)
{
	struct report_samples *s = context;

	(void)err;
	if (sample->eval || sample->state != STORE_DELIVERED) {
		count_other(s, sample);
		return 0;
	}
	if (s->n == s->capacity) {
		size_t n = (size_t)(s->capacity = s->capacity ? 2 * s->capacity : 1024);
		s->lengths = xrealloc(s->lengths, n * sizeof *s->lengths);
		s->advantages = xrealloc(s->advantages, n * sizeof *s->advantages);
		s->rewards = xrealloc(s->rewards, n * sizeof *s->rewards);
		s->staleness = xrealloc(s->staleness, n * sizeof *s->staleness);
		s->deferrals = xrealloc(s->deferrals, n * sizeof *s->deferrals);
	}
	s->lengths[s->n] = (float)sample->n_response;
	s->advantages[s->n] = (float)sample->advantage;
	s->rewards[s->n] = (float)sample->reward;
	s->staleness[s->n] = (int16_t)sample->staleness;
	s->deferrals[s->n++] = (int16_t)sample->deferrals;
	s->truncated += sample->finish == FINISH_LENGTH;
	s->failed += sample->finish == FINISH_ERROR;
	s->pivots += sample->pivot;
	if (isfinite(sample->reward_seconds)) s->reward_seconds += sample->reward_seconds;
	return 0;
}

static void load_samples(struct report_run *run)
{
	struct report_samples *s = &run->samples;
	struct store *store;
	struct err err, ignored;

	if (store_open_existing(&store, run->dir, &err)) {
		snprintf(s->absent, sizeof s->absent, "%s", err.text);
		return;
	}
	if (store_each_sample(store, add_sample, s, &err)) snprintf(s->absent, sizeof s->absent, "%s", err.text);
	else if (s->n == 0) snprintf(s->absent, sizeof s->absent, "drumroll.db has no delivered trajectory yet%s",
	                             run_setting(run, "run.durability") && strcmp(run_setting(run, "run.durability"), "off") == 0 ?
	                             ": run.durability is off, with which only metrics are kept" : "");
	store_close(store, &ignored);
}

static void samples_free(struct report_samples *s)
{
	free(s->lengths);
	free(s->advantages);
	free(s->rewards);
	free(s->staleness);
	free(s->deferrals);
}

/* ---- all of it ---- */

void run_load(struct report_run *run, const char *dir)
{
	*run = (struct report_run){ .dir = xstrdup(dir) };
	size_t n = strlen(run->dir);
	while (n > 1 && run->dir[n - 1] == '/') run->dir[--n] = '\0';
	load_metrics(run);
	load_summary(run);
	load_settings(run);
	const char *name = run_setting(run, "run.name"), *slash = strrchr(run->dir, '/');
	run->label = xstrdup(slash && slash[1] ? slash + 1 : run->dir);
	run->name = xstrdup(name && *name ? name : run->label);
	load_samples(run);
	report_timeline_load(&run->timeline, run->dir);
}

void run_free(struct report_run *run)
{
	table_free(&run->steps);
	table_free(&run->evals);
	table_free(&run->summary);
	settings_free(run->settings, run->n_settings);
	samples_free(&run->samples);
	report_timeline_free(&run->timeline);
	free(run->dir);
	free(run->label);
	free(run->name);
}

double run_pass_rate(const struct report_run *run, bool at_end)
{
	int n = run->evals.n_rows;
	return n ? 100 * table_value(&run->evals, at_end ? n - 1 : 0, "eval/pass_rate") : (double)NAN;
}
