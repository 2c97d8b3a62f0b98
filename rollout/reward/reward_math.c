/* reward_math.c - reward 1 iff the response's mathematical answer is the expected one.
 *
 *     reward = [answer(response) is equivalent to answer]
 *
 * answer(response): what stands in the last \boxed{} or \fbox{}, or what reward.pattern finds if that is given, or the
 * last line that is not blank, behind "####" where the line has that.  The expected answer may be a \boxed{} too.
 *
 * Equivalent, after Hendrycks et al. 2021 ("Measuring Mathematical Problem Solving With the MATH Dataset",
 * is_equiv) and Lewkowycz et al. 2022 ("Minerva"), with less reach than a computer algebra system and so without its
 * hangs: the same normal form (latex_number.h), or numbers that differ by at most reward.tolerance (of 1, or of the
 * expected one if that is more), or tuples, intervals and sets with the same brackets whose items are equivalent one by
 * one (of sets in any order).  1/2, \frac12, 0.5 and \dfrac{2}{4} are one.  O(response + answer^2).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rollout/reward/latex_number.h"
#include "rollout/reward/reward_kinds.h"

enum { ITEMS_MAX = 32, ANSWER_BYTES_MAX = 4096 }; /* a longer answer is compared as it stands */

/* What the last `command`{...} holds; a NULL start where there is none or it does not end. */
static struct span last_braced(struct span text, const char *command)
{
	size_t n = strlen(command);

	for (size_t at = text.length; at-- > 0;) {
		if (text.length - at <= n || memcmp(text.start + at, command, n)) continue;
		const char *from = text.start + at + n, *end = text.start + text.length;
		while (from < end && *from == ' ') from++;
		if (from == end || *from != '{') continue;
		int depth = 0;
		for (const char *c = from; c < end; c++) {
			depth += *c == '{' ? 1 : *c == '}' ? -1 : 0;
			if (depth == 0) return (struct span){ from + 1, (size_t)(c - from) - 1 };
		}
	}
	return (struct span){ 0 };
}

static struct span boxed(struct span text)
{
	struct span found = last_braced(text, "\\boxed");
	return found.start ? found : last_braced(text, "\\fbox");
}

static bool equal_items(char *a, char *b, double tolerance);

static bool equal_numbers(const char *a, const char *b, double tolerance)
{
	double found, right;
	return latex_number(a, &found) && latex_number(b, &right) && fabs(found - right) <= tolerance * fmax(1, fabs(right));
}

static bool equivalent(char *found, char *expected, double tolerance)
{
	return !strcmp(found, expected) || equal_numbers(found, expected, tolerance) || equal_items(found, expected, tolerance);
}

/* Cuts the text at commas that are in no bracket but the outer one; returns how many items, 0: it is no list. */
static int split(char *text, char **items, size_t open, size_t close)
{
	size_t n = strlen(text);
	int depth = 0, n_items = 1;

	if (n < open + close) return 0;
	items[0] = text + open;
	for (size_t i = open; i < n - close; i++) {
		depth += strchr("([{", text[i]) ? 1 : strchr(")]}", text[i]) ? -1 : 0;
		if (text[i] != ',' || depth != 0) continue;
		if (n_items == ITEMS_MAX) return 0;
		text[i] = '\0';
		items[n_items++] = text + i + 1;
	}
	text[n - close] = '\0';
	return n_items;
}

/* Bytes of the bracket at one end: ( [ are kept apart, \{ is a set; 0: none, a list as it stands. */
static size_t bracket(const char *text, bool at_end)
{
	size_t n = strlen(text);

	if (at_end) return n >= 2 && !strcmp(text + n - 2, "\\}") ? 2 : n >= 1 && strchr(")]", text[n - 1]) ? 1 : 0;
	return !strncmp(text, "\\{", 2) ? 2 : text[0] && strchr("([", text[0]) ? 1 : 0;
}

/* Each of a has its own in b. */
static bool match(char **a, char **b, int n, bool any_order, double tolerance)
{
	bool used[ITEMS_MAX] = { false };

	for (int i = 0; i < n; i++) {
		int k = any_order ? 0 : i, end = any_order ? n : i + 1;
		while (k < end && (used[k] || (strcmp(a[i], b[k]) && !equal_numbers(a[i], b[k], tolerance)))) k++;
		if (k == end) return false;
		used[k] = true;
	}
	return true;
}

/* Tuples, intervals, sets.  Cuts both texts up. */
static bool equal_items(char *a, char *b, double tolerance)
{
	char *ours[ITEMS_MAX], *theirs[ITEMS_MAX];
	size_t open = bracket(a, false), close = bracket(a, true), n_a = strlen(a), n_b = strlen(b);

	if (open != bracket(b, false) || close != bracket(b, true) || n_a < open + close || n_b < open + close) return false;
	if (memcmp(a, b, open) || memcmp(a + n_a - close, b + n_b - close, close)) return false;
	int n = split(a, ours, open, close), m = split(b, theirs, open, close);
	return n > 1 && n == m && match(ours, theirs, n, open != 1, tolerance);
}

static bool equal(struct span found, struct span expected, double tolerance)
{
	if (!found.start || found.length == 0) return false;
	if (found.length > ANSWER_BYTES_MAX || expected.length > ANSWER_BYTES_MAX) return span_equal(found, expected);
	char *a = latex_normal(found.start, found.length), *b = latex_normal(expected.start, expected.length);
	bool same = equivalent(a, b, tolerance) && *a;
	free(a);
	free(b);
	return same;
}

int reward_score_math(const struct reward *reward, struct trajectory *trajectory, const char *text,
                      struct err *err)
{
	struct span expected, found;
	if (reward_expected(trajectory, &expected, err)) return err->code;
	struct span inside = boxed(span_of(trajectory->answer));
	if (inside.start) expected = span_trim(inside);
	if (reward->pattern) {
		if (reward_pattern_find(reward->pattern, text, &found, err)) return err->code;
	} else {
		found = boxed(span_of(text));
		if (!found.start) found = span_after_marker(span_last_line(span_of(text)));
	}
	trajectory->reward_answer = equal(span_trim(found), expected, reward->tolerance);
	return 0;
}
