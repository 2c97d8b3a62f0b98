/* serving_state.c - see serving_state.h. */
#include "scheduler/replay/serving_state.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scheduler/store/run_directory.h"

static const char NAME[] = "serving.json";

void serving_put(struct serving_state *state, int64_t step)
{
	if (state->n_unacknowledged < SERVING_UNACKNOWLEDGED_MAX) state->unacknowledged[state->n_unacknowledged++] = step;
	state->put = step;
}

void serving_acknowledge(struct serving_state *state, int64_t step)
{
	int n = 0;

	for (int i = 0; i < state->n_unacknowledged; i++)
		if (state->unacknowledged[i] != step) state->unacknowledged[n++] = state->unacknowledged[i];
	state->n_unacknowledged = n;
	state->n_batches++;
}

struct number {
	const char *key;
	int64_t *value;
};

enum { N_NUMBERS = 8 };

static void list_numbers(struct serving_state *s, struct number numbers[N_NUMBERS])
{
	const struct number all[N_NUMBERS] = {
		{ "put", &s->put }, { "last", &s->last }, { "version", &s->version }, { "batches", &s->n_batches },
		{ "trajectories", &s->n_trajectories }, { "tokens", &s->n_tokens }, { "versions", &s->n_versions },
		{ "versions_as_recorded", &s->n_same } };

	memcpy(numbers, all, sizeof all);
}

int serving_state_write(const struct serving_state *state, const char *dir, struct err *err)
{
	struct serving_state copy = *state;
	struct number numbers[N_NUMBERS];
	json_t *o = json_object(), *steps = json_array();

	list_numbers(&copy, numbers);
	json_object_set_new(o, "run_id", json_string(state->run_id));
	for (int i = 0; i < N_NUMBERS; i++) json_object_set_new(o, numbers[i].key, json_integer(*numbers[i].value));
	json_object_set_new(o, "seconds", json_real(state->seconds));
	for (int i = 0; i < state->n_unacknowledged; i++) json_array_append_new(steps, json_integer(state->unacknowledged[i]));
	json_object_set_new(o, "unacknowledged", steps);
	char *text = json_dumps(o, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	int rc = run_directory_write(dir, NAME, text, err);
	free(text);
	json_decref(o);
	return rc;
}

static bool take(struct serving_state *s, const json_t *o)
{
	struct number numbers[N_NUMBERS];
	const json_t *steps = json_object_get(o, "unacknowledged");
	const char *run_id = json_string_value(json_object_get(o, "run_id"));
	bool whole = run_id && strlen(run_id) < sizeof s->run_id && json_is_array(steps) &&
	             json_array_size(steps) <= SERVING_UNACKNOWLEDGED_MAX;

	list_numbers(s, numbers);
	for (int i = 0; i < N_NUMBERS; i++) {
		const json_t *value = json_object_get(o, numbers[i].key);
		whole = whole && json_is_integer(value) && json_integer_value(value) >= 0;
		*numbers[i].value = json_integer_value(value);
	}
	for (size_t i = 0; whole && i < json_array_size(steps); i++) {
		int64_t step = json_integer_value(json_array_get(steps, i)), before = i > 0 ? s->unacknowledged[i - 1] : 0;
		whole = step > before && step <= s->put;
		s->unacknowledged[s->n_unacknowledged++] = step;
	}
	if (whole) snprintf(s->run_id, sizeof s->run_id, "%s", run_id);
	s->seconds = json_number_value(json_object_get(o, "seconds"));
	return whole;
}

int serving_state_read(struct serving_state *state, const char *dir, struct err *err)
{
	char path[RUN_PATH_MAX + 16];

	memset(state, 0, sizeof *state);
	snprintf(path, sizeof path, "%s/%s", dir, NAME);
	if (access(path, R_OK))
		return err_set_errno(err, ERR_MISSING, "%s: expected the directory of a serving (replay --serve); cannot read %s", dir, path);
	json_t *o = json_load_file(path, 0, NULL);
	bool whole = take(state, o);
	json_decref(o);
	return whole ? 0 : err_set(err, ERR_INVALID, "%s is damaged; begin a new serving, from a batch of your choice with --steps N-", path);
}
