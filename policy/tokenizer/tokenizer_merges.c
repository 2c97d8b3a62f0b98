/* tokenizer_merges.c - the BPE model of tokenizer.json: vocabulary, merges, and the hash from a pair of
 * token ids to its merge (open addressing by multiplication, at most half full).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"

static uint64_t pair_of(int32_t left, int32_t right)
{
	return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The slot of this pair, or the empty one where it would go. */
static struct merge *find_slot(const struct bpe *bpe, uint64_t pair)
{
	uint32_t mask = bpe->n_slots - 1, slot = (uint32_t)(pair * 0x9E3779B97F4A7C15u >> 32) & mask;

	while (bpe->merges[slot].pair != UINT64_MAX && bpe->merges[slot].pair != pair)
		slot = (slot + 1) & mask;
	return &bpe->merges[slot];
}

const struct merge *merge_find(const struct bpe *bpe, int32_t left, int32_t right)
{
	const struct merge *merge = find_slot(bpe, pair_of(left, right));

	return merge->pair == UINT64_MAX ? NULL : merge;
}

static int vocab_parse(struct vocab *vocab, json_t *json, struct err *err)
{
	char name[QUOTED_MAX];
	const char *text;
	json_t *value;

	if (!json_is_object(json))
		return err_set(err, ERR_INVALID, "model.vocab must be an object of token: id, found %s",
		               json_type_name(json));
	json_object_foreach(json, text, value) {
		json_int_t id = json_integer_value(value);
		if (!json_is_integer(value))
			return err_set(err, ERR_INVALID, "model.vocab: the id of %s must be an integer, found %s",
			               quoted(name, text, strlen(text)), json_type_name(value));
		if (id < 0 || id >= TOKENIZER_IDS_MAX)
			return err_set(err, ERR_INVALID,
			               "model.vocab: the id of %s is %" JSON_INTEGER_FORMAT ", expected 0 to %d",
			               quoted(name, text, strlen(text)), id, TOKENIZER_IDS_MAX - 1);
		if (vocab_add(vocab, text, strlen(text), (int32_t)id, err) != 0)
			return err_context(err, "model.vocab");
	}
	return vocab->model.n > 0 ? 0 : err_set(err, ERR_INVALID, "model.vocab is empty");
}

/* The two halves of a merge, "a b" or ["a", "b"], borrowed from json. */
struct halves {
	const char *left, *right;
	size_t n_left, n_right;
};

static bool halves_read(struct halves *halves, const json_t *json)
{
	if (json_is_string(json)) {
		const char *text = json_string_value(json);
		size_t n = json_string_length(json);
		const char *space = memchr(text, ' ', n);
		if (!space || memchr(space + 1, ' ', n - (size_t)(space - text) - 1))
			return false;
		*halves = (struct halves){text, space + 1, (size_t)(space - text), n - (size_t)(space - text) - 1};
		return true;
	}
	const json_t *left = json_array_get(json, 0), *right = json_array_get(json, 1);
	if (json_array_size(json) != 2 || !json_is_string(left) || !json_is_string(right))
		return false;
	*halves = (struct halves){json_string_value(left), json_string_value(right), json_string_length(left),
	                          json_string_length(right)};
	return true;
}

static int unknown_token(const char *text, size_t n, size_t rank, struct err *err)
{
	char name[QUOTED_MAX];

	return err_set(err, ERR_INVALID, "model.merges[%zu] needs the token %s, which model.vocab does not have",
	               rank, quoted(name, text, n));
}

static int merge_add(struct bpe *bpe, const struct vocab *vocab, const struct halves *halves, size_t rank,
                     struct err *err)
{
	int32_t left = vocab_find(vocab, halves->left, halves->n_left);
	int32_t right = vocab_find(vocab, halves->right, halves->n_right);
	size_t skip = bpe->n_prefix, n = halves->n_left + halves->n_right;

	if (left < 0)
		return unknown_token(halves->left, halves->n_left, rank, err);
	if (right < 0)
		return unknown_token(halves->right, halves->n_right, rank, err);
	if (halves->n_right < skip)
		return err_set(err, ERR_INVALID, "model.merges[%zu]: its right half is shorter than "
		               "continuing_subword_prefix", rank);
	char *joined = xmalloc(n + 1);
	memcpy(joined, halves->left, halves->n_left);
	memcpy(joined + halves->n_left, halves->right + skip, halves->n_right - skip);
	n -= skip;
	int32_t id = vocab_find(vocab, joined, n);
	int code = id < 0 ? unknown_token(joined, n, rank, err) : 0;
	free(joined);
	if (code == 0) { /* of two merges of one pair, the later counts */
		uint64_t pair = pair_of(left, right);
		*find_slot(bpe, pair) = (struct merge){.pair = pair, .rank = (uint32_t)rank, .id = id};
	}
	return code;
}

static int merges_parse(struct bpe *bpe, const struct vocab *vocab, const json_t *json, struct err *err)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(json))
		return err_set(err, ERR_INVALID, "model.merges must be a list, found %s", json_type_name(json));
	bpe->n_slots = 16;
	while (bpe->n_slots / 2 <= json_array_size(json))
		bpe->n_slots *= 2;
	bpe->merges = xmalloc(bpe->n_slots * sizeof *bpe->merges);
	memset(bpe->merges, 0xFF, bpe->n_slots * sizeof *bpe->merges);
	json_array_foreach(json, i, item) {
		struct halves halves;
		const char *text = json_string_value(item);
		if (text && strncmp(text, "#version", 8) == 0)
			continue;
		if (!halves_read(&halves, item))
			return err_set(err, ERR_INVALID, "model.merges[%zu] must be \"a b\" or [\"a\", \"b\"], found %s",
			               i, text ? text : json_type_name(item));
		if (merge_add(bpe, vocab, &halves, i, err) != 0)
			return err->code;
	}
	return 0;
}

static int refuse_dropout(const json_t *json, struct err *err)
{
	const json_t *dropout = json_object_get(json, "dropout");

	if (!dropout || json_is_null(dropout) || (json_is_number(dropout) && json_number_value(dropout) == 0))
		return 0;
	return err_set(err, ERR_UNSUPPORTED, "model.dropout is not supported: encoding must be deterministic; set it "
	               "to null");
}

/* An optional text: absent, null and (but for unk_token) "" are NULL. */
static int text_parse(char **text, size_t *n, const json_t *json, const char *key, struct err *err)
{
	const json_t *field = json_object_get(json, key);

	return !field || json_is_null(field) ? 0 : component_text(json, "model", key, text, n, err);
}

int bpe_parse(struct bpe *bpe, struct vocab *vocab, const json_t *json, struct err *err)
{
	const char *type = json_string_value(json_object_get(json, "type"));
	char name[8];
	size_t n_unk = 0;

	if (!json_is_object(json))
		return err_set(err, ERR_INVALID, "model must be an object, found %s", json_type_name(json));
	if (type && strcmp(type, "BPE") != 0)
		return err_set(err, ERR_UNSUPPORTED, "model type \"%.64s\" is not supported; supported: BPE", type);
	if (refuse_dropout(json, err) != 0 || text_parse(&bpe->unk, &n_unk, json, "unk_token", err) != 0 ||
	    text_parse(&bpe->prefix, &bpe->n_prefix, json, "continuing_subword_prefix", err) != 0 ||
	    text_parse(&bpe->suffix, &bpe->n_suffix, json, "end_of_word_suffix", err) != 0 ||
	    component_bool(json, "model", "byte_fallback", &bpe->byte_fallback, err) != 0 ||
	    component_bool(json, "model", "fuse_unk", &bpe->fuse_unk, err) != 0 ||
	    component_bool(json, "model", "ignore_merges", &bpe->ignore_merges, err) != 0 ||
	    vocab_parse(vocab, json_object_get(json, "vocab"), err) != 0 ||
	    merges_parse(bpe, vocab, json_object_get(json, "merges"), err) != 0)
		return err->code;
	for (int byte = 0; byte < 256; byte++) {
		snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
		bpe->byte_ids[byte] = vocab_find(vocab, name, 6);
	}
	bpe->unk_id = bpe->unk ? vocab_find(vocab, bpe->unk, n_unk) : -1;
	return 0;
}

void bpe_free(struct bpe *bpe)
{
	free(bpe->merges);
	free(bpe->unk);
	free(bpe->prefix);
	free(bpe->suffix);
	*bpe = (struct bpe){0};
}
