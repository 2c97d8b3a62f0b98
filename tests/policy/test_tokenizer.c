/* test_tokenizer.c - the tokenizer's behaviour on a small byte-level tokenizer made up in the test:
 * what has no reference (bytes that are not UTF-8, long runs, unknown characters). */
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

static uint32_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)random_state * n >> 32);
}

static void expect_ids(const struct tokenizer *tokenizer, const char *text, size_t n, const int32_t *expected,
                       size_t n_expected)
{
	struct err err = {0};
	int32_t *ids;
	size_t n_ids;

	if (tokenizer_encode(tokenizer, text, n, false, &ids, &n_ids, &err) != 0)
		fail_msg("%s", err.text);
	if (n_ids != n_expected || (n_ids > 0 && memcmp(ids, expected, n_ids * sizeof *ids) != 0)) {
		for (size_t i = 0; i < n_ids; i++)
			print_error("%d ", ids[i]);
		fail_msg("are the ids of %.40s", text);
	}
	free(ids);
}

#define EXPECT(tokenizer, text, ...) \
	expect_ids(tokenizer, text, sizeof text - 1, (const int32_t[]){__VA_ARGS__}, \
	           sizeof(const int32_t[]){__VA_ARGS__} / sizeof(int32_t))

static void test_merges(void **state)
{
	(void)state;
	struct tokenizer *t = tokens_open(tokens_small_json());

	assert_int_equal(tokenizer_vocab_size(t), TOKENS_N);
	EXPECT(t, "the the", TOKENS_THE, TOKENS_SPACE_THE);
	EXPECT(t, " aaaaa", ' ', TOKENS_AAAA, 'a');
	EXPECT(t, "aaaaaaa", TOKENS_AAAA, TOKENS_AA, 'a');
	EXPECT(t, "th e", TOKENS_TH, ' ', 'e');
	EXPECT(t, "  the", ' ', TOKENS_SPACE_THE);
	EXPECT(t, "\xC3\xA9\n", 0xC3, 0xA9, '\n');
	expect_ids(t, "", 0, NULL, 0);
	tokenizer_close(t);
}

static void test_added_tokens(void **state)
{
	(void)state;
	struct tokenizer *t = tokens_open(tokens_small_json());

	assert_int_equal(tokenizer_id(t, "<|end|>"), TOKENS_END);
	assert_int_equal(tokenizer_id(t, "nothing"), -1);
	assert_true(tokenizer_is_special(t, TOKENS_END));
	assert_false(tokenizer_is_special(t, TOKENS_THE));
	assert_false(tokenizer_is_special(t, -1));
	assert_false(tokenizer_is_special(t, TOKENS_N));
	EXPECT(t, "the<|end|><|user|>the<|end", TOKENS_THE, TOKENS_END, TOKENS_USER, TOKENS_THE, '<', '|', 'e',
	       'n', 'd');
	EXPECT(t, "<|end|>", TOKENS_END);
	tokenizer_close(t);
}

static void test_added_token_flags(void **state)
{
	(void)state;
	struct tokenizer *t = tokens_open(tokens_small_with("added_tokens",
		"[{\"id\":261,\"content\":\"<l>\",\"lstrip\":true},{\"id\":262,\"content\":\"<r>\",\"rstrip\":true},"
		"{\"id\":263,\"content\":\"word\",\"single_word\":true},{\"id\":264,\"content\":\"<l>x\"}]"));

	EXPECT(t, "a \t<l> a", 'a', 261, ' ', 'a');
	EXPECT(t, "a <r> \xE2\x80\x83 a", 'a', ' ', 262, 'a');
	EXPECT(t, "word words sword word", 263, ' ', 'w', 'o', 'r', 'd', 's', ' ', 's', 'w', 'o', 'r', 'd', ' ',
	       263);
	EXPECT(t, "<r>  <l>x", 262, 264); /* the longest wins, and the space is taken once */
	tokenizer_close(t);
}

static void expect_round_trip(const struct tokenizer *t, const char *text, size_t n)
{
	struct err err = {0};
	int32_t *ids;
	size_t n_ids, n_back;
	char *back;

	assert_int_equal(tokenizer_encode(t, text, n, false, &ids, &n_ids, &err), 0);
	assert_int_equal(tokenizer_decode(t, ids, n_ids, false, &back, &n_back, &err), 0);
	assert_int_equal(n_back, n);
	assert_memory_equal(back, text, n);
	assert_int_equal(back[n], 0);
	free(ids);
	free(back);
}

/* Any bytes in, the same bytes out: random ones, and good text with a byte broken. */
static void test_bytes_round_trip(void **state)
{
	static const char good[] =
		"the caf\xC3\xA9 \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80 don't 123\r\n  the<|end|>";
	struct tokenizer *t = tokens_open(tokens_small_json());
	char text[64];

	(void)state;
	for (int i = 0; i < 3000; i++) {
		size_t n = random_below(sizeof text);
		for (size_t k = 0; k < n; k++)
			text[k] = (char)random_below(256);
		expect_round_trip(t, text, n);
	}
	for (int i = 0; i < 3000; i++) {
		memcpy(text, good, sizeof good);
		text[random_below(sizeof good - 1)] = (char)random_below(256);
		expect_round_trip(t, text, sizeof good - 1);
	}
	tokenizer_close(t);
}

/* A run of ill-formed bytes is a piece of its own, whatever the regular expression says. */
static void test_ill_formed_is_apart(void **state)
{
	(void)state;
	struct tokenizer *t = tokens_open(tokens_small_json());

	EXPECT(t, "the\xFF\xFEthe", TOKENS_THE, 0xFF, 0xFE, TOKENS_THE);
	EXPECT(t, "the \xC3 the", TOKENS_THE, ' ', 0xC3, TOKENS_SPACE_THE);
	tokenizer_close(t);
	t = tokens_open(tokens_small_with("normalizer", "{\"type\":\"NFC\"}"));
	EXPECT(t, "e\xCC\x81\xFF" "e\xCC\x81", 0xC3, 0xA9, 0xFF, 0xC3, 0xA9);
	tokenizer_close(t);
}

/* One piece of 400,000 characters: quadratic work would not end within the test's time. */
static void test_long_run(void **state)
{
	enum { N = 400000 };
	struct tokenizer *t =
		tokens_open(tokens_small_with("pre_tokenizer", "{\"type\":\"ByteLevel\",\"use_regex\":false}"));
	struct err err = {0};
	char *text = malloc(N);
	int32_t *ids;
	size_t n_ids;

	(void)state;
	memset(text, 'a', N);
	text[0] = ' ';
	assert_int_equal(tokenizer_encode(t, text, N, false, &ids, &n_ids, &err), 0);
	assert_int_equal(n_ids, 1 + (N - 1) / 4 + 2);
	assert_int_equal(ids[0], ' ');
	assert_int_equal(ids[1], TOKENS_AAAA);
	assert_int_equal(ids[n_ids - 2], TOKENS_AA);
	assert_int_equal(ids[n_ids - 1], 'a');
	free(ids);
	free(text);
	tokenizer_close(t);
}

static void test_decode(void **state)
{
	static const int32_t ids[] = {TOKENS_USER, TOKENS_THE, 0xE4, 0xBD, 1000, TOKENS_N, TOKENS_END};
	struct tokenizer *t = tokens_open(tokens_small_json());
	struct err err = {0};
	char *text;
	size_t n;

	(void)state;
	assert_int_equal(tokenizer_decode(t, ids, 7, false, &text, &n, &err), 0);
	assert_string_equal(text, "<|user|>the\xE4\xBD<|end|>"); /* ids without a token are nothing */
	free(text);
	assert_int_equal(tokenizer_decode(t, ids, 7, true, &text, &n, &err), 0);
	assert_string_equal(text, "the\xE4\xBD");
	char *shown = utf8_lossy(text, n, &n);
	assert_string_equal(shown, "the\xEF\xBF\xBD"); /* one U+FFFD for the one cut character */
	assert_int_equal(n, 6);
	free(shown);
	free(text);
	assert_int_equal(tokenizer_decode(t, (const int32_t[]){-1}, 1, true, &text, &n, &err), ERR_INVALID);
	assert_null(text);
	assert_int_equal(tokenizer_decode(t, NULL, 0, true, &text, &n, &err), 0);
	assert_string_equal(text, "");
	free(text);
	tokenizer_close(t);
}

/* The two ways back: the bytes as they were, and what Hugging Face's decoders print. */
static void test_lossy_decode(void **state)
{
	static const int32_t cut[] = {TOKENS_THE, 0xE4, 0xBD, TOKENS_THE}, bytes[] = {0, 1, 2, 3, 0};
	struct err err = {0};
	char *text;
	size_t n;

	(void)state;
	struct tokenizer *t = tokens_open(tokens_small_json());
	assert_int_equal(tokenizer_decode_utf8(t, cut, 4, false, &text, &n, &err), 0);
	assert_string_equal(text, "the\xEF\xBF\xBD" "the"); /* one for the bytes of one character */
	free(text);
	tokenizer_close(t);

	json_t *json = tokens_small_model_with("vocab", "{\"<0x61>\":0,\"<0xE4>\":1,\"<0xBD>\":2,\"x\":3}");
	json_object_set_new(json_object_get(json, "model"), "merges", json_array());
	json_object_set_new(json, "added_tokens", json_null());
	json_object_set_new(json, "decoder", json_pack("{s:s}", "type", "ByteFallback"));
	t = tokens_open(json);
	assert_int_equal(tokenizer_decode_utf8(t, bytes, 5, false, &text, &n, &err), 0);
	assert_string_equal(text, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDxa"); /* one for each byte of the run */
	free(text);
	assert_int_equal(tokenizer_decode(t, bytes, 5, false, &text, &n, &err), 0);
	assert_string_equal(text, "a\xE4\xBDxa");
	free(text);
	tokenizer_close(t);
}

static void test_template(void **state)
{
	struct tokenizer *t = tokens_open(tokens_small_with(
		"post_processor",
		"{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
		"{\"type\":\"TemplateProcessing\",\"single\":["
		"{\"SpecialToken\":{\"id\":\"U\"}},{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"E\"}}],"
		"\"special_tokens\":{\"U\":{\"ids\":[262]},\"E\":{\"ids\":[261,261]}}}]}"));
	struct err err = {0};
	int32_t *ids;
	size_t n;

	(void)state;
	EXPECT(t, "the", TOKENS_THE);
	assert_int_equal(tokenizer_encode(t, "the", 3, true, &ids, &n, &err), 0);
	assert_int_equal(n, 4);
	assert_memory_equal(ids, ((int32_t[]){262, TOKENS_THE, 261, 261}), 4 * sizeof *ids);
	free(ids);
	tokenizer_close(t);
}

/* A character without a token: the unknown token, an error where that is no token, or nothing at all. */
static void test_unknown_character(void **state)
{
	struct err err = {0};
	int32_t *ids;
	size_t n;

	(void)state;
	json_t *json = tokens_small_model_with("vocab", "{\"a\":0,\"b\":1,\"<unk>\":2}"), *model = json_object_get(json, "model");
	json_object_set_new(model, "merges", json_array());
	json_object_set_new(json, "pre_tokenizer", json_null());
	json_object_set_new(json, "added_tokens", json_null());
	struct tokenizer *t = tokens_open(json_deep_copy(json));
	EXPECT(t, "acb", 0, 1);
	tokenizer_close(t);

	json_object_set_new(model, "unk_token", json_string("<nope>"));
	t = tokens_open(json_deep_copy(json));
	EXPECT(t, "ab", 0, 1);
	assert_int_equal(tokenizer_encode(t, "abc", 3, false, &ids, &n, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "U+0063"));
	assert_null(ids);
	tokenizer_close(t);

	json_object_set_new(model, "unk_token", json_string("<unk>"));
	t = tokens_open(json_deep_copy(json));
	EXPECT(t, "acdb", 0, 2, 2, 1);
	tokenizer_close(t);
	json_object_set_new(model, "fuse_unk", json_true());
	t = tokens_open(json);
	EXPECT(t, "acd\xFF" "b", 0, 2, 1);
	tokenizer_close(t);
}

/* Added tokens that the model lacks get the ids after its number of tokens, whatever the file says; the
 * model does not see them. */
static void test_added_ids(void **state)
{
	(void)state;
	json_t *json = tokens_small_model_with("vocab", "{\"a\":0,\"b\":7,\"ab\":9}"), *model = json_object_get(json, "model");
	json_object_set_new(model, "merges", json_pack("[s]", "a b"));
	json_object_set_new(model, "ignore_merges", json_true());
	json_object_set_new(json, "pre_tokenizer", json_null());
	json_object_set_new(json, "added_tokens",
	                    json_pack("[{s:i,s:s},{s:i,s:s},{s:i,s:s,s:b}]", "id", 10, "content", "<x>", "id", 9, "content",
	                              "ab", "id", 11, "content", "b", "single_word", 1));
	json_object_set_new(json_array_get(json_object_get(json, "added_tokens"), 2), "id", json_integer(7));
	struct tokenizer *t = tokens_open(json);

	assert_int_equal(tokenizer_vocab_size(t), 10);
	assert_int_equal(tokenizer_id(t, "<x>"), 3);
	assert_int_equal(tokenizer_id(t, "ab"), 9);
	EXPECT(t, "a<x>abb", 0, 3, 9, 7);
	tokenizer_close(t);
}







int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_merges),
		cmocka_unit_test(test_added_tokens),
		cmocka_unit_test(test_added_token_flags),
		cmocka_unit_test(test_bytes_round_trip),
		cmocka_unit_test(test_ill_formed_is_apart),
		cmocka_unit_test(test_long_run),
		cmocka_unit_test(test_decode),
		cmocka_unit_test(test_template),
		cmocka_unit_test(test_unknown_character),
		cmocka_unit_test(test_added_ids),
		cmocka_unit_test(test_lossy_decode),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
