/* tokenizer_pretokenize.c - the pre-tokenizer family: ByteLevel, Split, Digits, Metaspace.
 *
 * A pre-tokenizer cuts text into the pieces that BPE merges within.  Cost: linear in the text, times
 * what the regular expressions take.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "policy/tokenizer_internal.h"
#include "policy/utf8.h"

/* GPT-2's expression, which ByteLevel applies where use_regex is set. */
static const char gpt2_regex[] =
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static void write_byte_level(struct pieces *out, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char code[4];
		pieces_write(out, code, utf8_write(code, byte_level_code((unsigned char)text[i])));
	}
}

/* Cut text by the pattern and write each part in the byte-level alphabet. */
static int byte_level_parts(const struct op *op, const char *text, size_t n, unsigned flags,
                            struct pieces *out, struct err *err)
{
	struct spans spans = {0};
	int code = 0;

	if (op->pattern)
		code = pattern_spans(op->pattern, text, n, &spans, err);
	else
		spans_add(&spans, 0, n, false);
	for (size_t i = 0; i < spans.n && code == 0; i++) {
		const struct span *span = &spans.items[i];
		pieces_open(out, span->start == 0 ? flags : flags & ~(unsigned)PIECE_FIRST);
		write_byte_level(out, text + span->start, span->end - span->start);
	}
	free(spans.items);
	return code;
}

static int apply_byte_level(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		size_t n = in->items[i].n;
		char *spaced = NULL;
		if (op->flag && text[0] != ' ') {
			spaced = xmalloc(n + 1);
			spaced[0] = ' ';
			memcpy(spaced + 1, text, n++);
			text = spaced;
		}
		int code = byte_level_parts(op, text, n, in->items[i].flags, out, err);
		free(spaced);
		if (code != 0)
			return code;
	}
	return 0;
}

static int read_byte_level(struct op *op, const json_t *json, const char *where, struct err *err)
{
	bool use_regex = true;

	op->apply = apply_byte_level;
	op->flag = true;
	if (field_bool(json, where, "add_prefix_space", &op->flag, err) != 0 ||
	    field_bool(json, where, "use_regex", &use_regex, err) != 0)
		return err->code;
	return use_regex ? pattern_compile(&op->pattern, gpt2_regex, sizeof gpt2_regex - 1, where, err) : 0;
}

static int apply_split(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	struct spans spans = {0};
	int code = 0;

	for (size_t i = 0; i < in->n && code == 0; i++) {
		const char *text = in->bytes + in->items[i].start;
		spans.n = 0;
		code = pattern_spans(op->pattern, text, in->items[i].n, &spans, err);
		for (size_t s = 0; s < spans.n; s++)
			spans.items[s].match ^= op->flag;
		if (code == 0)
			pieces_split(out, text, in->items[i].flags, &spans, (enum split_behavior)op->mode);
	}
	free(spans.items);
	return code;
}

static int read_split(struct op *op, const json_t *json, const char *where, struct err *err)
{
	static const char *const behaviors[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
	                                        "Contiguous"};
	const json_t *behavior = json_object_get(json, "behavior");
	const char *name = json_string_value(behavior);

	op->apply = apply_split;
	if (!name)
		return err_set(err, ERR_INVALID, "%s.behavior must be a string, found %s", where,
		               json_type_name(behavior));
	while (op->mode <= SPLIT_CONTIGUOUS && strcmp(behaviors[op->mode], name) != 0)
		op->mode++;
	if (op->mode > SPLIT_CONTIGUOUS)
		return err_set(err, ERR_UNSUPPORTED,
		               "%s.behavior \"%.64s\" is not known; expected Removed, Isolated, "
		               "MergedWithPrevious, MergedWithNext or Contiguous",
		               where, name);
	if (field_bool(json, where, "invert", &op->flag, err) != 0)
		return err->code;
	return pattern_parse(&op->pattern, json_object_get(json, "pattern"), where, err);
}

static bool is_number(int32_t code)
{
	utf8proc_category_t category = code < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(code);

	return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
	       category == UTF8PROC_CATEGORY_NO;
}

/* Spans of numbers (single code points) and of what is between them. */
static void number_spans(const char *text, size_t n, struct spans *spans)
{
	size_t done = 0;

	for (size_t at = 0; at < n;) {
		int32_t code;
		size_t step = utf8_step(text + at, n - at, &code);
		if (is_number(code)) {
			if (at > done)
				spans_add(spans, done, at, false);
			spans_add(spans, at, at + step, true);
			done = at + step;
		}
		at += step;
	}
	if (done < n)
		spans_add(spans, done, n, false);
}

static int apply_digits(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	struct spans spans = {0};

	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		spans.n = 0;
		number_spans(text, in->items[i].n, &spans);
		pieces_split(out, text, in->items[i].flags, &spans, op->flag ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
	}
	free(spans.items);
	return 0;
}

static int read_digits(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_digits;
	return field_bool(json, where, "individual_digits", &op->flag, err);
}

static bool begins_with(const char *text, size_t n, const char *prefix, size_t n_prefix)
{
	return n >= n_prefix && memcmp(text, prefix, n_prefix) == 0;
}

/* Spaces become the replacement, one is put in front by the scheme, and each begins a piece if `flag`. */
static int apply_metaspace(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		size_t n = in->items[i].n;
		unsigned flags = in->items[i].flags;
		bool marked = text[0] == ' ' || begins_with(text, n, op->text, op->n_text);
		pieces_open(out, flags);
		if (!marked && (op->mode == PREPEND_ALWAYS || (op->mode == PREPEND_FIRST && (flags & PIECE_FIRST))))
			pieces_write(out, op->text, op->n_text);
		for (size_t at = 0; at < n;) {
			bool mark = text[at] == ' ' || begins_with(text + at, n - at, op->text, op->n_text);
			size_t step = mark && text[at] != ' ' ? op->n_text : 1;
			if (mark && op->flag && at > 0)
				pieces_open(out, flags & ~(unsigned)PIECE_FIRST);
			pieces_write(out, mark ? op->text : text + at, mark ? op->n_text : 1);
			at += step;
		}
	}
	return 0;
}

int op_read_metaspace(struct op *op, const json_t *json, const char *where, struct err *err)
{
	static const char *const schemes[] = {"always", "first", "never"};
	const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
	bool prefix_space = true;
	int32_t code;

	op->flag = true;
	if (field_text(json, where, "replacement", &op->text, &op->n_text, err) != 0 ||
	    field_bool(json, where, "split", &op->flag, err) != 0 ||
	    field_bool(json, where, "add_prefix_space", &prefix_space, err) != 0)
		return err->code;
	if (op->n_text == 0 || utf8_step(op->text, op->n_text, &code) != op->n_text || op->text[0] == '\0')
		return err_set(err, ERR_INVALID, "%s.replacement must be one character, found %zu bytes", where,
		               op->n_text);
	while (scheme && op->mode <= PREPEND_NEVER && strcmp(schemes[op->mode], scheme) != 0)
		op->mode++;
	if (op->mode > PREPEND_NEVER)
		return err_set(err, ERR_UNSUPPORTED,
		               "%s.prepend_scheme \"%.64s\" is not known; expected always, first or never", where,
		               scheme);
	if (!prefix_space)
		op->mode = PREPEND_NEVER;
	return 0;
}

static int read_metaspace(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_metaspace;
	return op_read_metaspace(op, json, where, err);
}

static const struct op_type types[] = {
	{"ByteLevel", read_byte_level}, {"Split", read_split}, {"Digits", read_digits},
	{"Metaspace", read_metaspace},
	{NULL, NULL},
};

const struct op_family pretokenizer_family = {"pre_tokenizer", "pretokenizers", types};
