/* test_tokenizer_unicode.c - every code point is what the reference implementation takes it for, whichever
 * Unicode versions PCRE2 and utf8proc have (goldens/make_tokenizer_variants.mjs; one hash per block). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cmocka.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"
#include "tests/support/tokens_fixture.h"

enum { BLOCK = 4096, N_BLOCKS = 0x110000 / BLOCK };

static uint32_t fnv(uint32_t hash, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (unsigned char)bytes[i]) * 0x01000193u;
	return hash;
}

static const uint32_t fnv_start = 0x811c9dc5u;

static bool is_scalar(int32_t code)
{
	return code < 0xD800 || code > 0xDFFF;
}

static void expect_hash(const json_t *golden, const char *key, int block, uint32_t hash)
{
	const json_t *hashes = json_object_get(golden, key);

	assert_int_equal(json_array_size(hashes), N_BLOCKS);
	if (hash != (uint32_t)json_integer_value(json_array_get(hashes, (size_t)block)))
		fail_msg("%s: a character of U+%04X to U+%04X differs", key, (unsigned)(block * BLOCK),
		         (unsigned)(block * BLOCK + BLOCK - 1));
}

static void expect_predicate(const json_t *golden, const char *key, bool (*is)(int32_t code))
{
	for (int block = 0; block < N_BLOCKS; block++) {
		uint32_t hash = fnv_start;
		for (int32_t code = block * BLOCK; code < (block + 1) * BLOCK; code++)
			if (is_scalar(code))
				hash = fnv(hash, is(code) ? "\1" : "\0", 1);
		expect_hash(golden, key, block, hash);
	}
}

/* A library that knows characters younger than the reference does differs in those. */
static void skip_if_younger(const char *library, const char *unicode, int known)
{
	if (atoi(unicode) <= known)
		return;
	printf("skipped: %s has Unicode %s, the goldens %d\n", library, unicode, known);
	skip();
}

static void skip_if_pcre2_is_younger(void)
{
	char version[64] = "0";

	pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
	skip_if_younger("PCRE2", version, 16);
}

static void test_predicates(void **state)
{
	skip_if_younger("utf8proc", utf8proc_unicode_version(), 16);
	json_t *golden = tokens_golden("tokenizer_unicode.json");

	(void)state;
	expect_predicate(golden, "number", unicode_is_number);
	expect_predicate(golden, "punctuation", unicode_is_punctuation);
	expect_predicate(golden, "word", unicode_is_word);
	expect_predicate(golden, "mark", unicode_is_mark);
	assert_false(unicode_is_number(-1) || unicode_is_word(-1) || unicode_is_mark(-1));
	json_decref(golden);
}

/* Write `number` where the expression matches a character of the block. */
static void mark_matches(unsigned char *kinds, const char *regex, int block, unsigned char number)
{
	struct pattern *pattern;
	struct spans spans = {0};
	struct err err = {0};
	char text[4 * BLOCK];
	int32_t starts[4 * BLOCK];
	size_t n = 0;

	for (int32_t code = block * BLOCK; code < (block + 1) * BLOCK; code++) {
		if (!is_scalar(code))
			continue;
		starts[n] = code - block * BLOCK;
		n += utf8_write(text + n, code);
	}
	if (pattern_compile(&pattern, regex, strlen(regex), "test", &err) != 0)
		fail_msg("%s", err.text);
	if (n > 0)
		assert_int_equal(pattern_spans(pattern, text, n, &spans, &err), 0);
	for (size_t i = 0; i < spans.n; i++)
		for (size_t at = spans.items[i].start; spans.items[i].match && at < spans.items[i].end;) {
			int32_t code;
			kinds[starts[at]] = number;
			at += utf8_step(text + at, n - at, &code);
		}
	free(spans.items);
	pattern_free(pattern);
}

static void expect_matches(const json_t *golden, const char *key, const char *const *regexes, int n_regexes)
{
	for (int block = 0; block < N_BLOCKS; block++) {
		unsigned char kinds[BLOCK];
		uint32_t hash = fnv_start;
		memset(kinds, n_regexes > 1 ? 255 : 0, sizeof kinds);
		for (int i = 0; i < n_regexes; i++)
			mark_matches(kinds, regexes[i], block, (unsigned char)(n_regexes > 1 ? i : 1));
		for (int32_t i = 0; i < BLOCK; i++)
			if (is_scalar(block * BLOCK + i))
				hash = fnv(hash, (const char *)&kinds[i], 1);
		expect_hash(golden, key, block, hash);
	}
}

static void test_categories(void **state)
{
	skip_if_pcre2_is_younger();
	json_t *golden = tokens_golden("tokenizer_unicode.json");
	const char *names = json_string_value(json_object_get(golden, "categories"));
	const char *regexes[32];
	char text[32][16];
	int n = 0;

	(void)state;
	for (const char *at = names; at; at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL, n++) {
		snprintf(text[n], sizeof text[n], "\\p{%.2s}+", at);
		regexes[n] = text[n];
	}
	assert_int_equal(n, 29);
	expect_matches(golden, "category", regexes, n);
	json_decref(golden);
}

static void test_sets(void **state)
{
	skip_if_pcre2_is_younger();
	static const char *const sets[][2] = {
		{"expression_word", "\\w+"}, {"expression_space", "\\s+"}, {"expression_alphabetic", "[[:alpha:]]+"},
		{"expression_lowercase", "[[:lower:]]+"}, {"expression_han", "\\p{Han}+"},
	};
	json_t *golden = tokens_golden("tokenizer_unicode.json");

	(void)state;
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
		expect_matches(golden, sets[i][0], &sets[i][1], 1);
	json_decref(golden);
}

static void test_forms(void **state)
{
	skip_if_younger("utf8proc", utf8proc_unicode_version(), 17);
	static const struct { const char *name; int options; } forms[] = {
		{"NFC", UTF8PROC_COMPOSE}, {"NFD", 0}, {"NFKC", UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
		{"NFKD", UTF8PROC_COMPAT}, {"lower", -1},
	};
	json_t *golden = tokens_golden("tokenizer_unicode.json");
	struct pieces made = {0};
	struct err err = {0};

	(void)state;
	for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
		for (int block = 0; block < N_BLOCKS; block++) {
			pieces_clear(&made);
			pieces_open(&made, false);
			for (int32_t code = block * BLOCK; code < (block + 1) * BLOCK; code++) {
				char text[5], lower[4];
				if (!is_scalar(code) || code == '!')
					continue;
				size_t n = utf8_write(text, code);
				text[n] = '!';
				if (forms[f].options >= 0)
					assert_int_equal(form_write(forms[f].options, text, n + 1, &made, &err), 0);
				else
					pieces_write(&made, lower, unicode_lower(lower, code));
				if (forms[f].options < 0)
					pieces_write(&made, "!", 1);
			}
			expect_hash(golden, forms[f].name, block, fnv(fnv_start, made.bytes, made.n_bytes));
		}
	pieces_free(&made);
	json_decref(golden);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_predicates),
		cmocka_unit_test(test_categories),
		cmocka_unit_test(test_sets),
		cmocka_unit_test(test_forms),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
