/* jinja_lex.c - a template's source as tokens, with jinja2's rules for white space around the tags.
 *
 * trim_blocks: the newline after %} or #} goes.  lstrip_blocks: blanks between the start of a line and
 * {% or {# go.  A sign in the tag overrides: `-` strips all white space on that side, `+` keeps it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/chat/jinja.h"
#include "policy/chat/jinja_internal.h"
#include "policy/utf8.h"

struct lexer {
	struct job *job;
	const char *at, *end;
	bool line_starting; /* the last match ended with a newline, or there was none */
	struct token *tokens;
	size_t n, capacity;
	char closers[JINJA_DEPTH_MAX]; /* of the brackets that are open, innermost last */
	int n_closers;
};

#define OPERATOR_ROW(name, spelling) {TOKEN_##name, spelling},
static const struct {
	enum token_kind kind;
	const char *spelling;
} operators[] = {OPERATOR_LIST(OPERATOR_ROW)};
#undef OPERATOR_ROW
enum { N_OPERATORS = sizeof operators / sizeof *operators };

const char *jinja_token_name(enum token_kind kind)
{
	for (int i = 0; i < N_OPERATORS; i++)
		if (operators[i].kind == kind)
			return operators[i].spelling;
	switch (kind) {
	case TOKEN_END: return "the end of the template";
	case TOKEN_DATA: return "text";
	case TOKEN_PRINT_BEGIN: return "{{";
	case TOKEN_PRINT_END: return "}}";
	case TOKEN_BLOCK_BEGIN: return "{%";
	case TOKEN_BLOCK_END: return "%}";
	case TOKEN_NAME: return "a name";
	case TOKEN_STRING: return "a string";
	default: return "a number";
	}
}

static void token_add(struct lexer *lexer, enum token_kind kind, struct value value)
{
	if (lexer->n == lexer->capacity) {
		size_t capacity = 2 * lexer->capacity + 64;
		struct token *tokens = jinja_alloc(lexer->job, capacity * sizeof *tokens);
		if (lexer->n > 0)
			memcpy(tokens, lexer->tokens, lexer->n * sizeof *tokens);
		lexer->tokens = tokens;
		lexer->capacity = capacity;
	}
	lexer->tokens[lexer->n++] = (struct token){kind, lexer->job->line, value};
}

static void text_token(struct lexer *lexer, enum token_kind kind, const char *bytes, size_t n)
{
	token_add(lexer, kind, value_text(jinja_text(lexer->job, bytes, n)));
}

static bool starts_with(const char *at, const char *end, const char *what)
{
	size_t n = strlen(what);

	return (size_t)(end - at) >= n && memcmp(at, what, n) == 0;
}

/* First occurrence of what in [at, end), or NULL. */
static const char *find(const char *at, const char *end, const char *what)
{
	for (; (at = memchr(at, what[0], (size_t)(end - at))); at++)
		if (starts_with(at, end, what))
			return at;
	return NULL;
}

static const char *skip_space(const char *at, const char *end)
{
	while (at < end) {
		int32_t code;
		size_t step = utf8_step(at, (size_t)(end - at), &code);
		if (!jinja_is_space(code))
			break;
		at += step;
	}
	return at;
}

/* The end of [start, end) without the white space there. */
static const char *strip_end(const char *start, const char *end)
{
	while (end > start) {
		const char *last = end - 1;
		int32_t code;
		while (last > start && ((unsigned char)*last & 0xC0) == 0x80)
			last--;
		utf8_step(last, (size_t)(end - last), &code);
		if (!jinja_is_space(code))
			break;
		end = last;
	}
	return end;
}

/* Go on to `to`, counting lines. */
static void advance(struct lexer *lexer, const char *to)
{
	for (const char *c = lexer->at; c < to; c++)
		lexer->job->line += *c == '\n';
	if (to > lexer->at)
		lexer->line_starting = to[-1] == '\n';
	lexer->at = to;
}

/* Text up to a tag at `tag`, whose sign is '-', '+' or 0; lstrip: it is a block or comment. */
static void lex_data(struct lexer *lexer, const char *tag, char sign, bool lstrip)
{
	const char *start = lexer->at, *end = tag;

	if (sign == '-') {
		end = strip_end(start, tag);
	} else if (sign != '+' && lstrip) {
		const char *line = tag;
		while (line > start && line[-1] != '\n')
			line--;
		if ((line > start || lexer->line_starting) && skip_space(line, tag) == tag)
			end = line;
	}
	if (end > start)
		text_token(lexer, TOKEN_DATA, start, (size_t)(end - start));
	advance(lexer, tag);
}

/* Past an end tag of n characters at `at`, where a sign before it is at at[-1]. */
static const char *end_tag(const struct lexer *lexer, const char *at, char sign, size_t n, bool trim)
{
	at += n;
	if (sign == '-')
		return skip_space(at, lexer->end);
	return trim && sign != '+' && at < lexer->end && *at == '\n' ? at + 1 : at;
}

static void lex_comment(struct lexer *lexer)
{
	const char *close = find(lexer->at, lexer->end, "#}");

	if (lexer->at == lexer->end)
		return; /* as jinja2 does */
	if (!close)
		jinja_fail(lexer->job, ERR_INVALID, "missing end of comment: #}");
	char sign = close > lexer->at && (close[-1] == '-' || close[-1] == '+') ? close[-1] : 0;
	advance(lexer, end_tag(lexer, close, sign, 2, true));
}

/* {% word %} at `at`: past it, or NULL.  *sign: the one of {%; *close: where its end tag begins. */
static const char *word_tag(const struct lexer *lexer, const char *at, const char *word, char *sign,
                            const char **close)
{
	if (!starts_with(at, lexer->end, "{%"))
		return NULL;
	at += 2;
	*sign = at < lexer->end && (*at == '-' || *at == '+') ? *at : 0;
	at = skip_space(at + (*sign != 0), lexer->end);
	if (!starts_with(at, lexer->end, word))
		return NULL;
	*close = at = skip_space(at + strlen(word), lexer->end);
	at += at < lexer->end && (*at == '-' || *at == '+');
	return starts_with(at, lexer->end, "%}") ? at : NULL;
}

/* From after {% raw %} to after {% endraw %}. */
static void lex_raw(struct lexer *lexer)
{
	const char *close, *end = NULL, *tag = lexer->at;
	char sign = 0;

	for (; (tag = find(tag, lexer->end, "{%")); tag++)
		if ((end = word_tag(lexer, tag, "endraw", &sign, &close)))
			break;
	if (lexer->at == lexer->end)
		return; /* as jinja2 does */
	if (!end)
		jinja_fail(lexer->job, ERR_INVALID, "missing end of raw block: {%% endraw %%}");
	lex_data(lexer, tag, sign, true);
	advance(lexer, end_tag(lexer, end, *close == '%' ? 0 : *close, 2, true));
}

/* ---- inside a tag ---- */

static bool is_digit(const char *at, const struct lexer *lexer)
{
	return at < lexer->end && *at >= '0' && *at <= '9';
}

static bool is_name_byte(unsigned char c)
{
	return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c >= 0x80;
}

/* Past digits that single underscores may part. */
static const char *skip_digits(const struct lexer *lexer, const char *at)
{
	while (is_digit(at, lexer) || (at < lexer->end && *at == '_' && is_digit(at + 1, lexer)))
		at++;
	return at;
}

/* The end of a float at the lexer, or NULL. */
static const char *float_end(const struct lexer *lexer)
{
	const char *at = skip_digits(lexer, lexer->at), *exponent;
	bool fraction = at < lexer->end && *at == '.' && is_digit(at + 1, lexer);

	if (lexer->at[-1] == '.') /* x.1.5 is x[1][5] */
		return NULL;
	if (fraction)
		at = skip_digits(lexer, at + 1);
	exponent = at;
	if (exponent < lexer->end && (*exponent == 'e' || *exponent == 'E')) {
		exponent++;
		exponent += exponent < lexer->end && (*exponent == '+' || *exponent == '-');
		if (is_digit(exponent, lexer))
			return skip_digits(lexer, exponent);
	}
	return fraction ? at : NULL;
}

static const char *integer_end(const struct lexer *lexer)
{
	const char *at = lexer->at;
	int base = 10;

	if (*at == '0' && at + 1 < lexer->end) {
		char mark = (char)(at[1] | 0x20);
		base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
	}
	const char *digits = "0123456789abcdef", *start = at;
	if (base != 10)
		at += 2;
	int valid = base == 10 && *start == '0' ? 1 : base; /* 0, 00, ... is the only decimal with a zero first */
	for (;; at++) {
		const char *c = at + (at < lexer->end && *at == '_');
		char lower = c >= lexer->end ? '\0' : *c >= 'A' && *c <= 'F' ? (char)(*c | 0x20) : *c;
		const char *digit = lower ? strchr(digits, lower) : NULL;
		if (!digit || digit - digits >= valid)
			break;
		at = c;
	}
	return at == start + 2 && base != 10 ? start + 1 : at;
}

static void lex_number(struct lexer *lexer)
{
	const char *end = float_end(lexer);
	struct value value = {.kind = end ? VALUE_FLOAT : VALUE_INT};

	if (!end)
		end = integer_end(lexer);
	const struct text *text = jinja_text(lexer->job, lexer->at, (size_t)(end - lexer->at));
	bool read = value.kind == VALUE_FLOAT ? jinja_parse_float(text, &value.real)
	                                      : jinja_parse_int(lexer->job, text, 0, &value.integer);
	if (!read)
		jinja_fail(lexer->job, ERR_INVALID, "\"%s\" is not a number", text->bytes);
	token_add(lexer, TOKEN_NUMBER, value);
	advance(lexer, end);
}

/* Digits of base 8 or 16 at *at, at most max; their value. */
static int32_t escape_digits(const char **at, const char *end, int base, int max)
{
	int32_t code = 0;

	for (int i = 0; i < max && *at < end; i++, ++*at) {
		char c = **at;
		int digit = c >= '0' && c <= '9' ? c - '0'
		            : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : 16;
		if (digit >= base)
			break;
		code = code > 0x110000 ? code : code * base + digit;
	}
	return code;
}

static void put_code(struct lexer *lexer, int32_t code)
{
	char bytes[4];

	if (code == 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
		jinja_fail(lexer->job, ERR_UNSUPPORTED, "the escape of U+%04X in a string is not supported",
		           (unsigned)code);
	jinja_put(lexer->job, bytes, utf8_write(bytes, code));
}

/* One escape after its backslash at `at`, as Python's codec unicode-escape reads it.  Returns past it. */
static const char *lex_escape(struct lexer *lexer, const char *at, const char *end)
{
	static const char plain[] = "\\'\"abfnrtv", means[] = "\\'\"\a\b\f\n\r\t\v";
	const char *found = strchr(plain, *at);
	char kind = *at;

	if (found) {
		jinja_put(lexer->job, means + (found - plain), 1);
		return at + 1;
	}
	if (kind == '\n') /* a line goes on */
		return at + 1;
	if (kind >= '0' && kind <= '7') {
		put_code(lexer, escape_digits(&at, end, 8, 3));
		return at;
	}
	if (kind == 'N' || (unsigned char)kind >= 0x80)
		jinja_fail(lexer->job, ERR_UNSUPPORTED, "the escape \\%.4s in a string is not supported", at);
	int digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
	if (digits == 0) {
		jinja_puts(lexer->job, "\\");
		return at;
	}
	const char *start = ++at;
	int32_t code = escape_digits(&at, end, 16, digits);
	if (at - start != digits)
		jinja_fail(lexer->job, ERR_INVALID, "\\%c in a string needs %d hexadecimal digits", kind, digits);
	put_code(lexer, code);
	return at;
}

static void lex_string(struct lexer *lexer)
{
	const char *start = lexer->at + 1, *end = start;
	size_t mark = lexer->job->n_out;

	while (end < lexer->end && *end != *lexer->at)
		end += *end == '\\' ? 2 : 1;
	if (end >= lexer->end)
		jinja_fail(lexer->job, ERR_INVALID, "missing end of string: %c", *lexer->at);
	for (const char *at = start; at < end;) {
		size_t run = (size_t)(end - at);
		const char *escape = memchr(at, '\\', run);
		jinja_put(lexer->job, at, escape ? (size_t)(escape - at) : run);
		at = escape ? lex_escape(lexer, escape + 1, end) : end;
	}
	token_add(lexer, TOKEN_STRING, value_text(jinja_cut(lexer->job, mark)));
	advance(lexer, end + 1);
}

static void lex_operator(struct lexer *lexer)
{
	static const char openers[] = "([{", closers[] = ")]}";
	int i = 0;
	char c = *lexer->at;

	while (i < N_OPERATORS && !starts_with(lexer->at, lexer->end, operators[i].spelling))
		i++;
	if (i == N_OPERATORS)
		jinja_fail(lexer->job, ERR_INVALID, "unexpected character '%c'", c);
	const char *opener = strchr(openers, c);
	if (opener) {
		if (lexer->n_closers == JINJA_DEPTH_MAX)
			jinja_fail(lexer->job, ERR_TOO_BIG, "brackets nested more than %d deep", JINJA_DEPTH_MAX);
		lexer->closers[lexer->n_closers++] = closers[opener - openers];
	} else if (strchr(closers, c) && (lexer->n_closers == 0 || lexer->closers[--lexer->n_closers] != c)) {
		jinja_fail(lexer->job, ERR_INVALID, "unexpected '%c'", c);
	}
	token_add(lexer, operators[i].kind, (struct value){VALUE_MISSING});
	advance(lexer, lexer->at + strlen(operators[i].spelling));
}

/* The tag's end if that is what the lexer is at: "}}" or "%}", with a sign before it. */
static bool lex_tag_end(struct lexer *lexer, const char *close)
{
	bool block = close[0] == '%';
	char sign = *lexer->at == '-' || (block && *lexer->at == '+') ? *lexer->at : 0;

	if (lexer->n_closers > 0 || !starts_with(lexer->at + (sign != 0), lexer->end, close))
		return false;
	token_add(lexer, block ? TOKEN_BLOCK_END : TOKEN_PRINT_END, (struct value){VALUE_MISSING});
	advance(lexer, end_tag(lexer, lexer->at + (sign != 0), sign, 2, block));
	return true;
}

static void lex_tag(struct lexer *lexer, bool block)
{
	token_add(lexer, block ? TOKEN_BLOCK_BEGIN : TOKEN_PRINT_BEGIN, (struct value){VALUE_MISSING});
	for (;;) {
		advance(lexer, skip_space(lexer->at, lexer->end));
		if (lexer->at == lexer->end)
			break; /* the parser misses the end */
		if (lex_tag_end(lexer, block ? "%}" : "}}"))
			return;
		const char *at = lexer->at;
		if (*at >= '0' && *at <= '9') {
			lex_number(lexer);
		} else if (is_name_byte((unsigned char)*at)) {
			while (at < lexer->end && is_name_byte((unsigned char)*at))
				at++;
			text_token(lexer, TOKEN_NAME, lexer->at, (size_t)(at - lexer->at));
			advance(lexer, at);
		} else if (*at == '\'' || *at == '"') {
			lex_string(lexer);
		} else {
			lex_operator(lexer);
		}
	}
}

/* Text up to the next tag, and the tag.  False at the end. */
static bool lex_next(struct lexer *lexer)
{
	const char *tag = lexer->at, *close, *end;
	char sign;

	while ((tag = memchr(tag, '{', (size_t)(lexer->end - tag))))
		if (++tag < lexer->end && (*tag == '{' || *tag == '%' || *tag == '#'))
			break;
	if (!tag) {
		if (lexer->at < lexer->end)
			text_token(lexer, TOKEN_DATA, lexer->at, (size_t)(lexer->end - lexer->at));
		return false;
	}
	char kind = *tag--;
	if ((end = word_tag(lexer, tag, "raw", &sign, &close)) && *close != '+') {
		lex_data(lexer, tag, sign, true);
		advance(lexer, end_tag(lexer, end, *close == '-' ? '-' : 0, 2, false));
		lex_raw(lexer);
		return true;
	}
	sign = tag + 2 < lexer->end && (tag[2] == '-' || tag[2] == '+') ? tag[2] : 0;
	lex_data(lexer, tag, sign, kind != '{');
	advance(lexer, tag + 2 + (sign != 0));
	if (kind == '#')
		lex_comment(lexer);
	else
		lex_tag(lexer, kind == '%');
	return true;
}

/* A copy with \r\n and \r made \n, and without the last newline. */
static size_t normalize(char *to, const char *source, size_t n)
{
	size_t length = 0;

	for (size_t i = 0; i < n; i++) {
		if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n')
			continue;
		to[length++] = source[i] == '\r' ? '\n' : source[i];
	}
	return length > 0 && to[length - 1] == '\n' ? length - 1 : length;
}

const struct token *jinja_lex(struct job *job, const char *source, size_t n)
{
	char *copy = jinja_alloc(job, n + 1);
	struct lexer lexer = {.job = job, .at = copy, .end = copy + normalize(copy, source, n),
	                      .line_starting = true};

	while (lex_next(&lexer))
		;
	token_add(&lexer, TOKEN_END, (struct value){VALUE_MISSING});
	return lexer.tokens;
}
