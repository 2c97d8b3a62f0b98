/* jinja_builtin.c - how filters, tests, methods and functions get their arguments: Python's rules. */
#include <string.h>

#include "policy/chat/jinja_internal.h"

const struct builtin *jinja_builtin_find(const struct builtin *table, const char *name)
{
	for (; table->name; table++)
		if (strcmp(table->name, name) == 0)
			return table;
	return NULL;
}

static size_t params_count(const struct builtin *builtin)
{
	size_t n = 0;

	while (n < BUILTIN_PARAMS_MAX && builtin->params[n])
		n++;
	return n;
}

/* args[0, BUILTIN_PARAMS_MAX) from what was given by position and by name. */
static struct value *arguments_place(struct job *job, const struct builtin *builtin, const struct call *call)
{
	struct value *args = jinja_alloc(job, BUILTIN_PARAMS_MAX * sizeof *args);
	size_t n_params = params_count(builtin);

	if (call->n_args > n_params)
		jinja_fail(job, ERR_INVALID, "%s takes at most %zu arguments, found %zu", builtin->name, n_params,
		           call->n_args);
	memcpy(args, call->args, call->n_args * sizeof *args);
	for (size_t i = 0; i < call->n_named; i++) {
		const char *name = call->named[i].name->bytes;
		size_t at = 0;
		while (at < n_params && strcmp(builtin->params[at], name) != 0)
			at++;
		if (at == n_params || args[at].kind != VALUE_MISSING)
			jinja_fail(job, ERR_INVALID, "%s has no parameter \"%s\", or it was given twice",
			           builtin->name, name);
		args[at] = call->named[i].value;
	}
	for (size_t i = 0; i < builtin->n_required; i++)
		if (args[i].kind == VALUE_MISSING)
			jinja_fail(job, ERR_INVALID, "%s needs its argument \"%s\"", builtin->name, builtin->params[i]);
	return args;
}

struct value jinja_builtin_call(struct job *job, const struct builtin *builtin, const struct call *call)
{
	struct call placed = *call;

	if (!builtin->call)
		jinja_fail(job, ERR_UNSUPPORTED, "\"%s\" is not supported", builtin->name);
	if (params_count(builtin) > 0)
		placed = (struct call){arguments_place(job, builtin, call), BUILTIN_PARAMS_MAX, NULL, 0};
	return builtin->call(job, &placed);
}

struct value jinja_filter(struct job *job, const char *name, const struct call *call)
{
	static const char *const of_safe[] = {"safe", "string", "tojson", "length", "count", "default", "d"};
	const struct builtin *filter = jinja_builtin_find(jinja_filters, name);
	bool safe = call->args[0].kind == VALUE_TEXT && call->args[0].text->safe;

	if (!filter)
		filter = jinja_builtin_find(jinja_list_filters, name);
	if (!filter || !filter->call)
		jinja_fail(job, ERR_UNSUPPORTED, "the filter \"%s\" is not supported", name);
	for (size_t i = 0; i < sizeof of_safe / sizeof *of_safe; i++)
		safe = safe && strcmp(name, of_safe[i]) != 0;
	if (safe)
		jinja_fail(job, ERR_UNSUPPORTED, "the filter \"%s\" after \"safe\" is not supported", name);
	return jinja_builtin_call(job, filter, call);
}

bool jinja_test(struct job *job, const char *name, const struct call *call)
{
	const struct builtin *test = jinja_builtin_find(jinja_tests, name);

	if (!test)
		jinja_fail(job, ERR_UNSUPPORTED, "the test \"%s\" is not supported", name);
	return jinja_truth(jinja_builtin_call(job, test, call));
}

bool jinja_arg_given(struct value value)
{
	return value.kind != VALUE_MISSING && value.kind != VALUE_NONE;
}

int64_t jinja_arg_int(struct job *job, struct value value, int64_t otherwise)
{
	if (value.kind == VALUE_MISSING)
		return otherwise;
	if (value.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, value);
	if (!value_is_integer(value))
		jinja_fail(job, ERR_INVALID, "expected an integer, found %s", jinja_kind_name(value));
	return value_integer(value);
}

bool jinja_arg_bool(struct value value, bool otherwise)
{
	return value.kind == VALUE_MISSING ? otherwise : jinja_truth(value);
}

const struct text *jinja_arg_text(struct job *job, struct value value, const char *otherwise)
{
	if (value.kind == VALUE_MISSING && otherwise)
		return jinja_text(job, otherwise, strlen(otherwise));
	if (value.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, value);
	if (value.kind != VALUE_TEXT)
		jinja_fail(job, ERR_INVALID, "expected a string, found %s", jinja_kind_name(value));
	return value.text;
}

const struct text *jinja_arg_text_or_none(struct job *job, struct value value)
{
	return jinja_arg_given(value) ? jinja_arg_text(job, value, NULL) : NULL;
}
