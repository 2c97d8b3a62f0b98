/* jinja_value.c - values: made, compared, searched, as Python's built-in types do it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "policy/chat/jinja.h"
#include "policy/chat/jinja_internal.h"

const struct text *jinja_text(struct job *job, const char *bytes, size_t n)
{
	struct text *text = jinja_alloc(job, sizeof *text + n + 1);

	memcpy(text->bytes, bytes, n);
	text->n = n;
	text->ascii = true;
	for (size_t i = 0; i < n; i++)
		text->ascii &= (unsigned char)bytes[i] < 0x80;
	return text;
}

const struct text *jinja_safe(struct job *job, const struct text *text)
{
	struct text *safe = jinja_alloc(job, sizeof *safe + text->n + 1);

	memcpy(safe, text, sizeof *safe + text->n + 1);
	safe->safe = true;
	return safe;
}

struct list *jinja_list(struct job *job, size_t n)
{
	if (n > JINJA_MEMORY_MAX / sizeof(struct value))
		jinja_fail(job, ERR_TOO_BIG, "a list of %zu elements is too long", n);
	struct list *list = jinja_alloc(job, sizeof *list + n * sizeof *list->items);
	list->n = n;
	return list;
}

struct value jinja_iterator(struct job *job, const struct list *list)
{
	struct iterator *iterator = jinja_alloc(job, sizeof *iterator);

	iterator->list = list;
	return (struct value){.kind = VALUE_ITERATOR, .iterator = iterator};
}

/* ---- dict ---- */

static void dict_grow(struct job *job, struct dict *dict, size_t capacity)
{
	struct pair *pairs = jinja_alloc(job, capacity * sizeof *pairs);

	if (dict->n > 0)
		memcpy(pairs, dict->pairs, dict->n * sizeof *pairs);
	dict->pairs = pairs;
	dict->capacity = capacity;
}

struct dict *jinja_dict(struct job *job, size_t capacity)
{
	struct dict *dict = jinja_alloc(job, sizeof *dict);

	dict_grow(job, dict, capacity);
	return dict;
}

static void dict_add(struct job *job, struct dict *dict, struct value key, struct value value)
{
	if (dict->n == dict->capacity)
		dict_grow(job, dict, 2 * dict->capacity + 4);
	dict->pairs[dict->n++] = (struct pair){key, value};
}

static void key_check(struct job *job, struct value key)
{
	if (key.kind == VALUE_LIST || key.kind == VALUE_DICT)
		jinja_fail(job, ERR_INVALID, "%s cannot be a key", jinja_kind_name(key));
	if (key.kind == VALUE_TUPLE)
		for (size_t i = 0; i < key.list->n; i++) {
			jinja_descend(job);
			key_check(job, key.list->items[i]);
			job->depth--;
		}
}

static struct pair *dict_find(struct job *job, const struct dict *dict, struct value key)
{
	key_check(job, key);
	jinja_charge(job, 1 + dict->n / 8);
	for (size_t i = 0; i < dict->n; i++)
		if (jinja_equal(job, dict->pairs[i].key, key))
			return &dict->pairs[i];
	return NULL;
}

const struct value *jinja_dict_get(struct job *job, const struct dict *dict, struct value key)
{
	const struct pair *pair = dict_find(job, dict, key);

	return pair ? &pair->value : NULL;
}

void jinja_dict_set(struct job *job, struct dict *dict, struct value key, struct value value)
{
	struct pair *pair = dict_find(job, dict, key);

	if (pair)
		pair->value = value;
	else
		dict_add(job, dict, key, value);
}

/* ---- from JSON ---- */

static struct value from_object(struct job *job, json_t *json)
{
	struct dict *dict = jinja_dict(job, json_object_size(json));

	for (void *at = json_object_iter(json); at; at = json_object_iter_next(json, at)) {
		const char *key = json_object_iter_key(at);
		dict_add(job, dict, value_text(jinja_text(job, key, strlen(key))),
		         jinja_from_json(job, json_object_iter_value(at)));
	}
	return (struct value){.kind = VALUE_DICT, .dict = dict};
}

static struct value from_array(struct job *job, const json_t *json)
{
	struct list *list = jinja_list(job, json_array_size(json));

	for (size_t i = 0; i < list->n; i++)
		list->items[i] = jinja_from_json(job, json_array_get(json, i));
	return value_list(VALUE_LIST, list);
}

struct value jinja_from_json(struct job *job, json_t *json)
{
	struct value value = {.kind = VALUE_NONE};

	jinja_descend(job);
	switch (json_typeof(json)) {
	case JSON_OBJECT: value = from_object(job, json); break;
	case JSON_ARRAY: value = from_array(job, json); break;
	case JSON_STRING:
		value = value_text(jinja_text(job, json_string_value(json), json_string_length(json)));
		break;
	case JSON_INTEGER: value = value_int(json_integer_value(json)); break;
	case JSON_REAL: value = value_float(json_real_value(json)); break;
	case JSON_TRUE: value = value_bool(true); break;
	case JSON_FALSE: value = value_bool(false); break;
	case JSON_NULL: break;
	}
	job->depth--;
	return value;
}

/* ---- questions ---- */

const char *jinja_kind_name(struct value value)
{
	static const char *const names[] = {
		"nothing", "an undefined value", "none", "a boolean", "an integer", "a float", "a string", "a list",
		"a tuple", "a range", "a view of a dict", "an iterator", "a dict", "a namespace", "a loop", "a macro",
		"a function"};

	return names[value.kind];
}

_Noreturn void jinja_fail_undefined(struct job *job, struct value value)
{
	const struct node *origin = value.origin;

	if (origin && origin->kind == NODE_NAME)
		jinja_fail(job, ERR_INVALID, "\"%s\" is undefined", origin->name->bytes);
	if (origin && origin->kind == NODE_GETATTR)
		jinja_fail(job, ERR_INVALID, "\".%s\" is not there, or a template may not use it",
		           origin->name->bytes);
	if (origin && origin->kind == NODE_GETITEM && origin->b->kind == NODE_CONST &&
	    origin->b->value.kind == VALUE_TEXT)
		jinja_fail(job, ERR_INVALID, "[\"%s\"] is not there, or a template may not use it",
		           origin->b->value.text->bytes);
	if (origin && origin->kind == NODE_PARAMETER)
		jinja_fail(job, ERR_INVALID, "parameter \"%s\" was not given", origin->name->bytes);
	jinja_fail(job, ERR_INVALID, "a value is undefined");
}

bool jinja_length(struct job *job, struct value value, size_t *n)
{
	switch (value.kind) {
	case VALUE_UNDEFINED: *n = 0; return true;
	case VALUE_TEXT:
		jinja_charge(job, value.text->n / STEP_BYTES);
		*n = jinja_text_length(value.text);
		return true;
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_RANGE:
	case VALUE_VIEW: *n = value.list->n; return true;
	case VALUE_DICT: *n = value.dict->n; return true;
	case VALUE_LOOP: *n = (size_t)jinja_loop_attribute(job, value.loop, "length").integer; return true;
	default: return false;
	}
}

bool jinja_truth(struct value value)
{
	switch (value.kind) {
	case VALUE_MISSING:
	case VALUE_UNDEFINED:
	case VALUE_NONE: return false;
	case VALUE_BOOL: return value.truth;
	case VALUE_INT: return value.integer != 0;
	case VALUE_FLOAT: return value.real != 0;
	case VALUE_TEXT: return value.text->n > 0;
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_RANGE:
	case VALUE_VIEW: return value.list->n > 0;
	case VALUE_DICT: return value.dict->n > 0;
	default: return true;
	}
}

static bool is_number(struct value value)
{
	return value_is_integer(value) || value.kind == VALUE_FLOAT;
}

static double real_of(struct value value)
{
	return value.kind == VALUE_FLOAT ? value.real : (double)value_integer(value);
}

static bool lists_equal(struct job *job, const struct list *a, const struct list *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!jinja_equal(job, a->items[i], b->items[i]))
			return false;
	return true;
}

static bool dicts_equal(struct job *job, const struct dict *a, const struct dict *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		const struct value *other = jinja_dict_get(job, b, a->pairs[i].key);
		if (!other || !jinja_equal(job, a->pairs[i].value, *other))
			return false;
	}
	return true;
}

static bool texts_equal(struct job *job, const struct text *a, const struct text *b)
{
	if (a->n != b->n)
		return false;
	jinja_charge(job, a->n / STEP_BYTES);
	return memcmp(a->bytes, b->bytes, a->n) == 0;
}

bool jinja_equal(struct job *job, struct value a, struct value b)
{
	bool equal;

	jinja_charge(job, 1);
	if (value_is_integer(a) && value_is_integer(b))
		return value_integer(a) == value_integer(b);
	if (is_number(a) && is_number(b))
		return real_of(a) == real_of(b);
	if (a.kind != b.kind)
		return false;
	jinja_descend(job);
	switch (a.kind) {
	case VALUE_TEXT: equal = texts_equal(job, a.text, b.text); break;
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_RANGE:
	case VALUE_VIEW: equal = lists_equal(job, a.list, b.list); break;
	case VALUE_DICT: equal = dicts_equal(job, a.dict, b.dict); break;
	case VALUE_UNDEFINED:
	case VALUE_NONE: equal = true; break;
	case VALUE_FUNCTION: equal = a.function == b.function; break;
	default: equal = a.dict == b.dict; break; /* the same object */
	}
	job->depth--;
	return equal;
}

static bool text_less(struct job *job, const struct text *a, const struct text *b)
{
	size_t n = a->n < b->n ? a->n : b->n;
	int order = memcmp(a->bytes, b->bytes, n); /* UTF-8 orders as its code points do */

	jinja_charge(job, n / STEP_BYTES);
	return order != 0 ? order < 0 : a->n < b->n;
}

static bool list_less(struct job *job, const struct list *a, const struct list *b)
{
	size_t n = a->n < b->n ? a->n : b->n;

	for (size_t i = 0; i < n; i++)
		if (!jinja_equal(job, a->items[i], b->items[i]))
			return jinja_less(job, a->items[i], b->items[i]);
	return a->n < b->n;
}

bool jinja_less(struct job *job, struct value a, struct value b)
{
	bool less;

	jinja_charge(job, 1);
	if (value_is_integer(a) && value_is_integer(b))
		return value_integer(a) < value_integer(b);
	if (is_number(a) && is_number(b))
		return real_of(a) < real_of(b);
	if (a.kind == VALUE_TEXT && b.kind == VALUE_TEXT)
		return text_less(job, a.text, b.text);
	if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, a.kind == VALUE_UNDEFINED ? a : b);
	if (a.kind != b.kind || (a.kind != VALUE_LIST && a.kind != VALUE_TUPLE))
		jinja_fail(job, ERR_INVALID, "cannot order %s and %s", jinja_kind_name(a), jinja_kind_name(b));
	jinja_descend(job);
	less = list_less(job, a.list, b.list);
	job->depth--;
	return less;
}

bool jinja_contains(struct job *job, struct value container, struct value item)
{
	if (container.kind == VALUE_DICT)
		return jinja_dict_get(job, container.dict, item) != NULL;
	if (container.kind == VALUE_TEXT) {
		if (item.kind == VALUE_UNDEFINED)
			jinja_fail_undefined(job, item);
		if (item.kind != VALUE_TEXT)
			jinja_fail(job, ERR_INVALID, "cannot look for %s in a string", jinja_kind_name(item));
		jinja_charge(job, (container.text->n + item.text->n) / STEP_BYTES);
		return strstr(container.text->bytes, item.text->bytes) != NULL;
	}
	const struct list *list = jinja_elements(job, container);
	for (size_t i = 0; i < list->n; i++)
		if (jinja_equal(job, list->items[i], item))
			return true;
	return false;
}

/* ---- elements ---- */

static const struct list *characters(struct job *job, const struct text *text)
{
	struct list *list = jinja_list(job, jinja_text_length(text));
	size_t at = 0;

	for (size_t i = 0; i < list->n; i++) {
		size_t next = at + 1;
		while (next < text->n && ((unsigned char)text->bytes[next] & 0xC0) == 0x80)
			next++;
		list->items[i] = value_text(jinja_text(job, text->bytes + at, next - at));
		at = next;
	}
	return list;
}

static const struct list *keys(struct job *job, const struct dict *dict)
{
	struct list *list = jinja_list(job, dict->n);

	for (size_t i = 0; i < dict->n; i++)
		list->items[i] = dict->pairs[i].key;
	return list;
}

static const struct list *rest(struct job *job, struct iterator *iterator)
{
	struct list *list = jinja_list(job, iterator->list->n - iterator->at);

	if (list->n > 0)
		memcpy(list->items, iterator->list->items + iterator->at, list->n * sizeof *list->items);
	iterator->at = iterator->list->n;
	return list;
}

const struct list *jinja_elements(struct job *job, struct value value)
{
	switch (value.kind) {
	case VALUE_UNDEFINED: return jinja_list(job, 0);
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_RANGE:
	case VALUE_VIEW: return value.list;
	case VALUE_TEXT: return characters(job, value.text);
	case VALUE_DICT: return keys(job, value.dict);
	case VALUE_ITERATOR: return rest(job, value.iterator);
	default:
		jinja_fail(job, ERR_INVALID, "%s has no elements, expected a list, dict or string",
		           jinja_kind_name(value));
	}
}
