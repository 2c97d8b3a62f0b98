/* jinja_list_filters.c - filters of collections. */
#include <stdlib.h>
#include <string.h>

#include "policy/chat/jinja_internal.h"

static struct value missing(void)
{
	return (struct value){.kind = VALUE_MISSING};
}

/* item.a.b.0 for attribute "a.b.0"; an integer is an index, none and missing the item itself. */
static struct value attribute_of(struct job *job, struct value item, struct value attribute)
{
	if (!jinja_arg_given(attribute))
		return item;
	if (attribute.kind != VALUE_TEXT)
		return jinja_getitem(job, item, attribute, NULL);
	for (const char *at = attribute.text->bytes;; at++) {
		size_t n = strcspn(at, ".");
		bool digits = n > 0 && n < 10 && strspn(at, "0123456789") >= n;
		struct value key = digits ? value_int(atol(at)) : value_text(jinja_text(job, at, n));
		item = jinja_getitem(job, item, key, NULL);
		at += n;
		if (!*at)
			return item;
	}
}

/* The attribute of an item to sort by: a string without regard to case, unless case_sensitive. */
static struct value key_of(struct job *job, struct value item, struct value attribute,
                           struct value case_sensitive)
{
	struct value key = attribute_of(job, item, attribute);
	size_t mark = job->n_out;

	if (key.kind != VALUE_TEXT || jinja_arg_bool(case_sensitive, false))
		return key;
	jinja_put_case(job, key.text->bytes, key.text->n, CASE_LOWER);
	return value_text(jinja_cut(job, mark));
}

static struct value join(struct job *job, const struct call *call)
{
	const struct list *list = jinja_elements(job, call->args[0]);
	const struct text *gap = call->args[1].kind == VALUE_MISSING ? jinja_text(job, "", 0)
	                                                             : jinja_str(job, call->args[1]);
	size_t mark = job->n_out;

	for (size_t i = 0; i < list->n; i++) {
		if (i > 0)
			jinja_put(job, gap->bytes, gap->n);
		jinja_charge(job, 1);
		jinja_put_str(job, attribute_of(job, list->items[i], call->args[2]));
	}
	return value_text(jinja_cut(job, mark));
}

static struct value first(struct job *job, const struct call *call)
{
	if (call->args[0].kind == VALUE_ITERATOR) {
		struct iterator *from = call->args[0].iterator;
		return from->at < from->list->n ? from->list->items[from->at++] : value_undefined(NULL);
	}
	const struct list *list = jinja_elements(job, call->args[0]);
	return list->n > 0 ? list->items[0] : value_undefined(NULL);
}

static struct value last(struct job *job, const struct call *call)
{
	if (call->args[0].kind == VALUE_ITERATOR)
		jinja_fail(job, ERR_INVALID, "an iterator has no last element; make it a list first");
	const struct list *list = jinja_elements(job, call->args[0]);
	return list->n > 0 ? list->items[list->n - 1] : value_undefined(NULL);
}

static struct value list(struct job *job, const struct call *call)
{
	return value_list(VALUE_LIST, jinja_elements(job, call->args[0]));
}

static struct value reverse(struct job *job, const struct call *call)
{
	if (call->args[0].kind == VALUE_TEXT)
		return jinja_slice(job, call->args[0], missing(), missing(), value_int(-1));
	const struct list *from = jinja_elements(job, call->args[0]);
	struct list *to = jinja_list(job, from->n);
	for (size_t i = 0; i < from->n; i++)
		to->items[i] = from->items[from->n - 1 - i];
	if (call->args[0].kind == VALUE_ITERATOR)
		return value_list(VALUE_LIST, to);
	return jinja_iterator(job, to);
}

static struct value items(struct job *job, const struct call *call)
{
	if (call->args[0].kind == VALUE_UNDEFINED)
		return jinja_iterator(job, jinja_list(job, 0));
	if (call->args[0].kind != VALUE_DICT)
		jinja_fail(job, ERR_INVALID, "items needs a dict, found %s", jinja_kind_name(call->args[0]));
	return jinja_iterator(job, jinja_pairs(job, call->args[0].dict));
}

/* ---- order ---- */

struct keyed {
	struct value key, item;
};

/* Merge sort, stable; reversed keeps the order of equal ones too, as Python does. */
static void sort_keyed(struct job *job, struct keyed *items, struct keyed *scratch, size_t n, bool reversed)
{
	size_t half = n / 2, left = 0, right = half;

	if (n < 2)
		return;
	sort_keyed(job, items, scratch, half, reversed);
	sort_keyed(job, items + half, scratch, n - half, reversed);
	memcpy(scratch, items, n * sizeof *items);
	for (size_t i = 0; i < n; i++) {
		bool take_right = left == half;
		if (!take_right && right < n)
			take_right = reversed ? jinja_less(job, scratch[left].key, scratch[right].key)
			                      : jinja_less(job, scratch[right].key, scratch[left].key);
		items[i] = take_right ? scratch[right++] : scratch[left++];
	}
}

static struct value sorted(struct job *job, struct keyed *items, size_t n, bool reversed)
{
	struct list *list = jinja_list(job, n);

	sort_keyed(job, items, jinja_alloc(job, n * sizeof *items), n, reversed);
	for (size_t i = 0; i < n; i++)
		list->items[i] = items[i].item;
	return value_list(VALUE_LIST, list);
}

/* The keys of an item for "a,b", as a list: lists order undefined values too, while they are equal. */
static struct value keys_of(struct job *job, struct value item, struct value attributes,
                            struct value case_sensitive)
{
	const struct text *comma = jinja_text(job, ",", 1);
	const struct list *parts = NULL;
	struct list *keys;

	if (attributes.kind == VALUE_TEXT)
		parts = jinja_split(job, attributes.text, comma);
	keys = jinja_list(job, parts ? parts->n : 1);
	for (size_t i = 0; i < keys->n; i++)
		keys->items[i] = key_of(job, item, parts ? parts->items[i] : attributes, case_sensitive);
	return value_list(VALUE_LIST, keys);
}

static struct value sort(struct job *job, const struct call *call)
{
	const struct list *from = jinja_elements(job, call->args[0]);
	struct keyed *items = jinja_alloc(job, from->n * sizeof *items);

	for (size_t i = 0; i < from->n; i++) {
		struct value keys = keys_of(job, from->items[i], call->args[3], call->args[2]);
		items[i] = (struct keyed){keys, from->items[i]};
	}
	return sorted(job, items, from->n, jinja_arg_bool(call->args[1], false));
}

static struct value dictsort(struct job *job, const struct call *call)
{
	const char *by = jinja_arg_text(job, call->args[2], "key")->bytes;
	bool by_key = strcmp(by, "key") == 0;

	if (call->args[0].kind != VALUE_DICT)
		jinja_fail(job, ERR_INVALID, "dictsort needs a dict, found %s", jinja_kind_name(call->args[0]));
	if (!by_key && strcmp(by, "value") != 0)
		jinja_fail(job, ERR_INVALID, "dictsort: by must be \"key\" or \"value\"");
	const struct list *pairs = jinja_pairs(job, call->args[0].dict);
	struct keyed *items = jinja_alloc(job, pairs->n * sizeof *items);
	for (size_t i = 0; i < pairs->n; i++) {
		struct value part = pairs->items[i].list->items[by_key ? 0 : 1];
		items[i] = (struct keyed){key_of(job, part, missing(), call->args[1]), pairs->items[i]};
	}
	return sorted(job, items, pairs->n, jinja_arg_bool(call->args[3], false));
}

static struct value extreme(struct job *job, const struct call *call, bool greatest)
{
	const struct list *list = jinja_elements(job, call->args[0]);
	struct value best = value_undefined(NULL), best_key = best;

	for (size_t i = 0; i < list->n; i++) {
		struct value key = key_of(job, list->items[i], call->args[2], call->args[1]);
		if (i == 0 || (greatest ? jinja_less(job, best_key, key) : jinja_less(job, key, best_key))) {
			best = list->items[i];
			best_key = key;
		}
	}
	return best;
}

static struct value min(struct job *job, const struct call *call)
{
	return extreme(job, call, false);
}

static struct value max(struct job *job, const struct call *call)
{
	return extreme(job, call, true);
}

static struct value sum(struct job *job, const struct call *call)
{
	const struct list *list = jinja_elements(job, call->args[0]);
	struct value total = call->args[2].kind == VALUE_MISSING ? value_int(0) : call->args[2];

	if (total.kind == VALUE_TEXT)
		jinja_fail(job, ERR_INVALID, "sum cannot add strings");
	for (size_t i = 0; i < list->n; i++)
		total = jinja_binary(job, TOKEN_ADD, total, attribute_of(job, list->items[i], call->args[1]));
	return total;
}

static struct value unique(struct job *job, const struct call *call)
{
	const struct list *from = jinja_elements(job, call->args[0]);
	struct list *to = jinja_list(job, from->n);
	struct dict *seen = jinja_dict(job, from->n);

	to->n = 0;
	for (size_t i = 0; i < from->n; i++) {
		struct value key = key_of(job, from->items[i], call->args[2], call->args[1]);
		if (jinja_dict_get(job, seen, key))
			continue;
		jinja_dict_set(job, seen, key, value_bool(true));
		to->items[to->n++] = from->items[i];
	}
	return jinja_iterator(job, to);
}

/* ---- map and select ---- */

/* What map and select visit: nothing if the value is false, be it a collection or not. */
static const struct list *visited(struct job *job, const struct call *call)
{
	return jinja_truth(call->args[0]) ? jinja_elements(job, call->args[0]) : jinja_list(job, 0);
}

static struct value named(const struct call *call, const char *name)
{
	for (size_t i = 0; i < call->n_named; i++)
		if (strcmp(call->named[i].name->bytes, name) == 0)
			return call->named[i].value;
	return missing();
}

/* The call of a filter or test on item, whose name stands at args[at] and its arguments after that. */
static struct call call_on(struct job *job, const struct call *call, size_t at, struct value item)
{
	struct call inner = *call;

	inner.n_args = call->n_args - at;
	inner.args = jinja_alloc(job, inner.n_args * sizeof *inner.args);
	memcpy(inner.args, call->args + at, inner.n_args * sizeof *inner.args);
	inner.args[0] = item;
	return inner;
}

static struct value map_item(struct job *job, const struct call *call, struct value item)
{
	struct value otherwise = named(call, "default");

	if (call->n_args > 1) {
		struct call inner = call_on(job, call, 1, item);
		return jinja_filter(job, jinja_arg_text(job, call->args[1], NULL)->bytes, &inner);
	}
	struct value value = attribute_of(job, item, named(call, "attribute"));
	return value.kind == VALUE_UNDEFINED && jinja_arg_given(otherwise) ? otherwise : value;
}

static struct value map(struct job *job, const struct call *call)
{
	bool attribute = named(call, "attribute").kind != VALUE_MISSING;
	size_t known = attribute + (named(call, "default").kind != VALUE_MISSING);
	const struct list *from = visited(job, call);
	struct list *to = jinja_list(job, from->n);

	if (from->n > 0 && call->n_args == 1 && (!attribute || call->n_named != known))
		jinja_fail(job, ERR_INVALID, "map needs a filter, or attribute=");
	for (size_t i = 0; i < from->n; i++)
		to->items[i] = map_item(job, call, from->items[i]);
	return jinja_iterator(job, to);
}

static bool is_selected(struct job *job, const struct call *call, size_t at, struct value item)
{
	if (call->n_args <= at)
		return jinja_truth(item);
	struct call inner = call_on(job, call, at, item);
	return jinja_test(job, jinja_arg_text(job, call->args[at], NULL)->bytes, &inner);
}

/* The items whose attribute (args[1], if by_attribute) passes the test, or fails it. */
static struct value selected(struct job *job, const struct call *call, bool by_attribute, bool wanted)
{
	const struct list *from = visited(job, call);
	struct list *to = jinja_list(job, from->n);

	if (from->n > 0 && by_attribute && call->n_args < 2)
		jinja_fail(job, ERR_INVALID, "the name of an attribute is missing");
	to->n = 0;
	for (size_t i = 0; i < from->n; i++) {
		struct value item = from->items[i];
		jinja_charge(job, 1);
		if (by_attribute)
			item = attribute_of(job, item, call->args[1]);
		if (is_selected(job, call, by_attribute ? 2 : 1, item) == wanted)
			to->items[to->n++] = from->items[i];
	}
	return jinja_iterator(job, to);
}

static struct value select(struct job *job, const struct call *call)
{
	return selected(job, call, false, true);
}

static struct value reject(struct job *job, const struct call *call)
{
	return selected(job, call, false, false);
}

static struct value select_attribute(struct job *job, const struct call *call)
{
	return selected(job, call, true, true);
}

static struct value reject_attribute(struct job *job, const struct call *call)
{
	return selected(job, call, true, false);
}

const struct builtin jinja_list_filters[] = {
	{"join", join, 1, {"value", "d", "attribute"}},
	{"first", first, 1, {"seq"}},
	{"last", last, 1, {"seq"}},
	{"list", list, 1, {"value"}},
	{"reverse", reverse, 1, {"value"}},
	{"items", items, 1, {"value"}},
	{"sort", sort, 1, {"value", "reverse", "case_sensitive", "attribute"}},
	{"dictsort", dictsort, 1, {"value", "case_sensitive", "by", "reverse"}},
	{"min", min, 1, {"value", "case_sensitive", "attribute"}},
	{"max", max, 1, {"value", "case_sensitive", "attribute"}},
	{"sum", sum, 1, {"iterable", "attribute", "start"}},
	{"unique", unique, 1, {"value", "case_sensitive", "attribute"}},
	{"map", map, 1, {NULL}},
	{"select", select, 1, {NULL}},
	{"reject", reject, 1, {NULL}},
	{"selectattr", select_attribute, 1, {NULL}},
	{"rejectattr", reject_attribute, 1, {NULL}},
	{NULL},
};
