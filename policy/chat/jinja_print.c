/* jinja_print.c - values as text: str() and repr() of Python, and json.dumps(). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "policy/chat/jinja_internal.h"
#include "policy/utf8.h"

/* The shortest decimal that reads back as real, in Python's notation. */
static void put_float(struct job *job, double real)
{
	char digits[40], text[400];
	int precision = 0;

	if (isnan(real) || isinf(real)) {
		jinja_puts(job, isnan(real) ? "nan" : real > 0 ? "inf" : "-inf");
		return;
	}
	do
		snprintf(digits, sizeof digits, "%.*e", precision, real);
	while (strtod(digits, NULL) != real && ++precision < 17);
	char *mark = strchr(digits, 'e');
	int exponent = (int)strtol(mark + 1, NULL, 10);
	if (exponent >= -4 && exponent < 16) {
		int places = precision - exponent;
		snprintf(text, sizeof text, "%.*f", places > 1 ? places : 1, real);
	} else {
		*mark = '\0';
		snprintf(text, sizeof text, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
	}
	jinja_puts(job, text);
}

static void put_int(struct job *job, int64_t integer)
{
	char text[32];

	snprintf(text, sizeof text, "%lld", (long long)integer);
	jinja_puts(job, text);
}

/* str.isprintable of one character. */
static bool is_printable(int32_t code)
{
	switch (utf8proc_category(code)) {
	case UTF8PROC_CATEGORY_CN:
	case UTF8PROC_CATEGORY_CC:
	case UTF8PROC_CATEGORY_CF:
	case UTF8PROC_CATEGORY_CS:
	case UTF8PROC_CATEGORY_CO:
	case UTF8PROC_CATEGORY_ZL:
	case UTF8PROC_CATEGORY_ZP: return false;
	case UTF8PROC_CATEGORY_ZS: return code == ' ';
	default: return true;
	}
}

static void put_text_repr(struct job *job, const struct text *text)
{
	const char *quote = strchr(text->bytes, '\'') && !strchr(text->bytes, '"') ? "\"" : "'";

	jinja_charge(job, text->n / STEP_CHARACTERS);
	jinja_puts(job, text->safe ? "Markup(" : "");
	jinja_puts(job, quote);
	for (size_t at = 0; at < text->n;) {
		char escape[16];
		int32_t code;
		size_t step = utf8_step(text->bytes + at, text->n - at, &code);
		if (code == *quote || code == '\\')
			snprintf(escape, sizeof escape, "\\%c", (char)code);
		else if (code == '\n' || code == '\r' || code == '\t')
			snprintf(escape, sizeof escape, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
		else if (code < ' ' || !is_printable(code))
			snprintf(escape, sizeof escape, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x",
			         (unsigned)code);
		else
			escape[0] = '\0';
		if (escape[0])
			jinja_puts(job, escape);
		else
			jinja_put(job, text->bytes + at, step);
		at += step;
	}
	jinja_puts(job, quote);
	jinja_puts(job, text->safe ? ")" : "");
}

static void put_items(struct job *job, const struct list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		if (i > 0)
			jinja_puts(job, ", ");
		jinja_put_repr(job, list->items[i]);
	}
}

static void put_list_repr(struct job *job, struct value value)
{
	bool tuple = value.kind == VALUE_TUPLE, view = value.kind == VALUE_VIEW;

	if (view) {
		jinja_puts(job, value.list->view);
		jinja_puts(job, "(");
	}
	jinja_puts(job, tuple ? "(" : "[");
	put_items(job, value.list);
	jinja_puts(job, tuple ? value.list->n == 1 ? ",)" : ")" : "]");
	if (view)
		jinja_puts(job, ")");
}

static void put_dict_repr(struct job *job, const struct dict *dict)
{
	jinja_puts(job, "{");
	for (size_t i = 0; i < dict->n; i++) {
		if (i > 0)
			jinja_puts(job, ", ");
		jinja_put_repr(job, dict->pairs[i].key);
		jinja_puts(job, ": ");
		jinja_put_repr(job, dict->pairs[i].value);
	}
	jinja_puts(job, "}");
}

void jinja_put_repr(struct job *job, struct value value)
{
	jinja_charge(job, 1);
	jinja_descend(job);
	switch (value.kind) {
	case VALUE_UNDEFINED: jinja_puts(job, "Undefined"); break;
	case VALUE_NONE: jinja_puts(job, "None"); break;
	case VALUE_BOOL: jinja_puts(job, value.truth ? "True" : "False"); break;
	case VALUE_INT: put_int(job, value.integer); break;
	case VALUE_FLOAT: put_float(job, value.real); break;
	case VALUE_TEXT: put_text_repr(job, value.text); break;
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_VIEW: put_list_repr(job, value); break;
	case VALUE_DICT: put_dict_repr(job, value.dict); break;
	case VALUE_NAMESPACE:
		jinja_puts(job, "<Namespace ");
		put_dict_repr(job, value.dict);
		jinja_puts(job, ">");
		break;
	default:
		jinja_fail(job, ERR_UNSUPPORTED, "%s cannot be written as text", jinja_kind_name(value));
	}
	job->depth--;
}

void jinja_put_str(struct job *job, struct value value)
{
	if (value.kind == VALUE_TEXT)
		jinja_put(job, value.text->bytes, value.text->n);
	else if (value.kind != VALUE_UNDEFINED)
		jinja_put_repr(job, value);
}

const struct text *jinja_str(struct job *job, struct value value)
{
	size_t mark = job->n_out;

	if (value.kind == VALUE_TEXT)
		return value.text;
	jinja_put_str(job, value);
	return jinja_cut(job, mark);
}

/* ---- JSON ---- */

static void put_json_code(struct job *job, unsigned code)
{
	char text[16];

	if (code >= 0x10000) {
		put_json_code(job, 0xD800 + ((code - 0x10000) >> 10));
		code = 0xDC00 + ((code - 0x10000) & 0x3FF);
	}
	snprintf(text, sizeof text, "\\u%04x", code);
	jinja_puts(job, text);
}

static void put_json_text(struct job *job, const struct text *text, bool ascii)
{
	static const char escaped[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";

	jinja_charge(job, text->n / STEP_CHARACTERS);
	jinja_puts(job, "\"");
	for (size_t at = 0; at < text->n;) {
		int32_t code;
		size_t step = utf8_step(text->bytes + at, text->n - at, &code);
		const char *found = code < 0x80 ? strchr(escaped, (char)code) : NULL;
		if (found) {
			jinja_puts(job, "\\");
			jinja_put(job, letters + (found - escaped), 1);
		} else if (code < ' ' || (ascii && code > '~')) {
			put_json_code(job, (unsigned)code);
		} else {
			jinja_put(job, text->bytes + at, step);
		}
		at += step;
	}
	jinja_puts(job, "\"");
}

static void put_line(struct job *job, const struct json_style *style, int level)
{
	if (!style->indent)
		return;
	jinja_puts(job, "\n");
	for (int i = 0; i < level; i++)
		jinja_put(job, style->indent->bytes, style->indent->n);
}

static void put_json(struct job *job, struct value value, const struct json_style *style, int level);

static void put_json_list(struct job *job, const struct list *list, const struct json_style *style, int level)
{
	jinja_puts(job, "[");
	for (size_t i = 0; i < list->n; i++) {
		if (i > 0)
			jinja_puts(job, style->item_gap);
		put_line(job, style, level + 1);
		put_json(job, list->items[i], style, level + 1);
	}
	if (list->n > 0)
		put_line(job, style, level);
	jinja_puts(job, "]");
}

/* The key of an object: numbers, booleans and none become strings. */
static void put_json_key(struct job *job, struct value key, const struct json_style *style)
{
	size_t mark = job->n_out;

	if (key.kind == VALUE_TEXT) {
		put_json_text(job, key.text, style->ascii);
	} else if (value_is_integer(key) || key.kind == VALUE_FLOAT || key.kind == VALUE_NONE) {
		put_json(job, key, style, 0);
		put_json_text(job, jinja_cut(job, mark), style->ascii);
	} else {
		jinja_fail(job, ERR_INVALID, "tojson: %s cannot be a key", jinja_kind_name(key));
	}
}

/* The indices of a dict's pairs in the order of its keys: insertion into a growing sorted run. */
static const size_t *sorted_keys(struct job *job, const struct dict *dict)
{
	size_t *order = jinja_alloc(job, dict->n * sizeof *order);

	for (size_t i = 0; i < dict->n; i++) {
		size_t at = i;
		for (; at > 0 && jinja_less(job, dict->pairs[i].key, dict->pairs[order[at - 1]].key); at--)
			order[at] = order[at - 1];
		order[at] = i;
	}
	return order;
}

static void put_json_dict(struct job *job, const struct dict *dict, const struct json_style *style, int level)
{
	const size_t *order = style->sort_keys ? sorted_keys(job, dict) : NULL;

	jinja_puts(job, "{");
	for (size_t i = 0; i < dict->n; i++) {
		const struct pair *pair = &dict->pairs[order ? order[i] : i];
		if (i > 0)
			jinja_puts(job, style->item_gap);
		put_line(job, style, level + 1);
		put_json_key(job, pair->key, style);
		jinja_puts(job, style->key_gap);
		put_json(job, pair->value, style, level + 1);
	}
	if (dict->n > 0)
		put_line(job, style, level);
	jinja_puts(job, "}");
}

static void put_json_float(struct job *job, double real)
{
	if (isnan(real) || isinf(real))
		jinja_puts(job, isnan(real) ? "NaN" : real > 0 ? "Infinity" : "-Infinity");
	else
		put_float(job, real);
}

static void put_json(struct job *job, struct value value, const struct json_style *style, int level)
{
	jinja_charge(job, 1);
	jinja_descend(job);
	switch (value.kind) {
	case VALUE_NONE: jinja_puts(job, "null"); break;
	case VALUE_BOOL: jinja_puts(job, value.truth ? "true" : "false"); break;
	case VALUE_INT: put_int(job, value.integer); break;
	case VALUE_FLOAT: put_json_float(job, value.real); break;
	case VALUE_TEXT: put_json_text(job, value.text, style->ascii); break;
	case VALUE_LIST:
	case VALUE_TUPLE: put_json_list(job, value.list, style, level); break;
	case VALUE_DICT: put_json_dict(job, value.dict, style, level); break;
	default:
		jinja_fail(job, ERR_INVALID, "tojson: %s cannot be written as JSON", jinja_kind_name(value));
	}
	job->depth--;
}

void jinja_put_json(struct job *job, struct value value, const struct json_style *style)
{
	put_json(job, value, style, 0);
}
