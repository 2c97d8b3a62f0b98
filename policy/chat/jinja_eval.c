/* jinja_eval.c - expressions: a node and its scope to a value. */
#include <string.h>

#include "policy/chat/jinja_internal.h"

/* ---- operators ---- */

static struct value eval_compare(struct job *job, struct scope *scope, const struct node *node)
{
	struct value left = jinja_eval(job, scope, node->a);

	for (size_t i = 0; i < node->n_items; i++) {
		struct value right = jinja_eval(job, scope, node->items[i]->a);
		job->line = node->line;
		if (!jinja_compare(job, node->items[i]->op, left, right))
			return value_bool(false);
		left = right;
	}
	return value_bool(true);
}

static struct value eval_binary(struct job *job, struct scope *scope, const struct node *node)
{
	struct value a = jinja_eval(job, scope, node->a), b = jinja_eval(job, scope, node->b);

	job->line = node->line;
	return jinja_binary(job, node->op, a, b);
}

static struct value eval_sign(struct job *job, struct scope *scope, const struct node *node)
{
	struct value value = jinja_eval(job, scope, node->a);
	bool negative = node->kind == NODE_NEGATIVE;

	job->line = node->line;
	if (value.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, value);
	if (value.kind == VALUE_FLOAT)
		return value_float(negative ? -value.real : value.real);
	if (!value_is_integer(value))
		jinja_fail(job, ERR_INVALID, "a sign needs a number, found %s", jinja_kind_name(value));
	return negative ? jinja_binary(job, TOKEN_SUB, value_int(0), value) : value_int(value_integer(value));
}

static struct value eval_concat(struct job *job, struct scope *scope, const struct node *node)
{
	struct list *list = jinja_list(job, node->n_items);
	size_t mark = job->n_out;

	for (size_t i = 0; i < list->n; i++)
		list->items[i] = jinja_eval(job, scope, node->items[i]);
	job->line = node->line;
	for (size_t i = 0; i < list->n; i++)
		jinja_put_str(job, list->items[i]);
	return value_text(jinja_cut(job, mark));
}

/* ---- access ---- */

static struct value method_value(struct job *job, const struct builtin *method, struct value self)
{
	struct function *function = jinja_alloc(job, sizeof *function);

	*function = (struct function){method, self};
	return (struct value){.kind = VALUE_FUNCTION, .function = function};
}

/* Attributes that Python has and the sandbox hides: what changes a value, and __internals__. */
static bool is_hidden(struct value of, const char *name)
{
	static const char *const of_list[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse",
	                                      "sort", NULL};
	static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
	const char *const *hidden = of.kind == VALUE_LIST ? of_list : of_dict;
	size_t n = strlen(name);

	for (; *hidden; hidden++)
		if (strcmp(name, *hidden) == 0)
			return true;
	return n > 4 && strncmp(name, "__", 2) == 0 && strcmp(name + n - 2, "__") == 0;
}

static const struct builtin *method_find(struct value of, const char *name)
{
	const struct builtin *method;

	switch (of.kind) {
	case VALUE_TEXT:
		method = jinja_builtin_find(jinja_text_methods, name);
		if (!method)
			method = jinja_builtin_find(jinja_split_methods, name);
		return method ? method : jinja_builtin_find(jinja_case_methods, name);
	case VALUE_DICT: return jinja_builtin_find(jinja_dict_methods, name);
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_RANGE: return jinja_builtin_find(jinja_list_methods, name);
	case VALUE_LOOP: return jinja_builtin_find(jinja_loop_methods, name);
	default: return NULL;
	}
}

/* getattr() of Python; missing if there is no such attribute. */
static struct value attribute(struct job *job, struct value of, const struct text *name, const struct node *node)
{
	const struct builtin *method = method_find(of, name->bytes);

	if (method)
		return method_value(job, method, of);
	if (of.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, of);
	if (of.kind == VALUE_LOOP)
		return jinja_loop_attribute(job, of.loop, name->bytes);
	if (of.kind == VALUE_NAMESPACE) {
		const struct value *found = jinja_dict_get(job, of.dict, value_text(name));
		return found ? *found : (struct value){.kind = VALUE_MISSING};
	}
	if ((of.kind == VALUE_LIST || of.kind == VALUE_DICT) && is_hidden(of, name->bytes))
		return value_undefined(node);
	return (struct value){.kind = VALUE_MISSING};
}

/* of[key] of Python; missing if there is no such element. */
static struct value element(struct job *job, struct value of, struct value key)
{
	struct value none = {.kind = VALUE_MISSING};
	size_t n;

	if (of.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, of);
	if (of.kind == VALUE_DICT) {
		if (key.kind == VALUE_LIST || key.kind == VALUE_DICT)
			return none;
		const struct value *found = jinja_dict_get(job, of.dict, key);
		return found ? *found : none;
	}
	bool indexed = of.kind >= VALUE_TEXT && of.kind <= VALUE_RANGE;
	if (!indexed || !value_is_integer(key) || !jinja_length(job, of, &n))
		return none;
	int64_t i = value_integer(key);
	i += i < 0 ? (int64_t)n : 0;
	if (i < 0 || i >= (int64_t)n)
		return none;
	if (of.kind == VALUE_TEXT)
		return jinja_slice(job, of, value_int(i), value_int(i + 1), none);
	return of.list->items[i];
}

struct value jinja_getattr(struct job *job, struct value of, const struct text *name, const struct node *node)
{
	struct value found = attribute(job, of, name, node);

	if (found.kind == VALUE_MISSING)
		found = element(job, of, value_text(name));
	return found.kind == VALUE_MISSING ? value_undefined(node) : found;
}

struct value jinja_getitem(struct job *job, struct value of, struct value key, const struct node *node)
{
	struct value found = element(job, of, key);

	if (found.kind == VALUE_MISSING && key.kind == VALUE_TEXT)
		found = attribute(job, of, key.text, node);
	return found.kind == VALUE_MISSING ? value_undefined(node) : found;
}

static struct value eval_name(struct job *job, struct scope *scope, const struct node *node)
{
	const struct value *found = jinja_lookup(job, scope, node->name);

	if (found)
		return *found;
	const struct builtin *function = jinja_builtin_find(jinja_functions, node->name->bytes);
	if (function)
		return method_value(job, function, (struct value){.kind = VALUE_MISSING});
	return value_undefined(node);
}

static struct value eval_getattr(struct job *job, struct scope *scope, const struct node *node)
{
	struct value of = jinja_eval(job, scope, node->a);

	job->line = node->line;
	return jinja_getattr(job, of, node->name, node);
}

static struct value eval_getitem(struct job *job, struct scope *scope, const struct node *node)
{
	struct value of = jinja_eval(job, scope, node->a), key = jinja_eval(job, scope, node->b);

	job->line = node->line;
	return jinja_getitem(job, of, key, node);
}

static struct value eval_slice(struct job *job, struct scope *scope, const struct node *node)
{
	struct value none = {.kind = VALUE_MISSING}, of = jinja_eval(job, scope, node->a);
	struct value start = node->b ? jinja_eval(job, scope, node->b) : none;
	struct value stop = node->c ? jinja_eval(job, scope, node->c) : none;
	struct value step = node->d ? jinja_eval(job, scope, node->d) : none;

	job->line = node->line;
	return jinja_slice(job, of, start, stop, step);
}

/* ---- calls ---- */

struct call jinja_arguments(struct job *job, struct scope *scope, const struct node *node, struct value first)
{
	struct call call = {0};

	call.args = jinja_alloc(job, (node->n_items + 1) * sizeof *call.args);
	call.named = jinja_alloc(job, (node->n_items + 1) * sizeof *call.named); /* one more for a caller */
	if (first.kind != VALUE_MISSING)
		call.args[call.n_args++] = first;
	for (size_t i = 0; i < node->n_items; i++) {
		const struct node *item = node->items[i];
		if (item->kind == NODE_KEYWORD)
			call.named[call.n_named++] = (struct named){item->name, jinja_eval(job, scope, item->a)};
		else
			call.args[call.n_args++] = jinja_eval(job, scope, item);
	}
	return call;
}

static struct value eval_call(struct job *job, struct scope *scope, const struct node *node)
{
	struct value callee = jinja_eval(job, scope, node->a), self = {.kind = VALUE_MISSING};

	if (callee.kind == VALUE_FUNCTION)
		self = callee.function->self;
	struct call call = jinja_arguments(job, scope, node, self);
	job->line = node->line;
	if (callee.kind == VALUE_FUNCTION)
		return jinja_builtin_call(job, callee.function->builtin, &call);
	if (callee.kind == VALUE_MACRO)
		return jinja_macro_call(job, callee.macro, call);
	if (callee.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, callee);
	jinja_fail(job, ERR_INVALID, "%s cannot be called", jinja_kind_name(callee));
}

static struct value filter(struct job *job, struct scope *scope, const struct node *node, struct value value)
{
	struct call call = jinja_arguments(job, scope, node, value);

	job->line = node->line;
	return jinja_filter(job, node->name->bytes, &call);
}

struct value jinja_eval_filters(struct job *job, struct scope *scope, const struct node *node,
                                struct value value)
{
	jinja_descend(job);
	if (node->a)
		value = jinja_eval_filters(job, scope, node->a, value);
	job->depth--;
	return filter(job, scope, node, value);
}

static struct value eval_test(struct job *job, struct scope *scope, const struct node *node)
{
	struct call call = jinja_arguments(job, scope, node, jinja_eval(job, scope, node->a));

	job->line = node->line;
	return value_bool(jinja_test(job, node->name->bytes, &call));
}

/* ---- literals ---- */

static struct value eval_list(struct job *job, struct scope *scope, const struct node *node)
{
	struct list *list = jinja_list(job, node->n_items);

	for (size_t i = 0; i < list->n; i++)
		list->items[i] = jinja_eval(job, scope, node->items[i]);
	return value_list(node->kind == NODE_TUPLE ? VALUE_TUPLE : VALUE_LIST, list);
}

static struct value eval_dict(struct job *job, struct scope *scope, const struct node *node)
{
	struct dict *dict = jinja_dict(job, node->n_items / 2);

	for (size_t i = 0; i < node->n_items; i += 2) {
		struct value key = jinja_eval(job, scope, node->items[i]);
		struct value value = jinja_eval(job, scope, node->items[i + 1]);
		job->line = node->line;
		jinja_dict_set(job, dict, key, value);
	}
	return (struct value){.kind = VALUE_DICT, .dict = dict};
}

static struct value eval_condition(struct job *job, struct scope *scope, const struct node *node)
{
	if (jinja_truth(jinja_eval(job, scope, node->b)))
		return jinja_eval(job, scope, node->a);
	return node->c ? jinja_eval(job, scope, node->c) : value_undefined(node);
}

static struct value eval_logic(struct job *job, struct scope *scope, const struct node *node)
{
	struct value value = jinja_eval(job, scope, node->a);

	if (node->kind == NODE_NOT)
		return value_bool(!jinja_truth(value));
	return jinja_truth(value) == (node->kind == NODE_OR) ? value : jinja_eval(job, scope, node->b);
}

struct value jinja_eval(struct job *job, struct scope *scope, const struct node *node)
{
	struct value value;

	jinja_charge(job, 1);
	jinja_descend(job);
	job->line = node->line;
	switch (node->kind) {
	case NODE_CONST: value = node->value; break;
	case NODE_NAME: value = eval_name(job, scope, node); break;
	case NODE_LIST:
	case NODE_TUPLE: value = eval_list(job, scope, node); break;
	case NODE_DICT: value = eval_dict(job, scope, node); break;
	case NODE_GETATTR: value = eval_getattr(job, scope, node); break;
	case NODE_GETITEM: value = eval_getitem(job, scope, node); break;
	case NODE_SLICE: value = eval_slice(job, scope, node); break;
	case NODE_CALL: value = eval_call(job, scope, node); break;
	case NODE_FILTER: value = filter(job, scope, node, jinja_eval(job, scope, node->a)); break;
	case NODE_TEST: value = eval_test(job, scope, node); break;
	case NODE_NEGATIVE:
	case NODE_POSITIVE: value = eval_sign(job, scope, node); break;
	case NODE_BINARY: value = eval_binary(job, scope, node); break;
	case NODE_CONCAT: value = eval_concat(job, scope, node); break;
	case NODE_COMPARE: value = eval_compare(job, scope, node); break;
	case NODE_CONDITION: value = eval_condition(job, scope, node); break;
	default: value = eval_logic(job, scope, node); break; /* not, and, or */
	}
	job->depth--;
	return value;
}
