/* replay_result.c - sums, and a short sorted list. */
#include "scheduler/replay/replay_result.h"

#include <inttypes.h>
#include <stdio.h>

void replay_result_open(struct replay_result *r)
{
	*r = (struct replay_result){ .differences = json_array(), .not_kept = json_object() };
}

void replay_result_close(struct replay_result *r)
{
	json_decref(r->differences);
	json_decref(r->not_kept);
	r->differences = r->not_kept = NULL;
}

static json_int_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static bool comes_before(const json_t *a, const json_t *b)
{
	json_int_t x = number(a, "trajectory"), y = number(b, "trajectory");
	return x != y ? x < y : number(a, "position") < number(b, "position");
}

void replay_result_add_difference(struct replay_result *r, json_t *difference)
{
	size_t at = json_array_size(r->differences);

	while (at > 0 && comes_before(difference, json_array_get(r->differences, at - 1))) at--;
	json_array_insert_new(r->differences, at, difference);
	if (json_array_size(r->differences) > REPLAY_DIFFERENCES_MAX) json_array_remove(r->differences, REPLAY_DIFFERENCES_MAX);
}

void replay_result_add_not_kept(struct replay_result *r, int64_t version, uint64_t n_tokens)
{
	char key[24];

	snprintf(key, sizeof key, "%" PRId64, version);
	json_object_set_new(r->not_kept, key, json_integer(number(r->not_kept, key) + (json_int_t)n_tokens));
}

json_t *replay_result_json(const struct replay_result *r)
{
	json_t *o = json_object();

#define X(name) json_object_set_new(o, #name, json_integer((json_int_t)r->name));
	REPLAY_COUNT_LIST(X)
#undef X
	json_object_set(o, "not_kept", r->not_kept);
	json_object_set(o, "differences", r->differences);
	return o;
}

int replay_result_add(struct replay_result *r, const json_t *json, struct err *err)
{
	const json_t *differences = json_object_get(json, "differences");
	json_t *not_kept = json_object_get(json, "not_kept");
	json_t *value;
	const char *key;
	size_t i;
	int rc = json_is_array(differences) && json_is_object(not_kept) ? 0
	         : err_set(err, ERR_PEER, "a rank's result has no differences or versions");

#define X(name) r->name += (uint64_t)number(json, #name);
	REPLAY_COUNT_LIST(X)
#undef X
	if (!rc) json_array_foreach(differences, i, value) replay_result_add_difference(r, json_incref(value));
	if (!rc) json_object_foreach(not_kept, key, value)
		json_object_set_new(r->not_kept, key, json_integer(number(r->not_kept, key) + json_integer_value(value)));
	return rc;
}
