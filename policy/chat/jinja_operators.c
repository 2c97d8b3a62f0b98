/* jinja_operators.c - arithmetic, comparison and what + and * do to strings and lists: Python's, on 64 bits. */
#include <math.h>
#include <string.h>

#include "policy/chat/jinja_internal.h"

static void overflow_check(struct job *job, bool overflow)
{
	if (overflow)
		jinja_fail(job, ERR_UNSUPPORTED, "integers past 64 bits are not supported");
}

static int64_t power_integer(struct job *job, int64_t base, int64_t exponent)
{
	int64_t power = 1;

	if (base == 0 || base == 1)
		return exponent == 0 ? 1 : base;
	if (base == -1)
		return exponent % 2 == 0 ? 1 : -1;
	for (; exponent > 0; exponent--)
		overflow_check(job, __builtin_mul_overflow(power, base, &power));
	return power;
}

/* a // b and a % b round towards minus infinity. */
static int64_t floor_quotient(struct job *job, int64_t a, int64_t b, bool modulo)
{
	overflow_check(job, a == INT64_MIN && b == -1);
	int64_t quotient = a / b, rest = a % b;
	bool adjust = rest != 0 && (rest < 0) != (b < 0);
	return modulo ? rest + (adjust ? b : 0) : quotient - adjust;
}

static void zero_check(struct job *job, bool zero)
{
	if (zero)
		jinja_fail(job, ERR_INVALID, "division by zero");
}

static struct value integers(struct job *job, enum token_kind op, int64_t a, int64_t b)
{
	int64_t result = 0;

	switch (op) {
	case TOKEN_ADD: overflow_check(job, __builtin_add_overflow(a, b, &result)); return value_int(result);
	case TOKEN_SUB: overflow_check(job, __builtin_sub_overflow(a, b, &result)); return value_int(result);
	case TOKEN_MUL: overflow_check(job, __builtin_mul_overflow(a, b, &result)); return value_int(result);
	case TOKEN_DIV: zero_check(job, b == 0); return value_float((double)a / (double)b);
	case TOKEN_POW:
		if (b >= 0)
			return value_int(power_integer(job, a, b));
		zero_check(job, a == 0);
		return value_float(pow((double)a, (double)b));
	default: zero_check(job, b == 0); return value_int(floor_quotient(job, a, b, op == TOKEN_MOD));
	}
}

/* The division of CPython's float: modulo first, with the sign of b, then a quotient that agrees with it. */
static double float_divide(double a, double b, bool modulo)
{
	double rest = fmod(a, b), quotient = (a - rest) / b;

	if (rest != 0 && (b < 0) != (rest < 0)) {
		rest += b;
		quotient -= 1;
	} else if (rest == 0) {
		rest = copysign(0.0, b);
	}
	if (modulo)
		return rest;
	if (quotient == 0)
		return copysign(0.0, a / b);
	double whole = floor(quotient);
	return quotient - whole > 0.5 ? whole + 1 : whole;
}

static struct value floats(struct job *job, enum token_kind op, double a, double b)
{
	double result = 0;

	switch (op) {
	case TOKEN_ADD: result = a + b; break;
	case TOKEN_SUB: result = a - b; break;
	case TOKEN_MUL: result = a * b; break;
	case TOKEN_DIV: zero_check(job, b == 0); result = a / b; break;
	case TOKEN_POW:
		zero_check(job, a == 0 && b < 0);
		result = pow(a, b);
		if (!isfinite(result) && isfinite(a) && isfinite(b))
			jinja_fail(job, ERR_INVALID, "the result of ** is no float");
		break;
	default: zero_check(job, b == 0); result = float_divide(a, b, op == TOKEN_MOD); break;
	}
	return value_float(result);
}

static struct value join_lists(struct job *job, struct value a, struct value b)
{
	struct list *list = jinja_list(job, a.list->n + b.list->n);

	for (size_t i = 0; i < a.list->n; i++)
		list->items[i] = a.list->items[i];
	for (size_t i = 0; i < b.list->n; i++)
		list->items[a.list->n + i] = b.list->items[i];
	return value_list(a.kind, list);
}

/* Put text as it is, or with what HTML gives a meaning to escaped. */
static void put_operand(struct job *job, const struct text *text, bool escaped)
{
	static const char marks[] = "&<>'\"";
	static const char *const escapes[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};

	for (const char *at = text->bytes; *at;) {
		size_t run = escaped ? strcspn(at, marks) : text->n;
		jinja_put(job, at, run);
		at += run;
		if (*at)
			jinja_puts(job, escapes[strchr(marks, *at++) - marks]);
	}
}

/* A safe string (the filter `safe`) escapes the one that is added to it, and stays safe. */
static struct value join_texts(struct job *job, const struct text *a, const struct text *b)
{
	size_t mark = job->n_out;
	bool safe = a->safe || b->safe;

	put_operand(job, a, safe && !a->safe);
	put_operand(job, b, safe && !b->safe);
	const struct text *text = jinja_cut(job, mark);
	return value_text(safe ? jinja_safe(job, text) : text);
}

static struct value repeat(struct job *job, struct value of, int64_t times)
{
	size_t n = times > 0 ? (size_t)times : 0, mark = job->n_out;

	if (of.kind == VALUE_TEXT) {
		for (size_t i = 0; i < n && of.text->n > 0; i++)
			jinja_put(job, of.text->bytes, of.text->n);
		return value_text(jinja_cut(job, mark));
	}
	size_t length = of.list->n;
	if (length > 0 && n > SIZE_MAX / length)
		n = SIZE_MAX / length; /* too long in any case */
	struct list *list = jinja_list(job, n * length);
	for (size_t i = 0; i < list->n; i++)
		list->items[i] = of.list->items[i % length];
	return value_list(of.kind, list);
}

static bool is_sequence(struct value value)
{
	return value.kind == VALUE_TEXT || value.kind == VALUE_LIST || value.kind == VALUE_TUPLE;
}

static bool is_number(struct value value)
{
	return value_is_integer(value) || value.kind == VALUE_FLOAT;
}

static double real_of(struct value value)
{
	return value.kind == VALUE_FLOAT ? value.real : (double)value_integer(value);
}

struct value jinja_binary(struct job *job, enum token_kind op, struct value a, struct value b)
{
	if (value_is_integer(a) && value_is_integer(b))
		return integers(job, op, value_integer(a), value_integer(b));
	if (is_number(a) && is_number(b))
		return floats(job, op, real_of(a), real_of(b));
	if (op == TOKEN_MOD && a.kind == VALUE_TEXT)
		return jinja_percent(job, a.text, b);
	if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, a.kind == VALUE_UNDEFINED ? a : b);
	if (op == TOKEN_ADD && a.kind == b.kind && is_sequence(a))
		return a.kind == VALUE_TEXT ? join_texts(job, a.text, b.text) : join_lists(job, a, b);
	if (op == TOKEN_MUL && is_sequence(a) && value_is_integer(b))
		return repeat(job, a, value_integer(b));
	if (op == TOKEN_MUL && is_sequence(b) && value_is_integer(a))
		return repeat(job, b, value_integer(a));
	jinja_fail(job, ERR_INVALID, "cannot compute %s %s %s", jinja_kind_name(a), jinja_token_name(op),
	           jinja_kind_name(b));
}

bool jinja_compare(struct job *job, enum token_kind op, struct value a, struct value b)
{
	bool numbers = is_number(a) && is_number(b);

	switch (op) {
	case TOKEN_EQ: return jinja_equal(job, a, b);
	case TOKEN_NE: return !jinja_equal(job, a, b);
	case TOKEN_LT: return jinja_less(job, a, b);
	case TOKEN_GT: return jinja_less(job, b, a);
	case TOKEN_LE: return numbers ? jinja_less(job, a, b) || jinja_equal(job, a, b) : !jinja_less(job, b, a);
	case TOKEN_GE: return numbers ? jinja_less(job, b, a) || jinja_equal(job, a, b) : !jinja_less(job, a, b);
	case TOKEN_IN: return jinja_contains(job, b, a);
	default: return !jinja_contains(job, b, a);
	}
}
