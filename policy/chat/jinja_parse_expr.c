/* jinja_parse_expr.c - expressions, by recursive descent with jinja2's grammar.  From loose to tight:
 *
 *   a if b else c,  or,  and,  not,  == != < <= > >= in,  + -,  ~,  * / // %,  **,  - + (unary),
 *   literal or name,  then .name [index] (call),  then |filter and `is` test
 */
#include <string.h>

#include "policy/chat/jinja_internal.h"

struct node *jinja_node(struct parser *parser, enum node_kind kind)
{
	struct node *node = jinja_alloc(parser->job, sizeof *node);

	node->kind = kind;
	node->line = parser->at->line;
	return node;
}

void jinja_node_add(struct parser *parser, struct node *node, struct node *item)
{
	size_t n = node->n_items;

	if ((n & (n - 1)) == 0) { /* full: 0, 1, 2, 4, ... */
		struct node **items = jinja_alloc(parser->job, (n ? 2 * n : 1) * sizeof(struct node *));
		if (n > 0)
			memcpy(items, node->items, n * sizeof *items);
		node->items = items;
	}
	node->items[node->n_items++] = item;
}

static bool token_is_name(const struct token *token, const char *name)
{
	return token->kind == TOKEN_NAME && strcmp(token->value.text->bytes, name) == 0;
}

bool jinja_at_name(const struct parser *parser, const char *name)
{
	return token_is_name(parser->at, name);
}

bool jinja_accept(struct parser *parser, enum token_kind kind)
{
	bool found = parser->at->kind == kind;

	parser->at += found;
	return found;
}

bool jinja_accept_name(struct parser *parser, const char *name)
{
	bool found = jinja_at_name(parser, name);

	parser->at += found;
	return found;
}

_Noreturn void jinja_fail_token(struct parser *parser, const char *expected)
{
	const struct token *at = parser->at;

	parser->job->line = at->line;
	if (at->kind == TOKEN_NAME)
		jinja_fail(parser->job, ERR_INVALID, "expected %s, found \"%.80s\"", expected, at->value.text->bytes);
	jinja_fail(parser->job, ERR_INVALID, "expected %s, found %s", expected, jinja_token_name(at->kind));
}

const struct token *jinja_expect(struct parser *parser, enum token_kind kind)
{
	if (parser->at->kind != kind)
		jinja_fail_token(parser, jinja_token_name(kind));
	return parser->at++;
}

static struct node *parse_unary(struct parser *parser, bool with_filter);

/* ---- literals and names ---- */

static struct node *constant(struct parser *parser, struct value value)
{
	struct node *node = jinja_node(parser, NODE_CONST);

	node->value = value;
	return node;
}

static struct node *parse_name(struct parser *parser)
{
	const char *name = parser->at->value.text->bytes;
	struct node *node;

	if (strcmp(name, "true") == 0 || strcmp(name, "True") == 0)
		node = constant(parser, value_bool(true));
	else if (strcmp(name, "false") == 0 || strcmp(name, "False") == 0)
		node = constant(parser, value_bool(false));
	else if (strcmp(name, "none") == 0 || strcmp(name, "None") == 0)
		node = constant(parser, (struct value){.kind = VALUE_NONE});
	else
		node = jinja_node(parser, NODE_NAME);
	node->name = parser->at->value.text;
	parser->at++;
	return node;
}

/* One string, or several side by side. */
static struct node *parse_string(struct parser *parser)
{
	struct node *node = constant(parser, parser->at->value);
	size_t mark = parser->job->n_out;

	if (parser->at[1].kind != TOKEN_STRING) {
		parser->at++;
		return node;
	}
	for (; parser->at->kind == TOKEN_STRING; parser->at++)
		jinja_put(parser->job, parser->at->value.text->bytes, parser->at->value.text->n);
	node->value = value_text(jinja_cut(parser->job, mark));
	return node;
}

static struct node *parse_list(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_LIST);

	for (parser->at++; !jinja_accept(parser, TOKEN_RBRACKET);) {
		jinja_node_add(parser, node, jinja_parse_expression(parser, true));
		if (parser->at->kind != TOKEN_RBRACKET)
			jinja_expect(parser, TOKEN_COMMA);
	}
	return node;
}

static struct node *parse_dict(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_DICT);

	for (parser->at++; !jinja_accept(parser, TOKEN_RBRACE);) {
		jinja_node_add(parser, node, jinja_parse_expression(parser, true));
		jinja_expect(parser, TOKEN_COLON);
		jinja_node_add(parser, node, jinja_parse_expression(parser, true));
		if (parser->at->kind != TOKEN_RBRACE)
			jinja_expect(parser, TOKEN_COMMA);
	}
	return node;
}

static struct node *parse_parentheses(struct parser *parser)
{
	struct node *node;

	parser->at++;
	if (jinja_accept(parser, TOKEN_RPAREN))
		return jinja_node(parser, NODE_TUPLE);
	node = jinja_parse_tuple(parser, true, NULL);
	jinja_expect(parser, TOKEN_RPAREN);
	return node;
}

static struct node *parse_primary(struct parser *parser)
{
	struct node *node;

	jinja_descend(parser->job);
	switch (parser->at->kind) {
	case TOKEN_NAME: node = parse_name(parser); break;
	case TOKEN_STRING: node = parse_string(parser); break;
	case TOKEN_NUMBER:
		node = constant(parser, parser->at->value);
		parser->at++;
		break;
	case TOKEN_LPAREN: node = parse_parentheses(parser); break;
	case TOKEN_LBRACKET: node = parse_list(parser); break;
	case TOKEN_LBRACE: node = parse_dict(parser); break;
	default: jinja_fail_token(parser, "an expression");
	}
	parser->job->depth--;
	return node;
}

/* ---- what follows a primary ---- */

static void parse_arguments(struct parser *parser, struct node *node)
{
	bool named = false;

	jinja_expect(parser, TOKEN_LPAREN);
	while (!jinja_accept(parser, TOKEN_RPAREN)) {
		if (parser->at->kind == TOKEN_MUL || parser->at->kind == TOKEN_POW)
			jinja_fail(parser->job, ERR_UNSUPPORTED, "* and ** in a call are not supported");
		if (parser->at->kind == TOKEN_NAME && parser->at[1].kind == TOKEN_ASSIGN) {
			struct node *keyword = jinja_node(parser, NODE_KEYWORD);
			keyword->name = parser->at->value.text;
			parser->at += 2;
			keyword->a = jinja_parse_expression(parser, true);
			jinja_node_add(parser, node, keyword);
			named = true;
		} else if (named) {
			jinja_fail_token(parser, "an argument with its name");
		} else {
			jinja_node_add(parser, node, jinja_parse_expression(parser, true));
		}
		if (parser->at->kind != TOKEN_RPAREN)
			jinja_expect(parser, TOKEN_COMMA);
	}
}

static struct node *parse_call(struct parser *parser, struct node *a)
{
	struct node *node = jinja_node(parser, NODE_CALL);

	node->a = a;
	parse_arguments(parser, node);
	return node;
}

static struct node *parse_attribute(struct parser *parser, struct node *a)
{
	struct node *node = jinja_node(parser, NODE_GETATTR);

	parser->at++;
	node->a = a;
	if (parser->at->kind == TOKEN_NUMBER && parser->at->value.kind == VALUE_INT) {
		node->kind = NODE_GETITEM;
		node->b = constant(parser, parser->at->value);
		parser->at++;
		return node;
	}
	node->name = jinja_expect(parser, TOKEN_NAME)->value.text;
	return node;
}

static bool at_slice_end(const struct parser *parser)
{
	return parser->at->kind == TOKEN_COLON || parser->at->kind == TOKEN_RBRACKET;
}

static struct node *parse_subscript(struct parser *parser, struct node *a)
{
	struct node *node = jinja_node(parser, NODE_GETITEM);

	parser->at++;
	node->a = a;
	if (!at_slice_end(parser))
		node->b = jinja_parse_expression(parser, true);
	if (jinja_accept(parser, TOKEN_COLON)) {
		node->kind = NODE_SLICE;
		if (!at_slice_end(parser))
			node->c = jinja_parse_expression(parser, true);
		if (jinja_accept(parser, TOKEN_COLON) && !at_slice_end(parser))
			node->d = jinja_parse_expression(parser, true);
	}
	if (node->kind == NODE_GETITEM && !node->b)
		jinja_fail_token(parser, "an index");
	if (parser->at->kind == TOKEN_COMMA)
		jinja_fail(parser->job, ERR_UNSUPPORTED, "several indices in one [] are not supported");
	jinja_expect(parser, TOKEN_RBRACKET);
	return node;
}

static struct node *parse_postfix(struct parser *parser, struct node *node)
{
	for (;;) {
		if (parser->at->kind == TOKEN_DOT)
			node = parse_attribute(parser, node);
		else if (parser->at->kind == TOKEN_LBRACKET)
			node = parse_subscript(parser, node);
		else if (parser->at->kind == TOKEN_LPAREN)
			node = parse_call(parser, node);
		else
			return node;
	}
}

static struct node *parse_filter(struct parser *parser, struct node *a)
{
	struct node *node = jinja_node(parser, NODE_FILTER);

	node->a = a;
	node->name = jinja_expect(parser, TOKEN_NAME)->value.text;
	if (parser->at->kind == TOKEN_LPAREN)
		parse_arguments(parser, node);
	return node;
}

struct node *jinja_parse_filters(struct parser *parser, struct node *a, bool begun)
{
	while (begun || jinja_accept(parser, TOKEN_PIPE)) {
		a = parse_filter(parser, a);
		begun = false;
	}
	return a;
}

/* An argument may follow a test's name without parentheses: x is divisibleby 3. */
static bool at_test_argument(const struct parser *parser)
{
	switch (parser->at->kind) {
	case TOKEN_STRING:
	case TOKEN_NUMBER:
	case TOKEN_LBRACKET:
	case TOKEN_LBRACE: return true;
	case TOKEN_NAME:
		return !jinja_at_name(parser, "else") && !jinja_at_name(parser, "or") && !jinja_at_name(parser, "and");
	default: return false;
	}
}

static struct node *parse_test(struct parser *parser, struct node *a)
{
	struct node *node = jinja_node(parser, NODE_TEST), *not = NULL;

	parser->at++;
	if (jinja_at_name(parser, "not")) {
		not = jinja_node(parser, NODE_NOT);
		parser->at++;
	}
	node->a = a;
	node->name = jinja_expect(parser, TOKEN_NAME)->value.text;
	if (parser->at->kind == TOKEN_LPAREN) {
		parse_arguments(parser, node);
	} else if (at_test_argument(parser)) {
		if (jinja_at_name(parser, "is"))
			jinja_fail_token(parser, "one test");
		jinja_node_add(parser, node, parse_postfix(parser, parse_primary(parser)));
	}
	if (!not)
		return node;
	not->a = node;
	return not;
}

static struct node *parse_filters_and_tests(struct parser *parser, struct node *node)
{
	for (;;) {
		if (parser->at->kind == TOKEN_PIPE)
			node = jinja_parse_filters(parser, node, false);
		else if (jinja_at_name(parser, "is"))
			node = parse_test(parser, node);
		else if (parser->at->kind == TOKEN_LPAREN)
			node = parse_call(parser, node);
		else
			return node;
	}
}

/* ---- operators ---- */

static struct node *parse_unary(struct parser *parser, bool with_filter)
{
	struct node *node;

	jinja_descend(parser->job);
	if (parser->at->kind == TOKEN_SUB || parser->at->kind == TOKEN_ADD) {
		node = jinja_node(parser, parser->at->kind == TOKEN_SUB ? NODE_NEGATIVE : NODE_POSITIVE);
		parser->at++;
		node->a = parse_unary(parser, false);
	} else {
		node = parse_primary(parser);
	}
	node = parse_postfix(parser, node);
	if (with_filter)
		node = parse_filters_and_tests(parser, node);
	parser->job->depth--;
	return node;
}

typedef struct node *parse_operand(struct parser *parser);

/* Operands parted by operators out of a set, from left to right. */
static struct node *parse_binary(struct parser *parser, parse_operand *operand, const enum token_kind *set, int n)
{
	struct node *left = operand(parser);

	for (int i = 0; i < n; i++) {
		if (parser->at->kind != set[i])
			continue;
		struct node *node = jinja_node(parser, NODE_BINARY);
		node->op = set[i];
		node->a = left;
		parser->at++;
		node->b = operand(parser);
		left = node;
		i = -1;
	}
	return left;
}

static struct node *parse_filtered(struct parser *parser)
{
	return parse_unary(parser, true);
}

static struct node *parse_power(struct parser *parser)
{
	static const enum token_kind set[] = {TOKEN_POW};

	return parse_binary(parser, parse_filtered, set, 1);
}

static struct node *parse_product(struct parser *parser)
{
	static const enum token_kind set[] = {TOKEN_MUL, TOKEN_DIV, TOKEN_FLOORDIV, TOKEN_MOD};

	return parse_binary(parser, parse_power, set, 4);
}

static struct node *parse_concat(struct parser *parser)
{
	struct node *first = parse_product(parser), *node;

	if (parser->at->kind != TOKEN_TILDE)
		return first;
	node = jinja_node(parser, NODE_CONCAT);
	jinja_node_add(parser, node, first);
	while (jinja_accept(parser, TOKEN_TILDE))
		jinja_node_add(parser, node, parse_product(parser));
	return node;
}

static struct node *parse_sum(struct parser *parser)
{
	static const enum token_kind set[] = {TOKEN_ADD, TOKEN_SUB};

	return parse_binary(parser, parse_concat, set, 2);
}

/* The comparison at the parser, read; TOKEN_END if there is none. */
static enum token_kind accept_comparison(struct parser *parser)
{
	enum token_kind kind = parser->at->kind;

	switch (kind) {
	case TOKEN_EQ:
	case TOKEN_NE:
	case TOKEN_LT:
	case TOKEN_LE:
	case TOKEN_GT:
	case TOKEN_GE: parser->at++; return kind;
	default: break;
	}
	if (jinja_accept_name(parser, "in"))
		return TOKEN_IN;
	if (!jinja_at_name(parser, "not") || !token_is_name(parser->at + 1, "in"))
		return TOKEN_END;
	parser->at += 2;
	return TOKEN_NOT_IN;
}

static struct node *parse_comparison(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_COMPARE);
	enum token_kind op;

	node->a = parse_sum(parser);
	while ((op = accept_comparison(parser)) != TOKEN_END) {
		struct node *operand = jinja_node(parser, NODE_OPERAND);
		operand->op = op;
		operand->a = parse_sum(parser);
		jinja_node_add(parser, node, operand);
	}
	return node->n_items > 0 ? node : node->a;
}

static struct node *parse_not(struct parser *parser)
{
	struct node *node;

	if (!jinja_at_name(parser, "not"))
		return parse_comparison(parser);
	node = jinja_node(parser, NODE_NOT);
	parser->at++;
	jinja_descend(parser->job);
	node->a = parse_not(parser);
	parser->job->depth--;
	return node;
}

static struct node *parse_named(struct parser *parser, parse_operand *operand, const char *name,
                                enum node_kind kind)
{
	struct node *left = operand(parser);

	while (jinja_at_name(parser, name)) {
		struct node *node = jinja_node(parser, kind);
		parser->at++;
		node->a = left;
		node->b = operand(parser);
		left = node;
	}
	return left;
}

static struct node *parse_and(struct parser *parser)
{
	return parse_named(parser, parse_not, "and", NODE_AND);
}

static struct node *parse_or(struct parser *parser)
{
	return parse_named(parser, parse_and, "or", NODE_OR);
}

struct node *jinja_parse_expression(struct parser *parser, bool with_condition)
{
	struct node *node;

	jinja_descend(parser->job);
	node = parse_or(parser);
	while (with_condition && jinja_at_name(parser, "if")) {
		struct node *condition = jinja_node(parser, NODE_CONDITION);
		parser->at++;
		condition->a = node;
		condition->b = parse_or(parser);
		if (jinja_accept_name(parser, "else"))
			condition->c = jinja_parse_expression(parser, true);
		node = condition;
	}
	parser->job->depth--;
	return node;
}

/* ---- tuples ---- */

bool jinja_at_tuple_end(const struct parser *parser, const char *end_name)
{
	switch (parser->at->kind) {
	case TOKEN_PRINT_END:
	case TOKEN_BLOCK_END:
	case TOKEN_RPAREN: return true;
	default: return end_name && jinja_at_name(parser, end_name);
	}
}

struct node *jinja_tuple_item(struct parser *parser, struct node *tuple, struct node *item)
{
	jinja_node_add(parser, tuple, item);
	return parser->at->kind == TOKEN_COMMA ? NULL : tuple->n_items == 1 ? item : tuple;
}

struct node *jinja_parse_tuple(struct parser *parser, bool with_condition, const char *end_name)
{
	struct node *tuple = jinja_node(parser, NODE_TUPLE), *done;

	do {
		done = jinja_tuple_item(parser, tuple, jinja_parse_expression(parser, with_condition));
		if (!done && parser->at++ && jinja_at_tuple_end(parser, end_name))
			done = tuple;
	} while (!done);
	return done;
}
