/* tokenizer_decode.c - the decoder family: from the texts of tokens back to bytes.
 *
 * Bytes come back as they are: where a reference implementation would put U+FFFD for bytes that are not
 * UTF-8, these do not (utf8_lossy does, for who needs it).
 */
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer_internal.h"
#include "policy/utf8.h"

/* Bytes of one token in the byte-level alphabet; false if a code point is not of it. */
static bool write_bytes(struct pieces *out, const char *text, size_t n)
{
	for (size_t at = 0; at < n;) {
		int32_t code;
		at += utf8_step(text + at, n - at, &code);
		if (byte_level_byte(code) < 0)
			return false;
	}
	for (size_t at = 0; at < n;) {
		int32_t code;
		at += utf8_step(text + at, n - at, &code);
		char byte = (char)byte_level_byte(code);
		pieces_write(out, &byte, 1);
	}
	return true;
}

static int apply_byte_level(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	pieces_open(out, PIECE_FIRST);
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		bool literal = in->items[i].flags & PIECE_LITERAL;
		if (literal || !write_bytes(out, text, in->items[i].n))
			pieces_write(out, text, in->items[i].n);
	}
	return 0;
}

static int read_byte_level(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_byte_level;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of "<0x0A>", or -1. */
static int fallback_byte(const char *text, size_t n)
{
	if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
		return -1;
	int high = hex_digit(text[3]), low = hex_digit(text[4]);
	return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* Runs of byte tokens become one piece. */
static int apply_byte_fallback(const struct op *op, const struct pieces *in, struct pieces *out,
                               struct err *err)
{
	bool in_run = false;

	(void)op, (void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		int value = fallback_byte(text, in->items[i].n);
		char byte = (char)value;
		if (value < 0 || !in_run)
			pieces_open(out, in->items[i].flags);
		in_run = value >= 0;
		pieces_write(out, in_run ? &byte : text, in_run ? 1 : in->items[i].n);
	}
	return 0;
}

static int read_byte_fallback(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_byte_fallback;
	return 0;
}

static int apply_fuse(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	pieces_open(out, PIECE_FIRST);
	pieces_write(out, in->bytes, in->n_bytes);
	return 0;
}

static int read_fuse(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_fuse;
	return 0;
}

/* At most `start` of the character from the front and `stop` from the back of every piece. */
static int apply_strip(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	size_t size = op->n_text;

	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start, *end = text + in->items[i].n;
		for (size_t left = op->start; left > 0 && (size_t)(end - text) >= size; left--, text += size)
			if (memcmp(text, op->text, size) != 0)
				break;
		for (size_t left = op->stop; left > 0 && (size_t)(end - text) >= size; left--, end -= size)
			if (memcmp(end - size, op->text, size) != 0)
				break;
		pieces_open(out, in->items[i].flags);
		pieces_write(out, text, (size_t)(end - text));
	}
	return 0;
}

static int read_strip(struct op *op, const json_t *json, const char *where, struct err *err)
{
	int32_t start, stop;

	op->apply = apply_strip;
	if (field_text(json, where, "content", &op->text, &op->n_text, err) != 0 ||
	    field_index(json, where, "start", INT32_MAX, &start, err) != 0 ||
	    field_index(json, where, "stop", INT32_MAX, &stop, err) != 0)
		return err->code;
	if (op->n_text == 0)
		return err_set(err, ERR_INVALID, "%s.content must be one character, found an empty string", where);
	op->start = (size_t)start;
	op->stop = (size_t)stop;
	return 0;
}

/* The replacement becomes a space; in the first token it is dropped where encoding put it there. */
static int apply_metaspace(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		size_t n = in->items[i].n;
		bool drop = i == 0 && op->mode != PREPEND_NEVER;
		pieces_open(out, in->items[i].flags);
		for (size_t at = 0; at < n;) {
			bool mark = n - at >= op->n_text && memcmp(text + at, op->text, op->n_text) == 0;
			pieces_write(out, mark ? " " : text + at, mark && drop ? 0 : 1);
			at += mark ? op->n_text : 1;
		}
	}
	return 0;
}

static int read_metaspace(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_metaspace;
	return op_read_metaspace(op, json, where, err);
}

static const struct op_type types[] = {
	{"ByteLevel", read_byte_level}, {"ByteFallback", read_byte_fallback}, {"Fuse", read_fuse},
	{"Strip", read_strip}, {"Replace", op_read_replace}, {"Metaspace", read_metaspace},
	{NULL, NULL},
};

const struct op_family decoder_family = {"decoder", "decoders", types};
