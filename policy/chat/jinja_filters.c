/* jinja_filters.c - filters of one value: strings, numbers, defaults, JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/chat/jinja_internal.h"

/* Filters of strings take anything and make a string of it. */
static const struct text *input(struct job *job, const struct call *call)
{
	return jinja_str(job, call->args[0]);
}

static struct value with_case(struct job *job, const struct call *call, enum letter_case letter_case)
{
	const struct text *text = input(job, call);
	size_t mark = job->n_out;

	jinja_put_case(job, text->bytes, text->n, letter_case);
	return value_text(jinja_cut(job, mark));
}

static struct value upper(struct job *job, const struct call *call)
{
	return with_case(job, call, CASE_UPPER);
}

static struct value lower(struct job *job, const struct call *call)
{
	return with_case(job, call, CASE_LOWER);
}

static struct value capitalize(struct job *job, const struct call *call)
{
	return jinja_capitalize(job, input(job, call));
}

/* A word begins after white space, a hyphen or an opening bracket. */
static struct value title(struct job *job, const struct call *call)
{
	const struct text *text = input(job, call);
	size_t mark = job->n_out;
	bool inside = false;

	for (size_t at = 0, next; at < text->n; at = next) {
		for (next = at + 1; ((unsigned char)text->bytes[next] & 0xC0) == 0x80;)
			next++;
		struct text *one = jinja_alloc(job, sizeof *one + 5);
		memcpy(one->bytes, text->bytes + at, one->n = next - at);
		bool gap = jinja_strip(job, one, NULL, SIDE_BOTH).text->n == 0 || strchr("-({[<", one->bytes[0]);
		jinja_put_case(job, one->bytes, one->n, inside ? CASE_LOWER : CASE_UPPER);
		inside = !gap;
	}
	return value_text(jinja_cut(job, mark));
}

static struct value trim(struct job *job, const struct call *call)
{
	return jinja_strip(job, input(job, call), jinja_arg_text_or_none(job, call->args[1]), SIDE_BOTH);
}

static struct value replace(struct job *job, const struct call *call)
{
	int64_t max = jinja_arg_given(call->args[3]) ? jinja_arg_int(job, call->args[3], -1) : -1;

	return jinja_replace(job, input(job, call), jinja_str(job, call->args[1]), jinja_str(job, call->args[2]),
	                     max);
}

static struct value indent(struct job *job, const struct call *call)
{
	const struct text *text = jinja_arg_text(job, call->args[0], NULL), *by;
	bool first = jinja_arg_bool(call->args[2], false), blank = jinja_arg_bool(call->args[3], false);
	size_t mark = job->n_out;

	if (call->args[1].kind == VALUE_TEXT)
		by = call->args[1].text;
	else
		by = jinja_binary(job, TOKEN_MUL, value_text(jinja_text(job, " ", 1)),
		                  value_int(jinja_arg_int(job, call->args[1], 4))).text;
	jinja_put(job, text->bytes, text->n);
	jinja_puts(job, "\n"); /* so that a last empty line counts */
	struct list *lines = jinja_split_lines(job, jinja_cut(job, mark), false);
	for (size_t i = 0; i < lines->n; i++) {
		const struct text *line = lines->items[i].text;
		if (i > 0)
			jinja_puts(job, "\n");
		if (i > 0 ? blank || line->n > 0 : first)
			jinja_put(job, by->bytes, by->n);
		jinja_put(job, line->bytes, line->n);
	}
	return value_text(jinja_cut(job, mark));
}

static struct value string(struct job *job, const struct call *call)
{
	return value_text(input(job, call));
}

static struct value safe(struct job *job, const struct call *call)
{
	return value_text(jinja_safe(job, input(job, call)));
}

static struct value format(struct job *job, const struct call *call)
{
	struct list *tuple = jinja_list(job, call->n_args - 1);

	if (call->n_named > 0)
		jinja_fail(job, ERR_UNSUPPORTED, "format with named values is not supported");
	for (size_t i = 0; i < tuple->n; i++)
		tuple->items[i] = call->args[i + 1];
	return jinja_percent(job, jinja_str(job, call->args[0]), value_list(VALUE_TUPLE, tuple));
}

static struct value default_value(struct job *job, const struct call *call)
{
	bool falsy = jinja_arg_bool(call->args[2], false) && !jinja_truth(call->args[0]);

	if (call->args[0].kind != VALUE_UNDEFINED && !falsy)
		return call->args[0];
	return call->args[1].kind == VALUE_MISSING ? value_text(jinja_text(job, "", 0)) : call->args[1];
}

static struct value length(struct job *job, const struct call *call)
{
	size_t n;

	if (!jinja_length(job, call->args[0], &n))
		jinja_fail(job, ERR_INVALID, "%s has no length", jinja_kind_name(call->args[0]));
	return value_int((int64_t)n);
}

static struct value attr(struct job *job, const struct call *call)
{
	struct value of = call->args[0];
	const struct text *name = jinja_arg_text(job, call->args[1], NULL);

	if (of.kind == VALUE_DICT && !jinja_builtin_find(jinja_dict_methods, name->bytes))
		return value_undefined(NULL); /* attributes alone, no keys */
	return jinja_getattr(job, of, name, NULL);
}

/* ---- numbers ---- */

static bool real_of(struct job *job, struct value value, double *real)
{
	if (value.kind == VALUE_TEXT)
		jinja_charge(job, value.text->n / STEP_BYTES);
	if (value.kind == VALUE_FLOAT)
		*real = value.real;
	else if (value_is_integer(value))
		*real = (double)value_integer(value);
	else
		return value.kind == VALUE_TEXT && jinja_parse_float(value.text, real);
	return true;
}

static struct value to_int(struct job *job, const struct call *call)
{
	struct value value = call->args[0];
	int base = (int)jinja_arg_int(job, call->args[2], 10);
	int64_t integer;
	double real;

	if (value.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, value);
	if (value_is_integer(value))
		return value_int(value_integer(value));
	if (value.kind == VALUE_TEXT && jinja_parse_int(job, value.text, base, &integer))
		return value_int(integer);
	if (!real_of(job, value, &real) || !isfinite(real))
		return call->args[1].kind == VALUE_MISSING ? value_int(0) : call->args[1];
	if (!(fabs(real) < 9.2e18))
		jinja_fail(job, ERR_UNSUPPORTED, "integers past 64 bits are not supported");
	return value_int((int64_t)real);
}

static struct value to_float(struct job *job, const struct call *call)
{
	double real;

	if (call->args[0].kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, call->args[0]);
	if (real_of(job, call->args[0], &real))
		return value_float(real);
	return call->args[1].kind == VALUE_MISSING ? value_float(0) : call->args[1];
}

static struct value absolute(struct job *job, const struct call *call)
{
	struct value value = call->args[0];

	if (value.kind == VALUE_FLOAT)
		return value_float(fabs(value.real));
	int64_t integer = jinja_arg_int(job, value, 0);
	return integer < 0 ? jinja_binary(job, TOKEN_SUB, value_int(0), value) : value_int(integer);
}

/* round() of Python is exact: to the nearest decimal, which printf finds. */
static struct value round_common(struct job *job, struct value value, int64_t places)
{
	char text[512];

	if (value.kind != VALUE_FLOAT) {
		if (places < 0)
			jinja_fail(job, ERR_UNSUPPORTED, "round of an integer to tens is not supported");
		return value_int(jinja_arg_int(job, value, 0));
	}
	if (!isfinite(value.real) || places > 30)
		return value;
	if (places < 0)
		jinja_fail(job, ERR_UNSUPPORTED, "round to tens is not supported");
	snprintf(text, sizeof text, "%.*f", (int)places, value.real);
	return value_float(strtod(text, NULL));
}

static struct value round_to(struct job *job, const struct call *call)
{
	int64_t places = jinja_arg_int(job, call->args[1], 0);
	const char *method = jinja_arg_text(job, call->args[2], "common")->bytes;
	double real, scale = pow(10, (double)places);

	if (call->args[0].kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, call->args[0]);
	if (strcmp(method, "common") == 0)
		return round_common(job, call->args[0], places);
	if (strcmp(method, "ceil") != 0 && strcmp(method, "floor") != 0)
		jinja_fail(job, ERR_INVALID, "round: the method must be common, ceil or floor");
	if (call->args[0].kind == VALUE_TEXT || !real_of(job, call->args[0], &real))
		jinja_fail(job, ERR_INVALID, "round needs a number, found %s", jinja_kind_name(call->args[0]));
	return value_float((strcmp(method, "ceil") == 0 ? ceil(real * scale) : floor(real * scale)) / scale);
}

/* ---- JSON ---- */

static const struct text *json_indent(struct job *job, struct value indent)
{
	if (!jinja_arg_given(indent))
		return NULL;
	if (indent.kind == VALUE_TEXT)
		return indent.text;
	return jinja_binary(job, TOKEN_MUL, value_text(jinja_text(job, " ", 1)),
	                    value_int(jinja_arg_int(job, indent, 0))).text;
}

/* transformers' tojson: json.dumps without the escapes of HTML that Jinja's own makes. */
static struct value to_json(struct job *job, const struct call *call)
{
	struct json_style style = {.ascii = jinja_arg_bool(call->args[1], false),
	                           .sort_keys = jinja_arg_bool(call->args[4], false),
	                           .indent = json_indent(job, call->args[2])};
	struct value separators = call->args[3];
	size_t mark = job->n_out;

	style.item_gap = style.indent ? "," : ", ";
	style.key_gap = ": ";
	if (jinja_arg_given(separators)) {
		const struct list *list = jinja_elements(job, separators);
		if (list->n != 2)
			jinja_fail(job, ERR_INVALID, "tojson: separators must be two strings");
		style.item_gap = jinja_arg_text(job, list->items[0], NULL)->bytes;
		style.key_gap = jinja_arg_text(job, list->items[1], NULL)->bytes;
	}
	jinja_put_json(job, call->args[0], &style);
	return value_text(jinja_cut(job, mark));
}

const struct builtin jinja_filters[] = {
	{"trim", trim, 1, {"value", "chars"}},
	{"upper", upper, 1, {"s"}},
	{"lower", lower, 1, {"s"}},
	{"capitalize", capitalize, 1, {"s"}},
	{"title", title, 1, {"s"}},
	{"replace", replace, 3, {"s", "old", "new", "count"}},
	{"indent", indent, 1, {"s", "width", "first", "blank"}},
	{"string", string, 1, {"object"}},
	{"safe", safe, 1, {"value"}},
	{"format", format, 1, {NULL}},
	{"default", default_value, 1, {"value", "default_value", "boolean"}},
	{"d", default_value, 1, {"value", "default_value", "boolean"}},
	{"length", length, 1, {"obj"}},
	{"count", length, 1, {"obj"}},
	{"attr", attr, 2, {"obj", "name"}},
	{"int", to_int, 1, {"value", "default", "base"}},
	{"float", to_float, 1, {"value", "default"}},
	{"abs", absolute, 1, {"x"}},
	{"round", round_to, 1, {"value", "precision", "method"}},
	{"tojson", to_json, 1, {"x", "ensure_ascii", "indent", "separators", "sort_keys"}},
	{NULL},
};
