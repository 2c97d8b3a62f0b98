/* throughput.c - see throughput.h. */
#include "scheduler/throughput/throughput.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scheduler/bench/bench_report.h"
#include "scheduler/bench/grow_model.h"
#include "scheduler/clock.h"
#include "scheduler/commands/run_check.h"
#include "scheduler/throughput/throughput_order.h"
#include "scheduler/throughput/throughput_run.h"

enum { PATH_SPARE = 128, SETS_OF_ITS_OWN = 2 };

/* ---- what is to be run ---- */

static int check_sets(const struct throughput *t, const char *const *sets, int n, struct err *err)
{
	for (int i = 0; i < n; i++) {
		char key[128];
		snprintf(key, sizeof key, "%.*s", (int)strcspn(sets[i], "="), sets[i]);
		if (sweep_varies(&t->sweep, key))
			return err_set(err, ERR_CONFIG, "--set %s: the sweep varies it; change the list in the file, or leave it out", key);
	}
	return 0;
}

/* Each combination as a config of its own. */
static int check_points(struct throughput *t, const char *base_path, const char *const *sets, int n_sets, struct err *err)
{
	const char **all = xcalloc((unsigned long)(n_sets + SWEEP_SETS_MAX), sizeof *all);
	int rc = 0;

	for (int i = 0; i < n_sets; i++) all[i] = sets[i];
	t->ranks = xcalloc((unsigned long)t->points.n, sizeof *t->ranks);
	for (int p = 0; p < t->points.n && !rc; p++) {
		const struct sweep_point *point = &t->points.items[p];
		struct config config;
		for (int i = 0; i < point->n_sets; i++) all[n_sets + i] = point->sets[i];
		rc = config_load(&config, base_path, all, n_sets + point->n_sets, err);
		if (rc) break;
		rc = run_check_config(&config, err);
		if (rc) err_context(err, "%s", point->label);
		t->ranks[p] = config.throughput.ranks;
		config_free(&config);
	}
	free(all);
	return rc;
}

int throughput_open(struct throughput *t, const char *base_path, const char *sweep_path, const char *const *sets, int n_sets,
                    struct err *err)
{
	*t = (struct throughput){ 0 };
	int rc = config_load(&t->base, base_path, sets, n_sets, err);
	if (rc) return rc;
	rc = sweep_read(&t->sweep, sweep_path, err);
	if (!rc) rc = check_sets(t, sets, n_sets, err);
	if (!rc) rc = sweep_expand(&t->points, &t->sweep, t->base.throughput.baseline, err);
	if (!rc) rc = check_points(t, base_path, sets, n_sets, err);
	if (!rc && t->base.trainer.kind == TRAINER_EXTERNAL)
		rc = err_set(err, ERR_CONFIG, "trainer.kind is external, but nobody would connect to the runs of a sweep: set it to reference, simulated or none");
	if (rc) throughput_close(t);
	return rc;
}

void throughput_close(struct throughput *t)
{
	config_free(&t->base);
	sweep_free(&t->sweep);
	sweep_points_free(&t->points);
	throughput_results_free(&t->results);
	free(t->ranks);
	*t = (struct throughput){ 0 };
}

/* ---- its directory ---- */

static int copy_text(const struct throughput *t, const char *from, const char *name, struct err *err)
{
	char buffer[4096], *text = NULL;
	size_t size = 0;
	FILE *in = fopen(from, "r"), *memory = open_memstream(&text, &size);

	if (!memory) abort(); /* no memory at start */
	for (size_t n; in && (n = fread(buffer, 1, sizeof buffer, in)) > 0;) fwrite(buffer, 1, n, memory);
	fclose(memory);
	int rc = in ? 0 : err_set_errno(err, ERR_IO, "cannot read %s", from);
	if (in) fclose(in);
	if (!rc) rc = run_directory_write(t->dir, name, text, err);
	free(text);
	return rc;
}

/* One baseline for all, or the values that every combination's own has. */
static const char *baseline_of(const struct throughput *t)
{
	for (int p = 1; p < t->points.n; p++)
		if (t->points.items[p].baseline != t->points.items[0].baseline) return t->base.throughput.baseline;
	return t->points.items[t->points.items[0].baseline].label;
}

static int write_description(const struct throughput *t, const char *command, struct err *err)
{
	char machine[512];

	snprintf(machine, sizeof machine, "%s, %ld CPUs", bench_cpu_name(), sysconf(_SC_NPROCESSORS_ONLN));
	json_t *o = json_object(), *variants = json_array();
	for (int p = 0; p < t->points.n; p++) json_array_append_new(variants, json_string(t->points.items[p].label));
	json_object_set_new(o, "name", json_string(t->base.run.name));
	json_object_set_new(o, "metric", json_string(t->base.throughput.metric));
	json_object_set_new(o, "higher_is_better", json_boolean(t->base.throughput.higher_is_better));
	json_object_set_new(o, "baseline", json_string(baseline_of(t)));
	json_object_set_new(o, "variants", variants); /* in the order of the file */
	json_object_set_new(o, "command", json_string(command));
	json_object_set_new(o, "machine", json_string(machine));
	char *text = json_dumps(o, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	int rc = run_directory_write(t->dir, "sweep.json", text, err);
	free(text);
	json_decref(o);
	return rc;
}

static void path_below(char path[RUN_PATH_MAX + PATH_SPARE], const struct throughput *t, const char *name)
{
	snprintf(path, RUN_PATH_MAX + PATH_SPARE, "%s/%s", t->dir, name);
}

static int make_directory(struct throughput *t, const char *out, struct err *err)
{
	char path[RUN_PATH_MAX + PATH_SPARE], set[RUN_PATH_MAX + PATH_SPARE];
	int rc = 0;

	if (out && access(out, F_OK) == 0) {
		if (snprintf(t->dir, sizeof t->dir, "%s", out) >= (int)sizeof t->dir - PATH_SPARE) return err_set(err, ERR_TOO_BIG, "--out: the path is too long");
		path_below(path, t, "results.jsonl");
		if (access(path, F_OK) == 0) return err_set(err, ERR_STATE, "--out: %s has the results of a sweep: name another directory, or go on with --resume %s", out, out);
	} else {
		snprintf(set, sizeof set, "run.dir=%s", out ? out : t->base.run.dir);
		rc = config_set(&t->base, set, err);
		if (!rc) rc = run_directory_create(t->dir, &t->base, err);
		run_directory_began();
	}
	path_below(path, t, "runs");
	if (!rc && mkdir(path, 0777) && errno != EEXIST) rc = err_set_errno(err, ERR_IO, "cannot make the directory %s", path);
	return rc;
}

/* From now on it is the model. */
static int grow(struct throughput *t, struct err *err)
{
	char path[RUN_PATH_MAX + PATH_SPARE], set[RUN_PATH_MAX + 2 * PATH_SPARE];

	if (!(t->base.throughput.grow_parameters > 0)) return 0;
	path_below(path, t, "model");
	int rc = grow_model(t->base.model.path, path, t->base.throughput.grow_parameters, (int)t->base.throughput.grow_layers, err);
	if (rc) return err_context(err, "throughput.grow_parameters");
	snprintf(set, sizeof set, "model.path=%s", path);
	rc = config_set(&t->base, set, err);
	return rc ? rc : config_set(&t->base, "throughput.grow_parameters=0", err);
}

int throughput_begin(struct throughput *t, const char *sweep_path, const char *out, const char *command, struct err *err)
{
	int rc = make_directory(t, out, err);
	if (!rc) rc = grow(t, err);
	if (rc) return rc;
	char *yaml = run_directory_config_text(&t->base);
	rc = run_directory_write(t->dir, "base.yaml", yaml, err);
	free(yaml);
	if (!rc) rc = copy_text(t, sweep_path, "sweep.yaml", err);
	return rc ? rc : write_description(t, command, err);
}

/* Without lines of runs that failed, and of what a crash cut off. */
static int keep_good_lines(const struct throughput *t, const char *path, struct err *err)
{
	FILE *in = fopen(path, "r");
	char *line = NULL, *text = NULL;
	size_t size = 0, text_size = 0;

	if (!in) return errno == ENOENT ? 0 : err_set_errno(err, ERR_IO, "cannot read %s", path);
	FILE *memory = open_memstream(&text, &text_size);
	if (!memory) abort(); /* no memory at start */
	for (ssize_t n; (n = getline(&line, &size, in)) > 0 && line[n - 1] == '\n';) {
		json_t *record = json_loads(line, 0, NULL);
		if (record && json_integer_value(json_object_get(record, "exit")) == 0) fputs(line, memory);
		json_decref(record);
	}
	fclose(memory);
	fclose(in);
	int rc = run_directory_write(t->dir, "results.jsonl", text, err);
	free(line);
	free(text);
	return rc;
}

int throughput_resume(struct throughput *t, const char *dir, struct err *err)
{
	char path[RUN_PATH_MAX + PATH_SPARE];

	if (snprintf(t->dir, sizeof t->dir, "%s", dir) >= (int)sizeof t->dir - PATH_SPARE) return err_set(err, ERR_TOO_BIG, "--resume: the path is too long");
	path_below(path, t, "results.jsonl");
	int rc = throughput_results_read(&t->results, path, &t->points, t->base.throughput.metric, err);
	throughput_results_free(&t->results);
	if (!rc) rc = keep_good_lines(t, path, err);
	return rc ? rc : throughput_results_read(&t->results, path, &t->points, t->base.throughput.metric, err);
}

/* ---- the runs ---- */

__attribute__((format(printf, 2, 3)))
static void say(const struct throughput *t, const char *format, ...)
{
	FILE *out = t->quiet ? stderr : stdout;
	va_list args;
	va_start(args, format);
	vfprintf(out, format, args);
	va_end(args);
	fflush(out);
}

struct one_run {
	int point, repetition, order;
	char dir[RUN_PATH_MAX + PATH_SPARE], log[RUN_PATH_MAX + PATH_SPARE + 8];
	int status;
	double seconds;
};

/* r0-03-mode_exact: short, for a socket's path ends in it. */
static void name_run(struct one_run *run, const struct throughput *t, const char *kind)
{
	enum { LABEL_CHARACTERS = 24 };
	char slug[LABEL_CHARACTERS + 1] = "";
	const char *label = t->points.items[run->point].label;

	for (int i = 0; i < LABEL_CHARACTERS && label[i]; i++)
		slug[i] = strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-=", label[i]) ? label[i] : '_';
	snprintf(run->dir, sizeof run->dir, "%s/runs/%s%d-%02d-%s", t->dir, kind, run->repetition, run->point, slug);
	snprintf(run->log, sizeof run->log, "%s.log", run->dir);
}

static int64_t seed_of(const struct throughput *t, int repetition)
{
	return t->base.run.seed + (t->base.throughput.vary_seed && !sweep_varies(&t->sweep, "run.seed") ? repetition : 0);
}

static int start_run(struct one_run *run, const struct throughput *t, struct err *err)
{
	const struct sweep_point *point = &t->points.items[run->point];
	char base[RUN_PATH_MAX + PATH_SPARE], dir[RUN_PATH_MAX + 2 * PATH_SPARE], seed[64];
	char *words[2 * (SWEEP_SETS_MAX + SETS_OF_ITS_OWN) + 1];
	static char set[] = "--set";
	int n = 0;

	int rc = throughput_remove(run->dir, err); /* of a sweep that was interrupted */
	if (rc) return rc;
	path_below(base, t, "base.yaml");
	snprintf(dir, sizeof dir, "run.dir=%s", run->dir);
	snprintf(seed, sizeof seed, "run.seed=%lld", (long long)seed_of(t, run->repetition));
	words[n++] = base;
	words[n++] = set;
	words[n++] = dir;
	if (!sweep_varies(&t->sweep, "run.seed")) {
		words[n++] = set;
		words[n++] = seed;
	}
	char **copies = xcalloc((unsigned long)point->n_sets + 1, sizeof *copies);
	for (int i = 0; i < point->n_sets; i++) {
		words[n++] = set;
		words[n++] = copies[i] = xstrdup(point->sets[i]);
	}
	struct launch launch = { .ranks = t->ranks[run->point], .hostfile = t->base.throughput.hostfile, .arguments = words, .n = n };
	rc = throughput_run(&launch, run->log, t->base.throughput.run_seconds, t->base.run.drain_seconds + 10, &run->status, &run->seconds, err);
	for (int i = 0; i < point->n_sets; i++) free(copies[i]);
	free(copies);
	return rc;
}

/* The last that the run said of itself before it failed, or else that mpirun did; "" for nothing. */
static void read_reason(char reason[512], const char *log)
{
	FILE *in = fopen(log, "r");
	char line[512];
	bool own = false;

	reason[0] = '\0';
	while (in && fgets(line, sizeof line, in)) {
		bool says = strncmp(line, "drumroll: ", 10) == 0;
		if (says || (!own && line[0] != '\n')) snprintf(reason, 512, "%s", line + (says ? 10 : 0));
		own = own || says;
	}
	if (in) fclose(in);
	reason[strcspn(reason, "\n")] = '\0';
}

static json_t *sets_of(const struct sweep_point *point)
{
	json_t *o = json_object();

	for (int i = 0; i < point->n_sets; i++) {
		const char *equals = strchr(point->sets[i], '=');
		json_object_setn_new(o, point->sets[i], (size_t)(equals - point->sets[i]), json_string(equals + 1));
	}
	return o;
}

static json_t *record_of(const struct one_run *run, const struct throughput *t)
{
	const struct sweep_point *point = &t->points.items[run->point];
	char reason[512];
	json_t *o = json_object(), *metrics = throughput_metrics(run->dir);
	bool good = run->status == 0 && json_is_number(json_object_get(metrics, t->base.throughput.metric));

	json_object_set_new(o, "variant", json_string(point->label));
	json_object_set_new(o, "set", sets_of(point));
	json_object_set_new(o, "repetition", json_integer(run->repetition));
	json_object_set_new(o, "order", json_integer(run->order));
	json_object_set_new(o, "seed", json_integer(seed_of(t, run->repetition)));
	json_object_set_new(o, "baseline", json_string(t->points.items[point->baseline].label));
	json_object_set_new(o, "exit", json_integer(good || run->status ? run->status : EXIT_FAILURE));
	json_object_set_new(o, "seconds", json_real(run->seconds));
	json_object_set_new(o, "metrics", metrics);
	json_object_set_new(o, "run_dir", json_string(run->dir));
	read_reason(reason, run->log);
	if (run->status == THROUGHPUT_TOO_LONG) snprintf(reason, sizeof reason, "it took longer than throughput.run_seconds");
	else if (!good && run->status == 0) snprintf(reason, sizeof reason, "its summary.json has no number \"%.64s\" (throughput.metric)", t->base.throughput.metric);
	if (!good) json_object_set_new(o, "error", json_string(reason));
	return o;
}

static int keep_result(struct throughput *t, const struct one_run *run, struct err *err)
{
	char path[RUN_PATH_MAX + PATH_SPARE];
	json_t *record = record_of(run, t);
	const char *error = json_string_value(json_object_get(record, "error"));

	if (error) say(t, "failed after %.1f s with status %lld: %s (%s)", run->seconds, (long long)json_integer_value(json_object_get(record, "exit")), *error ? error : "it did not say why", run->log);
	else say(t, "%s %.6g (%.1f s)", t->base.throughput.metric, json_number_value(json_object_get(json_object_get(record, "metrics"), t->base.throughput.metric)), run->seconds);
	path_below(path, t, "results.jsonl");
	return throughput_results_add(&t->results, path, record, &t->points, t->base.throughput.metric, err);
}

/* Files in the cache, the CPU at its clock: what the first run of all pays for. */
static int warm_up(struct throughput *t, const int *order, struct err *err)
{
	for (int i = 0; i < t->base.throughput.warmup && throughput_signals() == 0; i++) {
		struct one_run run = { .point = order[i % t->points.n], .repetition = i };
		name_run(&run, t, "w");
		say(t, "warm-up, not counted: %s\n", t->points.items[run.point].label);
		int rc = start_run(&run, t, err);
		if (!rc) rc = throughput_remove(run.dir, err);
		if (rc) return rc;
		if (run.status == 0) remove(run.log);
	}
	return 0;
}

int throughput_go(struct throughput *t, struct err *err)
{
	int n = t->points.n, all = n * (int)t->base.throughput.repetitions, left = 0, rc = 0;
	int *order = xcalloc((unsigned long)n, sizeof *order);
	double spent = 0, runs = 0;

	throughput_catch_signals();
	for (int i = 0; i < all; i++) left += !throughput_results_find(&t->results, i % n, i / n);
	throughput_order(order, n, 0, (uint64_t)t->base.throughput.seed);
	if (left > 0) rc = warm_up(t, order, err);
	for (int i = 0; i < all && !rc && throughput_signals() == 0; i++) {
		if (i % n == 0) throughput_order(order, n, i / n, (uint64_t)t->base.throughput.seed);
		struct one_run run = { .point = order[i % n], .repetition = i / n, .order = i };
		if (throughput_results_find(&t->results, run.point, run.repetition)) continue;
		name_run(&run, t, "r");
		say(t, "run %d of %d, repetition %d: %s: ", i + 1, all, run.repetition, t->points.items[run.point].label);
		rc = start_run(&run, t, err);
		if (rc || throughput_signals() > 0) break;
		rc = keep_result(t, &run, err);
		spent += run.seconds;
		runs++;
		if (--left > 0) say(t, ", %.0f s left", left * spent / runs);
		say(t, "\n");
	}
	free(order);
	return rc;
}

void throughput_list(const struct throughput *t, FILE *out)
{
	int n = t->points.n, *order = xcalloc((unsigned long)n, sizeof *order);

	for (int i = 0; i < n * (int)t->base.throughput.repetitions; i++) {
		if (i % n == 0) throughput_order(order, n, i / n, (uint64_t)t->base.throughput.seed);
		const struct sweep_point *point = &t->points.items[order[i % n]];
		fprintf(out, "%4d  repetition %d  seed %lld  %s", i + 1, i / n, (long long)seed_of(t, i / n), point->label);
		if (point->baseline != order[i % n]) fprintf(out, "  against %s", t->points.items[point->baseline].label);
		for (int s = 0; s < point->n_sets; s++) fprintf(out, "%s%s", s ? " " : "  | ", point->sets[s]);
		fprintf(out, "\n");
	}
	free(order);
}
