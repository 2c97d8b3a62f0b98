/* jinja_methods.c - the methods of strings that search, strip and replace.
 *
 * Strings hold no NUL and end with one, so strstr (linear in glibc) finds a string in the rest of another. */
#include <string.h>

#include "policy/chat/jinja.h"
#include "policy/chat/jinja_internal.h"
#include "policy/utf8.h"

static const struct text *self_of(const struct call *call)
{
	return call->args[0].text;
}

struct value jinja_piece(struct job *job, const char *from, const char *to)
{
	return value_text(jinja_text(job, from, (size_t)(to - from)));
}

const char *jinja_find_last(struct job *job, const char *from, const char *to, const struct text *what)
{
	for (const char *at = to; (size_t)(at - from) >= what->n; at--) {
		jinja_charge(job, what->n / STEP_BYTES + ((at - from) % 32 == 0));
		if (memcmp(at - what->n, what->bytes, what->n) == 0)
			return at - what->n;
	}
	return NULL;
}

/* ---- strip ---- */

/* Whether strip takes the character at [at, at + n) away. */
static bool strips(const char *at, size_t n, int32_t code, const struct text *chars)
{
	char character[5] = "";

	if (!chars)
		return jinja_is_space(code);
	memcpy(character, at, n);
	return strstr(chars->bytes, character) != NULL;
}

struct value jinja_strip(struct job *job, const struct text *text, const struct text *chars, enum side side)
{
	const char *from = text->bytes, *to = from + text->n;
	int32_t code;

	while ((side & SIDE_LEFT) && from < to) {
		size_t step = utf8_step(from, (size_t)(to - from), &code);
		jinja_charge(job, chars ? 1 + chars->n / STEP_BYTES : 0);
		if (!strips(from, step, code, chars))
			break;
		from += step;
	}
	while ((side & SIDE_RIGHT) && from < to) {
		const char *last = to - 1;
		while (((unsigned char)*last & 0xC0) == 0x80)
			last--;
		utf8_step(last, (size_t)(to - last), &code);
		jinja_charge(job, chars ? 1 + chars->n / STEP_BYTES : 0);
		if (!strips(last, (size_t)(to - last), code, chars))
			break;
		to = last;
	}
	jinja_charge(job, (text->n - (size_t)(to - from)) / STEP_CHARACTERS);
	return jinja_piece(job, from, to);
}

static struct value strip_call(struct job *job, const struct call *call, enum side side)
{
	return jinja_strip(job, self_of(call), jinja_arg_text_or_none(job, call->args[1]), side);
}

static struct value strip(struct job *job, const struct call *call)
{
	return strip_call(job, call, SIDE_BOTH);
}

static struct value lstrip(struct job *job, const struct call *call)
{
	return strip_call(job, call, SIDE_LEFT);
}

static struct value rstrip(struct job *job, const struct call *call)
{
	return strip_call(job, call, SIDE_RIGHT);
}

static bool begins(const struct text *text, const struct text *with)
{
	return with->n <= text->n && memcmp(text->bytes, with->bytes, with->n) == 0;
}

static bool ends(const struct text *text, const struct text *with)
{
	return with->n <= text->n && memcmp(text->bytes + text->n - with->n, with->bytes, with->n) == 0;
}

static struct value remove_prefix(struct job *job, const struct call *call)
{
	const struct text *text = self_of(call), *prefix = jinja_arg_text(job, call->args[1], NULL);

	return jinja_piece(job, text->bytes + (begins(text, prefix) ? prefix->n : 0), text->bytes + text->n);
}

static struct value remove_suffix(struct job *job, const struct call *call)
{
	const struct text *text = self_of(call), *suffix = jinja_arg_text(job, call->args[1], NULL);

	return jinja_piece(job, text->bytes, text->bytes + text->n - (ends(text, suffix) ? suffix->n : 0));
}

/* ---- search ---- */

/* The part of the object between start and end, which are arguments 2 and 3. */
static const struct text *range_of(struct job *job, const struct call *call)
{
	if (!jinja_arg_given(call->args[2]) && !jinja_arg_given(call->args[3]))
		return self_of(call);
	return jinja_slice(job, call->args[0], call->args[2], call->args[3], (struct value){VALUE_MISSING}).text;
}

/* startswith, endswith: of a string, or of any in a tuple. */
static struct value affix(struct job *job, const struct call *call,
                          bool (*holds)(const struct text *text, const struct text *with))
{
	const struct text *text = range_of(job, call);

	if (call->args[1].kind != VALUE_TUPLE)
		return value_bool(holds(text, jinja_arg_text(job, call->args[1], NULL)));
	for (size_t i = 0; i < call->args[1].list->n; i++)
		if (holds(text, jinja_arg_text(job, call->args[1].list->items[i], NULL)))
			return value_bool(true);
	return value_bool(false);
}

static struct value starts_with(struct job *job, const struct call *call)
{
	return affix(job, call, begins);
}

static struct value ends_with(struct job *job, const struct call *call)
{
	return affix(job, call, ends);
}

static struct value search(struct job *job, const struct call *call, bool last, bool needed)
{
	const struct text *text = range_of(job, call), *what = jinja_arg_text(job, call->args[1], NULL);
	struct value none = {.kind = VALUE_MISSING};
	const char *found;
	int64_t start = 0;

	jinja_charge(job, text->n / STEP_BYTES);
	if (jinja_arg_given(call->args[2])) /* where the range begins: what is before it has that length */
		start = (int64_t)jinja_text_length(jinja_slice(job, call->args[0], none, call->args[2], none).text);
	if (last)
		found = jinja_find_last(job, text->bytes, text->bytes + text->n, what);
	else
		found = strstr(text->bytes, what->bytes);
	if (!found && needed)
		jinja_fail(job, ERR_INVALID, "index: the string is not there");
	if (!found)
		return value_int(-1);
	const struct text *before = jinja_text(job, text->bytes, (size_t)(found - text->bytes));
	return value_int(start + (int64_t)jinja_text_length(before));
}

static struct value find(struct job *job, const struct call *call)
{
	return search(job, call, false, false);
}

static struct value rfind(struct job *job, const struct call *call)
{
	return search(job, call, true, false);
}

static struct value text_index(struct job *job, const struct call *call)
{
	return search(job, call, false, true);
}

static struct value rindex_text(struct job *job, const struct call *call)
{
	return search(job, call, true, true);
}

static struct value count(struct job *job, const struct call *call)
{
	const struct text *text = range_of(job, call), *what = jinja_arg_text(job, call->args[1], NULL);
	int64_t n = 0;

	if (what->n == 0)
		return value_int((int64_t)jinja_text_length(text) + 1);
	jinja_charge(job, text->n / STEP_BYTES);
	for (const char *at = text->bytes; (at = strstr(at, what->bytes)); at += what->n)
		n++;
	return value_int(n);
}

/* ---- put together ---- */

static struct value join(struct job *job, const struct call *call)
{
	const struct list *list = jinja_elements(job, call->args[1]);
	size_t mark = job->n_out;

	for (size_t i = 0; i < list->n; i++) {
		const struct text *item = jinja_arg_text(job, list->items[i], NULL);
		if (i > 0)
			jinja_put(job, self_of(call)->bytes, self_of(call)->n);
		jinja_put(job, item->bytes, item->n);
	}
	return value_text(jinja_cut(job, mark));
}

/* An empty old is found before every character and at the end. */
static struct value insert_between(struct job *job, const struct text *text, const struct text *new, int64_t max)
{
	size_t mark = job->n_out;

	for (size_t at = 0; at < text->n; max--) {
		int32_t code;
		size_t step = utf8_step(text->bytes + at, text->n - at, &code);
		if (max != 0)
			jinja_put(job, new->bytes, new->n);
		else
			step = text->n - at, max++;
		jinja_put(job, text->bytes + at, step);
		at += step;
	}
	if (max != 0)
		jinja_put(job, new->bytes, new->n);
	return value_text(jinja_cut(job, mark));
}

struct value jinja_replace(struct job *job, const struct text *text, const struct text *old,
                           const struct text *new, int64_t max)
{
	size_t mark = job->n_out;
	const char *from = text->bytes, *found;

	if (old->n == 0)
		return insert_between(job, text, new, max);
	jinja_charge(job, text->n / STEP_BYTES);
	for (; max != 0 && (found = strstr(from, old->bytes)); max--) {
		jinja_put(job, from, (size_t)(found - from));
		jinja_put(job, new->bytes, new->n);
		from = found + old->n;
	}
	jinja_put(job, from, (size_t)(text->bytes + text->n - from));
	return value_text(jinja_cut(job, mark));
}

static struct value replace(struct job *job, const struct call *call)
{
	return jinja_replace(job, self_of(call), jinja_arg_text(job, call->args[1], NULL),
	                     jinja_arg_text(job, call->args[2], NULL), jinja_arg_int(job, call->args[3], -1));
}

/* `left` and `right` times the fill character around the text. */
static struct value padded(struct job *job, const struct call *call, size_t left, size_t right)
{
	const struct text *fill = jinja_arg_text(job, call->args[2], " ");
	size_t mark = job->n_out;

	if (jinja_text_length(fill) != 1)
		jinja_fail(job, ERR_INVALID, "expected one character to fill with");
	for (size_t i = 0; i < left; i++)
		jinja_put(job, fill->bytes, fill->n);
	jinja_put(job, self_of(call)->bytes, self_of(call)->n);
	for (size_t i = 0; i < right; i++)
		jinja_put(job, fill->bytes, fill->n);
	return value_text(jinja_cut(job, mark));
}

static size_t missing_width(struct job *job, const struct call *call)
{
	int64_t length = (int64_t)jinja_text_length(self_of(call)), width = jinja_arg_int(job, call->args[1], 0);

	return width > length ? (size_t)(width - length) : 0;
}

static struct value ljust(struct job *job, const struct call *call)
{
	return padded(job, call, 0, missing_width(job, call));
}

static struct value rjust(struct job *job, const struct call *call)
{
	return padded(job, call, missing_width(job, call), 0);
}

static struct value zfill(struct job *job, const struct call *call)
{
	const struct text *text = self_of(call);
	size_t n = missing_width(job, call), mark = job->n_out;
	size_t sign = text->bytes[0] == '-' || text->bytes[0] == '+';

	jinja_put(job, text->bytes, sign);
	for (size_t i = 0; i < n; i++)
		jinja_puts(job, "0");
	jinja_put(job, text->bytes + sign, text->n - sign);
	return value_text(jinja_cut(job, mark));
}

const struct builtin jinja_text_methods[] = {
	{"strip", strip, 1, {"self", "chars"}},
	{"lstrip", lstrip, 1, {"self", "chars"}},
	{"rstrip", rstrip, 1, {"self", "chars"}},
	{"removeprefix", remove_prefix, 2, {"self", "prefix"}},
	{"removesuffix", remove_suffix, 2, {"self", "suffix"}},
	{"startswith", starts_with, 2, {"self", "prefix", "start", "end"}},
	{"endswith", ends_with, 2, {"self", "suffix", "start", "end"}},
	{"find", find, 2, {"self", "sub", "start", "end"}},
	{"rfind", rfind, 2, {"self", "sub", "start", "end"}},
	{"index", text_index, 2, {"self", "sub", "start", "end"}},
	{"rindex", rindex_text, 2, {"self", "sub", "start", "end"}},
	{"count", count, 2, {"self", "sub", "start", "end"}},
	{"join", join, 2, {"self", "iterable"}},
	{"replace", replace, 3, {"self", "old", "new", "count"}},
	{"ljust", ljust, 2, {"self", "width", "fillchar"}},
	{"rjust", rjust, 2, {"self", "width", "fillchar"}},
	{"zfill", zfill, 2, {"self", "width"}},
	{"format", jinja_format, 1, {NULL}},
	{"casefold", NULL, 0, {NULL}},
	{"center", NULL, 0, {NULL}},
	{"encode", NULL, 0, {NULL}},
	{"expandtabs", NULL, 0, {NULL}},
	{"format_map", NULL, 0, {NULL}},
	{"isascii", NULL, 0, {NULL}},
	{"isidentifier", NULL, 0, {NULL}},
	{"isprintable", NULL, 0, {NULL}},
	{"istitle", NULL, 0, {NULL}},
	{"maketrans", NULL, 0, {NULL}},
	{"swapcase", NULL, 0, {NULL}},
	{"translate", NULL, 0, {NULL}},
	{NULL},
};
