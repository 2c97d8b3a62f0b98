/* test_tokenizer_files.c - what a tokenizer.json is refused for, by name; cut, damaged and hostile files. */
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

static uint32_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)random_state * n >> 32);
}

static json_t *small_with_expression(const char *regex)
{
	json_t *json = tokens_small_json();

	json_object_set_new(json, "pre_tokenizer", json_pack("{s:s, s:{s:s}, s:s}", "type", "Split", "pattern",
	                                                     "Regex", regex, "behavior", "Isolated"));
	return json;
}

/* json is given up. */
static void expect_refused(json_t *json, int code, const char *says)
{
	char *text = json_dumps(json, 0);
	struct tokenizer *t;
	struct err err = {0};

	assert_int_equal(tokenizer_parse(&t, text, strlen(text), &err), code);
	assert_null(t);
	assert_int_equal(err.code, code);
	if (!strstr(err.text, says))
		fail_msg("\"%s\" does not say \"%s\"", err.text, says);
	free(text);
	json_decref(json);
}

static void test_unsupported(void **state)
{
	static const struct { const char *key, *value, *says; } cases[] = {
		{"normalizer", "{\"type\":\"BertNormalizer\"}",
	     "normalizer \"BertNormalizer\" is not supported; supported: NFC"},
		{"normalizer", "{\"type\":\"Precompiled\"}", "normalizer \"Precompiled\""},
		{"normalizer", "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}", "an empty text"},
		{"normalizer", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"^\"},\"content\":\"x\"}", "an empty text"},
		{"pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"UnicodeScripts\"}]}",
	     "\"UnicodeScripts\""},
		{"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}",
	     "parenthesis"},
		{"pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Eaten\"}",
	     "\"Eaten\""},
		{"decoder", "{\"type\":\"WordPiece\"}", "decoder \"WordPiece\""},
		{"decoder", "{\"type\":\"CTC\"}", "decoder \"CTC\""},
		{"post_processor", "{\"type\":\"Other\"}", "post_processor \"Other\""},
		{"post_processor",
	     "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"BertProcessing\",\"cls\":[\"a\",97],\"sep\":[\"a\",97]},"
	     "{\"type\":\"BertProcessing\",\"cls\":[\"a\",97],\"sep\":[\"a\",97]}]}", "two that add tokens"},
		{"model", "{\"type\":\"Unigram\",\"vocab\":[]}",
	     "model type \"Unigram\" is not supported; supported: BPE"},
		{"model", "{\"type\":\"WordPiece\",\"vocab\":{}}", "model type \"WordPiece\""},
		{"model", "{\"type\":\"WordLevel\",\"vocab\":{}}", "model type \"WordLevel\""},
		{"model", "{\"type\":\"BPE\",\"dropout\":0.1}", "dropout"},
		{"version", "\"2.0\"", "version \"2.0\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect_refused(tokens_small_with(cases[i].key, cases[i].value), ERR_UNSUPPORTED, cases[i].says);
}

/* Expressions that PCRE2 would take with another meaning than Oniguruma, or that it cannot express. */
static void test_expressions_refused(void **state)
{
	static const char *const cases[][2] = {
		{"(?<n>a)\\k<n>", "a group or option"}, {"(a)\\1", "an escape"}, {"\\Qa", "an escape"},
		{"\\X", "an escape"}, {"\\K", "an escape"}, {"\\", "an escape"}, {"\\xE9", "a byte"},
		{"\\x{110000}", "character's number"}, {"\\u12", "character's number"},
		{"a(?i)b", "a group or option"}, {"(?x)a", "a group or option"}, {"(?~a)", "a group or option"},
		{"(?i)\xC3\xA9", "not ASCII"}, {"(?i)[a-\xC3\xA9]", "not ASCII"}, {"(?i:st)", "ligature"},
		{"(?i)\\p{Lu}", "depends on case"}, {"[a-\\s]", "range that ends in a set"},
		{"[a-[b]]", "range that ends in a set"}, {"[[:nope:]]", "a bracket"},
		{"[&&a]", "an empty class"}, {"[a", "a class without end"}, {"\\pL", "\\p without {"},
		{"\\p{L", "plain name"}, {"\\p{Nope}", "unknown property"}, {"[[[[[[[[[[a]]]]]]]]]]", "nested too deeply"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect_refused(small_with_expression(cases[i][0]), ERR_UNSUPPORTED, cases[i][1]);
}

static void test_malformed(void **state)
{
	static const struct { const char *key, *value, *says; } cases[] = {
		{"model", "[]", "model must be an object, found a list"},
		{"model", "{}", "model.vocab must be an object of token: id, found nothing"},
		{"normalizer", "7", "normalizer must be null or an object"},
		{"normalizer", "{\"type\":\"Prepend\"}",
	     "normalizer Prepend.prepend must be a string, found nothing"},
		{"pre_tokenizer", "{\"type\":\"Sequence\"}", "pre_tokenizer Sequence.pretokenizers must be a list"},
		{"pre_tokenizer", "{\"type\":\"ByteLevel\",\"use_regex\":1}",
	     "use_regex must be true or false, found a number"},
		{"pre_tokenizer", "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":\"x\"}",
	     "found a string"},
		{"pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", "must be one character"},
		{"decoder", "{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}", "Strip.start is -1"},
		{"added_tokens", "{}", "added_tokens must be a list, found an object"},
		{"added_tokens", "[7]", "added_tokens[0]: must be an object, found a number"},
		{"added_tokens", "[{\"id\":300}]", "added_tokens[0]: token.content must be a string, found nothing"},
		{"added_tokens", "[{\"id\":300,\"content\":\"\"}]", "content is empty"},
		{"added_tokens", "[{\"id\":99999999,\"content\":\"x!\"}]", "token.id is 99999999, expected 0 to"},
		{"added_tokens", "[{\"id\":1,\"content\":\"x!\",\"normalized\":\"no\"}]",
	     "token.normalized must be true or false, found a string"},
		{"added_tokens", "[{\"id\":300,\"content\":\"the\"}]",
	     "\"the\" has id 300 here and id 257 in model.vocab"},
		{"added_tokens", "[{\"id\":300,\"content\":\"x!\"},{\"id\":300,\"content\":\"x!\"}]", "listed twice"},
		{"post_processor", "{\"type\":\"RobertaProcessing\",\"cls\":[\"<s>\"]}", "post_processor.cls must be"},
		{"post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[]}", "no Sequence A"},
		{"post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\"}}]}",
	     "\"B\""},
		{"post_processor",
	     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\"}}],"
	     "\"special_tokens\":{\"B\":{\"ids\":[5000]}}}",
	     "has an id that is no token's"},
	};
	static const struct { const char *key, *value, *says; } models[] = {
		{"vocab", "[]", "model.vocab must be an object of token: id, found a list"},
		{"vocab", "{}", "model.vocab is empty"},
		{"vocab", "{\"a\":\"0\"}", "the id of \"a\" must be an integer, found a string"},
		{"vocab", "{\"a\":-1}", "the id of \"a\" is -1"},
		{"vocab", "{\"a\":4194304}", "the id of \"a\" is 4194304, expected 0 to 4194303"},
		{"vocab", "{\"a\":1,\"b\":1}", "id 1 is given to two tokens, \"a\" and \"b\""},
		{"merges", "{}", "model.merges must be a list, found an object"},
		{"merges", "[\"t h\",\"th\"]", "model.merges[1] must be \"a b\" or [\"a\", \"b\"], found th"},
		{"merges", "[\"a b c\"]", "model.merges[0] must be"},
		{"merges", "[[\"a\"]]", "model.merges[0] must be"},
		{"merges", "[\"q zz\"]", "model.merges[0] needs the token \"zz\""},
		{"merges", "[[\"q\",\"z\"]]", "model.merges[0] needs the token \"qz\""},
		{"unk_token", "7", "model.unk_token must be a string, found a number"},
		{"continuing_subword_prefix", "[]", "model.continuing_subword_prefix must be a string, found a list"},
		{"byte_fallback", "\"yes\"", "model.byte_fallback must be true or false, found a string"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect_refused(tokens_small_with(cases[i].key, cases[i].value), ERR_INVALID, cases[i].says);
	for (size_t i = 0; i < sizeof models / sizeof *models; i++)
		expect_refused(tokens_small_model_with(models[i].key, models[i].value), ERR_INVALID, models[i].says);
	expect_refused(json_array(), ERR_INVALID, "expected an object, found a list");
}

static void test_cut_short(void **state)
{
	json_t *json = tokens_small_json();
	char *text = json_dumps(json, 0);
	struct tokenizer *t;
	struct err err = {0};

	(void)state;
	for (size_t n = 0; n < strlen(text); n += 13) {
		char *exact = malloc(n + 1); /* so that a read past the end is seen by the sanitizer */
		memcpy(exact, text, n);
		int code = tokenizer_parse(&t, exact, n, &err);
		assert_true(code == ERR_INCOMPLETE || code == ERR_INVALID); /* invalid: cut inside a character */
		assert_null(t);
		free(exact);
	}
	assert_int_equal(tokenizer_parse(&t, "{\"model\":{\"vocab\":{\"a\":1,\"a\":2}}}", 34, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "duplicate"));
	assert_int_equal(tokenizer_open(&t, "tests/no-such-folder", &err), ERR_MISSING);
	assert_int_equal(tokenizer_open(&t, "tests", &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "tests/tokenizer.json is missing"));
	free(text);
	json_decref(json);
}

/* Files with bytes changed at random are taken or refused; what is taken encodes without a crash. */
static void test_hostile_files(void **state)
{
	json_t *json = tokens_small_json();
	char *text = json_dumps(json, 0);
	size_t n = strlen(text), n_taken = 0;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		char *copy = strdup(text);
		for (uint32_t k = random_below(3); k < 3; k++)
			copy[random_below((uint32_t)n)] = text[random_below((uint32_t)n)];
		struct tokenizer *t;
		struct err err = {0};
		if (tokenizer_parse(&t, copy, n, &err) == 0) {
			int32_t *ids;
			size_t n_ids;
			if (tokenizer_encode(t, "the aaaa <|end|>\xFF 1", 20, true, &ids, &n_ids, &err) == 0)
				free(ids);
			tokenizer_close(t);
			n_taken++;
		} else {
			assert_true(err.code < 0 && err.text[0]);
		}
		free(copy);
	}
	assert_in_range(n_taken, 1, 1999);
	free(text);
	json_decref(json);
}

/* An expression that backtracks without end is an error within the match limit. */
static void test_runaway_expression(void **state)
{
	struct tokenizer *t = tokens_open(tokens_small_with("pre_tokenizer",
		"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a|aa)+$\"},\"behavior\":\"Isolated\"}"));
	static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
	struct err err = {0};
	int32_t *ids;
	size_t n;

	(void)state;
	assert_int_equal(tokenizer_encode(t, text, sizeof text - 1, false, &ids, &n, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "limit"));
	assert_null(ids);
	tokenizer_close(t);
}

/* Files that promise more than they hold, or more than is taken. */
static void test_large_claims(void **state)
{
	struct tokenizer *t;
	struct err err = {0};
	size_t n = 100000;
	char *deep = malloc(n);

	(void)state;
	memset(deep, '[', n);
	assert_int_equal(tokenizer_parse(&t, deep, n, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "depth"));
	assert_int_equal(tokenizer_parse(&t, deep, (size_t)1 << 31, &err), ERR_TOO_BIG); /* not read */
	free(deep);
	expect_refused(tokens_small_model_with("vocab", "{\"a\":4294967296}"), ERR_INVALID, "the id of \"a\" is 4294967296");
	json_t *sequence = json_object();
	for (int i = 0; i < 65; i++) {
		json_t *outer = json_pack("{s:s, s:[o,{s:s}]}", "type", "Sequence", "normalizers",
		                          i == 0 ? json_pack("{s:s}", "type", "NFC") : sequence, "type", "NFC");
		if (i == 0)
			json_decref(sequence);
		sequence = outer;
	}
	json_t *json = tokens_small_json();
	json_object_set_new(json, "normalizer", sequence);
	expect_refused(json, ERR_TOO_BIG, "more than 64 normalizers");
}

/* Operations that multiply a text, each by ten: refused at the text that grows, with the numbers; others go. */
static void test_runaway_growth(void **state)
{
	json_t *json = tokens_small_json(), *list = json_array();
	char text[101];
	struct err err = {0};
	int32_t *ids;
	size_t n_ids;

	(void)state;
	for (int i = 0; i < 40; i++)
		json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", "a",
		                                      "content", "aaaaaaaaaa"));
	json_object_set_new(json, "normalizer", json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", list));
	struct tokenizer *t = tokens_open(json);
	memset(text, 'a', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	assert_int_equal(tokenizer_encode(t, text, strlen(text), false, &ids, &n_ids, &err), ERR_TOO_BIG);
	assert_null(ids);
	assert_non_null(strstr(err.text, "bytes of a text of 100"));
	assert_int_equal(tokenizer_encode(t, "b", 1, false, &ids, &n_ids, &err), 0);
	assert_int_equal(n_ids, 1);
	free(ids);
	tokenizer_close(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unsupported),
		cmocka_unit_test(test_expressions_refused),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_cut_short),
		cmocka_unit_test(test_hostile_files),
		cmocka_unit_test(test_runaway_expression),
		cmocka_unit_test(test_runaway_growth),
		cmocka_unit_test(test_large_claims),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
