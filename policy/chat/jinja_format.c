/* jinja_format.c - "%s and %d" % values, and "{} and {name}".format(values), without their rarer specs. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "policy/chat/jinja_internal.h"

enum { WIDTH_MAX = 1000 };

/* One conversion specification: %[flags][width][.precision]letter. */
struct spec {
	bool minus, plus, space, zero, alternate;
	int width, precision; /* precision -1: none */
	char letter;
};

static const char *spec_number(struct job *job, const char *at, int *number)
{
	for (*number = 0; *at >= '0' && *at <= '9'; at++)
		if ((*number = *number * 10 + (*at - '0')) > WIDTH_MAX)
			jinja_fail(job, ERR_UNSUPPORTED, "a width past %d is not supported", WIDTH_MAX);
	return at;
}

/* Read the specification after a %; returns past it. */
static const char *spec_read(struct job *job, const char *at, struct spec *spec)
{
	*spec = (struct spec){.precision = -1};
	for (;; at++) {
		if (*at == '-')
			spec->minus = true;
		else if (*at == '+')
			spec->plus = true;
		else if (*at == ' ')
			spec->space = true;
		else if (*at == '0')
			spec->zero = true;
		else if (*at == '#')
			spec->alternate = true;
		else
			break;
	}
	at = spec_number(job, at, &spec->width);
	if (*at == '.')
		at = spec_number(job, at + 1, &spec->precision);
	spec->letter = *at;
	if (!*at || !strchr("sdiufFeEgGxXor%", *at) || spec->alternate)
		jinja_fail(job, ERR_UNSUPPORTED, "a format with \"%%%.*s\" is not supported", *at ? 1 : 0, at);
	return at + 1;
}

/* Put text with blanks to the width; a number with zeros after its sign. */
static void put_padded(struct job *job, const struct spec *spec, const struct text *text, bool number)
{
	size_t length = jinja_text_length(text), width = (size_t)spec->width;
	bool zero = number && spec->zero && !spec->minus;
	size_t sign = zero && strchr("+- ", text->bytes[0]) ? 1 : 0;

	jinja_put(job, text->bytes, sign);
	for (size_t i = length; i < width && !spec->minus; i++)
		jinja_puts(job, zero ? "0" : " ");
	jinja_put(job, text->bytes + sign, text->n - sign);
	for (size_t i = length; i < width && spec->minus; i++)
		jinja_puts(job, " ");
}

static void put_text_spec(struct job *job, const struct spec *spec, struct value value)
{
	size_t mark = job->n_out;

	if (spec->letter == 'r')
		jinja_put_repr(job, value);
	else
		jinja_put_str(job, value);
	const struct text *text = jinja_cut(job, mark);
	if (spec->precision >= 0)
		text = jinja_text(job, text->bytes, jinja_text_offset(text, (size_t)spec->precision));
	put_padded(job, spec, text, false);
}

static void write_real(const struct spec *spec, const char *sign, double real, char *text, size_t n)
{
	const char *before = signbit(real) ? "" : sign;
	int precision = spec->precision >= 0 ? spec->precision : 6;

	switch (spec->letter) {
	case 'e': snprintf(text, n, "%s%.*e", before, precision, real); break;
	case 'E': snprintf(text, n, "%s%.*E", before, precision, real); break;
	case 'g': snprintf(text, n, "%s%.*g", before, precision, real); break;
	case 'G': snprintf(text, n, "%s%.*G", before, precision, real); break;
	default: snprintf(text, n, "%s%.*f", before, precision, real); break;
	}
}

static void write_integer(const struct spec *spec, const char *sign, int64_t integer, char *text, size_t n)
{
	unsigned long long size = integer < 0 ? 0 - (unsigned long long)integer : (unsigned long long)integer;
	const char *before = integer < 0 ? "-" : sign;
	int precision = spec->precision > 0 ? spec->precision : 1;

	switch (spec->letter) {
	case 'x': snprintf(text, n, "%s%.*llx", before, precision, size); break;
	case 'X': snprintf(text, n, "%s%.*llX", before, precision, size); break;
	case 'o': snprintf(text, n, "%s%.*llo", before, precision, size); break;
	default: snprintf(text, n, "%s%.*llu", before, precision, size); break;
	}
}

static void put_number_spec(struct job *job, const struct spec *spec, struct value value)
{
	const char *sign = spec->plus ? "+" : spec->space ? " " : "";
	bool real = value.kind == VALUE_FLOAT;
	char text[2048] = "";

	if (!value_is_integer(value) && !real)
		jinja_fail(job, ERR_INVALID, "%%%c needs a number, found %s", spec->letter, jinja_kind_name(value));
	if (strchr("fFeEgG", spec->letter)) {
		write_real(spec, sign, real ? value.real : (double)value_integer(value), text, sizeof text);
	} else {
		if (real && (strchr("xXo", spec->letter) || !(fabs(value.real) < 9.2e18)))
			jinja_fail(job, ERR_INVALID, "%%%c needs an integer of 64 bits, found a float", spec->letter);
		write_integer(spec, sign, real ? (int64_t)value.real : value_integer(value), text, sizeof text);
	}
	put_padded(job, spec, jinja_text(job, text, strlen(text)), true);
}

struct value jinja_percent(struct job *job, const struct text *format, struct value arguments)
{
	struct value one = arguments;
	bool many = arguments.kind == VALUE_TUPLE;
	size_t n = many ? arguments.list->n : 1, used = 0, mark = job->n_out;
	struct spec spec;

	for (const char *at = format->bytes; *at;) {
		size_t run = strcspn(at, "%");
		jinja_put(job, at, run);
		at += run;
		if (!*at)
			break;
		at = spec_read(job, at + 1, &spec);
		if (spec.letter == '%') {
			jinja_puts(job, "%");
			continue;
		}
		if (used == n)
			jinja_fail(job, ERR_INVALID, "too few values for the format \"%.80s\"", format->bytes);
		one = many ? arguments.list->items[used] : arguments;
		used++;
		if (spec.letter == 's' || spec.letter == 'r')
			put_text_spec(job, &spec, one);
		else
			put_number_spec(job, &spec, one);
	}
	bool subscribed = arguments.kind == VALUE_DICT || arguments.kind == VALUE_LIST ||
	                  arguments.kind == VALUE_RANGE || arguments.kind == VALUE_UNDEFINED;
	if (used < n && !subscribed) /* Python forgives what has elements, for %(name)s */
		jinja_fail(job, ERR_INVALID, "too many values for the format \"%.80s\"", format->bytes);
	return value_text(jinja_cut(job, mark));
}

/* ---- format ---- */

/* The value of a field {}, {0} or {name}; *next counts the first kind. */
static struct value field_value(struct job *job, const struct call *call, const char *name, size_t n,
                                size_t *next)
{
	size_t index = 0;

	for (size_t i = 0; i < call->n_named; i++)
		if (call->named[i].name->n == n && memcmp(call->named[i].name->bytes, name, n) == 0)
			return call->named[i].value;
	for (size_t i = 0; i < n; i++) {
		if (name[i] < '0' || name[i] > '9' || n > 4)
			jinja_fail(job, ERR_UNSUPPORTED, "the field {%.*s} of format() is not supported or not given",
			           (int)(n < 80 ? n : 80), name);
		index = index * 10 + (size_t)(name[i] - '0');
	}
	if (n == 0)
		index = (*next)++;
	if (index + 1 >= call->n_args)
		jinja_fail(job, ERR_INVALID, "too few values for format()");
	return call->args[index + 1];
}

struct value jinja_format(struct job *job, const struct call *call)
{
	const struct text *format = call->args[0].text;
	size_t mark = job->n_out, next = 0;

	for (const char *at = format->bytes; *at;) {
		size_t run = strcspn(at, "{}");
		jinja_put(job, at, run);
		at += run;
		if (!*at)
			break;
		if (at[0] == at[1]) {
			jinja_put(job, at, 1);
			at += 2;
			continue;
		}
		size_t n = strcspn(++at, "}");
		if (at[-1] == '}' || at[n] != '}')
			jinja_fail(job, ERR_INVALID, "a single %c in the text of format()", at[-1]);
		jinja_put_str(job, field_value(job, call, at, n, &next));
		at += n + 1;
	}
	return value_text(jinja_cut(job, mark));
}
