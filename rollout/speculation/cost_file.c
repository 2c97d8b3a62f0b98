/* cost_file.c - the controller's cost tables as JSON lines. */
#include "rollout/speculation/cost_file.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A line that was read counts as so many calls: enough to plan by, few enough to be outlearned. */
static const double READ_WEIGHT = 8;

void cost_setup_describe(char text[COST_SETUP_MAX], const char *cpu, int n_threads, const struct policy *policy,
                         enum kv_type kv_type)
{
	const struct model_config *c = &policy->config;
	const struct qmatrix *layer = &policy->layers[0].qkv.draft, *head = &policy->head.draft;
	const char *bf16 = "bf16";

	snprintf(text, COST_SETUP_MAX,
	         "%s, %s, %d threads; %d layers of %d, heads %d/%d of %d, feed-forward %d, vocabulary %d, kv %s; "
	         "drafter %s%s, head %s, activations %s",
	         cpu, kernels_best()->name, n_threads, c->n_layers, c->dim, c->n_heads, c->n_kv_heads, c->head_dim,
	         c->ffn_dim, c->vocab_size, kv_type == KV_F32 ? "f32" : bf16,
	         layer->q ? format_info(layer->format)->name : bf16, policy->draft_choose ? " and its int4 part" : "",
	         head->q ? format_info(head->format)->name : bf16, policy->draft_fp32 ? "fp32" : "int8");
}

/* ---- reading ---- */

static bool positive(double x) { return isfinite(x) && x > 0; }

/* Index of the knot of so many rows, -1: none. */
static int knot_of(json_int_t rows)
{
	for (int i = 0; i < COST_KNOTS; i++)
		if (cost_knot_rows[i] == rows) return i;
	return -1;
}

static bool table_read(struct cost_table *table, const json_t *json)
{
	const json_t *rows = json_object_get(json, "rows"), *seconds = json_object_get(json, "seconds");
	double per_position = json_number_value(json_object_get(json, "per_position"));
	size_t n = json_array_size(rows);

	memset(table, 0, sizeof *table);
	if (n == 0 || json_array_size(seconds) != n || !isfinite(per_position) || per_position < 0) return false;
	for (size_t i = 0; i < n; i++) {
		int knot = knot_of(json_integer_value(json_array_get(rows, i)));
		double value = json_number_value(json_array_get(seconds, i));
		if (knot < 0 || !positive(value)) return false;
		table->seconds[knot] = value;
		table->weight[knot] = READ_WEIGHT;
	}
	table->per_position = per_position;
	return true;
}

static bool costs_read(struct speculation_costs *costs, const json_t *line)
{
	const json_t *drafters = json_object_get(line, "drafters");

	memset(costs, 0, sizeof *costs);
	if (!table_read(&costs->target, json_object_get(line, "target"))) return false;
	if (!json_is_array(drafters) || json_array_size(drafters) > SPECULATION_DRAFTERS) return false;
	for (size_t i = 0; i < json_array_size(drafters); i++) {
		const json_t *drafter = json_array_get(drafters, i);
		if (!json_is_null(drafter) && !table_read(&costs->drafters[i], drafter)) return false;
	}
	return true;
}

/* A line's JSON, or NULL with err set. */
static json_t *line_parse(const char *text, const char *path, int number, struct err *err)
{
	json_error_t why;
	json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, &why);

	if (line && json_is_string(json_object_get(line, "setup"))) return line;
	err_set(err, ERR_INVALID, "%s line %d is no line of `drumroll calibrate` (%s): measure again, into a new file", path,
	        number, line ? "it has no `setup`" : why.text);
	json_decref(line);
	return NULL;
}

/* The next line of a file; NULL at its end, or with err set. */
static json_t *next_line(FILE *file, const char *path, int *number, struct err *err)
{
	char *text = NULL;
	size_t capacity = 0;
	json_t *line = NULL;

	*err = (struct err){0};
	while (!line && !err->code && getline(&text, &capacity, file) > 0) {
		++*number;
		if (text[strspn(text, " \t\r\n")] != '\0') line = line_parse(text, path, *number, err);
	}
	free(text);
	return line;
}

static bool is_setup(const json_t *line, const char *setup)
{
	return strcmp(json_string_value(json_object_get(line, "setup")), setup) == 0;
}

static bool has_in_setup(const json_t *line, const char *text)
{
	return strstr(json_string_value(json_object_get(line, "setup")), text) != NULL;
}

/* The first line that `wanted` holds for; 1, 0 where there is none, or negative. */
static int read_line(const char *path, bool (*wanted)(const json_t *line, const char *text), const char *text,
                     char *setup, struct speculation_costs *costs, struct err *err)
{
	FILE *file = fopen(path, "r");
	json_t *line;
	int number = 0, found = 0;

	if (!file) return err_set_errno(err, ERR_IO, "%s, which `drumroll calibrate` writes", path);
	while (!found && (line = next_line(file, path, &number, err))) {
		if (wanted(line, text)) {
			if (setup) snprintf(setup, COST_SETUP_MAX, "%s", json_string_value(json_object_get(line, "setup")));
			found = costs_read(costs, line) ? 1 : err_set(err, ERR_INVALID,
				"%s line %d: the tables are not as `drumroll calibrate` writes them: measure again", path, number);
		}
		json_decref(line);
	}
	fclose(file);
	return found == 0 && err->code ? err->code : found;
}

int cost_file_read(const char *path, const char *setup, struct speculation_costs *costs, struct err *err)
{
	return read_line(path, is_setup, setup, NULL, costs, err);
}

int cost_file_find(const char *path, const char *text, char setup[COST_SETUP_MAX], struct speculation_costs *costs,
                   struct err *err)
{
	int found = read_line(path, has_in_setup, text, setup, costs, err);

	if (found != 0) return found < 0 ? found : 0;
	return err_set(err, ERR_MISSING, "%s has no line whose setup holds '%s': look there for what it has, or measure with `drumroll calibrate`",
	               path, text);
}

/* ---- writing ---- */

static json_t *table_json(const struct cost_table *table)
{
	json_t *rows = json_array(), *seconds = json_array();

	for (int i = 0; i < COST_KNOTS; i++) {
		if (table->weight[i] <= 0) continue;
		json_array_append_new(rows, json_integer(cost_knot_rows[i]));
		json_array_append_new(seconds, json_real(table->seconds[i]));
	}
	return json_pack("{s:o, s:o, s:f}", "rows", rows, "seconds", seconds, "per_position", table->per_position);
}

static json_t *costs_json(const char *setup, const struct speculation_costs *costs)
{
	json_t *drafters = json_array();

	for (int i = 0; i < SPECULATION_DRAFTERS; i++)
		json_array_append_new(drafters, cost_table_known(&costs->drafters[i]) ? table_json(&costs->drafters[i]) : json_null());
	return json_pack("{s:s, s:o, s:o}", "setup", setup, "target", table_json(&costs->target), "drafters", drafters);
}

static void put_line(FILE *out, json_t *line)
{
	json_dumpf(line, out, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
	fputc('\n', out);
	json_decref(line);
}

int cost_file_write(FILE *out, const char *path, const char *setup, const struct speculation_costs *costs,
                    struct err *err)
{
	FILE *file = fopen(path, "r");
	json_t *line;
	int number = 0;

	*err = (struct err){0};
	while (file && (line = next_line(file, path, &number, err))) {
		if (is_setup(line, setup)) json_decref(line);
		else put_line(out, line);
	}
	if (file) fclose(file);
	if (err->code) return err->code;
	put_line(out, costs_json(setup, costs));
	return 0;
}
