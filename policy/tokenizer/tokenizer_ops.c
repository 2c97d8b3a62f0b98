/* tokenizer_ops.c - lists of text operations: parsing, running, and what more than one family uses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"

/* "A, B, C" of what the family knows. */
static void supported(const struct op_family *family, char *out, size_t size)
{
	size_t length = 0;

	for (const struct op_type *type = family->types; type->name && length < size; type++)
		length += (size_t)snprintf(out + length, size - length, "%s, ", type->name);
	if (length < size)
		snprintf(out + length, size - length, "Sequence");
}

static int op_parse(struct ops *ops, const json_t *json, const char *name, const struct op_family *family,
                    struct err *err)
{
	char where[96], list[256];
	const struct op_type *type = family->types;

	while (type->name && strcmp(type->name, name) != 0)
		type++;
	if (!type->name) {
		supported(family, list, sizeof list);
		return err_set(err, ERR_UNSUPPORTED, "%s \"%.64s\" is not supported; supported: %s", family->name,
		               name, list);
	}
	if (ops->n == TOKENIZER_OPS_MAX)
		return err_set(err, ERR_TOO_BIG, "more than %d %ss in sequence", TOKENIZER_OPS_MAX, family->name);
	ops->items = xrealloc(ops->items, (unsigned long)(ops->n + 1) * sizeof *ops->items);
	struct op *op = &ops->items[ops->n++];
	*op = (struct op){0};
	snprintf(where, sizeof where, "%s %s", family->name, name);
	return type->read(op, json, where, err);
}

int ops_parse(struct ops *ops, const json_t *json, const struct op_family *family, struct err *err)
{
	if (!json || json_is_null(json))
		return 0;
	const char *name = json_string_value(json_object_get(json, "type"));
	if (!name)
		return err_set(err, ERR_INVALID, "%s must be null or an object with a \"type\", found %s",
		               family->name, json_type_name(json));
	if (strcmp(name, "Sequence") != 0)
		return op_parse(ops, json, name, family, err);

	const json_t *members = json_object_get(json, family->members), *member;
	size_t i;
	if (!json_is_array(members))
		return err_set(err, ERR_INVALID, "%s Sequence.%s must be a list, found %s", family->name,
		               family->members, json_type_name(members));
	json_array_foreach(members, i, member)
		if (ops_parse(ops, member, family, err) != 0)
			return err->code;
	return 0;
}

void ops_free(struct ops *ops)
{
	for (int i = 0; i < ops->n; i++) {
		pattern_free(ops->items[i].pattern);
		free(ops->items[i].text);
	}
	free(ops->items);
	*ops = (struct ops){0};
}

int ops_run(const struct ops *ops, struct pieces *pieces, struct pieces *scratch, struct err *err)
{
	size_t n_bytes = pieces->n_bytes, most = TOKENIZER_GROWN_BYTES + 4 * n_bytes;
	int code = 0;

	for (int i = 0; i < ops->n && code == 0; i++) {
		pieces_clear(scratch);
		scratch->n_bytes_max = most;
		code = ops->items[i].apply(&ops->items[i], pieces, scratch, err);
		if (code == 0 && scratch->over)
			code = err_set(err, ERR_TOO_BIG, "tokenizer: its operations make more than %zu bytes of a text of %zu", most,
			               n_bytes);
		scratch->n_bytes_max = 0;
		scratch->over = false;
		struct pieces done = *scratch;
		*scratch = *pieces;
		*pieces = done;
	}
	return code;
}

/* What a match becomes counts as its last character, or as the one before an empty match. */
static bool replaces_first(const char *text, size_t origin, const struct span *span)
{
	int32_t code;
	size_t end = span->end;

	return origin > 0 && (end == 0 || (end > span->start ? utf8_step_back(text, end, &code) : end - 1) < origin);
}

static int apply_replace(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	struct spans spans = {0};
	int code = 0;

	for (size_t i = 0; i < in->n && code == 0; i++) {
		const char *text = in->bytes + in->items[i].start;
		size_t origin = in->items[i].origin;
		spans.n = 0;
		code = pattern_spans(op->pattern, text, in->items[i].n, &spans, err);
		pieces_open(out, in->items[i].literal);
		for (size_t s = 0; s < spans.n && code == 0; s++) {
			const struct span *span = &spans.items[s];
			size_t first = origin_within(origin, span->start, span->end);
			if (span->match) {
				pieces_write_from(out, op->text, op->n_text, replaces_first(text, origin, span));
			} else {
				pieces_write_from(out, text + span->start, first, true);
				pieces_write(out, text + span->start + first, span->end - span->start - first);
			}
		}
	}
	free(spans.items);
	return code;
}

int op_read_replace(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_replace;
	if (component_text(json, where, "content", &op->text, &op->n_text, err) != 0)
		return err->code;
	return pattern_parse(&op->pattern, json_object_get(json, "pattern"), where, err);
}

/* True if span i goes into the same part as the span before it. */
static bool joins_previous(const struct spans *spans, size_t i, enum split_behavior behavior)
{
	if (i == 0)
		return false;
	bool match = spans->items[i].match, previous = spans->items[i - 1].match;
	switch (behavior) {
	case SPLIT_MERGED_WITH_PREVIOUS: return match && !previous;
	case SPLIT_MERGED_WITH_NEXT: return previous && !match;
	case SPLIT_CONTIGUOUS: return match == previous;
	default: return false;
	}
}

void pieces_split(struct pieces *out, const char *text, size_t origin, const struct spans *spans,
                  enum split_behavior behavior)
{
	for (size_t i = 0, next; i < spans->n; i = next) {
		size_t start = spans->items[i].start, end;
		for (next = i + 1; next < spans->n && joins_previous(spans, next, behavior); next++)
			;
		if (behavior == SPLIT_REMOVED && spans->items[i].match)
			continue;
		end = spans->items[next - 1].end;
		pieces_add(out, text + start, end - start, origin_within(origin, start, end));
	}
}

void byte_level_write(struct pieces *out, const char *text, size_t n, size_t origin)
{
	for (size_t i = 0; i < n; i++) {
		char code[4];
		pieces_write_from(out, code, utf8_write(code, byte_level_code((unsigned char)text[i])), i < origin);
	}
}

/* Printable Latin-1 stands for itself; the other 68 bytes follow from U+0100 in order. */
int32_t byte_level_code(unsigned char byte)
{
	if (byte <= 0x20)
		return 0x100 + byte;
	if (byte >= 0x7F && byte <= 0xA0)
		return 0x121 + byte - 0x7F;
	return byte == 0xAD ? 0x143 : byte;
}

int byte_level_byte(int32_t code)
{
	if (code >= 0x100 && code <= 0x120)
		return code - 0x100;
	if (code >= 0x121 && code <= 0x142)
		return code - 0x121 + 0x7F;
	if (code == 0x143)
		return 0xAD;
	return code > 0x20 && code < 0x100 && byte_level_code((unsigned char)code) == code ? code : -1;
}
