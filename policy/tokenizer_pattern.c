/* tokenizer_pattern.c - literal and regular-expression matching (PCRE2) over text that may be ill-formed.
 *
 * tokenizer.json writes its expressions for Oniguruma in Ruby syntax.  They are taken to PCRE2 with UTF,
 * UCP and MULTILINE (Ruby's ^ and $ are always per line) after a small translation:
 *
 *   \s \S        \p{White_Space} and its complement (PCRE2's \s adds U+180E)
 *   \uHHHH       \x{HHHH}
 *   \h \H, nested classes and && in a class mean something else there: refused
 *
 * PCRE2 stops at a match limit, so an expression that backtracks without end is an error, not a hang.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer_internal.h"
#include "policy/utf8.h"

enum { MATCH_LIMIT = 100000000, HEAP_LIMIT_KIB = 256 << 10 };

struct pattern {
	char *literal; /* owned, or NULL */
	size_t n_literal;
	pcre2_code *code;
	pcre2_match_context *limits;
};

/* Copy one escape at regex[0] = '\\' to out; returns bytes consumed, 0 if it is refused. */
static size_t translate_escape(const char *regex, size_t n, struct pieces *out)
{
	static const char space[] = "\\p{White_Space}", other[] = "\\P{White_Space}";

	if (n < 2 || regex[1] == 'h' || regex[1] == 'H')
		return 0;
	if (regex[1] == 's' || regex[1] == 'S') {
		pieces_write(out, regex[1] == 's' ? space : other, sizeof space - 1);
		return 2;
	}
	if (regex[1] == 'u') {
		if (n < 6)
			return 0;
		pieces_write(out, "\\x{", 3);
		pieces_write(out, regex + 2, 4);
		pieces_write(out, "}", 1);
		return 6;
	}
	pieces_write(out, regex, 2);
	return 2;
}

/* Ruby syntax to PCRE2 syntax, as one piece of out; the position of what is refused, or n. */
static size_t translate(const char *regex, size_t n, struct pieces *out)
{
	bool class = false;
	size_t at = 0;

	pieces_open(out, 0);
	while (at < n) {
		char c = regex[at];
		size_t used = 1;
		if (c == '\\') {
			used = translate_escape(regex + at, n - at, out);
			if (used == 0)
				return at;
		} else if (class && (c == '[' || (c == '&' && at + 1 < n && regex[at + 1] == '&'))) {
			return at;
		} else if (c == '[') {
			/* a ']' directly after '[' or '[^' is a member */
			used += at + used < n && regex[at + used] == '^';
			used += at + used < n && regex[at + used] == ']';
			class = true;
			pieces_write(out, regex + at, used);
		} else {
			class = class && c != ']';
			pieces_write(out, regex + at, 1);
		}
		at += used;
	}
	return n;
}

static int compile(struct pattern *pattern, const char *regex, size_t n, const char *where, struct err *err)
{
	const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE;
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_UCHAR8 reason[160];
	PCRE2_SIZE offset;
	int number;

	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	pattern->code = pcre2_compile((PCRE2_SPTR8)regex, n, options, &number, &offset, context);
	pcre2_compile_context_free(context);
	if (!pattern->code) {
		pcre2_get_error_message(number, reason, sizeof reason);
		return err_set(err, ERR_UNSUPPORTED, "%s: regular expression: %s at byte %zu of %.200s", where,
		               (const char *)reason, (size_t)offset, regex);
	}
	pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE); /* where it fails, the interpreter gives the same */
	pattern->limits = pcre2_match_context_create(NULL);
	pcre2_set_match_limit(pattern->limits, MATCH_LIMIT);
	pcre2_set_heap_limit(pattern->limits, HEAP_LIMIT_KIB);
	return 0;
}

int pattern_compile(struct pattern **pattern, const char *regex, size_t n, const char *where, struct err *err)
{
	struct pieces translated = {0};
	struct pattern *made = xcalloc(1, sizeof *made);
	int code = 0;

	*pattern = made;
	size_t refused = translate(regex, n, &translated);
	size_t length = translated.n_bytes;
	pieces_write(&translated, "", 1);
	if (refused < n)
		code = err_set(err, ERR_UNSUPPORTED,
		               "%s: regular expression: no equivalent for what stands at byte %zu of %.200s", where,
		               refused, regex);
	else
		code = compile(made, translated.bytes, length, where, err);
	pieces_free(&translated);
	return code;
}

int pattern_parse(struct pattern **pattern, const json_t *json, const char *where, struct err *err)
{
	const json_t *literal = json_object_get(json, "String"), *regex = json_object_get(json, "Regex");

	if (json_is_string(regex))
		return pattern_compile(pattern, json_string_value(regex), json_string_length(regex), where, err);
	if (!json_is_string(literal))
		return err_set(err, ERR_INVALID, "%s.pattern must be {\"String\": ...} or {\"Regex\": ...}, found %s",
		               where, json_type_name(json));
	*pattern = xcalloc(1, sizeof **pattern);
	return field_text(json, where, "String", &(*pattern)->literal, &(*pattern)->n_literal, err);
}

void pattern_free(struct pattern *pattern)
{
	if (!pattern)
		return;
	free(pattern->literal);
	pcre2_code_free(pattern->code);
	pcre2_match_context_free(pattern->limits);
	free(pattern);
}

static void literal_spans(const struct pattern *pattern, const char *text, size_t n, struct spans *spans)
{
	size_t done = 0, at = 0, length = pattern->n_literal;

	while (length > 0 && at + length <= n) {
		const char *hit = memchr(text + at, pattern->literal[0], n - length - at + 1);
		if (!hit)
			break;
		at = (size_t)(hit - text);
		if (memcmp(hit, pattern->literal, length) != 0) {
			at++;
			continue;
		}
		if (at > done)
			spans_add(spans, done, at, false);
		spans_add(spans, at, at + length, true);
		done = at += length;
	}
	if (done < n)
		spans_add(spans, done, n, false);
}

/* One match at or after `at`; a JIT stack that overflows is retried by the interpreter. */
static int match_once(const struct pattern *pattern, const char *text, size_t n, size_t at,
                      pcre2_match_data *data, struct err *err)
{
	PCRE2_UCHAR8 reason[160];
	PCRE2_SPTR8 subject = (PCRE2_SPTR8)text;
	int count = pcre2_match(pattern->code, subject, n, at, PCRE2_NO_UTF_CHECK, data, pattern->limits);

	if (count == PCRE2_ERROR_JIT_STACKLIMIT)
		count = pcre2_match(pattern->code, subject, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data,
		                    pattern->limits);
	if (count >= 0 || count == PCRE2_ERROR_NOMATCH)
		return count == PCRE2_ERROR_NOMATCH ? 0 : 1;
	pcre2_get_error_message(count, reason, sizeof reason);
	return err_set(err, ERR_INVALID,
	               "tokenizer: its regular expression gave up on the text after byte %zu of a piece "
	               "of %zu: %s",
	               at, n, (const char *)reason);
}

/* Spans of the well-formed text[begin, end). */
static int regex_spans(const struct pattern *pattern, const char *text, size_t begin, size_t end,
                       pcre2_match_data *data, struct spans *spans, struct err *err)
{
	const char *subject = text + begin;
	size_t n = end - begin, done = 0, at = 0;
	const PCRE2_SIZE *hit = pcre2_get_ovector_pointer(data);

	while (at < n) {
		int found = match_once(pattern, subject, n, at, data, err);
		if (found < 0)
			return found;
		if (found == 0)
			break;
		size_t start = hit[0], stop = hit[1];
		if (start > done)
			spans_add(spans, begin + done, begin + start, false);
		if (stop > start)
			spans_add(spans, begin + start, begin + stop, true);
		done = at = stop > start ? stop : start;
		if (stop <= start && at < n) {
			int32_t code;
			at += utf8_step(subject + at, n - at, &code);
		}
	}
	if (done < n)
		spans_add(spans, begin + done, end, false);
	return 0;
}

int pattern_spans(const struct pattern *pattern, const char *text, size_t n, struct spans *spans,
                  struct err *err)
{
	int code = 0;

	if (pattern->literal) {
		literal_spans(pattern, text, n, spans);
		return 0;
	}
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	for (size_t at = 0; at < n && code == 0;) {
		bool valid;
		size_t run = utf8_run(text + at, n - at, &valid);
		if (valid)
			code = regex_spans(pattern, text, at, at + run, data, spans, err);
		else
			spans_add(spans, at, at + run, false);
		at += run;
	}
	pcre2_match_data_free(data);
	return code;
}
