/* tokenizer_added.c - added tokens: found in the text before the model sees it, leftmost and longest.
 *
 * The tokens are sorted; at each position a range of them is narrowed byte by byte with two binary
 * searches, as in a trie.  Cost: O(text * length of the common prefix * log tokens).
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "policy/tokenizer_internal.h"
#include "policy/utf8.h"

static int compare(const void *a, const void *b)
{
	const struct added_token *left = a, *right = b;
	int order = memcmp(left->text, right->text, left->n < right->n ? left->n : right->n);

	return order ? order : (left->n > right->n) - (left->n < right->n);
}

/* First of items[low, high) whose byte at `depth` is >= value; all have the same `depth` bytes before it,
 * and one that ends there comes first. */
static size_t lower_bound(const struct added_set *set, size_t low, size_t high, size_t depth, int value)
{
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct added_token *token = &set->items[middle];
		int byte = depth < token->n ? (unsigned char)token->text[depth] : -1;
		if (byte < value)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The longest token that text[0, n) begins with, or NULL. */
static const struct added_token *longest(const struct added_set *set, const char *text, size_t n)
{
	const struct added_token *found = NULL;
	size_t low = 0, high = set->n;

	for (size_t depth = 0; depth < n; depth++) {
		int byte = (unsigned char)text[depth];
		low = lower_bound(set, low, high, depth, byte);
		high = lower_bound(set, low, high, depth, byte + 1);
		if (low == high)
			break;
		if (set->items[low].n == depth + 1)
			found = &set->items[low];
	}
	return found;
}

/* Letters, marks, decimal and letter numbers, connectors, joiners: \w of the reference implementation. */
static bool is_word(int32_t code)
{
	if (code < 0)
		return false;
	switch (utf8proc_category(code)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_PC:
		return true;
	default:
		return code == 0x200C || code == 0x200D;
	}
}

/* The unit that ends at text[at], at > 0: its start, and its code or -1. */
static size_t unit_before(const char *text, size_t at, int32_t *code)
{
	size_t start = at - 1;

	while (start > 0 && at - start < 4 && ((unsigned char)text[start] & 0xC0) == 0x80)
		start--;
	if (utf8_step(text + start, at - start, code) != at - start) {
		*code = -1;
		return at - 1;
	}
	return start;
}

static bool is_single_word(const char *text, size_t n, size_t start, size_t end)
{
	int32_t code;

	if (start > 0) {
		unit_before(text, start, &code);
		if (is_word(code))
			return false;
	}
	if (end < n) {
		utf8_step(text + end, n - end, &code);
		if (is_word(code))
			return false;
	}
	return true;
}

/* Start of the white space that ends at text[at], not before `from`. */
static size_t space_before(const char *text, size_t from, size_t at)
{
	while (at > from) {
		int32_t code;
		size_t start = unit_before(text, at, &code);
		if (!utf8_is_space(code))
			break;
		at = start;
	}
	return at;
}

/* End of the white space that begins at text[at]. */
static size_t space_after(const char *text, size_t n, size_t at)
{
	while (at < n) {
		int32_t code;
		size_t step = utf8_step(text + at, n - at, &code);
		if (!utf8_is_space(code))
			break;
		at += step;
	}
	return at;
}

bool added_next(const struct added_set *set, const char *text, size_t n, size_t from,
                struct added_match *match)
{
	for (size_t at = from; set->n > 0 && at < n; at++) {
		const struct added_token *token = longest(set, text + at, n - at);
		if (!token)
			continue;
		size_t end = at + token->n;
		if (token->single_word && !is_single_word(text, n, at, end)) {
			at = end - 1;
			continue;
		}
		match->start = token->lstrip ? space_before(text, from, at) : at;
		match->end = token->rstrip ? space_after(text, n, end) : end;
		match->id = token->id;
		return true;
	}
	return false;
}

void added_free(struct added_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		free(set->items[i].text);
	free(set->items);
	*set = (struct added_set){0};
}

/* The vocabulary must give the token this id, or neither the token nor the id yet. */
static int enter_vocab(struct vocab *vocab, const char *text, size_t n, int32_t id, struct err *err)
{
	char name[QUOTED_MAX];
	int32_t known = vocab_find(vocab, text, n);

	if (known >= 0 && known != id)
		return err_set(err, ERR_INVALID, "%s has id %d here and id %d in model.vocab", quoted(name, text, n),
		               id, known);
	if (known < 0 && vocab_add(vocab, text, n, id, err) != 0)
		return err->code;
	if (vocab->tokens[id].added)
		return err_set(err, ERR_INVALID, "id %d (%s) is listed twice", id, quoted(name, text, n));
	vocab->tokens[id].added = true;
	return 0;
}

/* What the normalizer makes of the token's text. */
static int normalized_text(struct added_token *token, const struct ops *normalizer, struct err *err)
{
	struct pieces pieces = {0}, scratch = {0};

	pieces_add(&pieces, token->text, token->n, PIECE_FIRST);
	int code = ops_run(normalizer, &pieces, &scratch, err);
	if (code == 0) {
		token->n = pieces.n_bytes;
		token->text = xrealloc(token->text, token->n + 1);
		memcpy(token->text, pieces.bytes, token->n);
		token->text[token->n] = '\0';
	}
	pieces_free(&pieces);
	pieces_free(&scratch);
	return code;
}

static int token_parse(struct added_token *token, bool *normalized, struct vocab *vocab, const json_t *json,
                       struct err *err)
{
	bool special = false;

	if (!json_is_object(json))
		return err_set(err, ERR_INVALID, "must be an object, found %s", json_type_name(json));
	if (field_text(json, "token", "content", &token->text, &token->n, err) != 0 ||
	    field_index(json, "token", "id", TOKENIZER_IDS_MAX, &token->id, err) != 0 ||
	    field_bool(json, "token", "special", &special, err) != 0)
		return err->code;
	*normalized = !special;
	if (field_bool(json, "token", "normalized", normalized, err) != 0 ||
	    field_bool(json, "token", "single_word", &token->single_word, err) != 0 ||
	    field_bool(json, "token", "lstrip", &token->lstrip, err) != 0 ||
	    field_bool(json, "token", "rstrip", &token->rstrip, err) != 0)
		return err->code;
	if (token->n == 0)
		return err_set(err, ERR_INVALID, "content is empty");
	if (enter_vocab(vocab, token->text, token->n, token->id, err) != 0)
		return err->code;
	vocab->tokens[token->id].special = special;
	return 0;
}

/* Decoding such a token undoes the normalizer: its normalized text goes through the decoder. */
static void enter_normalized(struct added_set *set, struct vocab *vocab, const struct added_token *token)
{
	set->items[set->n++] = *token;
	vocab->tokens[token->id].shown = token->text;
	vocab->tokens[token->id].n_shown = (uint32_t)token->n;
}

int added_parse(struct added_set *literal, struct added_set *normalized, struct vocab *vocab,
                const struct ops *normalizer, const json_t *json, struct err *err)
{
	const json_t *item;
	size_t i;

	if (!json || json_is_null(json))
		return 0;
	if (!json_is_array(json))
		return err_set(err, ERR_INVALID, "added_tokens must be a list, found %s", json_type_name(json));
	literal->items = xcalloc(json_array_size(json), sizeof *literal->items);
	normalized->items = xcalloc(json_array_size(json), sizeof *normalized->items);
	json_array_foreach(json, i, item) {
		struct added_token token = {0};
		bool is_normalized = false;
		int code = token_parse(&token, &is_normalized, vocab, item, err);
		if (code == 0 && is_normalized)
			code = normalized_text(&token, normalizer, err);
		if (code != 0 || token.n == 0)
			free(token.text);
		else if (is_normalized)
			enter_normalized(normalized, vocab, &token);
		else
			literal->items[literal->n++] = token;
		if (code != 0)
			return err_context(err, "added_tokens[%zu]", i);
	}
	qsort(literal->items, literal->n, sizeof *literal->items, compare);
	qsort(normalized->items, normalized->n, sizeof *normalized->items, compare);
	return 0;
}
