/* test_tokenizer_variants.c - token for token against the reference implementation, on small tokenizers made up
 * for every family and option (goldens/make_tokenizer_variants.mjs says how the goldens are made). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/tokenizer/tokenizer.h"
#include "tests/support/tokens_fixture.h"

enum { IDS_MAX = 1024 };

/* The model that a variant is made from, with its changes: tokens less, tokens more, ids further apart. */
static json_t *model_of(const json_t *golden, const json_t *variant)
{
	const char *base = json_string_value(json_object_get(variant, "base"));
	json_t *model = json_deep_copy(json_object_get(golden, base)), *vocab = json_object_get(model, "vocab"), *id;
	json_int_t stretch = json_integer_value(json_object_get(variant, "stretch")), next = (json_int_t)json_object_size(vocab);
	const json_t *token;
	const char *name;
	size_t i;

	json_array_foreach(json_object_get(variant, "more"), i, token)
		json_object_set_new(vocab, json_string_value(token), json_integer(next++));
	json_array_foreach(json_object_get(variant, "without"), i, token)
		json_object_del(vocab, json_string_value(token));
	json_object_foreach(vocab, name, id)
		json_integer_set(id, json_integer_value(id) * stretch);
	json_object_update(model, json_object_get(json_object_get(variant, "tokenizer"), "model"));
	return model;
}

static struct tokenizer *open_variant(const json_t *golden, const json_t *variant)
{
	json_t *json = json_deep_copy(json_object_get(variant, "tokenizer"));

	json_object_set_new(json, "model", model_of(golden, variant));
	return tokens_open(json); /* takes it */
}

static void expect_encoded(const struct tokenizer *t, const char *name, const json_t *text, const json_t *expected,
                           bool special)
{
	struct err err = {0};
	int32_t *ids;
	size_t n, i = 0;

	if (tokenizer_encode(t, json_string_value(text), json_string_length(text), special, &ids, &n, &err) != 0)
		fail_msg("%s: %s", name, err.text);
	while (i < n && i < json_array_size(expected) && ids[i] == json_integer_value(json_array_get(expected, i)))
		i++;
	if (i < n || n != json_array_size(expected))
		fail_msg("%s, \"%s\": %zu ids for %zu, different from id %zu on", name, json_string_value(text), n,
		         json_array_size(expected), i);
	free(ids);
}

static void expect_decoded(const struct tokenizer *t, const char *name, const json_t *ids, const json_t *expected)
{
	struct err err = {0};
	int32_t list[IDS_MAX];
	size_t n = json_array_size(ids), i;
	const json_t *id;
	char *text;

	assert_in_range(n, 0, IDS_MAX);
	json_array_foreach(ids, i, id)
		list[i] = (int32_t)json_integer_value(id);
	if (tokenizer_decode_utf8(t, list, n, false, &text, &n, &err) != 0)
		fail_msg("%s: %s", name, err.text);
	if (n != json_string_length(expected) || memcmp(text, json_string_value(expected), n) != 0)
		fail_msg("%s: decoded \"%s\", expected \"%s\"", name, text, json_string_value(expected));
	free(text);
}

static void test_variants(void **state)
{
	json_t *golden = tokens_golden("tokenizer_variants.json");
	const json_t *variant, *item;
	size_t i, k;

	(void)state;
	json_array_foreach(json_object_get(golden, "variants"), i, variant) {
		const char *name = json_string_value(json_object_get(variant, "name"));
		struct tokenizer *t = open_variant(golden, variant);
		json_array_foreach(json_object_get(variant, "cases"), k, item) {
			const json_t *text = json_object_get(item, "text"), *ids = json_object_get(item, "ids");
			const json_t *special = json_object_get(item, "special"), *decoded = json_object_get(item, "decoded");
			expect_encoded(t, name, text, ids, false);
			expect_encoded(t, name, text, special ? special : ids, true);
			expect_decoded(t, name, ids, decoded ? decoded : text);
		}
		assert_true(k > 0);
		tokenizer_close(t);
	}
	assert_true(i >= 80);
	json_decref(golden);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_variants),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
