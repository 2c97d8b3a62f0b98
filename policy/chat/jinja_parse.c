/* jinja_parse.c - statements: a list of tokens to the tree that jinja_exec runs. */
#include <string.h>

#include "policy/chat/jinja_internal.h"

/* ---- targets: what set, for and with assign to ---- */

static struct node *parse_target(struct parser *parser, const char *end_name, bool with_namespace);

static bool is_constant(const char *name)
{
	static const char *const constants[] = {"true", "True", "false", "False", "none", "None"};

	for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
		if (strcmp(name, constants[i]) == 0)
			return true;
	return false;
}

static struct node *parse_target_item(struct parser *parser, bool with_namespace)
{
	struct node *node = jinja_node(parser, NODE_NAME);

	if (jinja_accept(parser, TOKEN_LPAREN)) {
		jinja_descend(parser->job);
		node = parse_target(parser, NULL, with_namespace);
		parser->job->depth--;
		jinja_expect(parser, TOKEN_RPAREN);
		return node;
	}
	if (parser->at->kind != TOKEN_NAME || is_constant(parser->at->value.text->bytes))
		jinja_fail_token(parser, "a name to assign to");
	node->name = parser->at++->value.text;
	if (with_namespace && jinja_accept(parser, TOKEN_DOT)) {
		node->kind = NODE_NSREF;
		node->value = jinja_expect(parser, TOKEN_NAME)->value;
	}
	return node;
}

static struct node *parse_target(struct parser *parser, const char *end_name, bool with_namespace)
{
	struct node *tuple = jinja_node(parser, NODE_TUPLE), *done;

	do {
		done = jinja_tuple_item(parser, tuple, parse_target_item(parser, with_namespace));
		if (!done && parser->at++ && jinja_at_tuple_end(parser, end_name))
			done = tuple;
	} while (!done);
	return done;
}

/* ---- statements ---- */

static struct node *parse_body(struct parser *parser, const char *const *ends);

/* Statements up to {% end %}, which is read with its name but not its %}: body, then the name. */
static struct node *parse_block(struct parser *parser, const char *const *ends)
{
	jinja_accept(parser, TOKEN_COLON);
	jinja_expect(parser, TOKEN_BLOCK_END);
	return parse_body(parser, ends);
}

static struct node *parse_block_to(struct parser *parser, const char *end)
{
	const char *const ends[] = {end, NULL};
	struct node *body = parse_block(parser, ends);

	parser->at++;
	return body;
}

/* The same, with statements that no loop around them can be broken from. */
static struct node *parse_closed_block_to(struct parser *parser, const char *end)
{
	int loops = parser->loops;

	parser->loops = 0;
	struct node *body = parse_block_to(parser, end);
	parser->loops = loops;
	return body;
}

static struct node *parse_set(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_SET);

	node->a = parse_target(parser, NULL, true);
	if (jinja_accept(parser, TOKEN_ASSIGN)) {
		node->b = jinja_parse_tuple(parser, true, NULL);
		return node;
	}
	node->kind = NODE_SET_BLOCK;
	node->b = jinja_parse_filters(parser, NULL, false);
	node->c = parse_block_to(parser, "endset");
	return node;
}

static struct node *parse_for(struct parser *parser)
{
	static const char *const ends[] = {"else", "endfor", NULL};
	struct node *node = jinja_node(parser, NODE_FOR);

	node->a = parse_target(parser, "in", false);
	if (!jinja_accept_name(parser, "in"))
		jinja_fail_token(parser, "in");
	node->b = jinja_parse_tuple(parser, false, "recursive");
	if (jinja_accept_name(parser, "if"))
		node->d = jinja_parse_expression(parser, true);
	if (jinja_at_name(parser, "recursive"))
		jinja_fail(parser->job, ERR_UNSUPPORTED, "a recursive loop is not supported");
	parser->loops++;
	node->c = parse_block(parser, ends);
	parser->loops--;
	if (jinja_accept_name(parser, "else"))
		jinja_node_add(parser, node, parse_block_to(parser, "endfor"));
	else
		parser->at++;
	return node;
}

static struct node *parse_if(struct parser *parser)
{
	static const char *const ends[] = {"elif", "else", "endif", NULL};
	struct node *node = jinja_node(parser, NODE_IF);

	do {
		jinja_node_add(parser, node, jinja_parse_tuple(parser, false, NULL));
		jinja_node_add(parser, node, parse_block(parser, ends));
	} while (jinja_accept_name(parser, "elif"));
	if (jinja_accept_name(parser, "else"))
		jinja_node_add(parser, node, parse_block_to(parser, "endif"));
	else
		parser->at++;
	return node;
}

/* (name, name=default, ...) */
static void parse_signature(struct parser *parser, struct node *macro)
{
	bool defaults = false;

	jinja_expect(parser, TOKEN_LPAREN);
	while (!jinja_accept(parser, TOKEN_RPAREN)) {
		struct node *parameter = jinja_node(parser, NODE_PARAMETER);
		parameter->name = jinja_expect(parser, TOKEN_NAME)->value.text;
		if (jinja_accept(parser, TOKEN_ASSIGN))
			parameter->a = jinja_parse_expression(parser, true);
		else if (defaults)
			jinja_fail(parser->job, ERR_INVALID, "parameter \"%s\" without default follows one with a default",
			           parameter->name->bytes);
		defaults = parameter->a != NULL;
		jinja_node_add(parser, macro, parameter);
		if (parser->at->kind != TOKEN_RPAREN)
			jinja_expect(parser, TOKEN_COMMA);
	}
}

static struct node *parse_macro(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_MACRO);

	node->name = jinja_expect(parser, TOKEN_NAME)->value.text;
	parse_signature(parser, node);
	node->c = parse_closed_block_to(parser, "endmacro");
	return node;
}

static struct node *parse_call_block(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_CALL_BLOCK), *caller = jinja_node(parser, NODE_MACRO);

	caller->name = jinja_text(parser->job, "caller", strlen("caller"));
	if (parser->at->kind == TOKEN_LPAREN)
		parse_signature(parser, caller);
	node->a = jinja_parse_expression(parser, true);
	if (node->a->kind != NODE_CALL)
		jinja_fail_token(parser, "a call of a macro before this");
	caller->c = parse_closed_block_to(parser, "endcall");
	node->b = caller;
	return node;
}

static struct node *parse_filter_block(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_FILTER_BLOCK);

	node->b = jinja_parse_filters(parser, NULL, true);
	node->c = parse_block_to(parser, "endfilter");
	return node;
}

static struct node *parse_with(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_WITH);

	while (parser->at->kind != TOKEN_BLOCK_END) {
		struct node *set = jinja_node(parser, NODE_SET);
		if (node->n_items > 0)
			jinja_expect(parser, TOKEN_COMMA);
		set->a = parse_target(parser, NULL, false);
		jinja_expect(parser, TOKEN_ASSIGN);
		set->b = jinja_parse_expression(parser, true);
		jinja_node_add(parser, node, set);
	}
	node->c = parse_block_to(parser, "endwith");
	return node;
}

/* {% generation %}: what an assistant wrote, for training masks; here a scope. */
static struct node *parse_generation(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_WITH);

	node->c = parse_closed_block_to(parser, "endgeneration");
	return node;
}

static struct node *parse_print(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_BLOCK);

	while (parser->at->kind != TOKEN_BLOCK_END) {
		struct node *print = jinja_node(parser, NODE_PRINT);
		if (node->n_items > 0)
			jinja_expect(parser, TOKEN_COMMA);
		print->a = jinja_parse_expression(parser, true);
		jinja_node_add(parser, node, print);
	}
	return node;
}

static struct node *parse_loop_control(struct parser *parser)
{
	struct node *node = jinja_node(parser, NODE_BREAK);

	if (strcmp(parser->at[-1].value.text->bytes, "continue") == 0)
		node->kind = NODE_CONTINUE;
	if (parser->loops == 0)
		jinja_fail(parser->job, ERR_INVALID, "break and continue stand in a loop only");
	return node;
}

static const struct statement {
	const char *name;
	struct node *(*parse)(struct parser *parser); /* NULL: known to Jinja, not supported here */
} statements[] = {
	{"set", parse_set},
	{"for", parse_for},
	{"if", parse_if},
	{"macro", parse_macro},
	{"call", parse_call_block},
	{"filter", parse_filter_block},
	{"with", parse_with},
	{"generation", parse_generation},
	{"print", parse_print},
	{"break", parse_loop_control},
	{"continue", parse_loop_control},
	{"block", NULL},
	{"extends", NULL},
	{"include", NULL},
	{"import", NULL},
	{"from", NULL},
	{"autoescape", NULL},
};

static struct node *parse_statement(struct parser *parser)
{
	const struct token *tag = parser->at;

	if (tag->kind != TOKEN_NAME)
		jinja_fail_token(parser, "the name of a statement");
	parser->job->line = tag->line;
	for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
		if (strcmp(tag->value.text->bytes, statements[i].name) != 0)
			continue;
		if (!statements[i].parse)
			jinja_fail(parser->job, ERR_UNSUPPORTED, "the statement \"%s\" is not supported", statements[i].name);
		parser->at++;
		jinja_descend(parser->job);
		struct node *node = statements[i].parse(parser);
		parser->job->depth--;
		return node;
	}
	jinja_fail(parser->job, ERR_INVALID, "unknown statement \"%.80s\", or an end without its beginning",
	           tag->value.text->bytes);
}

static bool at_end(const struct parser *parser, const char *const *ends)
{
	for (; *ends; ends++)
		if (jinja_at_name(parser, *ends))
			return true;
	return false;
}

static struct node *parse_item(struct parser *parser)
{
	struct node *node;

	if (parser->at->kind == TOKEN_DATA) {
		node = jinja_node(parser, NODE_DATA);
		node->value = parser->at++->value;
		return node;
	}
	node = jinja_node(parser, NODE_PRINT);
	jinja_expect(parser, TOKEN_PRINT_BEGIN);
	node->a = jinja_parse_tuple(parser, true, NULL);
	jinja_expect(parser, TOKEN_PRINT_END);
	return node;
}

/* Statements up to {% NAME with one of these names; the parser is left at NAME. */
static struct node *parse_body(struct parser *parser, const char *const *ends)
{
	struct node *block = jinja_node(parser, NODE_BLOCK);

	while (parser->at->kind != TOKEN_END) {
		if (parser->at->kind != TOKEN_BLOCK_BEGIN) {
			jinja_node_add(parser, block, parse_item(parser));
			continue;
		}
		parser->at++;
		if (at_end(parser, ends))
			return block;
		jinja_node_add(parser, block, parse_statement(parser));
		jinja_expect(parser, TOKEN_BLOCK_END);
	}
	if (!*ends)
		return block;
	while (ends[1]) /* the last one ends it for good */
		ends++;
	jinja_fail_token(parser, *ends);
}

struct node *jinja_parse(struct job *job, const struct token *tokens)
{
	static const char *const none[] = {NULL};
	struct parser parser = {.job = job, .at = tokens};

	return parse_body(&parser, none);
}
