/* jinja_functions.c - global functions, and the methods of dicts, lists and loops. */
#include <stdio.h>
#include <string.h>

#include "policy/chat/jinja.h"
#include "policy/chat/jinja_internal.h"

enum { RANGE_MAX = 100000 }; /* as in jinja2's sandbox */

static struct value range(struct job *job, const struct call *call)
{
	bool one = call->args[1].kind == VALUE_MISSING;
	int64_t start = one ? 0 : jinja_arg_int(job, call->args[0], 0);
	int64_t stop = jinja_arg_int(job, call->args[one ? 0 : 1], 0), step = jinja_arg_int(job, call->args[2], 1);

	if (step == 0)
		jinja_fail(job, ERR_INVALID, "range: the step cannot be 0");
	uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step, distance = 0;
	if (step > 0 ? start < stop : start > stop)
		distance = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
	uint64_t n = distance / stride + (distance % stride != 0);
	if (n > RANGE_MAX)
		jinja_fail(job, ERR_TOO_BIG, "a range has more than %d elements", RANGE_MAX);
	struct list *list = jinja_list(job, (size_t)n);
	for (size_t i = 0; i < list->n; i++)
		list->items[i] = value_int((int64_t)((uint64_t)start + i * (uint64_t)step));
	return value_list(VALUE_RANGE, list);
}

/* dict(dict, name=value, ...) and namespace of the same. */
static struct dict *dict_of(struct job *job, const struct call *call, const char *what)
{
	struct dict *dict = jinja_dict(job, call->n_named);

	if (call->n_args > 1 || (call->n_args == 1 && call->args[0].kind != VALUE_DICT))
		jinja_fail(job, ERR_UNSUPPORTED, "%s takes one dict and named arguments", what);
	if (call->n_args == 1)
		for (size_t i = 0; i < call->args[0].dict->n; i++)
			jinja_dict_set(job, dict, call->args[0].dict->pairs[i].key, call->args[0].dict->pairs[i].value);
	for (size_t i = 0; i < call->n_named; i++)
		jinja_dict_set(job, dict, value_text(call->named[i].name), call->named[i].value);
	return dict;
}

static struct value new_dict(struct job *job, const struct call *call)
{
	return (struct value){.kind = VALUE_DICT, .dict = dict_of(job, call, "dict")};
}

static struct value namespace(struct job *job, const struct call *call)
{
	return (struct value){.kind = VALUE_NAMESPACE, .dict = dict_of(job, call, "namespace")};
}

static struct value raise_exception(struct job *job, const struct call *call)
{
	jinja_fail(job, ERR_INVALID, "the template refuses: %s", jinja_str(job, call->args[0])->bytes);
}

/* One conversion of strftime for JINJA_NOW, as the C locale writes it; NULL if it is not supported. */
static const char *now_part(char letter)
{
	static const struct {
		char letter;
		const char *text;
	} parts[] = {{'a', "Fri"}, {'A', "Friday"}, {'b', "Jul"}, {'h', "Jul"}, {'B', "July"}, {'d', "26"},
	             {'e', "26"}, {'m', "07"}, {'y', "24"}, {'Y', "2024"}, {'H', "12"}, {'I', "12"}, {'M', "00"},
	             {'S', "00"}, {'p', "PM"}, {'f', "000000"}, {'j', "208"}, {'u', "5"}, {'w', "5"},
	             {'F', "2024-07-26"}, {'T', "12:00:00"}, {'R', "12:00"}, {'D', "07/26/24"}, {'x', "07/26/24"},
	             {'X', "12:00:00"}, {'c', "Fri Jul 26 12:00:00 2024"}, {'Z', ""}, {'z', ""}, {'%', "%"},
	             {'n', "\n"}, {'t', "\t"}};

	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (parts[i].letter == letter)
			return parts[i].text;
	return NULL;
}

static struct value strftime_now(struct job *job, const struct call *call)
{
	const char *at = jinja_arg_text(job, call->args[0], NULL)->bytes;
	size_t mark = job->n_out;

	for (; *at; at++) {
		size_t run = strcspn(at, "%");
		jinja_put(job, at, run);
		at += run;
		if (!*at)
			break;
		bool unpadded = at[1] == '-';
		at += unpadded ? 2 : 1;
		const char *part = now_part(*at);
		if (!part)
			jinja_fail(job, ERR_UNSUPPORTED, "strftime_now: %%%.1s is not supported", at);
		jinja_puts(job, part + (unpadded && part[0] == '0' && part[1] != '\0' ? 1 : 0));
	}
	return value_text(jinja_cut(job, mark));
}

const struct builtin jinja_functions[] = {
	{"range", range, 1, {"start", "stop", "step"}},
	{"dict", new_dict, 0, {NULL}},
	{"namespace", namespace, 0, {NULL}},
	{"raise_exception", raise_exception, 1, {"message"}},
	{"strftime_now", strftime_now, 1, {"format"}},
	{"cycler", NULL, 0, {NULL}},
	{"joiner", NULL, 0, {NULL}},
	{"lipsum", NULL, 0, {NULL}},
	{NULL},
};

/* ---- dict ---- */

static struct value get(struct job *job, const struct call *call)
{
	const struct value *found = jinja_dict_get(job, call->args[0].dict, call->args[1]);

	if (found)
		return *found;
	return call->args[2].kind == VALUE_MISSING ? (struct value){.kind = VALUE_NONE} : call->args[2];
}

static struct value pair_tuple(struct job *job, const struct pair *pair)
{
	struct list *tuple = jinja_list(job, 2);

	tuple->items[0] = pair->key;
	tuple->items[1] = pair->value;
	return value_list(VALUE_TUPLE, tuple);
}

const struct list *jinja_pairs(struct job *job, const struct dict *dict)
{
	struct list *list = jinja_list(job, dict->n);

	list->view = "dict_items";
	for (size_t i = 0; i < dict->n; i++)
		list->items[i] = pair_tuple(job, &dict->pairs[i]);
	return list;
}

static struct value items(struct job *job, const struct call *call)
{
	return value_list(VALUE_VIEW, jinja_pairs(job, call->args[0].dict));
}

static struct value keys(struct job *job, const struct call *call)
{
	const struct dict *of = call->args[0].dict;
	struct list *list = jinja_list(job, of->n);

	list->view = "dict_keys";
	for (size_t i = 0; i < of->n; i++)
		list->items[i] = of->pairs[i].key;
	return value_list(VALUE_VIEW, list);
}

static struct value values(struct job *job, const struct call *call)
{
	const struct dict *of = call->args[0].dict;
	struct list *list = jinja_list(job, of->n);

	list->view = "dict_values";
	for (size_t i = 0; i < of->n; i++)
		list->items[i] = of->pairs[i].value;
	return value_list(VALUE_VIEW, list);
}

static struct value itself(struct job *job, const struct call *call)
{
	(void)job;
	return call->args[0]; /* a copy, of what cannot be changed */
}

const struct builtin jinja_dict_methods[] = {
	{"get", get, 2, {"self", "key", "default"}},
	{"items", items, 1, {"self"}},
	{"keys", keys, 1, {"self"}},
	{"values", values, 1, {"self"}},
	{"copy", itself, 1, {"self"}},
	{"fromkeys", NULL, 0, {NULL}},
	{NULL},
};

/* ---- list ---- */

static struct value list_index(struct job *job, const struct call *call)
{
	const struct list *list = call->args[0].list;

	for (size_t i = 0; i < list->n; i++)
		if (jinja_equal(job, list->items[i], call->args[1]))
			return value_int((int64_t)i);
	jinja_fail(job, ERR_INVALID, "index: the value is not in the list");
}

static struct value list_count(struct job *job, const struct call *call)
{
	const struct list *list = call->args[0].list;
	int64_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		n += jinja_equal(job, list->items[i], call->args[1]);
	return value_int(n);
}

const struct builtin jinja_list_methods[] = {
	{"index", list_index, 2, {"self", "value"}},
	{"count", list_count, 2, {"self", "value"}},
	{"copy", itself, 1, {"self"}},
	{NULL},
};

/* ---- loop ---- */

static struct value cycle(struct job *job, const struct call *call)
{
	if (call->n_args < 2 || call->n_named > 0)
		jinja_fail(job, ERR_INVALID, "loop.cycle needs values");
	return call->args[1 + (size_t)call->args[0].loop->index0 % (call->n_args - 1)];
}

static struct value changed(struct job *job, const struct call *call)
{
	struct loop *loop = call->args[0].loop;
	struct list *now = jinja_list(job, call->n_args - 1);

	for (size_t i = 0; i < now->n; i++)
		now->items[i] = call->args[i + 1];
	struct value tuple = value_list(VALUE_TUPLE, now);
	bool differs = loop->changed.kind == VALUE_MISSING || !jinja_equal(job, loop->changed, tuple);
	loop->changed = tuple;
	return value_bool(differs);
}

const struct builtin jinja_loop_methods[] = {
	{"cycle", cycle, 0, {NULL}},
	{"changed", changed, 0, {NULL}},
	{NULL},
};
