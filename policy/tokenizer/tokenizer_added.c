/* tokenizer_added.c - added tokens: found in the text before the model sees it, leftmost and longest.
 *
 * The tokens are sorted; at each position a range of them is narrowed byte by byte with two binary
 * searches, as in a trie.  Cost: O(text * length of the common prefix * log tokens).
 *
 * As in Hugging Face's tokenizers 0.23 the model's vocabulary gives a token its id, and those that it lacks
 * get the ids from the vocabulary's size on, in order.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"
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

/* The longest token that text[0, n), n > 0, begins with, or NULL. */
static const struct added_token *longest(const struct added_set *set, const char *text, size_t n)
{
	const struct added_token *found = NULL;
	size_t low = set->first[(unsigned char)text[0]], high = set->first[(unsigned char)text[0] + 1];

	for (size_t depth = 1; low < high; depth++) {
		if (set->items[low].n == depth)
			found = &set->items[low];
		if (depth == n)
			break;
		int byte = (unsigned char)text[depth];
		low = lower_bound(set, low, high, depth, byte);
		high = lower_bound(set, low, high, depth, byte + 1);
	}
	return found;
}

static bool is_single_word(const char *text, size_t n, size_t start, size_t end)
{
	int32_t before = -1, after = -1;

	if (start > 0)
		utf8_step_back(text, start, &before);
	if (end < n)
		utf8_step(text + end, n - end, &after);
	return !unicode_is_word(before) && !unicode_is_word(after);
}

/* The search goes on behind the token, not behind the space that it took: a token of white space there is
 * found all the same. */
bool added_next(const struct added_set *set, const char *text, size_t n, struct added_scan *scan,
                struct added_match *match)
{
	const struct added_token *token = NULL;
	size_t start = scan->at, end = 0;

	for (; set->n > 0 && start < n && !token; start = token ? start : start + 1) {
		token = longest(set, text + start, n - start);
		if (!token)
			continue;
		end = start + token->n;
		if (token->single_word && !is_single_word(text, n, start, end)) {
			start = end - 1;
			token = NULL;
		}
	}
	if (!token)
		return false;
	scan->at = end;
	*match = (struct added_match){start, end, token->id};
	if (token->lstrip)
		match->start = start > scan->done ? utf8_space_before(text, scan->done, start) : scan->done;
	if (token->rstrip)
		match->end = utf8_space_after(text, n, end);
	return true;
}

void added_free(struct added_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		free(set->items[i].text);
	free(set->items);
	*set = (struct added_set){0};
}

/* Give the token its id: the model's, or the next one. */
static int enter_vocab(struct added_token *token, int32_t said, int32_t *next, struct vocab *vocab,
                       struct err *err)
{
	char name[QUOTED_MAX];
	int32_t known = vocab_find_any(vocab, token->text, token->n);

	if (known >= 0 && vocab->tokens[known].added)
		return err_set(err, ERR_INVALID, "id %d (%s) is listed twice", known,
		               quoted(name, token->text, token->n));
	if (known >= 0 && known != said)
		return err_set(err, ERR_INVALID, "%s has id %d here and id %d in model.vocab",
		               quoted(name, token->text, token->n), said, known);
	if (known < 0 && *next == TOKENIZER_IDS_MAX)
		return err_set(err, ERR_TOO_BIG, "more than %d tokens", TOKENIZER_IDS_MAX);
	if (known < 0)
		vocab_add_added(vocab, token->text, token->n, *next);
	token->id = known >= 0 ? known : (*next)++;
	vocab->tokens[token->id].added = true;
	return 0;
}

/* What the normalizer makes of the token's text. */
static int normalized_text(struct added_token *token, const struct ops *normalizer, struct err *err)
{
	struct pieces pieces = {0}, scratch = {0};

	pieces_add(&pieces, token->text, token->n, 0);
	int code = ops_run(normalizer, &pieces, &scratch, err);
	if (code == 0) {
		token->n = pieces.n_bytes;
		token->text = xrealloc(token->text, token->n + 1);
		if (token->n > 0)
			memcpy(token->text, pieces.bytes, token->n);
		token->text[token->n] = '\0';
	}
	pieces_free(&pieces);
	pieces_free(&scratch);
	return code;
}

static int token_parse(struct added_token *token, bool *normalized, int32_t *next, struct vocab *vocab,
                       const json_t *json, struct err *err)
{
	bool special = false;
	int32_t said;

	if (!json_is_object(json))
		return err_set(err, ERR_INVALID, "must be an object, found %s", json_type_name(json));
	if (component_text(json, "token", "content", &token->text, &token->n, err) != 0 ||
	    component_index(json, "token", "id", TOKENIZER_IDS_MAX, &said, err) != 0 ||
	    component_bool(json, "token", "special", &special, err) != 0)
		return err->code;
	*normalized = !special;
	if (component_bool(json, "token", "normalized", normalized, err) != 0 ||
	    component_bool(json, "token", "single_word", &token->single_word, err) != 0 ||
	    component_bool(json, "token", "lstrip", &token->lstrip, err) != 0 ||
	    component_bool(json, "token", "rstrip", &token->rstrip, err) != 0)
		return err->code;
	if (token->n == 0)
		return err_set(err, ERR_INVALID, "content is empty");
	if (enter_vocab(token, said, next, vocab, err) != 0)
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

static int list_parse(struct added_set *literal, struct added_set *normalized, struct vocab *vocab,
                      const struct ops *normalizer, const json_t *json, struct err *err)
{
	int32_t next = (int32_t)vocab->model.n;
	const json_t *item;
	size_t i;

	json_array_foreach(json, i, item) {
		struct added_token token = {0};
		bool is_normalized = false;
		int code = token_parse(&token, &is_normalized, &next, vocab, item, err);
		if (code == 0 && is_normalized)
			code = normalized_text(&token, normalizer, err);
		if (code == 0 && token.n == 0)
			code = err_set(err, ERR_UNSUPPORTED, "the normalizer leaves nothing of the token's content; set "
			               "its \"normalized\" to false");
		if (code != 0)
			free(token.text);
		else if (is_normalized)
			enter_normalized(normalized, vocab, &token);
		else
			literal->items[literal->n++] = token;
		if (code != 0)
			return err_context(err, "added_tokens[%zu]", i);
	}
	return 0;
}

/* Sort, index by first byte, and refuse two tokens that are looked for by the same text. */
static int set_finish(struct added_set *set, struct err *err)
{
	char name[QUOTED_MAX];
	size_t at = 0;

	qsort(set->items, set->n, sizeof *set->items, compare);
	for (int byte = 0; byte <= 256; byte++) {
		while (at < set->n && (unsigned char)set->items[at].text[0] < byte)
			at++;
		set->first[byte] = at;
	}
	for (size_t i = 1; i < set->n; i++)
		if (compare(&set->items[i - 1], &set->items[i]) == 0)
			return err_set(err, ERR_INVALID, "added_tokens: ids %d and %d are both %s once normalized",
			               set->items[i - 1].id, set->items[i].id,
			               quoted(name, set->items[i].text, set->items[i].n));
	return 0;
}

int added_parse(struct added_set *literal, struct added_set *normalized, struct vocab *vocab,
                const struct ops *normalizer, const json_t *json, struct err *err)
{
	if (!json || json_is_null(json))
		return 0;
	if (!json_is_array(json))
		return err_set(err, ERR_INVALID, "added_tokens must be a list, found %s", json_type_name(json));
	literal->items = xcalloc(json_array_size(json), sizeof *literal->items);
	normalized->items = xcalloc(json_array_size(json), sizeof *normalized->items);
	if (list_parse(literal, normalized, vocab, normalizer, json, err) != 0 || set_finish(literal, err) != 0)
		return err->code;
	return set_finish(normalized, err);
}
