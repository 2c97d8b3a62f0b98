/* throughput_results.c - result lines in and out. */
#include "scheduler/throughput/throughput_results.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REPETITIONS_MAX = 1000000 };

void throughput_results_free(struct throughput_results *results)
{
	free(results->items);
	*results = (struct throughput_results){ 0 };
}

static struct throughput_result *find(const struct throughput_results *results, int point, int repetition)
{
	for (int i = 0; i < results->n; i++)
		if (results->items[i].point == point && results->items[i].repetition == repetition) return &results->items[i];
	return NULL;
}

const struct throughput_result *throughput_results_find(const struct throughput_results *results, int point, int repetition)
{
	return find(results, point, repetition);
}

static void put(struct throughput_results *results, struct throughput_result result)
{
	struct throughput_result *old = find(results, result.point, result.repetition);

	if (old) {
		*old = result;
		return;
	}
	if (results->n == results->capacity) {
		results->capacity = 2 * results->capacity + 64;
		results->items = xrealloc(results->items, (size_t)results->capacity * sizeof *results->items);
	}
	results->items[results->n++] = result;
}

static int find_point(const struct sweep_points *points, const char *label)
{
	for (int i = 0; i < points->n; i++)
		if (strcmp(points->items[i].label, label) == 0) return i;
	return -1;
}

static int take(struct throughput_results *results, const json_t *record, const struct sweep_points *points,
                const char *metric, struct err *err)
{
	const char *variant = json_string_value(json_object_get(record, "variant"));
	const json_t *repetition = json_object_get(record, "repetition"), *status = json_object_get(record, "exit");
	const json_t *value = json_object_get(json_object_get(record, "metrics"), metric);

	if (!variant || !json_is_integer(repetition) || !json_is_integer(status) || json_integer_value(repetition) < 0 ||
	    json_integer_value(repetition) > REPETITIONS_MAX)
		return err_set(err, ERR_INVALID, "expected a result with variant, repetition and exit");
	struct throughput_result result = { .point = find_point(points, variant), .repetition = (int)json_integer_value(repetition),
		.exit = (int)json_integer_value(status), .value = NAN };
	if (result.point < 0) return err_set(err, ERR_STATE, "\"%s\" is no combination of this sweep", variant);
	if (result.exit == 0 && json_is_number(value)) result.value = json_number_value(value);
	put(results, result);
	return 0;
}

int throughput_results_read(struct throughput_results *results, const char *path, const struct sweep_points *points,
                            const char *metric, struct err *err)
{
	FILE *in = fopen(path, "r");
	char *line = NULL;
	size_t size = 0;
	int rc = 0, number = 0;

	if (!in) return errno == ENOENT ? 0 : err_set_errno(err, ERR_IO, "cannot read %s", path);
	for (ssize_t n; !rc && (n = getline(&line, &size, in)) > 0 && line[n - 1] == '\n';) {
		json_t *record = json_loads(line, 0, NULL);
		number++;
		rc = record ? take(results, record, points, metric, err) : err_set(err, ERR_INVALID, "this is not JSON");
		if (rc) err_context(err, "%s:%d", path, number);
		json_decref(record);
	}
	free(line);
	fclose(in);
	return rc;
}

int throughput_results_add(struct throughput_results *results, const char *path, json_t *record,
                           const struct sweep_points *points, const char *metric, struct err *err)
{
	int rc = take(results, record, points, metric, err);
	char *line = json_dumps(record, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	FILE *out = rc ? NULL : fopen(path, "a");

	if (!rc && !out) rc = err_set_errno(err, ERR_IO, "cannot append to %s", path);
	if (out) {
		bool good = fprintf(out, "%s\n", line) > 0;
		if (fclose(out) || !good) rc = err_set_errno(err, ERR_IO, "cannot append to %s", path);
	}
	free(line);
	json_decref(record);
	return rc;
}
