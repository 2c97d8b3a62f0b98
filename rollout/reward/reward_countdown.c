/* reward_countdown.c - reward 1 iff the response is an expression of the given numbers that makes the target.
 *
 *     reward = [value(expression) = target and expression uses each of nums exactly once]
 *
 * The Countdown task (Gandhi et al. 2024, "Stream of Search"; TinyZero's verifier): the prompt's JSON fields `nums`, a
 * list of whole numbers, and `target`.  The expression is what stands in the last <answer>...</answer>, or what
 * reward.pattern finds, or the last line that is not blank; of an equation its left side.  + - * / and parentheses;
 * arithmetic is of exact fractions.  What is no such expression, divides by 0 or leaves 64 bits is wrong.  O(response).
 */
#include <jansson.h>
#include <string.h>

#include "rollout/reward/reward_kinds.h"

enum { NUMBERS_MAX = 64, DEPTH_MAX = 64 };

__extension__ typedef __int128 wide; /* products of two 64-bit numbers, and a sum of two of those */

struct fraction {
	int64_t over, under; /* lowest terms, under > 0 */
};

struct parser {
	const char *at, *end;
	int64_t numbers[NUMBERS_MAX];
	int n_numbers, depth;
	bool wrong;
};

static struct fraction fraction_of(struct parser *p, wide over, wide under)
{
	wide a = over < 0 ? -over : over, b = under < 0 ? -under : under;

	while (b) {
		wide rest = a % b;
		a = b;
		b = rest;
	}
	if (under == 0 || a == 0) {
		p->wrong |= under == 0;
		return (struct fraction){ 0, 1 };
	}
	over /= under < 0 ? -a : a;
	under /= under < 0 ? -a : a;
	if (over > INT64_MAX || over < -INT64_MAX || under > INT64_MAX) {
		p->wrong = true;
		return (struct fraction){ 0, 1 };
	}
	return (struct fraction){ (int64_t)over, (int64_t)under };
}

static char next(struct parser *p)
{
	while (p->at < p->end && (*p->at == ' ' || *p->at == '\t')) p->at++;
	return p->at < p->end ? *p->at : '\0';
}

static struct fraction sum(struct parser *p);

static struct fraction number(struct parser *p)
{
	int64_t value = 0;

	for (; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *p->at - '0', &value)) p->wrong = true;
	if (p->n_numbers == NUMBERS_MAX) p->wrong = true;
	else p->numbers[p->n_numbers++] = value;
	return (struct fraction){ value, 1 };
}

static struct fraction factor(struct parser *p)
{
	struct fraction value = { 0, 1 };
	char c = next(p);

	if (c >= '0' && c <= '9') return number(p);
	if ((c != '(' && c != '-') || ++p->depth > DEPTH_MAX) {
		p->wrong = true;
		return value;
	}
	p->at++;
	if (c == '-') {
		value = factor(p);
		value.over = -value.over;
	} else {
		value = sum(p);
		if (next(p) == ')') p->at++;
		else p->wrong = true;
	}
	p->depth--;
	return value;
}

static struct fraction product(struct parser *p)
{
	struct fraction a = factor(p);

	for (char c; !p->wrong && ((c = next(p)) == '*' || c == '/');) {
		p->at++;
		struct fraction b = factor(p);
		if (c == '*') a = fraction_of(p, (wide)a.over * b.over, (wide)a.under * b.under);
		else a = fraction_of(p, (wide)a.over * b.under, (wide)a.under * b.over);
	}
	return a;
}

static struct fraction sum(struct parser *p)
{
	struct fraction a = product(p);

	for (char c; !p->wrong && ((c = next(p)) == '+' || c == '-');) {
		p->at++;
		struct fraction b = product(p);
		wide left = (wide)a.over * b.under, right = (wide)b.over * a.under;
		a = fraction_of(p, c == '+' ? left + right : left - right, (wide)a.under * b.under);
	}
	return a;
}

/* Each of nums once and nothing else. */
static bool uses_all(const struct parser *p, const json_t *nums)
{
	bool used[NUMBERS_MAX] = { false };

	if ((size_t)p->n_numbers != json_array_size(nums)) return false;
	for (int i = 0; i < p->n_numbers; i++) {
		int k = 0;
		while (k < p->n_numbers && (used[k] || json_integer_value(json_array_get(nums, (size_t)k)) != p->numbers[i])) k++;
		if (k == p->n_numbers) return false;
		used[k] = true;
	}
	return true;
}

static struct span between_tags(struct span text)
{
	static const char open[] = "<answer>", close[] = "</answer>";
	size_t n = sizeof open - 1;

	for (size_t at = text.length; at-- > 0;) {
		if (text.length - at < n || memcmp(text.start + at, open, n)) continue;
		const char *end = strstr(text.start + at + n, close);
		const char *from = text.start + at + n;
		return (struct span){ from, end ? (size_t)(end - from) : text.length - at - n };
	}
	return span_last_line(text);
}

static int task_of(const json_t *meta, const json_t **nums, int64_t *target, struct err *err)
{
	const json_t *wanted = json_object_get(meta, "target");

	*nums = json_object_get(meta, "nums");
	bool good = json_is_integer(wanted) && json_array_size(*nums) > 0 && json_array_size(*nums) <= NUMBERS_MAX;
	for (size_t i = 0; good && i < json_array_size(*nums); i++) good = json_is_integer(json_array_get(*nums, i));
	*target = json_integer_value(wanted);
	return good ? 0 : err_set(err, ERR_MISSING, "reward.kind countdown expects the fields `nums`, a list of 1 to %d whole "
	                          "numbers, and `target`, a whole number", NUMBERS_MAX);
}

int reward_score_countdown(const struct reward *reward, struct trajectory *trajectory, const char *text,
                           struct err *err)
{
	json_t *meta = trajectory->meta ? json_loads(trajectory->meta, 0, NULL) : NULL;
	struct span found = { 0 };
	const json_t *nums;
	int64_t target;

	int code = task_of(meta, &nums, &target, err);
	if (!code && reward->pattern) code = reward_pattern_find(reward->pattern, text, &found, err);
	else if (!code) found = between_tags(span_of(text));
	if (!code && found.start) {
		const char *equals = memchr(found.start, '=', found.length);
		found = span_trim((struct span){ found.start, equals ? (size_t)(equals - found.start) : found.length });
		struct parser p = { .at = found.start, .end = found.start + found.length };
		struct fraction value = sum(&p);
		bool whole = !p.wrong && next(&p) == '\0' && p.at == p.end;
		trajectory->reward_answer = whole && value.under == 1 && value.over == target && uses_all(&p, nums);
	}
	json_decref(meta);
	return code;
}
