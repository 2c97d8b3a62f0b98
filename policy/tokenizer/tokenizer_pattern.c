/* tokenizer_pattern.c - literal and regular-expression matching (PCRE2) over text that may be ill-formed.
 *
 * Expressions are translated by tokenizer_regex.c.  Characters of Unicode 15 and 16, which PCRE2 may not
 * know, are matched by older ones of the same category and length (unicode_stand_in).
 *
 * PCRE2 stops at a match limit, so an expression that backtracks without end is an error, not a hang.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"

enum { MATCH_LIMIT = 100000000, HEAP_LIMIT_KIB = 256 << 10 };

struct pattern {
	char *literal; /* owned, or NULL */
	size_t n_literal;
	pcre2_code *code;
	pcre2_match_context *limits;
};

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

	*pattern = xcalloc(1, sizeof **pattern);
	int code = regex_translate(regex, n, &translated, where, err);
	size_t length = translated.n_bytes;
	pieces_write(&translated, "", 1);
	if (code == 0)
		code = compile(*pattern, translated.bytes, length, where, err);
	pieces_free(&translated);
	return code;
}

int pattern_parse_literal(struct pattern **pattern, const json_t *json, const char *where, const char *key,
                          struct err *err)
{
	*pattern = xcalloc(1, sizeof **pattern);
	if (component_text(json, where, key, &(*pattern)->literal, &(*pattern)->n_literal, err) != 0)
		return err->code;
	/* nothing is found before and after every character, as an expression does */
	return (*pattern)->n_literal == 0 ? compile(*pattern, "", 0, where, err) : 0;
}

int pattern_parse(struct pattern **pattern, const json_t *json, const char *where, struct err *err)
{
	const json_t *literal = json_object_get(json, "String"), *regex = json_object_get(json, "Regex");

	if (json_is_string(regex))
		return pattern_compile(pattern, json_string_value(regex), json_string_length(regex), where, err);
	if (!json_is_string(literal))
		return err_set(err, ERR_INVALID, "%s.pattern must be {\"String\": ...} or {\"Regex\": ...}, found %s",
		               where, json_type_name(json));
	return pattern_parse_literal(pattern, json, where, "String", err);
}

bool pattern_matches_empty(const struct pattern *pattern)
{
	uint32_t may = 0;

	return pattern->code && pcre2_pattern_info(pattern->code, PCRE2_INFO_MATCHEMPTY, &may) == 0 && may;
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

/* Spans of the well-formed subject[0, n), which stands at `begin` of the text.  As in the reference, an empty
 * match is one unless it follows the match before it directly. */
static int regex_spans(const struct pattern *pattern, const char *subject, size_t begin, size_t n,
                       pcre2_match_data *data, struct spans *spans, struct err *err)
{
	const PCRE2_SIZE *hit = pcre2_get_ovector_pointer(data);
	size_t done = 0, at = 0, matched = SIZE_MAX;

	while (at <= n) {
		int found = match_once(pattern, subject, n, at, data, err);
		if (found < 0)
			return found;
		if (found == 0)
			break;
		size_t start = hit[0], stop = hit[1];
		if (stop == start && stop == matched) {
			int32_t code;
			at += at < n ? utf8_step(subject + at, n - at, &code) : 1;
			continue;
		}
		if (start > done)
			spans_add(spans, begin + done, begin + start, false);
		spans_add(spans, begin + start, begin + stop, true);
		done = at = matched = stop;
	}
	if (done < n)
		spans_add(spans, begin + done, begin + n, false);
	return 0;
}

/* The well-formed text[0, n) with older characters for young ones; NULL where there are none. */
static char *with_stand_ins(const char *text, size_t n)
{
	char *copy = NULL;

	for (size_t at = 0, step; at < n; at += step) {
		int32_t code;
		if ((unsigned char)text[at] < 0xE0) { /* young characters take three bytes or four */
			step = 1;
			continue;
		}
		step = utf8_step(text + at, n - at, &code);
		int32_t stand_in = unicode_stand_in(code);
		if (stand_in == code)
			continue;
		if (!copy) {
			copy = xmalloc(n);
			memcpy(copy, text, n);
		}
		utf8_write(copy + at, stand_in);
	}
	return copy;
}

int pattern_spans(const struct pattern *pattern, const char *text, size_t n, struct spans *spans,
                  struct err *err)
{
	int code = 0;

	if (!pattern->code) {
		literal_spans(pattern, text, n, spans);
		return 0;
	}
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	for (size_t at = 0, run; at < n && code == 0; at += run) {
		bool valid;
		run = utf8_run(text + at, n - at, &valid);
		if (!valid) {
			spans_add(spans, at, at + run, false);
			continue;
		}
		char *older = with_stand_ins(text + at, run);
		code = regex_spans(pattern, older ? older : text + at, at, run, data, spans, err);
		free(older);
	}
	pcre2_match_data_free(data);
	return code;
}
