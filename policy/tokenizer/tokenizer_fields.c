/* tokenizer_fields.c - typed fields of tokenizer.json, with errors that say where, expected and found. */
#include <stdio.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"

const char *json_type_name(const json_t *json)
{
	if (!json)
		return "nothing";
	switch (json_typeof(json)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "a list";
	case JSON_STRING: return "a string";
	case JSON_INTEGER:
	case JSON_REAL: return "a number";
	case JSON_TRUE: return "true";
	case JSON_FALSE: return "false";
	default: return "null";
	}
}

int component_bool(const json_t *json, const char *where, const char *key, bool *value, struct err *err)
{
	const json_t *field = json_object_get(json, key);

	if (!field || json_is_null(field))
		return 0;
	if (!json_is_boolean(field))
		return err_set(err, ERR_INVALID, "%s.%s must be true or false, found %s", where, key,
		               json_type_name(field));
	*value = json_is_true(field);
	return 0;
}

int component_text(const json_t *json, const char *where, const char *key, char **text, size_t *n,
               struct err *err)
{
	const json_t *field = json_object_get(json, key);

	if (!json_is_string(field))
		return err_set(err, ERR_INVALID, "%s.%s must be a string, found %s", where, key,
		               json_type_name(field));
	*n = json_string_length(field);
	*text = xmalloc(*n + 1);
	memcpy(*text, json_string_value(field), *n + 1);
	return 0;
}

int component_index(const json_t *json, const char *where, const char *key, int32_t limit, int32_t *value,
                struct err *err)
{
	const json_t *field = json_object_get(json, key);

	if (!json_is_integer(field))
		return err_set(err, ERR_INVALID, "%s.%s must be an integer, found %s", where, key,
		               json_type_name(field));
	json_int_t found = json_integer_value(field);
	if (found < 0 || found >= limit)
		return err_set(err, ERR_INVALID, "%s.%s is %" JSON_INTEGER_FORMAT ", expected 0 to %d", where, key,
		               found, limit - 1);
	*value = (int32_t)found;
	return 0;
}

const char *quoted(char out[QUOTED_MAX], const char *text, size_t n)
{
	size_t length = 0, at = 0;

	out[length++] = '"';
	while (at < n && length < QUOTED_MAX - 12) {
		int32_t code;
		size_t step = utf8_step(text + at, n - at, &code);
		if (code < 0x20 || code == 0x7F) {
			length += (size_t)snprintf(out + length, 5, "\\x%02X", (unsigned char)text[at]);
			step = 1;
		} else {
			memcpy(out + length, text + at, step);
			length += step;
		}
		at += step;
	}
	snprintf(out + length, QUOTED_MAX - length, at < n ? "...\"" : "\"");
	return out;
}
