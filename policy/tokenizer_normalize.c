/* tokenizer_normalize.c - the normalizer family: Unicode forms (utf8proc), Lowercase, Prepend, Replace.
 *
 * Ill-formed bytes pass through unchanged; the well-formed text between them is normalized run by run.
 */
#include <stdlib.h>
#include <utf8proc.h>

#include "policy/tokenizer_internal.h"
#include "policy/utf8.h"

typedef int write_run(const struct op *op, const char *text, size_t n, struct pieces *out, struct err *err);

/* Rewrite the well-formed runs of every piece. */
static int rewrite(const struct op *op, const struct pieces *in, struct pieces *out, write_run *write,
                   struct err *err)
{
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		size_t n = in->items[i].n;
		pieces_open(out, in->items[i].flags);
		for (size_t at = 0; at < n;) {
			bool valid;
			size_t run = utf8_run(text + at, n - at, &valid);
			if (!valid)
				pieces_write(out, text + at, run);
			else if (write(op, text + at, run, out, err) != 0)
				return err->code;
			at += run;
		}
	}
	return 0;
}

static bool is_ascii(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] >= 0x80)
			return false;
	return true;
}

static int write_form(const struct op *op, const char *text, size_t n, struct pieces *out, struct err *err)
{
	utf8proc_uint8_t *formed = NULL;

	if (is_ascii(text, n)) { /* every normal form of ASCII is itself */
		pieces_write(out, text, n);
		return 0;
	}
	utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &formed,
	                                       (utf8proc_option_t)op->mode);
	if (length < 0)
		return err_set(err, ERR_INVALID, "tokenizer: Unicode normalization of %zu bytes failed: %s", n,
		               utf8proc_errmsg(length));
	pieces_write(out, (const char *)formed, (size_t)length);
	free(formed);
	return 0;
}

static int apply_form(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	return rewrite(op, in, out, write_form, err);
}

static int read_form(struct op *op, int options)
{
	op->apply = apply_form;
	op->mode = UTF8PROC_STABLE | options;
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
	return read_form(op, UTF8PROC_DECOMPOSE);
}

static int read_nfkc(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	return read_form(op, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
}

static int read_nfkd(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	return read_form(op, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
}

static int write_lower(const struct op *op, const char *text, size_t n, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	for (size_t at = 0; at < n;) {
		int32_t code;
		char lower[4];
		at += utf8_step(text + at, n - at, &code);
		if (code == 0x130) /* the one letter whose lower case is two code points: i and a dot above */
			pieces_write(out, "i\xCC\x87", 3);
		else
			pieces_write(out, lower, utf8_write(lower, utf8proc_tolower(code)));
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
		pieces_open(out, in->items[i].flags);
		if (in->items[i].n > 0)
			pieces_write(out, op->text, op->n_text);
		pieces_write(out, in->bytes + in->items[i].start, in->items[i].n);
	}
	return 0;
}

static int read_prepend(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_prepend;
	return field_text(json, where, "prepend", &op->text, &op->n_text, err);
}

static const struct op_type types[] = {
	{"NFC", read_nfc}, {"NFD", read_nfd}, {"NFKC", read_nfkc}, {"NFKD", read_nfkd},
	{"Lowercase", read_lower}, {"Prepend", read_prepend}, {"Replace", op_read_replace},
	{NULL, NULL},
};

const struct op_family normalizer_family = {"normalizer", "normalizers", types};
