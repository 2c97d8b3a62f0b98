/* latex_number.c - rewriting by a table of commands, and a small recursive descent. */
#include "rollout/reward/latex_number.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

enum { DEPTH_MAX = 64 };

/* ---- normal form ---- */

struct rewriter {
	const char *at, *end;
	char *out;  /* room for three times the input and more */
	size_t n;
	int nested; /* brackets that are open */
};

/* Commands and signs, longest first where one begins another, and what is written for them. */
static const struct { const char *from, *to; } commands[] = {
	{ "\\\\", "\\\\" }, { "\\left", "" }, { "\\right", "" }, { "\\displaystyle", "" }, { "\\qquad", "" }, { "\\quad", "" },
	{ "\\dfrac", "\\frac" }, { "\\tfrac", "\\frac" }, { "\\cfrac", "\\frac" }, { "\\cdot", "*" }, { "\\times", "*" },
	{ "\\div", "/" }, { "\\%", "" }, { "\\$", "" }, { "\\!", "" }, { "\\,", "" }, { "\\;", "" }, { "\\:", "" }, { "\\ ", "" },
	{ "^{\\circ}", "" }, { "^\\circ", "" }, { "\\degree", "" }, { "\xc2\xb0", "" }, { "\xe2\x88\x92", "-" },
	{ "\xc3\x97", "*" }, { "\xcf\x80", "\\pi" }, { "{,}", "" }, { "\\(", "" }, { "\\)", "" }, { "\\[", "" }, { "\\]", "" },
	{ "\\{", "\\{" }, { "\\}", "\\}" }, { "$", "" }, { "%", "" }, { " ", "" }, { "\t", "" }, { "\n", "" }, { "\r", "" }, { "~", "" },
};
static const char *const fonts[] = { "\\text", "\\textbf", "\\textit", "\\mathrm", "\\mathbf", "\\mathbb", "\\mbox", "\\operatorname" };

static bool starts(const struct rewriter *r, const char *text)
{
	size_t n = strlen(text);
	return (size_t)(r->end - r->at) >= n && !memcmp(r->at, text, n);
}

static void put(struct rewriter *r, const char *text, size_t n)
{
	memcpy(r->out + r->n, text, n);
	r->n += n;
}

static bool is_digit(const char *at, const char *end)
{
	return at < end && *at >= '0' && *at <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Behind the brace that closes the one at `open`, or the end. */
static const char *behind_brace(const char *open, const char *end)
{
	int depth = 0;
	for (const char *at = open; at < end; at++) {
		depth += *at == '{' ? 1 : *at == '}' ? -1 : 0;
		if (depth == 0) return at + 1;
	}
	return end;
}

/* \text{...}: a unit if it begins with a space and stands behind something, else what it holds. */
static bool take_font(struct rewriter *r)
{
	for (size_t i = 0; i < sizeof fonts / sizeof *fonts; i++) {
		size_t n = strlen(fonts[i]);
		if (!starts(r, fonts[i]) || r->end - r->at <= (ptrdiff_t)n || r->at[n] != '{') continue;
		const char *inside = r->at + n + 1, *behind = behind_brace(r->at + n, r->end);
		const char *last = behind > inside && behind[-1] == '}' ? behind - 1 : behind;
		if (!(r->n > 0 && inside < last && *inside == ' '))
			for (const char *at = inside; at < last; at++)
				if (*at != ' ') put(r, at, 1);
		r->at = behind;
		return true;
	}
	return false;
}

/* An argument without braces is one character: \frac12, \sqrt3. */
static void put_argument(struct rewriter *r)
{
	while (r->at < r->end && *r->at == ' ') r->at++;
	if (r->at >= r->end || *r->at == '{' || *r->at == '[' || *r->at == '\\') return;
	put(r, "{", 1);
	put(r, r->at++, 1);
	put(r, "}", 1);
}

/* \frac or \sqrt has just been written; braced arguments are left to what comes. */
static void take_arguments(struct rewriter *r, bool frac)
{
	put_argument(r);
	if (frac && r->n > 0 && r->out[r->n - 1] == '}') put_argument(r);
}

static bool take_command(struct rewriter *r)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		const char *from = commands[i].from;
		size_t n = strlen(from);
		if (!starts(r, from)) continue;
		/* \left is not the beginning of \leftarrow. */
		if (from[0] == '\\' && is_letter(from[n - 1]) && r->at + n < r->end && is_letter(r->at[n])) continue;
		r->at += n;
		put(r, commands[i].to, strlen(commands[i].to));
		if (!strcmp(commands[i].to, "\\frac")) take_arguments(r, true);
		return true;
	}
	return false;
}

/* A comma between groups of three digits, outside of brackets. */
static bool is_thousands(const struct rewriter *r)
{
	const char *at = r->at;
	return *at == ',' && r->nested == 0 && r->n > 0 && is_digit(r->out + r->n - 1, r->out + r->n) && is_digit(at + 1, r->end) &&
	       is_digit(at + 2, r->end) && is_digit(at + 3, r->end) && !is_digit(at + 4, r->end);
}

static void take_one(struct rewriter *r)
{
	if (take_font(r) || take_command(r)) return;
	if (is_thousands(r)) {
		r->at++;
		return;
	}
	bool frac = starts(r, "\\frac"), root = starts(r, "\\sqrt");
	if (frac || root) {
		put(r, r->at, 5);
		r->at += 5;
		take_arguments(r, frac);
		return;
	}
	char c = *r->at;
	r->nested += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
	put(r, r->at++, 1);
}

char *latex_normal(const char *text, size_t n_bytes)
{
	struct rewriter r = { .at = text, .end = text + n_bytes, .out = xmalloc(4 * n_bytes + 16) };

	while (r.at < r.end) take_one(&r);
	while (r.n > 0 && r.out[r.n - 1] == '.') r.n--;
	r.out[r.n] = '\0';
	if (strlen(r.out) > 2 && is_letter(r.out[0]) && r.out[1] == '=' && !strchr(r.out + 2, '=')) /* x=5 */
		memmove(r.out, r.out + 2, strlen(r.out + 2) + 1);
	return r.out;
}

/* ---- value ---- */

struct reader {
	const char *at;
	int depth;
	bool wrong;
};

static double sum(struct reader *r);

static bool skip(struct reader *r, const char *text)
{
	size_t n = strlen(text);
	if (strncmp(r->at, text, n)) return false;
	r->at += n;
	return true;
}

static double fail(struct reader *r)
{
	r->wrong = true;
	return 0;
}

static double enclosed(struct reader *r, const char *open, const char *close)
{
	if (!skip(r, open)) return fail(r);
	double value = sum(r);
	return skip(r, close) ? value : fail(r);
}

static double plain(struct reader *r)
{
	char digits[64];
	size_t n = strspn(r->at, "0123456789."), points = 0;

	if (n >= sizeof digits) return fail(r);
	memcpy(digits, r->at, n);
	digits[n] = '\0';
	for (size_t i = 0; i < n; i++) points += digits[i] == '.';
	if (points > 1 || points == n) return fail(r);
	r->at += n;
	return strtod(digits, NULL);
}

static double fraction(struct reader *r)
{
	double over = enclosed(r, "{", "}"), under = enclosed(r, "{", "}");
	return under != 0 ? over / under : fail(r);
}

static double root(struct reader *r)
{
	double degree = *r->at == '[' ? enclosed(r, "[", "]") : 2, value = enclosed(r, "{", "}");
	return value >= 0 && degree > 0 ? pow(value, 1 / degree) : fail(r);
}

static double atom(struct reader *r)
{
	if (r->wrong || r->depth >= DEPTH_MAX) return fail(r);
	r->depth++;
	double value;
	if (skip(r, "\\frac")) value = fraction(r);
	else if (skip(r, "\\sqrt")) value = root(r);
	else if (skip(r, "\\pi") || skip(r, "pi")) value = 3.14159265358979323846;
	else if (*r->at == '(') value = enclosed(r, "(", ")");
	else if (*r->at == '{') value = enclosed(r, "{", "}");
	else value = plain(r);
	r->depth--;
	return value;
}

static double power(struct reader *r)
{
	double value = atom(r);

	if (r->wrong || !skip(r, "^")) return value;
	bool minus = skip(r, "-");
	double exponent = atom(r);
	return pow(value, minus ? -exponent : exponent);
}

static bool at_factor(const struct reader *r)
{
	return *r->at == '(' || *r->at == '{' || !strncmp(r->at, "\\frac", 5) || !strncmp(r->at, "\\sqrt", 5) ||
	       !strncmp(r->at, "\\pi", 3) || !strncmp(r->at, "pi", 2);
}

static double product(struct reader *r)
{
	const char *start = r->at;
	double value = power(r);

	while (!r->wrong) {
		bool whole = r->at > start && strspn(start, "0123456789") == (size_t)(r->at - start);
		if (skip(r, "*")) value *= power(r);
		else if (skip(r, "/")) {
			double below = power(r);
			value = below != 0 ? value / below : fail(r);
		} else if (whole && !strncmp(r->at, "\\frac", 5)) value += power(r); /* a mixed number */
		else if (at_factor(r)) value *= power(r);
		else break;
	}
	return value;
}

static double sum(struct reader *r)
{
	bool minus = skip(r, "-") || (skip(r, "+") && false);
	double value = product(r);

	if (minus) value = -value;
	while (!r->wrong && (*r->at == '+' || *r->at == '-')) {
		bool less = *r->at++ == '-';
		double next = product(r);
		value += less ? -next : next;
	}
	return value;
}

bool latex_number(const char *normal, double *value)
{
	struct reader r = { .at = normal };

	*value = sum(&r);
	return !r.wrong && !*r.at && isfinite(*value);
}
