/* jinja_tests.c - what may stand after `is`. */
#include <string.h>

#include "policy/chat/jinja_internal.h"

#define KIND_TEST(name, condition)                                              \
	static struct value name(struct job *job, const struct call *call)     \
	{                                                                       \
		enum kind kind = call->args[0].kind;                            \
		(void)job;                                                      \
		return value_bool(condition);                                   \
	}

KIND_TEST(is_defined, kind != VALUE_UNDEFINED)
KIND_TEST(is_undefined, kind == VALUE_UNDEFINED)
KIND_TEST(is_none, kind == VALUE_NONE)
KIND_TEST(is_boolean, kind == VALUE_BOOL)
KIND_TEST(is_true, kind == VALUE_BOOL && call->args[0].truth)
KIND_TEST(is_false, kind == VALUE_BOOL && !call->args[0].truth)
KIND_TEST(is_integer, kind == VALUE_INT)
KIND_TEST(is_float, kind == VALUE_FLOAT)
KIND_TEST(is_number, kind == VALUE_INT || kind == VALUE_BOOL || kind == VALUE_FLOAT)
KIND_TEST(is_string, kind == VALUE_TEXT)
KIND_TEST(is_mapping, kind == VALUE_DICT)
KIND_TEST(is_iterable, kind == VALUE_UNDEFINED || kind == VALUE_LOOP || (kind >= VALUE_TEXT && kind <= VALUE_DICT))
KIND_TEST(is_sequence, kind == VALUE_UNDEFINED || kind == VALUE_DICT || (kind >= VALUE_TEXT && kind <= VALUE_RANGE))
KIND_TEST(is_callable, kind == VALUE_UNDEFINED || kind >= VALUE_LOOP)
KIND_TEST(is_escaped, kind == VALUE_TEXT && call->args[0].text->safe)

static struct value is_odd(struct job *job, const struct call *call)
{
	struct value rest = jinja_binary(job, TOKEN_MOD, call->args[0], value_int(2));

	return value_bool(jinja_equal(job, rest, value_int(1)));
}

static struct value is_even(struct job *job, const struct call *call)
{
	struct value rest = jinja_binary(job, TOKEN_MOD, call->args[0], value_int(2));

	return value_bool(jinja_equal(job, rest, value_int(0)));
}

static struct value is_divisible(struct job *job, const struct call *call)
{
	struct value rest = jinja_binary(job, TOKEN_MOD, call->args[0], call->args[1]);

	return value_bool(jinja_equal(job, rest, value_int(0)));
}

static struct value is_lower(struct job *job, const struct call *call)
{
	return value_bool(jinja_is_case(job, jinja_str(job, call->args[0]), CASE_LOWER));
}

static struct value is_upper(struct job *job, const struct call *call)
{
	return value_bool(jinja_is_case(job, jinja_str(job, call->args[0]), CASE_UPPER));
}

/* The same object: what has no identity here is the same if it is equal. */
static struct value is_same(struct job *job, const struct call *call)
{
	struct value a = call->args[0], b = call->args[1];

	if (a.kind != b.kind)
		return value_bool(false);
	if (a.kind <= VALUE_TEXT)
		return value_bool(jinja_equal(job, a, b));
	return value_bool(a.dict == b.dict);
}

static struct value is_filter(struct job *job, const struct call *call)
{
	const char *name = jinja_arg_text(job, call->args[0], NULL)->bytes;

	return value_bool(jinja_builtin_find(jinja_filters, name) || jinja_builtin_find(jinja_list_filters, name));
}

static struct value is_test(struct job *job, const struct call *call)
{
	return value_bool(jinja_builtin_find(jinja_tests, jinja_arg_text(job, call->args[0], NULL)->bytes) != NULL);
}

#define COMPARE_TEST(name, op)                                                                  \
	static struct value name(struct job *job, const struct call *call)                      \
	{                                                                                       \
		return value_bool(jinja_compare(job, op, call->args[0], call->args[1]));        \
	}

COMPARE_TEST(is_equal, TOKEN_EQ)
COMPARE_TEST(is_unequal, TOKEN_NE)
COMPARE_TEST(is_greater, TOKEN_GT)
COMPARE_TEST(is_at_least, TOKEN_GE)
COMPARE_TEST(is_less, TOKEN_LT)
COMPARE_TEST(is_at_most, TOKEN_LE)
COMPARE_TEST(is_in, TOKEN_IN)

const struct builtin jinja_tests[] = {
	{"defined", is_defined, 1, {"value"}},
	{"undefined", is_undefined, 1, {"value"}},
	{"none", is_none, 1, {"value"}},
	{"boolean", is_boolean, 1, {"value"}},
	{"true", is_true, 1, {"value"}},
	{"false", is_false, 1, {"value"}},
	{"integer", is_integer, 1, {"value"}},
	{"float", is_float, 1, {"value"}},
	{"number", is_number, 1, {"value"}},
	{"string", is_string, 1, {"value"}},
	{"mapping", is_mapping, 1, {"value"}},
	{"iterable", is_iterable, 1, {"value"}},
	{"sequence", is_sequence, 1, {"value"}},
	{"callable", is_callable, 1, {"value"}},
	{"escaped", is_escaped, 1, {"value"}},
	{"odd", is_odd, 1, {"value"}},
	{"even", is_even, 1, {"value"}},
	{"divisibleby", is_divisible, 2, {"value", "num"}},
	{"lower", is_lower, 1, {"value"}},
	{"upper", is_upper, 1, {"value"}},
	{"sameas", is_same, 2, {"value", "other"}},
	{"filter", is_filter, 1, {"value"}},
	{"test", is_test, 1, {"value"}},
	{"in", is_in, 2, {"value", "seq"}},
	{"==", is_equal, 2, {"a", "b"}},
	{"eq", is_equal, 2, {"a", "b"}},
	{"equalto", is_equal, 2, {"a", "b"}},
	{"!=", is_unequal, 2, {"a", "b"}},
	{"ne", is_unequal, 2, {"a", "b"}},
	{">", is_greater, 2, {"a", "b"}},
	{"gt", is_greater, 2, {"a", "b"}},
	{"greaterthan", is_greater, 2, {"a", "b"}},
	{">=", is_at_least, 2, {"a", "b"}},
	{"ge", is_at_least, 2, {"a", "b"}},
	{"<", is_less, 2, {"a", "b"}},
	{"lt", is_less, 2, {"a", "b"}},
	{"lessthan", is_less, 2, {"a", "b"}},
	{"<=", is_at_most, 2, {"a", "b"}},
	{"le", is_at_most, 2, {"a", "b"}},
	{NULL},
};
