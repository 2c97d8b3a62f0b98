/* tokenizer_normalize.c - the normalizer family: Unicode forms, Lowercase, Strip, StripAccents, Nmt, Prepend,
 * Replace, ByteLevel.
 *
 * Ill-formed bytes pass through unchanged; the well-formed text between them is normalized run by run.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"

typedef int write_run(const struct op *op, const char *text, size_t n, struct pieces *out, struct err *err);

static int rewrite_text(const struct op *op, const char *text, size_t n, struct pieces *out, write_run *write,
                        struct err *err)
{
	for (size_t at = 0, run; at < n; at += run) {
		bool valid;
		run = utf8_run(text + at, n - at, &valid);
		if (!valid)
			pieces_write(out, text + at, run);
		else if (write(op, text + at, run, out, err) != 0)
			return err->code;
	}
	return 0;
}

/* Bytes of the rewritten text that come from text[0, origin), which became `alone` by itself: all of that,
 * unless what followed was composed with it into one character. */
static size_t rewritten_origin(const struct pieces *alone, const char *made, size_t n_made)
{
	int32_t code;

	if (alone->n_bytes <= n_made && (alone->n_bytes == 0 || memcmp(alone->bytes, made, alone->n_bytes) == 0))
		return alone->n_bytes;
	return n_made > 0 ? utf8_step(made, n_made, &code) : 0;
}

/* Rewrite the well-formed runs of every piece. */
static int rewrite(const struct op *op, const struct pieces *in, struct pieces *out, write_run *write,
                   struct err *err)
{
	for (size_t i = 0; i < in->n; i++) {
		const struct piece *piece = &in->items[i];
		struct pieces alone = {0};
		pieces_open(out, piece->literal);
		pieces_open(&alone, false);
		int code = rewrite_text(op, in->bytes + piece->start, piece->n, out, write, err);
		if (code == 0)
			code = rewrite_text(op, in->bytes + piece->start, piece->origin, &alone, write, err);
		struct piece *made = &out->items[out->n - 1];
		if (code == 0)
			made->origin = rewritten_origin(&alone, out->bytes + made->start, made->n);
		pieces_free(&alone);
		if (code != 0)
			return code;
	}
	return 0;
}

static int write_form(const struct op *op, const char *text, size_t n, struct pieces *out, struct err *err)
{
	return form_write(op->mode, text, n, out, err);
}

static int apply_form(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	return rewrite(op, in, out, write_form, err);
}

static int read_form(struct op *op, int options)
{
	op->apply = apply_form;
	op->mode = options;
	return 0;
}

static int read_nfc(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	return read_form(op, UTF8PROC_COMPOSE);
}

static int read_nfd(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	return read_form(op, 0);
}

static int read_nfkc(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	return read_form(op, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
}

static int read_nfkd(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	return read_form(op, UTF8PROC_COMPAT);
}

static int write_lower(const struct op *op, const char *text, size_t n, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	for (size_t at = 0; at < n;) {
		int32_t code;
		char lower[4];
		at += utf8_step(text + at, n - at, &code);
		pieces_write(out, lower, unicode_lower(lower, code));
	}
	return 0;
}

static int apply_lower(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	return rewrite(op, in, out, write_lower, err);
}

static int read_lower(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_lower;
	return 0;
}

static int apply_prepend(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const struct piece *piece = &in->items[i];
		pieces_open(out, piece->literal);
		if (piece->n > 0)
			pieces_write_from(out, op->text, op->n_text, piece->origin > 0);
		pieces_write(out, in->bytes + piece->start, piece->n);
		out->items[out->n - 1].origin += piece->origin;
	}
	return 0;
}

static int read_prepend(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_prepend;
	return component_text(json, where, "prepend", &op->text, &op->n_text, err);
}

static int apply_filter(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		pieces_open(out, in->items[i].literal);
		for (size_t at = 0, step; at < in->items[i].n; at += step) {
			int32_t code;
			step = utf8_step(text + at, in->items[i].n - at, &code);
			if (!op->is(code))
				pieces_write_from(out, text + at, step, at < in->items[i].origin);
		}
	}
	return 0;
}

static int read_accents(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_filter;
	op->is = unicode_is_mark;
	return 0;
}

static int apply_strip(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		size_t n = in->items[i].n;
		size_t start = op->start ? utf8_space_after(text, n, 0) : 0;
		size_t end = op->stop ? utf8_space_before(text, start, n) : n;
		pieces_open(out, in->items[i].literal);
		pieces_write(out, text + start, end - start);
		out->items[out->n - 1].origin = origin_within(in->items[i].origin, start, end);
	}
	return 0;
}

static int read_strip(struct op *op, const json_t *json, const char *where, struct err *err)
{
	bool left = true, right = true;

	op->apply = apply_strip;
	if (component_bool(json, where, "strip_left", &left, err) != 0 ||
	    component_bool(json, where, "strip_right", &right, err) != 0)
		return err->code;
	op->start = left;
	op->stop = right;
	return 0;
}

/* Control characters that Nmt drops; what it makes a space. */
static bool is_dropped(int32_t code)
{
	return (code >= 0x01 && code <= 0x08) || code == 0x0B || (code >= 0x0E && code <= 0x1F) || code == 0x7F ||
	       code == 0x8F || code == 0x9F;
}

static bool is_spaced(int32_t code)
{
	return code == 0x09 || code == 0x0A || code == 0x0C || code == 0x0D || code == 0x1680 ||
	       (code >= 0x200B && code <= 0x200F) || code == 0x2028 || code == 0x2029 || code == 0x2581 ||
	       code == 0xFEFF || code == 0xFFFD;
}

static int apply_nmt(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		pieces_open(out, in->items[i].literal);
		for (size_t at = 0, step; at < in->items[i].n; at += step) {
			int32_t code;
			step = utf8_step(text + at, in->items[i].n - at, &code);
			bool first = at < in->items[i].origin;
			if (is_spaced(code))
				pieces_write_from(out, " ", 1, first);
			else if (!is_dropped(code))
				pieces_write_from(out, text + at, step, first);
		}
	}
	return 0;
}

static int read_nmt(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_nmt;
	return 0;
}

static int apply_byte_level(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	for (size_t i = 0; i < in->n; i++) {
		pieces_open(out, in->items[i].literal);
		byte_level_write(out, in->bytes + in->items[i].start, in->items[i].n, in->items[i].origin);
	}
	return 0;
}

static int read_byte_level(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_byte_level;
	return 0;
}

static int read_replace(struct op *op, const json_t *json, const char *where, struct err *err)
{
	if (op_read_replace(op, json, where, err) != 0)
		return err->code;
	if (op->n_text > 0 && pattern_matches_empty(op->pattern))
		return err_set(err, ERR_UNSUPPORTED,
		               "%s.pattern can match an empty text and content is not empty: such insertions are "
		               "not supported, only replacements are",
		               where);
	return 0;
}

static const struct op_type types[] = {
	{"NFC", read_nfc}, {"NFD", read_nfd}, {"NFKC", read_nfkc}, {"NFKD", read_nfkd},
	{"Lowercase", read_lower}, {"Strip", read_strip}, {"StripAccents", read_accents}, {"Nmt", read_nmt},
	{"Prepend", read_prepend}, {"Replace", read_replace}, {"ByteLevel", read_byte_level},
	{NULL, NULL},
};

const struct op_family normalizer_family = {"normalizer", "normalizers", types};
