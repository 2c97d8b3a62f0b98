/* tokenizer_pretokenize.c - the pre-tokenizer family: ByteLevel, Split, Digits, Metaspace, and those that split
 * at white space, punctuation, a delimiter or a number of characters.
 *
 * A pre-tokenizer cuts text into the pieces that BPE merges within.  Cost: linear in the text, times
 * what the regular expressions take.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"

/* GPT-2's expression, which ByteLevel applies where use_regex is set. */
static const char gpt2_regex[] =
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Cut text by the pattern and write each part in the byte-level alphabet. */
static int byte_level_parts(const struct op *op, const char *text, size_t n, size_t origin,
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
		if (span->end == span->start)
			continue;
		pieces_open(out, false);
		byte_level_write(out, text + span->start, span->end - span->start,
		                 origin_within(origin, span->start, span->end));
	}
	free(spans.items);
	return code;
}

static int apply_byte_level(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		size_t n = in->items[i].n, origin = in->items[i].origin;
		char *spaced = NULL;
		if (op->flag && text[0] != ' ') {
			spaced = xmalloc(n + 1);
			spaced[0] = ' ';
			memcpy(spaced + 1, text, n++);
			text = spaced;
			origin += origin > 0;
		}
		int code = byte_level_parts(op, text, n, origin, out, err);
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
	if (component_bool(json, where, "add_prefix_space", &op->flag, err) != 0 ||
	    component_bool(json, where, "use_regex", &use_regex, err) != 0)
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
			pieces_split(out, text, in->items[i].origin, &spans, (enum split_behavior)op->mode);
	}
	free(spans.items);
	return code;
}

static int behavior_parse(int *mode, const json_t *json, const char *where, struct err *err)
{
	static const char *const behaviors[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
	                                        "Contiguous"};
	const json_t *behavior = json_object_get(json, "behavior");
	const char *name = json_string_value(behavior);

	if (!name)
		return err_set(err, ERR_INVALID, "%s.behavior must be a string, found %s", where,
		               json_type_name(behavior));
	for (*mode = 0; *mode <= SPLIT_CONTIGUOUS; ++*mode)
		if (strcmp(behaviors[*mode], name) == 0)
			return 0;
	return err_set(err, ERR_UNSUPPORTED,
	               "%s.behavior \"%.64s\" is not known; expected Removed, Isolated, MergedWithPrevious, "
	               "MergedWithNext or Contiguous",
	               where, name);
}

static int read_split(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_split;
	if (behavior_parse(&op->mode, json, where, err) != 0 || component_bool(json, where, "invert", &op->flag, err) != 0)
		return err->code;
	return pattern_parse(&op->pattern, json_object_get(json, "pattern"), where, err);
}

static int read_delimiter(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_split;
	op->mode = SPLIT_REMOVED;
	return pattern_parse_literal(&op->pattern, json, where, "delimiter", err);
}

/* Spans of single characters that `is` holds for, and of what is between them. */
static void character_spans(const char *text, size_t n, bool (*is)(int32_t), struct spans *spans)
{
	size_t done = 0;

	for (size_t at = 0; at < n;) {
		int32_t code;
		size_t step = utf8_step(text + at, n - at, &code);
		if (is(code)) {
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

static int apply_characters(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	struct spans spans = {0};

	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		spans.n = 0;
		character_spans(text, in->items[i].n, op->is, &spans);
		pieces_split(out, text, in->items[i].origin, &spans, (enum split_behavior)op->mode);
	}
	free(spans.items);
	return 0;
}

static int read_digits(struct op *op, const json_t *json, const char *where, struct err *err)
{
	bool individual = false;
	int code = component_bool(json, where, "individual_digits", &individual, err);

	op->apply = apply_characters;
	op->is = unicode_is_number;
	op->mode = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
	return code;
}

static int read_punctuation(struct op *op, const json_t *json, const char *where, struct err *err)
{
	op->apply = apply_characters;
	op->is = unicode_is_punctuation;
	op->mode = SPLIT_ISOLATED;
	return json_object_get(json, "behavior") ? behavior_parse(&op->mode, json, where, err) : 0;
}

static int read_whitespace_split(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_characters;
	op->is = utf8_is_space;
	op->mode = SPLIT_REMOVED;
	return 0;
}

/* What a character does: nothing is left of it, it joins others of its kind, or it is a piece by itself. */
enum kind { KIND_DROPPED, KIND_WORD, KIND_OTHER, KIND_ALONE };

static enum kind whitespace_kind(int32_t code)
{
	return unicode_is_word(code) ? KIND_WORD : utf8_is_space(code) ? KIND_DROPPED : KIND_OTHER;
}

static enum kind bert_kind(int32_t code)
{
	return utf8_is_space(code) ? KIND_DROPPED : unicode_is_punctuation(code) ? KIND_ALONE : KIND_OTHER;
}

static void split_by_kind(const struct pieces *in, struct pieces *out, enum kind (*kind_of)(int32_t code))
{
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		enum kind last = KIND_DROPPED;
		for (size_t at = 0, step; at < in->items[i].n; at += step) {
			int32_t code;
			step = utf8_step(text + at, in->items[i].n - at, &code);
			enum kind kind = kind_of(code);
			if (kind != KIND_DROPPED && (kind != last || kind == KIND_ALONE))
				pieces_open(out, false);
			if (kind != KIND_DROPPED)
				pieces_write_from(out, text + at, step, at < in->items[i].origin);
			last = kind;
		}
	}
}

static int apply_whitespace(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	split_by_kind(in, out, whitespace_kind);
	return 0;
}

static int read_whitespace(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_whitespace;
	return 0;
}

static int apply_bert(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)op, (void)err;
	split_by_kind(in, out, bert_kind);
	return 0;
}

static int read_bert(struct op *op, const json_t *json, const char *where, struct err *err)
{
	(void)json, (void)where, (void)err;
	op->apply = apply_bert;
	return 0;
}

static int apply_length(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err)
{
	(void)err;
	for (size_t i = 0; i < in->n; i++) {
		const char *text = in->bytes + in->items[i].start;
		size_t count = 0;
		for (size_t at = 0, step; at < in->items[i].n; at += step, count++) {
			int32_t code;
			step = utf8_step(text + at, in->items[i].n - at, &code);
			if (count % op->start == 0)
				pieces_open(out, false);
			pieces_write_from(out, text + at, step, at < in->items[i].origin);
		}
	}
	return 0;
}

static int read_length(struct op *op, const json_t *json, const char *where, struct err *err)
{
	int32_t length = 5;

	op->apply = apply_length;
	if (json_object_get(json, "length") && component_index(json, where, "length", INT32_MAX, &length, err) != 0)
		return err->code;
	op->start = (size_t)length;
	return length > 0 ? 0 : err_set(err, ERR_INVALID, "%s.length is 0, expected 1 or more", where);
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
		size_t origin = in->items[i].origin;
		bool marked = text[0] == ' ' || begins_with(text, n, op->text, op->n_text);
		pieces_open(out, false);
		if (!marked && (op->mode == PREPEND_ALWAYS || (op->mode == PREPEND_FIRST && origin > 0)))
			pieces_write_from(out, op->text, op->n_text, origin > 0);
		for (size_t at = 0; at < n;) {
			bool mark = text[at] == ' ' || begins_with(text + at, n - at, op->text, op->n_text);
			size_t step = mark && text[at] != ' ' ? op->n_text : 1;
			if (mark && op->flag && at > 0)
				pieces_open(out, false);
			pieces_write_from(out, mark ? op->text : text + at, mark ? op->n_text : 1, at < origin);
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
	if (component_text(json, where, "replacement", &op->text, &op->n_text, err) != 0 ||
	    component_bool(json, where, "split", &op->flag, err) != 0 ||
	    component_bool(json, where, "add_prefix_space", &prefix_space, err) != 0)
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
	{"Metaspace", read_metaspace}, {"Punctuation", read_punctuation}, {"Whitespace", read_whitespace},
	{"WhitespaceSplit", read_whitespace_split}, {"CharDelimiterSplit", read_delimiter},
	{"FixedLength", read_length}, {"BertPreTokenizer", read_bert},
	{NULL, NULL},
};

const struct op_family pretokenizer_family = {"pre_tokenizer", "pretokenizers", types};
