/* jinja_internal.h - the parts of the interpreter, shared by the jinja*.c files only.
 *
 *   source -> tokens (jinja_lex) -> nodes (jinja_parse) -> jinja_exec -> text
 *
 * A job is one compilation or one render.  It owns every value that it makes, in an arena that goes with
 * it, so a failure may leave from any depth: jinja_fail sets the job's err and jumps back to job_protected
 * (jinja.c), the only setjmp.  Values are immutable but for namespaces, iterators and loops.
 */
#ifndef POLICY_CHAT_JINJA_INTERNAL_H
#define POLICY_CHAT_JINJA_INTERNAL_H

#include <jansson.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

/* ---- a job (jinja.c) ---- */

struct chunk;

struct job {
	struct chunk *chunks; /* the arena */
	size_t n_bytes;       /* that it holds */
	size_t steps;         /* taken so far */
	int depth;            /* of the evaluation */
	int line;             /* of the template, at work */
	char *out;            /* [n_out], the text written so far */
	size_t n_out, out_capacity;
	struct scope *globals; /* of a render: its variables */
	struct err *err;
	jmp_buf stop;
};

/* Set err to "line N: ..." and leave the job. */
_Noreturn void jinja_fail(struct job *job, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Zeroed memory that lives as long as the job. */
void *jinja_alloc(struct job *job, size_t n);
/* Count steps: one per node and element visited, and for bytes looked at, one per STEP_BYTES of those that
 * pass in bulk and per STEP_CHARACTERS of those that are decoded. */
void jinja_charge(struct job *job, size_t steps);
enum { STEP_BYTES = 32, STEP_CHARACTERS = 8 };
/* One level down, or fail; the caller goes back up with job->depth--. */
void jinja_descend(struct job *job);
void jinja_put(struct job *job, const char *bytes, size_t n);
void jinja_puts(struct job *job, const char *bytes);
/* Take what was written since the text was n_out = mark long back out of it. */
const struct text *jinja_cut(struct job *job, size_t mark);

/* ---- values (jinja_value.c) ---- */

enum kind {
	VALUE_MISSING, /* an argument that was not given; never a value of the template */
	VALUE_UNDEFINED,
	VALUE_NONE,
	VALUE_BOOL,
	VALUE_INT,
	VALUE_FLOAT,
	VALUE_TEXT,
	VALUE_LIST,
	VALUE_TUPLE,
	VALUE_RANGE,
	VALUE_VIEW,     /* what dict.keys(), values() and items() return */
	VALUE_ITERATOR, /* what map, select, reverse, ... return: read once */
	VALUE_DICT,
	VALUE_NAMESPACE,
	VALUE_LOOP,
	VALUE_MACRO,
	VALUE_FUNCTION, /* a function, or a method with the value that it belongs to */
};

struct text {
	size_t n;
	bool ascii; /* a character is a byte */
	bool safe;  /* from the filter `safe` */
	char bytes[]; /* [n + 1], UTF-8, no NUL inside */
};

struct value {
	enum kind kind;
	union {
		bool truth;
		int64_t integer;
		double real;
		const struct text *text;
		const struct list *list; /* list, tuple, range, view */
		struct iterator *iterator;
		struct dict *dict; /* dict, namespace */
		struct loop *loop;
		const struct macro *macro;
		const struct function *function;
		const struct node *origin; /* undefined: where it came from, may be NULL */
	};
};

struct list {
	size_t n;
	const char *view; /* "dict_keys", ... of a view */
	struct value items[];
};

struct iterator {
	const struct list *list;
	size_t at;
};

struct pair {
	struct value key, value;
};

struct dict {
	size_t n, capacity;
	struct pair *pairs; /* in the order of insertion */
};

struct named {
	const struct text *name;
	struct value value;
};

/* Arguments: the filtered or tested value, or the object of a method, is the first. */
struct call {
	struct value *args;
	size_t n_args;
	struct named *named;
	size_t n_named;
};

struct builtin;

struct function {
	const struct builtin *builtin;
	struct value self; /* of a method */
};

struct macro {
	const struct node *node;
	struct scope *scope; /* where it was defined */
};

struct binding {
	const struct text *name;
	struct value value;
	struct binding *next;
};

struct scope {
	struct scope *parent;
	struct binding *bindings;
};

/* A `for` under way: elements are taken from source one ahead at most, as the filter (`if`) may depend on
 * what the body does. */
struct loop {
	const struct list *source;
	size_t at;               /* next of source to look at */
	int64_t n;               /* elements that it visits, unless filtered */
	bool filtered;           /* elements of source are to pass the filter */
	const struct node *node; /* the NODE_FOR */
	struct scope *scope;     /* around the loop */
	int64_t index0;          /* of the current element; -1 before the first */
	struct value before, current, after; /* missing if there is none, or not looked at */
	struct value changed;    /* arguments of the last loop.changed(), a tuple */
};

static inline struct value value_bool(bool truth)
{
	return (struct value){.kind = VALUE_BOOL, .truth = truth};
}

static inline struct value value_int(int64_t integer)
{
	return (struct value){.kind = VALUE_INT, .integer = integer};
}

static inline struct value value_float(double real)
{
	return (struct value){.kind = VALUE_FLOAT, .real = real};
}

static inline struct value value_text(const struct text *text)
{
	return (struct value){.kind = VALUE_TEXT, .text = text};
}

static inline struct value value_list(enum kind kind, const struct list *list)
{
	return (struct value){.kind = kind, .list = list};
}

static inline struct value value_undefined(const struct node *origin)
{
	return (struct value){.kind = VALUE_UNDEFINED, .origin = origin};
}

/* list, tuple, range, view: what .list holds. */
static inline bool value_has_list(struct value value)
{
	return value.kind >= VALUE_LIST && value.kind <= VALUE_VIEW;
}

/* bool, int: Python's truth values are numbers. */
static inline bool value_is_integer(struct value value)
{
	return value.kind == VALUE_INT || value.kind == VALUE_BOOL;
}

static inline int64_t value_integer(struct value value)
{
	return value.kind == VALUE_BOOL ? value.truth : value.integer;
}

const struct text *jinja_text(struct job *job, const char *bytes, size_t n);
const struct text *jinja_safe(struct job *job, const struct text *text); /* a copy that is safe */
struct value jinja_from_json(struct job *job, json_t *json);
struct list *jinja_list(struct job *job, size_t n); /* of n missing values, to be filled */
struct value jinja_iterator(struct job *job, const struct list *list);
struct dict *jinja_dict(struct job *job, size_t capacity);
void jinja_dict_set(struct job *job, struct dict *dict, struct value key, struct value value);
/* NULL if there is none; fails for a key that cannot be one (a list). */
const struct value *jinja_dict_get(struct job *job, const struct dict *dict, struct value key);
const char *jinja_kind_name(struct value value);
bool jinja_truth(struct value value);
bool jinja_equal(struct job *job, struct value a, struct value b);
/* a < b, as Python orders; fails for what has no order. */
bool jinja_less(struct job *job, struct value a, struct value b);
bool jinja_contains(struct job *job, struct value container, struct value item);
/* False for what has none. */
bool jinja_length(struct job *job, struct value value, size_t *n);
/* The elements that a `for` would visit; an iterator is used up.  Fails if value is no collection. */
const struct list *jinja_elements(struct job *job, struct value value);
/* Fail as an operation on an undefined value does. */
_Noreturn void jinja_fail_undefined(struct job *job, struct value value);

/* ---- text (jinja_text.c, jinja_print.c, jinja_format.c): Python's str ---- */

size_t jinja_text_length(const struct text *text); /* in characters */
/* Byte where character i begins; text->n if there are fewer. */
size_t jinja_text_offset(const struct text *text, size_t i);
bool jinja_is_space(int32_t code);
struct value jinja_slice(struct job *job, struct value of, struct value start, struct value stop,
                         struct value step);
/* Put value as str() and repr() write it. */
void jinja_put_str(struct job *job, struct value value);
void jinja_put_repr(struct job *job, struct value value);
/* str(value). */
const struct text *jinja_str(struct job *job, struct value value);

struct json_style {
	bool ascii, sort_keys;
	const struct text *indent;      /* NULL: one line */
	const char *item_gap, *key_gap; /* ", " and ": " */
};
void jinja_put_json(struct job *job, struct value value, const struct json_style *style);
/* template % arguments, and template.format(arguments). */
struct value jinja_percent(struct job *job, const struct text *format, struct value arguments);
struct value jinja_format(struct job *job, const struct call *call);

/* int(text), float(text); false if it is none. */
bool jinja_parse_int(struct job *job, const struct text *text, int base, int64_t *integer);
bool jinja_parse_float(const struct text *text, double *real);

/* ---- tokens (jinja_lex.c) ---- */

/* X(name, spelling), longer spellings first */
#define OPERATOR_LIST(X) \
	X(FLOORDIV, "//") X(POW, "**") X(EQ, "==") X(NE, "!=") X(GE, ">=") X(LE, "<=") \
	X(ADD, "+") X(SUB, "-") X(DIV, "/") X(MUL, "*") X(MOD, "%") X(TILDE, "~") \
	X(LBRACKET, "[") X(RBRACKET, "]") X(LPAREN, "(") X(RPAREN, ")") X(LBRACE, "{") X(RBRACE, "}") \
	X(GT, ">") X(LT, "<") X(ASSIGN, "=") X(DOT, ".") X(COLON, ":") X(PIPE, "|") X(COMMA, ",") \
	X(SEMICOLON, ";")

#define TOKEN_ENUM(name, spelling) TOKEN_##name,
enum token_kind {
	TOKEN_END,
	TOKEN_DATA,
	TOKEN_PRINT_BEGIN, /* {{ */
	TOKEN_PRINT_END,
	TOKEN_BLOCK_BEGIN, /* {% */
	TOKEN_BLOCK_END,
	TOKEN_NAME,
	TOKEN_STRING,
	TOKEN_NUMBER,
	OPERATOR_LIST(TOKEN_ENUM)
	TOKEN_IN, TOKEN_NOT_IN, /* operators of a comparison; spelled by names */
};
#undef TOKEN_ENUM

struct token {
	enum token_kind kind;
	int line;
	struct value value; /* data, name, string: a text; number */
};

/* The tokens of source, the last one TOKEN_END. */
const struct token *jinja_lex(struct job *job, const char *source, size_t n);
const char *jinja_token_name(enum token_kind kind);

/* ---- nodes (jinja_parse.c, jinja_parse_expr.c) ---- */

/* X(name): what its fields hold; `items` is n_items long */
#define NODE_LIST_OF(X) \
	X(CONST)       /* value */ \
	X(NAME)        /* name */ \
	X(LIST)        /* items */ \
	X(TUPLE)       /* items */ \
	X(DICT)        /* items: key, value, key, value, ... */ \
	X(GETATTR)     /* a.name */ \
	X(GETITEM)     /* a[b] */ \
	X(SLICE)       /* a[b:c:d], each of them NULL if left out */ \
	X(CALL)        /* a(items); keyword arguments are NODE_KEYWORD, last */ \
	X(KEYWORD)     /* name=a */ \
	X(FILTER)      /* a|name(items); a is NULL in a filter block */ \
	X(TEST)        /* a is name(items) */ \
	X(NOT)         /* not a */ \
	X(NEGATIVE)    /* -a */ \
	X(POSITIVE)    /* +a */ \
	X(AND)         /* a and b */ \
	X(OR)          /* a or b */ \
	X(BINARY)      /* a op b */ \
	X(CONCAT)      /* items joined by ~ */ \
	X(COMPARE)     /* a, then items: each NODE_OPERAND */ \
	X(OPERAND)     /* op a */ \
	X(CONDITION)   /* a if b else c; c may be NULL */ \
	X(DATA)        /* value: text as it stands */ \
	X(PRINT)       /* {{ a }} */ \
	X(BLOCK)       /* items one after another */ \
	X(SET)         /* a = b */ \
	X(NSREF)       /* name.value as a target of SET */ \
	X(SET_BLOCK)   /* a = c, filtered by b unless NULL */ \
	X(FOR)         /* a in b: c; if d unless NULL; items[0]: else, if any */ \
	X(IF)          /* items: test, body, test, body, ..., and else if n_items is odd */ \
	X(MACRO)       /* name(items: NODE_PARAMETER): c */ \
	X(PARAMETER)   /* name=a; a may be NULL */ \
	X(CALL_BLOCK)  /* a: call, b: the NODE_MACRO that is its caller */ \
	X(FILTER_BLOCK) /* b: filter, c: body */ \
	X(WITH)        /* items: NODE_SET; c: body */ \
	X(BREAK) \
	X(CONTINUE)

#define NODE_ENUM(name) NODE_##name,
enum node_kind { NODE_LIST_OF(NODE_ENUM) };
#undef NODE_ENUM

struct node {
	enum node_kind kind;
	enum token_kind op;
	int line;
	const struct text *name;
	struct value value;
	struct node *a, *b, *c, *d;
	struct node **items;
	size_t n_items;
};

struct parser {
	struct job *job;
	const struct token *at;
	int loops; /* around the statement, in the same macro */
};

struct node *jinja_parse(struct job *job, const struct token *tokens);

/* For jinja_parse.c, of jinja_parse_expr.c. */
struct node *jinja_node(struct parser *parser, enum node_kind kind);
void jinja_node_add(struct parser *parser, struct node *node, struct node *item);
bool jinja_at_name(const struct parser *parser, const char *name);
bool jinja_accept(struct parser *parser, enum token_kind kind);
bool jinja_accept_name(struct parser *parser, const char *name);
const struct token *jinja_expect(struct parser *parser, enum token_kind kind);
_Noreturn void jinja_fail_token(struct parser *parser, const char *expected);
struct node *jinja_parse_expression(struct parser *parser, bool with_condition);
/* An expression, or several with commas between: a tuple. */
struct node *jinja_parse_tuple(struct parser *parser, bool with_condition, const char *end_name);
/* Add an item; the finished node if no comma follows: the item itself if it is the only one. */
struct node *jinja_tuple_item(struct parser *parser, struct node *tuple, struct node *item);
/* Whether a tuple ends here, after a comma: at a bracket, at the tag's end, or at the name. */
bool jinja_at_tuple_end(const struct parser *parser, const char *end_name);
/* |name(...)|name(...) after a, which may be NULL; begun: the first | was read. */
struct node *jinja_parse_filters(struct parser *parser, struct node *a, bool begun);

/* ---- evaluation (jinja_exec.c: statements; jinja_eval.c: expressions) ---- */

void jinja_exec(struct job *job, struct scope *scope, const struct node *root);
struct scope *jinja_scope(struct job *job, struct scope *parent);
/* Set a name in the scope itself; look one up from the scope outwards, NULL if there is none. */
void jinja_bind(struct job *job, struct scope *scope, const struct text *name, struct value value);
const struct value *jinja_lookup(struct job *job, const struct scope *scope, const struct text *name);
/* The text that a macro writes. */
struct value jinja_macro_call(struct job *job, const struct macro *macro, struct call call);
/* loop.name; missing if loops have no such attribute. */
struct value jinja_loop_attribute(struct job *job, struct loop *loop, const char *name);

struct value jinja_eval(struct job *job, struct scope *scope, const struct node *node);
/* Pass value through filters that stand without one: those of a block. */
struct value jinja_eval_filters(struct job *job, struct scope *scope, const struct node *filters,
                                struct value value);
/* Evaluate the arguments of a call, filter or test; `first` comes before them unless missing.  There is
 * room for one more named argument. */
struct call jinja_arguments(struct job *job, struct scope *scope, const struct node *node, struct value first);
/* a op b (jinja_operators.c). */
struct value jinja_binary(struct job *job, enum token_kind op, struct value a, struct value b);
bool jinja_compare(struct job *job, enum token_kind op, struct value a, struct value b);
/* of.name and of[key]; undefined with node as origin (may be NULL) if there is none. */
struct value jinja_getattr(struct job *job, struct value of, const struct text *name, const struct node *node);
struct value jinja_getitem(struct job *job, struct value of, struct value key, const struct node *node);

/* ---- what templates call (jinja_builtin.c and the tables) ---- */

enum { BUILTIN_PARAMS_MAX = 5 };

/* One filter, test, method or function.  params: names in Python's order, n_required of them without a
 * default; `call` finds args[0, BUILTIN_PARAMS_MAX) filled, missing where not given.  No params: the
 * arguments come as they were given.  No call: known to Jinja, not supported here. */
struct builtin {
	const char *name;
	struct value (*call)(struct job *job, const struct call *call);
	size_t n_required;
	const char *params[BUILTIN_PARAMS_MAX];
};

/* Tables, each ended by a NULL name. */
extern const struct builtin jinja_filters[], jinja_list_filters[], jinja_tests[], jinja_functions[];
extern const struct builtin jinja_text_methods[], jinja_split_methods[], jinja_case_methods[];
extern const struct builtin jinja_dict_methods[], jinja_list_methods[], jinja_loop_methods[];

const struct builtin *jinja_builtin_find(const struct builtin *table, const char *name);
struct value jinja_builtin_call(struct job *job, const struct builtin *builtin, const struct call *call);
struct value jinja_filter(struct job *job, const char *name, const struct call *call);
bool jinja_test(struct job *job, const char *name, const struct call *call);

/* An argument of a builtin, or `otherwise` if missing; fail if it is of another kind. */
int64_t jinja_arg_int(struct job *job, struct value value, int64_t otherwise);
bool jinja_arg_bool(struct value value, bool otherwise);
const struct text *jinja_arg_text(struct job *job, struct value value, const char *otherwise);
bool jinja_arg_given(struct value value); /* neither missing nor none */
const struct text *jinja_arg_text_or_none(struct job *job, struct value value); /* NULL unless given */

/* Of jinja_methods.c, jinja_split.c and jinja_case.c, for methods and filters alike. */
enum letter_case { CASE_LOWER, CASE_UPPER, CASE_TITLE };
enum side { SIDE_LEFT = 1, SIDE_RIGHT = 2, SIDE_BOTH = 3 };
void jinja_put_case(struct job *job, const char *bytes, size_t n, enum letter_case letter_case);
struct value jinja_capitalize(struct job *job, const struct text *text);
struct value jinja_title(struct job *job, const struct text *text);
bool jinja_is_case(struct job *job, const struct text *text, enum letter_case letter_case);
/* chars NULL: white space. */
struct value jinja_strip(struct job *job, const struct text *text, const struct text *chars, enum side side);
/* max < 0: all. */
struct value jinja_replace(struct job *job, const struct text *text, const struct text *old,
                           const struct text *new, int64_t max);
const struct list *jinja_pairs(struct job *job, const struct dict *dict); /* tuples (key, value) */
struct value jinja_piece(struct job *job, const char *from, const char *to); /* a string of [from, to) */
/* The last occurrence of what in [from, to), or NULL. */
const char *jinja_find_last(struct job *job, const char *from, const char *to, const struct text *what);
struct list *jinja_split(struct job *job, const struct text *text, const struct text *gap);
struct list *jinja_split_lines(struct job *job, const struct text *text, bool keep_ends);

#endif
