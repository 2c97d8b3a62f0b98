/* tokenizer_template.c - the post-processor: which special tokens go before and after a single text.
 *
 * TemplateProcessing's `single` is reduced to two lists of ids, and so are BertProcessing and
 * RobertaProcessing (cls before, sep after); ByteLevel only trims offsets, which are not kept here; a Sequence
 * may hold one of them that adds tokens.
 */
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"

static int list_add(int32_t *list, int *n, int32_t id, struct err *err)
{
	if (*n == TOKENIZER_TEMPLATE_MAX)
		return err_set(err, ERR_TOO_BIG, "post_processor: more than %d special tokens around a text",
		               TOKENIZER_TEMPLATE_MAX);
	list[(*n)++] = id;
	return 0;
}

/* The ids of special token `name` go to the end of list. */
static int special_ids(int32_t *list, int *n, const json_t *json, const char *name, const struct vocab *vocab,
                       struct err *err)
{
	const json_t *special = json_object_get(json_object_get(json, "special_tokens"), name);
	const json_t *ids = json_object_get(special, "ids"), *item;
	size_t i;

	if (!json_is_array(ids))
		return err_set(err, ERR_INVALID,
		               "post_processor TemplateProcessing names \"%.64s\", for which special_tokens "
		               "has no list of ids",
		               name);
	json_array_foreach(ids, i, item) {
		json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
		if (id < 0 || id >= vocab->n_ids || !vocab->tokens[id].text)
			return err_set(err, ERR_INVALID,
			               "post_processor special token \"%.64s\" has an id that is no token's", name);
		if (list_add(list, n, (int32_t)id, err) != 0)
			return err->code;
	}
	return 0;
}

/* One TemplateProcessing: what is before and after its sequence A. */
static int single_parse(struct template_ids *made, const json_t *json, const struct vocab *vocab,
                        struct err *err)
{
	const json_t *single = json_object_get(json, "single"), *piece;
	bool after = false;
	size_t i;

	if (!json_is_array(single))
		return err_set(err, ERR_INVALID, "post_processor TemplateProcessing.single must be a list, found %s",
		               json_type_name(single));
	json_array_foreach(single, i, piece) {
		const char *name = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
		const char *sequence = json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
		int code = 0;
		if (name)
			code = special_ids(after ? made->after : made->before, after ? &made->n_after : &made->n_before,
			                   json, name, vocab, err);
		else if (sequence && strcmp(sequence, "A") == 0 && !after)
			after = true;
		else
			code = err_set(err, ERR_INVALID,
			               "post_processor TemplateProcessing.single[%zu] must be a SpecialToken or "
			               "the only Sequence A",
			               i);
		if (code != 0)
			return code;
	}
	return after ? 0
	             : err_set(err, ERR_INVALID, "post_processor TemplateProcessing.single has no Sequence A");
}

/* ["<s>", 1] at json[key]. */
static int pair_parse(int32_t *list, int *n, const json_t *json, const char *key, const struct vocab *vocab,
                      struct err *err)
{
	const json_t *pair = json_object_get(json, key), *item = json_array_get(pair, 1);
	json_int_t id = json_integer_value(item);

	if (json_array_size(pair) != 2 || !json_is_integer(item) || id < 0 || id >= vocab->n_ids ||
	    !vocab->tokens[id].text)
		return err_set(err, ERR_INVALID, "post_processor.%s must be [\"token\", its id]", key);
	return list_add(list, n, (int32_t)id, err);
}

int template_parse(struct template_ids *template, const json_t *json, const struct vocab *vocab,
                   struct err *err)
{
	if (!json || json_is_null(json))
		return 0;
	const char *type = json_string_value(json_object_get(json, "type"));
	if (!type)
		return err_set(err, ERR_INVALID, "post_processor must be null or an object with a \"type\", found %s",
		               json_type_name(json));
	if (strcmp(type, "ByteLevel") == 0)
		return 0;
	bool pair = strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0;
	if (pair || strcmp(type, "TemplateProcessing") == 0) {
		if (template->there)
			return err_set(err, ERR_UNSUPPORTED, "post_processor: two that add tokens in one Sequence");
		template->there = true;
		if (!pair)
			return single_parse(template, json, vocab, err);
		return pair_parse(template->before, &template->n_before, json, "cls", vocab, err) != 0
		               ? err->code
		               : pair_parse(template->after, &template->n_after, json, "sep", vocab, err);
	}
	if (strcmp(type, "Sequence") != 0)
		return err_set(err, ERR_UNSUPPORTED,
		               "post_processor \"%.64s\" is not supported; supported: ByteLevel, "
		               "TemplateProcessing, BertProcessing, RobertaProcessing, Sequence",
		               type);

	const json_t *members = json_object_get(json, "processors"), *member;
	size_t i;
	if (!json_is_array(members))
		return err_set(err, ERR_INVALID, "post_processor Sequence.processors must be a list, found %s",
		               json_type_name(members));
	json_array_foreach(members, i, member)
		if (template_parse(template, member, vocab, err) != 0)
			return err->code;
	return 0;
}
