/* reward_numeric.c - reward 1 iff the response states the expected number.
 *
 *     reward = [|number(response) - number(answer)| <= reward.tolerance]
 *
 * number(text): the first number after the last "####" where the text has that (GSM8K), else the last
 * number; where reward.pattern is given, of what it finds in the response.  A number is 18, 18.00, .5,
 * -3, $18, -$18, 1,234.5, 2e-3 or a fraction 3/4; a minus is a sign only where no letter, digit or ')'
 * stands before it, so 5-3 ends in 3.  Units, "%" and a full stop behind it are ignored.  O(response).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rollout/reward/reward_kinds.h"

enum { DIGITS_MAX = 400 }; /* more characters than any finite double needs: infinite, equal to nothing */

struct cursor {
	const char *at, *begin, *end;
};

static bool is_digit(const struct cursor *cursor, const char *at)
{
	return at < cursor->end && *at >= '0' && *at <= '9';
}

static bool is_word(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == ')';
}

/* A comma that groups thousands: exactly three digits behind it. */
static bool is_thousands_comma(const struct cursor *cursor, const char *at)
{
	return at < cursor->end && *at == ',' && is_digit(cursor, at + 1) && is_digit(cursor, at + 2) &&
	       is_digit(cursor, at + 3) && !is_digit(cursor, at + 4);
}

/* Bytes of the sign at the cursor, "-" or U+2212; 0 where it is none or stands between two terms. */
static size_t minus_size(const struct cursor *cursor)
{
	static const char minus_sign[] = "\xe2\x88\x92";
	if (cursor->at > cursor->begin && is_word(cursor->at[-1])) return 0;
	if (*cursor->at == '-') return 1;
	return cursor->end - cursor->at >= 3 && !memcmp(cursor->at, minus_sign, 3) ? 3 : 0;
}

static void take_digits(struct cursor *cursor, char *digits, size_t *n)
{
	for (; is_digit(cursor, cursor->at); cursor->at++)
		if (*n < DIGITS_MAX) digits[(*n)++] = *cursor->at;
}

/* 1,234.5e-6 without a sign, cursor at a digit or at a point before a digit. */
static double take_unsigned(struct cursor *cursor)
{
	char digits[DIGITS_MAX + 8];
	size_t n = 0;
	const char *start = cursor->at;
	take_digits(cursor, digits, &n);
	bool grouped = n <= 3;
	while (grouped && is_thousands_comma(cursor, cursor->at)) {
		cursor->at++;
		take_digits(cursor, digits, &n);
	}
	if (cursor->at < cursor->end && *cursor->at == '.' && is_digit(cursor, cursor->at + 1)) {
		if (n < DIGITS_MAX) digits[n++] = '.';
		cursor->at++;
		take_digits(cursor, digits, &n);
	}
	if (cursor->end - cursor->at >= 2 && (*cursor->at == 'e' || *cursor->at == 'E')) {
		size_t size = cursor->at[1] == '-' || cursor->at[1] == '+' ? 2 : 1; /* "e" or "e-" */
		if (is_digit(cursor, cursor->at + size)) {
			for (; size > 0; size--, cursor->at++)
				if (n < DIGITS_MAX) digits[n++] = *cursor->at;
			take_digits(cursor, digits, &n);
		}
	}
	digits[n] = '\0';
	return cursor->at - start > DIGITS_MAX ? INFINITY : strtod(digits, NULL);
}

/* A number or a fraction of two; a zero below the line is not taken for one. */
static double take_fraction(struct cursor *cursor)
{
	double number = take_unsigned(cursor);
	struct cursor below = *cursor;
	if (below.at == below.end || *below.at != '/' || !is_digit(&below, below.at + 1)) return number;
	below.at++;
	double denominator = take_unsigned(&below);
	if (!(denominator > 0)) return number;
	*cursor = below;
	return number / denominator;
}

static bool at_number(const struct cursor *cursor, const char *at)
{
	return is_digit(cursor, at) || (at < cursor->end && *at == '.' && is_digit(cursor, at + 1));
}

/* The next number at or behind the cursor, which is left behind it; false at the end. */
static bool next_number(struct cursor *cursor, double *number)
{
	for (; cursor->at < cursor->end; cursor->at++) {
		const char *start = cursor->at;
		size_t minus = minus_size(cursor);
		const char *digits = start + minus;
		if (digits < cursor->end && *digits == '$') digits++;
		if (!minus && digits > start && digits < cursor->end && *digits == '-') { /* $-18 */
			minus = 1;
			digits++;
		}
		if (!at_number(cursor, digits)) continue;
		cursor->at = digits;
		*number = minus ? -take_fraction(cursor) : take_fraction(cursor);
		return true;
	}
	return false;
}

bool reward_number(struct span text, double *number)
{
	struct span marked = span_after_marker(text);
	struct cursor cursor = { marked.start, marked.start, marked.start + marked.length };
	if (marked.start != text.start) return next_number(&cursor, number);
	bool found = false;
	while (next_number(&cursor, number)) found = true;
	return found;
}

int reward_score_numeric(const struct reward *reward, struct trajectory *trajectory, const char *text,
                         struct err *err)
{
	struct span expected, found = span_of(text);
	double right, answer;
	if (reward_expected(trajectory, &expected, err)) return err->code;
	if (!reward_number(span_of(trajectory->answer), &right))
		return err_set(err, ERR_INVALID, "reward.kind numeric expects a number as answer, found \"%.*s\"",
		               expected.length < 100 ? (int)expected.length : 100, expected.start);
	if (reward->pattern && reward_pattern_find(reward->pattern, text, &found, err)) return err->code;
	bool stated = found.start && reward_number(found, &answer);
	trajectory->reward_answer = stated && fabs(answer - right) <= reward->tolerance;
	return 0;
}
