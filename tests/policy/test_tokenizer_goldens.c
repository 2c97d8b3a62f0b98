/* test_tokenizer_goldens.c - token for token against the reference implementation, on four published
 * tokenizers (goldens/make_tokenizer_goldens.mjs says how the goldens are made). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/tokenizer/tokenizer.h"
#include "policy/utf8.h"
#include "tests/support/tokens_fixture.h"

static void expect_encoded(const struct tokenizer *tokenizer, const json_t *text, const json_t *expected,
                           bool special)
{
	struct err err = {0};
	int32_t *ids;
	size_t n, i;
	const json_t *id;

	if (tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text), special, &ids, &n,
	                     &err) != 0)
		fail_msg("%s", err.text);
	if (n != json_array_size(expected))
		fail_msg("\"%s\": %zu ids, expected %zu", json_string_value(text), n, json_array_size(expected));
	json_array_foreach(expected, i, id)
		if (ids[i] != json_integer_value(id))
			fail_msg("\"%s\": id %zu is %d, expected %d", json_string_value(text), i, ids[i],
			         (int)json_integer_value(id));
	free(ids);
}

static void expect_decoded(const struct tokenizer *tokenizer, const json_t *ids, const json_t *expected)
{
	struct err err = {0};
	int32_t list[4096];
	size_t n = json_array_size(ids), i;
	const json_t *id;
	char *text;

	assert_in_range(n, 0, 4096);
	json_array_foreach(ids, i, id)
		list[i] = (int32_t)json_integer_value(id);
	assert_int_equal(tokenizer_decode(tokenizer, list, n, false, &text, &n, &err), 0);
	char *shown = utf8_lossy(text, n, &n);
	assert_int_equal(n, json_string_length(expected));
	assert_memory_equal(shown, json_string_value(expected), n);
	free(shown);
	free(text);
}

static void test_golden(void **state)
{
	const char *folder = *state;
	char path[TOKENS_PATH_MAX], name[TOKENS_PATH_MAX];
	struct tokenizer *tokenizer;
	struct err err = {0};
	const json_t *item;
	size_t i;

	if (!tokens_data_path(path, folder))
		skip();
	snprintf(name, sizeof name, "tokenizer_%s.json", strrchr(folder, '/') + 1);
	json_t *golden = tokens_golden(name);
	if (tokenizer_open(&tokenizer, path, &err) != 0)
		fail_msg("%s", err.text);
	json_array_foreach(json_object_get(golden, "cases"), i, item) {
		expect_encoded(tokenizer, json_object_get(item, "text"), json_object_get(item, "ids"), false);
		expect_encoded(tokenizer, json_object_get(item, "text"), json_object_get(item, "special"), true);
		expect_decoded(tokenizer, json_object_get(item, "ids"), json_object_get(item, "decoded"));
	}
	assert_true(i >= 50);
	json_array_foreach(json_object_get(golden, "decodes"), i, item)
		expect_decoded(tokenizer, json_object_get(item, "ids"), json_object_get(item, "decoded"));
	tokenizer_close(tokenizer);
	json_decref(golden);
}

int main(void)
{
	static char minimind[] = "models/minimind2-small", llama[] = "models/stories15M",
				gpt2[] = "tokenizers/gpt2", qwen[] = "tokenizers/qwen2.5";
	const struct CMUnitTest tests[] = {
		{"minimind2-small", test_golden, NULL, NULL, minimind},
		{"llama2", test_golden, NULL, NULL, llama},
		{"gpt2", test_golden, NULL, NULL, gpt2},
		{"qwen2.5", test_golden, NULL, NULL, qwen},
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
