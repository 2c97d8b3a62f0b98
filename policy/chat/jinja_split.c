/* jinja_split.c - the methods of strings that cut them apart: split, splitlines, partition. */
#include <string.h>

#include "policy/chat/jinja_internal.h"
#include "policy/utf8.h"

/* A list that grows. */
struct pieces_of {
	struct list *list;
	size_t n;
};

static void add(struct job *job, struct pieces_of *pieces, struct value value)
{
	if (!pieces->list || pieces->n == pieces->list->n) {
		struct list *list = jinja_list(job, 2 * pieces->n + 8);
		if (pieces->n > 0)
			memcpy(list->items, pieces->list->items, pieces->n * sizeof *list->items);
		pieces->list = list;
	}
	pieces->list->items[pieces->n++] = value;
}

static struct list *finish(struct job *job, struct pieces_of *pieces)
{
	if (!pieces->list)
		pieces->list = jinja_list(job, 0);
	pieces->list->n = pieces->n;
	return pieces->list;
}

static void reverse(struct list *list)
{
	for (size_t i = 0; i < list->n / 2; i++) {
		struct value value = list->items[i];
		list->items[i] = list->items[list->n - 1 - i];
		list->items[list->n - 1 - i] = value;
	}
}

static struct list *split_at(struct job *job, const struct text *text, const struct text *gap, int64_t max)
{
	struct pieces_of pieces = {0};
	const char *from = text->bytes, *found;

	jinja_charge(job, text->n / STEP_BYTES);
	for (; max != 0 && (found = strstr(from, gap->bytes)); max--) {
		add(job, &pieces, jinja_piece(job, from, found));
		from = found + gap->n;
	}
	add(job, &pieces, jinja_piece(job, from, text->bytes + text->n));
	return finish(job, &pieces);
}

struct list *jinja_split(struct job *job, const struct text *text, const struct text *gap)
{
	return split_at(job, text, gap, -1);
}

static struct list *split_at_last(struct job *job, const struct text *text, const struct text *gap, int64_t max)
{
	struct pieces_of pieces = {0};
	const char *to = text->bytes + text->n, *found;

	for (; max != 0 && (found = jinja_find_last(job, text->bytes, to, gap)); max--) {
		add(job, &pieces, jinja_piece(job, found + gap->n, to));
		to = found;
	}
	add(job, &pieces, jinja_piece(job, text->bytes, to));
	reverse(finish(job, &pieces));
	return pieces.list;
}

/* Past the white space, or past what is none, at the start or at the end of [from, to). */
static const char *skip(const char *from, const char *to, bool space)
{
	while (from < to) {
		int32_t code;
		size_t step = utf8_step(from, (size_t)(to - from), &code);
		if (jinja_is_space(code) != space)
			break;
		from += step;
	}
	return from;
}

static const char *skip_back(const char *from, const char *to, bool space)
{
	while (to > from) {
		const char *last = to - 1;
		int32_t code;
		while (((unsigned char)*last & 0xC0) == 0x80)
			last--;
		utf8_step(last, (size_t)(to - last), &code);
		if (jinja_is_space(code) != space)
			break;
		to = last;
	}
	return to;
}

static struct list *split_words(struct job *job, const struct text *text, int64_t max, bool from_right)
{
	struct pieces_of pieces = {0};
	const char *from = text->bytes, *to = from + text->n;

	jinja_charge(job, text->n / STEP_CHARACTERS);
	for (;; max--) {
		if (from_right)
			to = skip_back(from, to, true);
		else
			from = skip(from, to, true);
		if (from == to)
			break;
		const char *edge = max == 0 ? (from_right ? from : to)
		                            : from_right ? skip_back(from, to, false) : skip(from, to, false);
		add(job, &pieces, from_right ? jinja_piece(job, edge, to) : jinja_piece(job, from, edge));
		if (from_right)
			to = edge;
		else
			from = edge;
	}
	if (from_right)
		reverse(finish(job, &pieces));
	return finish(job, &pieces);
}

static struct value split_call(struct job *job, const struct call *call, bool from_right)
{
	int64_t max = jinja_arg_int(job, call->args[2], -1);
	struct list *list;

	if (!jinja_arg_given(call->args[1])) {
		list = split_words(job, call->args[0].text, max, from_right);
	} else {
		const struct text *gap = jinja_arg_text(job, call->args[1], NULL);
		if (gap->n == 0)
			jinja_fail(job, ERR_INVALID, "split: the separator is empty");
		list = (from_right ? split_at_last : split_at)(job, call->args[0].text, gap, max);
	}
	return value_list(VALUE_LIST, list);
}

static struct value split(struct job *job, const struct call *call)
{
	return split_call(job, call, false);
}

static struct value rsplit(struct job *job, const struct call *call)
{
	return split_call(job, call, true);
}

static bool ends_line(int32_t code)
{
	return (code >= '\n' && code <= '\r') || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
	       code == 0x2029;
}

struct list *jinja_split_lines(struct job *job, const struct text *text, bool keep_ends)
{
	struct pieces_of pieces = {0};
	const char *from = text->bytes, *end = from + text->n;

	jinja_charge(job, text->n / STEP_CHARACTERS);
	for (const char *at = from; at < end;) {
		int32_t code;
		const char *stop = at;
		at += utf8_step(at, (size_t)(end - at), &code);
		if (!ends_line(code))
			continue;
		at += code == '\r' && *at == '\n';
		add(job, &pieces, jinja_piece(job, from, keep_ends ? at : stop));
		from = at;
	}
	if (from < end)
		add(job, &pieces, jinja_piece(job, from, end));
	return finish(job, &pieces);
}

static struct value split_lines(struct job *job, const struct call *call)
{
	return value_list(VALUE_LIST,
	                  jinja_split_lines(job, call->args[0].text, jinja_arg_bool(call->args[1], false)));
}

static struct value partition_call(struct job *job, const struct call *call, bool last)
{
	const struct text *text = call->args[0].text, *gap = jinja_arg_text(job, call->args[1], NULL);
	const char *start = text->bytes, *end = start + text->n, *found;
	struct list *list = jinja_list(job, 3);

	if (gap->n == 0)
		jinja_fail(job, ERR_INVALID, "partition: the separator is empty");
	jinja_charge(job, text->n / STEP_BYTES);
	found = last ? jinja_find_last(job, start, end, gap) : strstr(start, gap->bytes);
	const char *before = found ? found : last ? start : end, *after = found ? found + gap->n : before;
	list->items[0] = jinja_piece(job, start, before);
	list->items[1] = jinja_piece(job, before, after);
	list->items[2] = jinja_piece(job, after, end);
	return value_list(VALUE_TUPLE, list);
}

static struct value partition(struct job *job, const struct call *call)
{
	return partition_call(job, call, false);
}

static struct value rpartition(struct job *job, const struct call *call)
{
	return partition_call(job, call, true);
}

const struct builtin jinja_split_methods[] = {
	{"split", split, 1, {"self", "sep", "maxsplit"}},
	{"rsplit", rsplit, 1, {"self", "sep", "maxsplit"}},
	{"splitlines", split_lines, 1, {"self", "keepends"}},
	{"partition", partition, 2, {"self", "sep"}},
	{"rpartition", rpartition, 2, {"self", "sep"}},
	{NULL},
};
