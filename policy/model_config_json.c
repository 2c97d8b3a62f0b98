/* model_config_json.c - one field of a config.json: there or not, of its type, within its bounds. */
#include "policy/model_config_json.h"

#include <stdio.h>
#include <stdlib.h>

const char *model_field_text(const json_t *value, char text[64])
{
	char *dump = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
	snprintf(text, 64, "%.60s", dump ? dump : "nothing");
	free(dump);
	return text;
}

const json_t *model_field(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	return json_is_null(value) ? NULL : value;
}

int model_field_int(const json_t *object, const char *key, int min, int max, int fallback, int *out, struct err *err)
{
	char text[64];
	const json_t *value = model_field(object, key);
	if (!value && fallback >= min) {
		*out = fallback;
		return 0;
	}
	if (!value)
		return err_set(err, ERR_MISSING, "%s is missing: expected an integer from %d to %d", key, min, max);
	json_int_t number = json_integer_value(value);
	if (!json_is_integer(value) || number < min || number > max)
		return err_set(err, ERR_INVALID, "%s: expected an integer from %d to %d, found %s", key, min, max,
		               model_field_text(value, text));
	*out = (int)number;
	return 0;
}

int model_field_real(const json_t *object, const char *key, double min, double max, double fallback, double *out,
               struct err *err)
{
	char text[64];
	const json_t *value = model_field(object, key);
	if (!value && fallback >= min) {
		*out = fallback;
		return 0;
	}
	if (!value)
		return err_set(err, ERR_MISSING, "%s is missing: expected a number from %g to %g", key, min, max);
	double number = json_number_value(value);
	if (!json_is_number(value) || !(number >= min && number <= max))
		return err_set(err, ERR_INVALID, "%s: expected a number from %g to %g, found %s", key, min, max,
		               model_field_text(value, text));
	*out = number;
	return 0;
}

int model_field_bool(const json_t *object, const char *key, bool fallback, bool *out, struct err *err)
{
	char text[64];
	const json_t *value = model_field(object, key);
	if (value && !json_is_boolean(value))
		return err_set(err, ERR_INVALID, "%s: expected true or false, found %s", key, model_field_text(value, text));
	*out = value ? json_is_true(value) : fallback;
	return 0;
}
