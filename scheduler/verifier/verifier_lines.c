/* verifier_lines.c - JSON out and in. */
#include "scheduler/verifier/verifier_lines.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests ---- */

static int put_text(json_t *o, const char *key, const struct tokenizer *tokenizer, const int32_t *ids, int32_t n,
                    struct err *err)
{
	char *text;
	size_t n_bytes;

	if (tokenizer_decode_utf8(tokenizer, ids, (size_t)n, true, &text, &n_bytes, err)) return err->code;
	json_object_set_new(o, key, json_stringn(text, n_bytes));
	free(text);
	return 0;
}

static json_t *text_or_null(const char *text)
{
	json_t *value = text ? json_string(text) : NULL;
	return value ? value : json_null();
}

char *verifier_request_body(const struct trajectory *t, const struct tokenizer *tokenizer, size_t *n_bytes,
                            struct err *err)
{
	json_t *o = json_object();
	int rc = put_text(o, "prompt", tokenizer, t->tokens, t->n_prompt, err);

	if (!rc) rc = put_text(o, "response", tokenizer, t->tokens + t->n_prompt, trajectory_response_length(t), err);
	if (rc) {
		json_decref(o);
		return NULL;
	}
	json_t *metadata = t->meta ? json_loads(t->meta, JSON_ALLOW_NUL, NULL) : NULL;
	json_object_set_new(o, "answer", text_or_null(t->answer));
	json_object_set_new(o, "metadata", metadata ? metadata : json_null());
	json_object_set_new(o, "tokens", json_integer(trajectory_response_length(t)));
	json_object_set_new(o, "finish", json_string(finish_name(t->finish)));
	json_object_set_new(o, "prompt_id", text_or_null(t->prompt_id));
	json_object_set_new(o, "group", json_integer((json_int_t)t->group_id));
	json_object_set_new(o, "sample", json_integer(t->sample));
	json_object_set_new(o, "eval", json_boolean(t->eval));
	char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER);
	json_decref(o);
	size_t n = strlen(text);
	text[0] = ','; /* what stood there is written again before each attempt's id */
	text = xrealloc(text, n + 2);
	text[n] = '\n';
	text[n + 1] = '\0';
	*n_bytes = n + 1;
	return text;
}

/* ---- replies ---- */

/* A finite number; true and false are 1 and 0. */
static int number_of(const json_t *value, const char *name, double *number, struct err *err)
{
	if (json_is_boolean(value)) *number = json_is_true(value);
	else if (json_is_number(value)) *number = json_number_value(value);
	else return err_set(err, ERR_INVALID, "field '%s': expected a number", name);
	if (!(fabs(*number) <= VERIFIER_REWARD_MAX))
		return err_set(err, ERR_INVALID, "field '%s': expected a number of at most %g, found %g", name, VERIFIER_REWARD_MAX, *number);
	return 0;
}

static int read_components(struct verifier_reply *reply, const json_t *components, struct err *err)
{
	const char *key;
	json_t *value;
	int rc = 0;

	reply->reward_answer = reply->reward >= 1;
	if (!components || json_is_null(components)) return 0;
	if (!json_is_object(components)) return err_set(err, ERR_INVALID, "field 'components': expected an object of numbers");
	union { const json_t *from; json_t *to; } o = { .from = components }; /* the iterator changes nothing */
	json_object_foreach(o.to, key, value) {
		double number = 0;
		rc = number_of(value, "components", &number, err);
		if (rc) return rc;
		if (!strcmp(key, "answer")) reply->reward_answer = number;
		else if (!strcmp(key, "steps")) reply->reward_steps = number;
	}
	return 0;
}

static int read_id(struct verifier_reply *reply, const json_t *o, struct err *err)
{
	const json_t *id = json_object_get(o, "id");

	if (!json_is_integer(id) || json_integer_value(id) < 0)
		return err_set(err, id ? ERR_INVALID : ERR_MISSING, "field 'id': expected the request's");
	reply->has_id = true;
	reply->id = (uint64_t)json_integer_value(id);
	return 0;
}

/* text within size, cut between two characters. */
static void copy_text(char *to, size_t size, const char *text)
{
	size_t n = strlen(text);

	if (n >= size)
		for (n = size - 1; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;) n--;
	memcpy(to, text, n);
	to[n] = '\0';
}

/* `error` says why there is no reward: then there must be none. */
static int read_error(struct verifier_reply *reply, const json_t *o, const json_t *error, struct err *err)
{
	const json_t *reward = json_object_get(o, "reward"), *retry = json_object_get(o, "retry");
	const char *text = json_string_value(error);

	if (!text) return err_set(err, ERR_INVALID, "field 'error': expected a text");
	if (reward && !json_is_null(reward)) return err_set(err, ERR_INVALID, "expected 'reward' or 'error', found both");
	if (retry && !json_is_boolean(retry)) return err_set(err, ERR_INVALID, "field 'retry': expected true or false");
	reply->answer = json_is_true(retry) ? VERIFIER_TRY_AGAIN : VERIFIER_CANNOT_JUDGE;
	copy_text(reply->error, sizeof reply->error, text);
	return 0;
}

static int read_reply(struct verifier_reply *reply, const json_t *o, struct err *err)
{
	const json_t *error = json_object_get(o, "error"), *reward = json_object_get(o, "reward");
	int rc = read_id(reply, o, err);

	if (rc) return rc;
	if (error && !json_is_null(error)) return read_error(reply, o, error, err);
	if (!reward) return err_set(err, ERR_MISSING, "expected 'reward' or 'error', found neither");
	rc = number_of(reward, "reward", &reply->reward, err);
	return rc ? rc : read_components(reply, json_object_get(o, "components"), err);
}

/* The beginning of a line that is not what was expected: printable, whatever it is. */
static int is_no_object(const char *line, size_t n_bytes, struct err *err)
{
	char quoted[81];
	size_t n = n_bytes < sizeof quoted - 1 ? n_bytes : sizeof quoted - 1;

	for (size_t i = 0; i < n; i++) quoted[i] = line[i] >= ' ' && line[i] <= '~' ? line[i] : '?';
	quoted[n] = '\0';
	return err_set(err, ERR_INVALID, "expected a JSON object on its standard output, found \"%s\"%s", quoted,
	               n < n_bytes ? "..." : "");
}

int verifier_reply_parse(struct verifier_reply *reply, const char *line, size_t n_bytes, struct err *err)
{
	json_error_t why;
	json_t *o = json_loadb(line, n_bytes, JSON_REJECT_DUPLICATES, &why);

	*reply = (struct verifier_reply){ 0 };
	int rc = json_is_object(o) ? read_reply(reply, o, err) : is_no_object(line, n_bytes, err);
	json_decref(o);
	return rc;
}
