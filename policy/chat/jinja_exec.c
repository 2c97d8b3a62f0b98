/* jinja_exec.c - statements.  A scope is what jinja2 makes one of: a loop's iteration, a macro, a block
 * set, filter, with, call or generation; `if` is none.  Names are looked up outwards, and set in the
 * innermost scope. */
#include <string.h>

#include "policy/chat/jinja_internal.h"

enum flow { GO_ON, BREAK, CONTINUE };

static enum flow exec(struct job *job, struct scope *scope, const struct node *node);

struct scope *jinja_scope(struct job *job, struct scope *parent)
{
	struct scope *scope = jinja_alloc(job, sizeof *scope);

	scope->parent = parent;
	return scope;
}

static bool names_equal(const struct text *a, const struct text *b)
{
	return a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0;
}

const struct value *jinja_lookup(struct job *job, const struct scope *scope, const struct text *name)
{
	size_t visited = 0;

	for (; scope; scope = scope->parent)
		for (const struct binding *at = scope->bindings; at; at = at->next, visited++)
			if (names_equal(at->name, name)) {
				jinja_charge(job, visited / 8);
				return &at->value;
			}
	jinja_charge(job, visited / 8);
	return NULL;
}

void jinja_bind(struct job *job, struct scope *scope, const struct text *name, struct value value)
{
	struct binding *at = scope->bindings;
	size_t visited = 0;

	for (; at && !names_equal(at->name, name); at = at->next)
		visited++;
	jinja_charge(job, visited / 8);
	if (!at) {
		at = jinja_alloc(job, sizeof *at);
		at->name = name;
		at->next = scope->bindings;
		scope->bindings = at;
	}
	at->value = value;
}

/* ---- assignment ---- */

static struct dict *namespace_of(struct job *job, struct scope *scope, const struct node *target)
{
	const struct value *found = jinja_lookup(job, scope, target->name);

	if (!found || found->kind != VALUE_NAMESPACE)
		jinja_fail(job, ERR_INVALID, "cannot set \"%s.%s\": \"%s\" is no namespace", target->name->bytes,
		           target->value.text->bytes, target->name->bytes);
	return found->dict;
}

static void assign(struct job *job, struct scope *scope, const struct node *target, struct value value)
{
	if (target->kind == NODE_NAME) {
		jinja_bind(job, scope, target->name, value);
		return;
	}
	if (target->kind == NODE_NSREF) {
		jinja_dict_set(job, namespace_of(job, scope, target), target->value, value);
		return;
	}
	const struct list *list = jinja_elements(job, value);
	if (list->n != target->n_items)
		jinja_fail(job, ERR_INVALID, "expected %zu values to unpack, found %zu", target->n_items, list->n);
	for (size_t i = 0; i < list->n; i++)
		assign(job, scope, target->items[i], list->items[i]);
}

static void exec_set(struct job *job, struct scope *scope, const struct node *node)
{
	if (node->a->kind == NODE_NSREF)
		namespace_of(job, scope, node->a);
	struct value value = jinja_eval(job, scope, node->b);
	job->line = node->line;
	assign(job, scope, node->a, value);
}

/* The text that a body writes, through filters unless they are NULL; broken off if *flow says so. */
static struct value capture(struct job *job, struct scope *scope, const struct node *body,
                            const struct node *filters, enum flow *flow)
{
	size_t mark = job->n_out;
	struct scope *inner = jinja_scope(job, scope);

	*flow = exec(job, inner, body);
	struct value text = value_text(jinja_cut(job, mark));
	return filters && *flow == GO_ON ? jinja_eval_filters(job, inner, filters, text) : text;
}

static enum flow exec_set_block(struct job *job, struct scope *scope, const struct node *node)
{
	enum flow flow;
	struct value text = capture(job, scope, node->c, node->b, &flow);

	if (flow == GO_ON)
		assign(job, scope, node->a, text);
	return flow;
}

static enum flow exec_filter_block(struct job *job, struct scope *scope, const struct node *node)
{
	enum flow flow;
	struct value text = capture(job, scope, node->c, node->b, &flow);

	if (flow == GO_ON)
		jinja_put_str(job, text);
	return flow;
}

static enum flow exec_with(struct job *job, struct scope *scope, const struct node *node)
{
	struct scope *inner = jinja_scope(job, scope);

	for (size_t i = 0; i < node->n_items; i++)
		assign(job, inner, node->items[i]->a, jinja_eval(job, scope, node->items[i]->b));
	return exec(job, inner, node->c);
}

/* ---- loops ---- */

/* The next element that passes the loop's filter; missing at the end. */
static struct value loop_fetch(struct job *job, struct loop *loop)
{
	while (loop->at < loop->source->n) {
		struct value element = loop->source->items[loop->at++];
		jinja_charge(job, 1);
		if (!loop->filtered)
			return element;
		struct scope *scope = jinja_scope(job, loop->scope);
		assign(job, scope, loop->node->a, element);
		if (jinja_truth(jinja_eval(job, scope, loop->node->d)))
			return element;
	}
	return (struct value){.kind = VALUE_MISSING};
}

static struct value loop_peek(struct job *job, struct loop *loop)
{
	if (loop->after.kind == VALUE_MISSING)
		loop->after = loop_fetch(job, loop);
	return loop->after;
}

static bool loop_next(struct job *job, struct loop *loop)
{
	struct value next = loop_peek(job, loop);

	if (next.kind == VALUE_MISSING)
		return false;
	loop->after.kind = VALUE_MISSING;
	loop->before = loop->current;
	loop->current = next;
	loop->index0++;
	return true;
}

/* How many elements the loop visits: those that are left are filtered now. */
static int64_t loop_length(struct job *job, struct loop *loop)
{
	if (loop->filtered) {
		struct list *left = jinja_list(job, loop->source->n - loop->at + 1);
		left->n = 0;
		for (struct value next; (next = loop_fetch(job, loop)).kind != VALUE_MISSING;)
			left->items[left->n++] = next;
		loop->n = loop->index0 + 1 + (loop->after.kind != VALUE_MISSING) + (int64_t)left->n;
		loop->source = left;
		loop->at = 0;
		loop->filtered = false;
	}
	return loop->n;
}

struct value jinja_loop_attribute(struct job *job, struct loop *loop, const char *name)
{
	if (strcmp(name, "index0") == 0)
		return value_int(loop->index0);
	if (strcmp(name, "index") == 0)
		return value_int(loop->index0 + 1);
	if (strcmp(name, "first") == 0)
		return value_bool(loop->index0 == 0);
	if (strcmp(name, "last") == 0)
		return value_bool(loop_peek(job, loop).kind == VALUE_MISSING);
	if (strcmp(name, "length") == 0)
		return value_int(loop_length(job, loop));
	if (strcmp(name, "revindex") == 0)
		return value_int(loop_length(job, loop) - loop->index0);
	if (strcmp(name, "revindex0") == 0)
		return value_int(loop_length(job, loop) - loop->index0 - 1);
	if (strcmp(name, "previtem") == 0 && loop->index0 > 0)
		return loop->before;
	if (strcmp(name, "nextitem") == 0 && loop_peek(job, loop).kind != VALUE_MISSING)
		return loop->after;
	if (strcmp(name, "depth") == 0 || strcmp(name, "depth0") == 0)
		return value_int(strcmp(name, "depth") == 0);
	return (struct value){.kind = VALUE_MISSING};
}

static enum flow exec_for(struct job *job, struct scope *scope, const struct node *node)
{
	struct value iterable = jinja_eval(job, scope, node->b);
	const struct text *name = jinja_text(job, "loop", strlen("loop"));
	struct loop *loop = jinja_alloc(job, sizeof *loop);
	bool completed = false;

	job->line = node->line;
	loop->source = jinja_elements(job, iterable);
	*loop = (struct loop){.source = loop->source, .n = (int64_t)loop->source->n, .filtered = node->d != NULL,
	                      .node = node, .scope = scope, .index0 = -1};
	while (loop_next(job, loop)) {
		struct scope *inner = jinja_scope(job, scope);
		jinja_bind(job, inner, name, (struct value){.kind = VALUE_LOOP, .loop = loop});
		assign(job, inner, node->a, loop->current);
		enum flow flow = exec(job, inner, node->c);
		if (flow == BREAK)
			break;
		completed |= flow == GO_ON;
	}
	/* In jinja2 an iteration left by break or continue does not count. */
	if (completed || node->n_items == 0)
		return GO_ON;
	return exec(job, jinja_scope(job, scope), node->items[0]);
}

/* ---- macros ---- */

static struct value macro_value(struct job *job, struct scope *scope, const struct node *node)
{
	struct macro *macro = jinja_alloc(job, sizeof *macro);

	*macro = (struct macro){node, scope};
	return (struct value){.kind = VALUE_MACRO, .macro = macro};
}

/* Take the argument called name out of the call; missing if there is none. */
static struct value named_take(struct call *call, const struct text *name)
{
	for (size_t i = 0; i < call->n_named; i++)
		if (names_equal(call->named[i].name, name)) {
			struct value value = call->named[i].value;
			call->named[i] = call->named[--call->n_named];
			return value;
		}
	return (struct value){.kind = VALUE_MISSING};
}

struct value jinja_macro_call(struct job *job, const struct macro *macro, struct call call)
{
	const struct node *node = macro->node;
	struct scope *scope = jinja_scope(job, macro->scope);
	size_t mark = job->n_out;

	if (call.n_args > node->n_items)
		jinja_fail(job, ERR_INVALID, "macro \"%s\" takes at most %zu arguments, found %zu", node->name->bytes,
		           node->n_items, call.n_args);
	for (size_t i = 0; i < node->n_items; i++) {
		const struct node *parameter = node->items[i];
		struct value value = i < call.n_args ? call.args[i] : named_take(&call, parameter->name);
		if (value.kind == VALUE_MISSING)
			value = parameter->a ? jinja_eval(job, scope, parameter->a) : value_undefined(parameter);
		jinja_bind(job, scope, parameter->name, value);
	}
	const struct text *caller = jinja_text(job, "caller", strlen("caller"));
	struct value body = named_take(&call, caller);
	if (body.kind != VALUE_MISSING)
		jinja_bind(job, scope, caller, body);
	if (call.n_named > 0)
		jinja_fail(job, ERR_INVALID, "macro \"%s\" has no parameter \"%s\", or it was given twice",
		           node->name->bytes, call.named[0].name->bytes);
	exec(job, scope, node->c);
	return value_text(jinja_cut(job, mark));
}

static void exec_call_block(struct job *job, struct scope *scope, const struct node *node)
{
	struct value callee = jinja_eval(job, scope, node->a->a);
	struct call call = jinja_arguments(job, scope, node->a, (struct value){.kind = VALUE_MISSING});

	job->line = node->line;
	if (callee.kind != VALUE_MACRO)
		jinja_fail(job, ERR_INVALID, "call needs a macro, found %s", jinja_kind_name(callee));
	call.named[call.n_named++] = (struct named){node->b->name, macro_value(job, scope, node->b)};
	jinja_put_str(job, jinja_macro_call(job, callee.macro, call));
}

/* ---- the rest ---- */

static enum flow exec_if(struct job *job, struct scope *scope, const struct node *node)
{
	for (size_t i = 0; i + 1 < node->n_items; i += 2)
		if (jinja_truth(jinja_eval(job, scope, node->items[i])))
			return exec(job, scope, node->items[i + 1]);
	return node->n_items % 2 == 1 ? exec(job, scope, node->items[node->n_items - 1]) : GO_ON;
}

static enum flow exec_block(struct job *job, struct scope *scope, const struct node *node)
{
	enum flow flow = GO_ON;

	for (size_t i = 0; i < node->n_items && flow == GO_ON; i++)
		flow = exec(job, scope, node->items[i]);
	return flow;
}

static void exec_print(struct job *job, struct scope *scope, const struct node *node)
{
	struct value value = jinja_eval(job, scope, node->a);

	job->line = node->line;
	jinja_put_str(job, value);
}

static enum flow exec(struct job *job, struct scope *scope, const struct node *node)
{
	enum flow flow = GO_ON;

	jinja_charge(job, 1);
	jinja_descend(job);
	job->line = node->line;
	switch (node->kind) {
	case NODE_DATA: jinja_put(job, node->value.text->bytes, node->value.text->n); break;
	case NODE_PRINT: exec_print(job, scope, node); break;
	case NODE_SET: exec_set(job, scope, node); break;
	case NODE_SET_BLOCK: flow = exec_set_block(job, scope, node); break;
	case NODE_FOR: flow = exec_for(job, scope, node); break;
	case NODE_IF: flow = exec_if(job, scope, node); break;
	case NODE_MACRO: jinja_bind(job, scope, node->name, macro_value(job, scope, node)); break;
	case NODE_CALL_BLOCK: exec_call_block(job, scope, node); break;
	case NODE_FILTER_BLOCK: flow = exec_filter_block(job, scope, node); break;
	case NODE_WITH: flow = exec_with(job, scope, node); break;
	case NODE_BREAK: flow = BREAK; break;
	case NODE_CONTINUE: flow = CONTINUE; break;
	default: flow = exec_block(job, scope, node); break;
	}
	job->depth--;
	return flow;
}

void jinja_exec(struct job *job, struct scope *scope, const struct node *root)
{
	exec(job, scope, root);
}
