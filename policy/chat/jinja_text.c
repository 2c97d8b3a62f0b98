/* jinja_text.c - strings counted in characters, slices, and numbers read from text, as Python does. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy/chat/jinja_internal.h"
#include "policy/utf8.h"

enum { NUMBER_MAX = 400 }; /* characters of a number in text */

static bool is_lead(char c)
{
	return ((unsigned char)c & 0xC0) != 0x80;
}

size_t jinja_text_length(const struct text *text)
{
	size_t length = 0;

	if (text->ascii)
		return text->n;
	for (size_t i = 0; i < text->n; i++)
		length += is_lead(text->bytes[i]);
	return length;
}

size_t jinja_text_offset(const struct text *text, size_t i)
{
	size_t at = 0;

	if (text->ascii || i >= text->n)
		return i < text->n ? i : text->n;
	for (; at < text->n; at++)
		if (is_lead(text->bytes[at]) && i-- == 0)
			break;
	return at;
}

/* str.isspace: White_Space and the four information separators. */
bool jinja_is_space(int32_t code)
{
	return utf8_is_space(code) || (code >= 0x1C && code <= 0x1F);
}

/* ---- slices ---- */

static int64_t slice_index(struct job *job, struct value value, int64_t n, int64_t low, int64_t high,
                           int64_t otherwise)
{
	if (value.kind == VALUE_MISSING || value.kind == VALUE_NONE)
		return otherwise;
	if (!value_is_integer(value))
		jinja_fail(job, ERR_INVALID, "a slice needs integers, found %s", jinja_kind_name(value));
	int64_t i = value_integer(value);
	if (i < 0)
		i = i < -n ? low : i + n;
	return i < low ? low : i > high ? high : i;
}

struct slice {
	int64_t start, step;
	size_t n;
};

/* Which of n elements of[start:stop:step] takes. */
static struct slice slice_of(struct job *job, size_t n_elements, struct value start, struct value stop,
                             struct value step)
{
	int64_t n = (int64_t)n_elements, by = 1;

	if (step.kind != VALUE_MISSING && step.kind != VALUE_NONE)
		by = jinja_arg_int(job, step, 1);
	if (by == 0)
		jinja_fail(job, ERR_INVALID, "the step of a slice cannot be 0");
	by = by > n ? n + 1 : by < -n ? -n - 1 : by;
	int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
	int64_t first = slice_index(job, start, n, low, high, by < 0 ? high : low);
	int64_t last = slice_index(job, stop, n, low, high, by < 0 ? low : high);
	int64_t distance = by > 0 ? last - first : first - last, stride = by > 0 ? by : -by;
	return (struct slice){first, by, distance > 0 ? (size_t)((distance + stride - 1) / stride) : 0};
}

/* Characters, which are not bytes, by a table of where they begin. */
static const struct text *slice_characters(struct job *job, const struct text *text, size_t length,
                                           struct slice slice)
{
	size_t *starts = jinja_alloc(job, (length + 1) * sizeof *starts), n = 0, mark = job->n_out;

	for (size_t i = 0; i < text->n; i++)
		if (is_lead(text->bytes[i]))
			starts[n++] = i;
	starts[n] = text->n;
	for (size_t i = 0; i < slice.n; i++) {
		size_t at = (size_t)(slice.start + (int64_t)i * slice.step);
		jinja_put(job, text->bytes + starts[at], starts[at + 1] - starts[at]);
	}
	return jinja_cut(job, mark);
}

static struct value slice_text(struct job *job, const struct text *text, struct value start, struct value stop,
                               struct value step)
{
	size_t length = jinja_text_length(text), mark = job->n_out;
	struct slice slice = slice_of(job, length, start, stop, step);

	jinja_charge(job, text->n / STEP_BYTES + slice.n / STEP_CHARACTERS);
	if (slice.step == 1) {
		size_t from = jinja_text_offset(text, (size_t)slice.start);
		size_t to = jinja_text_offset(text, (size_t)slice.start + slice.n);
		return value_text(jinja_text(job, text->bytes + from, to - from));
	}
	if (!text->ascii)
		return value_text(slice_characters(job, text, length, slice));
	for (size_t i = 0; i < slice.n; i++)
		jinja_put(job, text->bytes + slice.start + (int64_t)i * slice.step, 1);
	return value_text(jinja_cut(job, mark));
}

struct value jinja_slice(struct job *job, struct value of, struct value start, struct value stop,
                         struct value step)
{
	if (of.kind == VALUE_UNDEFINED)
		jinja_fail_undefined(job, of);
	if (of.kind == VALUE_TEXT)
		return slice_text(job, of.text, start, stop, step);
	if (of.kind != VALUE_LIST && of.kind != VALUE_TUPLE && of.kind != VALUE_RANGE)
		jinja_fail(job, ERR_INVALID, "cannot take a slice of %s", jinja_kind_name(of));
	struct slice slice = slice_of(job, of.list->n, start, stop, step);
	struct list *list = jinja_list(job, slice.n);
	for (size_t i = 0; i < slice.n; i++)
		list->items[i] = of.list->items[slice.start + (int64_t)i * slice.step];
	return value_list(of.kind, list);
}

/* ---- numbers ---- */

/* The text without white space around it and underscores between digits, in ASCII; false if it is none. */
static bool number_clean(const struct text *text, char clean[NUMBER_MAX + 1])
{
	size_t start = 0, end = text->n, n = 0;

	while (start < end && jinja_is_space((unsigned char)text->bytes[start]))
		start++;
	while (end > start && jinja_is_space((unsigned char)text->bytes[end - 1]))
		end--;
	if (end == start || end - start > NUMBER_MAX || !text->ascii)
		return false;
	for (size_t i = start; i < end; i++) {
		char c = text->bytes[i];
		bool between = i > start && i + 1 < end && text->bytes[i - 1] != '_' && text->bytes[i + 1] != '_';
		if (c == '_' && !between)
			return false;
		if (c != '_')
			clean[n++] = c;
	}
	clean[n] = '\0';
	return true;
}

bool jinja_parse_int(struct job *job, const struct text *text, int base, int64_t *integer)
{
	char clean[NUMBER_MAX + 1], *end;

	if (!number_clean(text, clean))
		return false;
	const char *digits = clean + (*clean == '-' || *clean == '+');
	char mark = *digits == '0' ? (char)(digits[1] | 0x20) : 0;
	int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
	bool prefix = marked != 0 && (base == 0 || base == marked);
	if (base == 0 && !prefix && *digits == '0' && strspn(digits, "0") != strlen(digits))
		return false;
	if (prefix)
		digits += 2;
	base = prefix ? marked : base == 0 ? 10 : base;
	if (base < 2 || base > 36)
		jinja_fail(job, ERR_INVALID, "int(base) must be 0 or 2 to 36, found %d", base);
	if (!((*digits >= '0' && *digits <= '9') || ((*digits | 0x20) >= 'a' && (*digits | 0x20) <= 'z')) ||
	    (base == 16 && (digits[1] | 0x20) == 'x'))
		return false;
	errno = 0;
	long long value = strtoll(digits, &end, base);
	if (*end != '\0')
		return false;
	if (errno == ERANGE)
		jinja_fail(job, ERR_UNSUPPORTED, "integers past 64 bits are not supported");
	*integer = *clean == '-' ? -value : value;
	return true;
}

bool jinja_parse_float(const struct text *text, double *real)
{
	char clean[NUMBER_MAX + 1], *end;

	if (!number_clean(text, clean))
		return false;
	const char *digits = clean + (*clean == '-' || *clean == '+');
	if ((*digits == '0' && (digits[1] | 0x20) == 'x') || *digits == '-' || *digits == '+' ||
	    strchr(digits, '('))
		return false;
	*real = strtod(clean, &end);
	return *end == '\0' && end > clean;
}
