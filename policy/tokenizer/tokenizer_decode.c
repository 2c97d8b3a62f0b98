/* tokenizer_decode.c - the decoder family: from the texts of tokens back to bytes.
 *
 * Bytes come back as they were encoded.  Lossy pieces give what Hugging Face's decoders give instead: U+FFFD
 * for what is not UTF-8 (one for each byte of a run of byte tokens, all of them), and the bytes that an added
 * token's text stands for if it could be in the byte-level alphabet.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"
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

static void make_lossy(struct pieces *pieces)
{
	size_t n;
	char *text = utf8_lossy(pieces->bytes, pieces->n_bytes, &n);
	bool lossy = pieces->lossy;

	pieces_clear(pieces);
	pieces_open(pieces, false);
	pieces_write(pieces, text, n);
	pieces->lossy = lossy;
	free(text);
}

static int apply_byte_level(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	pieces_open(out, false);
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		bool literal = in->items[i].literal && !in->lossy;
		if (literal || !write_bytes(out, text, in->items[i].n))
			pieces_write(out, text, in->items[i].n);
	}
	if (in->lossy)
		make_lossy(out);
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

/* The byte of "<0x0A>", or -1; "<0x+A>" is one too. */
static int fallback_byte(const char *text, size_t n)
{
	if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
		return -1;
	int high = text[3] == '+' ? 0 : hex_digit(text[3]), low = hex_digit(text[4]);
	return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* The bytes gathered in the last piece of out are all of a run. */
static void close_run(struct pieces *out)
{
	struct piece *run = &out->items[out->n - 1];
	size_t n = run->n;
	bool valid = true;

	if (!out->lossy || n == 0 || (utf8_run(out->bytes + run->start, n, &valid) == n && valid))
		return;
	out->n_bytes -= n;
	run->n = 0;
	for (size_t i = 0; i < n; i++)
		pieces_write(out, "\xEF\xBF\xBD", 3);
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
		if (in_run && value < 0)
			close_run(out);
		if (value < 0 || !in_run)
			pieces_open(out, in->items[i].literal);
		in_run = value >= 0;
		pieces_write(out, in_run ? &byte : text, in_run ? 1 : in->items[i].n);
	}
	if (in_run)
		close_run(out);
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
	pieces_open(out, false);
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
		pieces_open(out, in->items[i].literal);
		pieces_write(out, text, (size_t)(end - text));
	}
	return 0;
}

static int read_strip(struct op *op, const json_t *json, const char *where, struct err *err)
{
	int32_t start, stop, code;

	op->apply = apply_strip;
	if (component_text(json, where, "content", &op->text, &op->n_text, err) != 0 ||
	    component_index(json, where, "start", INT32_MAX, &start, err) != 0 ||
	    component_index(json, where, "stop", INT32_MAX, &stop, err) != 0)
		return err->code;
	if (op->n_text == 0 || utf8_step(op->text, op->n_text, &code) != op->n_text)
		return err_set(err, ERR_INVALID, "%s.content must be one character, found %zu bytes", where, op->n_text);
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
		pieces_open(out, in->items[i].literal);
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

/* The suffix that ends a word becomes a space, or nothing in the last token. */
static int apply_suffix(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	struct spans spans = {0};
	int code = 0;

	for (size_t i = 0; i < in->n && code == 0; i++) {
		const char *text = in->bytes + in->items[i].start;
		spans.n = 0;
		pieces_open(out, in->items[i].literal);
		code = pattern_spans(op->pattern, text, in->items[i].n, &spans, err);
		for (size_t s = 0; s < spans.n; s++) {
			const struct span *span = &spans.items[s];
			if (!span->match)
				pieces_write(out, text + span->start, span->end - span->start);
			else if (i + 1 < in->n)
				pieces_write(out, " ", 1);
		}
	}
	free(spans.items);
	return code;
}

static int read_suffix(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_suffix;
	return pattern_parse_literal(&op->pattern, json, where, "suffix", err);
}

static const struct op_type types[] = {
	{"ByteLevel", read_byte_level}, {"ByteFallback", read_byte_fallback}, {"Fuse", read_fuse},
	{"Strip", read_strip}, {"Replace", op_read_replace}, {"Metaspace", read_metaspace},
	{"BPEDecoder", read_suffix},
	{NULL, NULL},
};

const struct op_family decoder_family = {"decoder", "decoders", types};
