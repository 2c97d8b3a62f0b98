/* tokenizer_regex.c - regular expressions of tokenizer.json, from Oniguruma's default syntax to PCRE2's.
 *
 * What both read alike is copied; what they read differently is rewritten:
 *
 *   \s \w \b \h \v \R     spelled out, since they hold other characters there
 *   \d \uHHHH \p{Letter}  \p{Nd} \x{HHHH} \p{L}; \p{Han} asks for the script, not for script extensions
 *   (?m)                  (?s), where a dot matches a newline too
 *   x{,n} x{n,m}+ x{n}?   x{0,n} (?:x{n,m})+ (?:x{n})?
 *   [a[bc]] [a&&[^b]]     alternatives and look-aheads around plain classes (tokenizer_regex_sets.c)
 *
 * and the rest is refused: what is rare, and what cannot be the same, such as case folding to more than one
 * character.  PCRE2 compiles the result with UTF, UCP and MULTILINE (^ and $ are always per line there).
 */
#include "policy/tokenizer/tokenizer_regex.h"

#include <string.h>

#include "policy/utf8.h"

bool regex_refuse(struct translation *t, const char *why)
{
	if (!t->refused)
		t->refused = why;
	return false;
}

bool regex_here(const struct translation *t, const char *text)
{
	size_t n = strlen(text);

	return t->n - t->at >= n && memcmp(t->regex + t->at, text, n) == 0;
}

void regex_put(struct translation *t, const char *text)
{
	pieces_write(t->out, text, strlen(text));
}

bool regex_fold_is_plain(int32_t code)
{
	return code < 0x80 || (code >= 0x2E80 && code < 0xA4D0) || (code >= 0xAC00 && code < 0xD7A4);
}

static bool escape(struct translation *t)
{
	static const char *const others[][2] = {
		{"\\R", "(?>\\r\\n|[\\x0A-\\x0D\\x{85}\\x{2028}\\x{2029}])"}, {"\\N", "[^\\n]"},
		{"\\A", "\\A"}, {"\\z", "\\z"}, {"\\Z", "\\Z"}, {"\\G", "\\G"},
	};

	if (regex_here(t, "\\b") || regex_here(t, "\\B")) {
		t->at += 2;
		return regex_word_boundary(t, t->regex[t->at - 1] == 'B');
	}
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		if (!regex_here(t, others[i][0]))
			continue;
		regex_put(t, others[i][1]);
		t->at += 2;
		return true;
	}
	return regex_escape(t, false);
}

static bool open_group(struct translation *t, bool caseless, size_t start)
{
	if (t->depth == REGEX_GROUPS_MAX)
		return regex_refuse(t, "groups nested too deeply");
	t->caseless[++t->depth] = caseless;
	t->starts[t->depth] = start;
	return true;
}

/* At "(?" and letters: options for a group of their own, or for all of the one that begins here. */
static bool options(struct translation *t, size_t group_start)
{
	bool at_start = t->at == group_start, on = true, caseless = t->caseless[t->depth];
	size_t at = t->at + 2, start = t->out->n_bytes;

	regex_put(t, "(?");
	for (; at < t->n && strchr("im-", t->regex[at]) && t->regex[at]; at++) {
		char c = t->regex[at];
		on = on && c != '-';
		caseless = c == 'i' ? on : caseless;
		regex_put(t, c == 'i' ? "i" : c == 'm' ? "s" : "-");
	}
	t->at = at;
	if (regex_here(t, ":")) {
		regex_put(t, ":");
		t->at++;
		return open_group(t, caseless, start);
	}
	if (!regex_here(t, ")") || !at_start)
		return regex_refuse(t, "a group or option that is not known here");
	regex_put(t, ")");
	t->at++;
	t->caseless[t->depth] = caseless;
	return true;
}

/* At a '('. */
static bool group(struct translation *t, size_t *group_start)
{
	static const char *const plain[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
	size_t i = 0;

	if (regex_here(t, "(?#")) {
		const char *end = memchr(t->regex + t->at, ')', t->n - t->at);
		if (!end || memchr(t->regex + t->at, '\\', (size_t)(end - (t->regex + t->at))))
			return regex_refuse(t, "a comment");
		t->at = (size_t)(end - t->regex) + 1;
		return true;
	}
	while (i < sizeof plain / sizeof *plain && !regex_here(t, plain[i]))
		i++;
	if (i < sizeof plain / sizeof *plain || !regex_here(t, "(?")) {
		const char *text = i < sizeof plain / sizeof *plain ? plain[i] : "(";
		size_t start = t->out->n_bytes;
		regex_put(t, text);
		t->at += strlen(text);
		*group_start = t->at;
		return open_group(t, t->caseless[t->depth], start);
	}
	bool done = options(t, *group_start);
	*group_start = t->at;
	return done;
}

static size_t digits(const struct translation *t, size_t at)
{
	size_t n = 0;

	while (at + n < t->n && t->regex[at + n] >= '0' && t->regex[at + n] <= '9')
		n++;
	return n;
}

static void insert(struct pieces *out, size_t at, const char *text)
{
	size_t n = strlen(text);

	pieces_write(out, text, n);
	memmove(out->bytes + at + n, out->bytes + at, out->n_bytes - n - at);
	memcpy(out->bytes + at, text, n);
}

/* At a '{': how often, or the character itself. */
static bool interval(struct translation *t)
{
	size_t low = t->at + 1, n_low = digits(t, low), comma = low + n_low;
	bool has_comma = comma < t->n && t->regex[comma] == ',';
	size_t high = comma + has_comma, n_high = has_comma ? digits(t, high) : 0, close = high + n_high;

	if (n_low + n_high == 0 || close >= t->n || t->regex[close] != '}') {
		regex_put(t, "\\{");
		t->at++;
		return true;
	}
	char next = close + 1 < t->n ? t->regex[close + 1] : '\0';
	bool repeated = next == '+' || (next == '?' && !has_comma); /* not possessive, not lazy: a quantifier more */
	if (repeated)
		insert(t->out, t->atom, "(?:");
	regex_put(t, n_low == 0 ? "{0" : "{");
	pieces_write(t->out, t->regex + low, close + 1 - low);
	regex_put(t, repeated ? ")" : "");
	t->at = close + 1;
	return true;
}

/* At a character that stands for itself, or one of . | ^ $ * + ? that mean the same in both. */
static bool character(struct translation *t)
{
	static const char folded[][3] = {"ss", "st", "ff", "fi", "fl"}; /* also a single character's folding */
	int32_t code;
	size_t n = utf8_step(t->regex + t->at, t->n - t->at, &code);

	if (t->caseless[t->depth]) {
		char pair[2] = {(char)(t->regex[t->at] | 0x20), t->at + 1 < t->n ? (char)(t->regex[t->at + 1] | 0x20) : '\0'};
		for (size_t i = 0; i < sizeof folded / sizeof *folded; i++)
			if (memcmp(pair, folded[i], 2) == 0)
				return regex_refuse(t, "two letters with a ligature where case is ignored");
		if (!regex_fold_is_plain(code))
			return regex_refuse(t, "a letter that is not ASCII where case is ignored");
	}
	regex_put(t, code == '}' || code == ']' ? "\\" : "");
	pieces_write(t->out, t->regex + t->at, n);
	t->at += n;
	return true;
}

static bool construct(struct translation *t, size_t *group_start)
{
	char c = t->regex[t->at];
	size_t start = t->out->n_bytes;
	bool done = c == '\\'  ? escape(t)
	            : c == '[' ? regex_class(t, 0)
	            : c == '{' ? interval(t)
	            : c == '(' ? group(t, group_start)
	                       : character(t);

	if (c == ')' && t->depth > 0)
		t->atom = t->starts[t->depth--];
	else if (!strchr("{*+?", c))
		t->atom = start;
	return done;
}

int regex_translate(const char *regex, size_t n, struct pieces *out, const char *where, struct err *err)
{
	struct translation t = {.regex = regex, .n = n, .out = out};
	size_t group_start = 0;

	pieces_open(out, 0);
	while (t.at < n && construct(&t, &group_start))
		;
	if (!t.refused)
		return 0;
	return err_set(err, ERR_UNSUPPORTED, "%s: regular expression: %s, at or before byte %zu of %.200s; rewrite it "
	               "without", where, t.refused, t.at, regex);
}
