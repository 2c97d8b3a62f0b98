/* test_suffix.c - what was said is found by its last words, by the same prompt, newest and longest first,
 * and old text makes room for new. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rollout/speculation/suffix.h"
#include "tests/support/ugly.h"

#define FEED(memory, cursor, key, ...) \
	suffix_feed(memory, cursor, key, (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / 4)

static void a_sibling_is_followed(void **state)
{
	(void)state;
	struct suffix_memory *m = suffix_open(1024);
	struct suffix_cursor first = {0}, second = {0};
	int32_t draft[8];
	int match;

	FEED(m, &first, 7, 1, 2, 3, 10, 11, 12, 13, 14);
	FEED(m, &second, 7, 1, 2, 3, 10, 11, 12);
	assert_int_equal(suffix_propose(m, &second, 7, draft, 8, &match), 2);
	assert_int_equal(match, 6);
	assert_int_equal(draft[0], 13);
	assert_int_equal(draft[1], 14);
	assert_int_equal(suffix_propose(m, &second, 7, draft, 1, &match), 1);
	/* Another prompt's text is not looked at. */
	struct suffix_cursor other = {0};
	FEED(m, &other, 8, 1, 2, 3, 10, 11, 12);
	assert_int_equal(suffix_propose(m, &other, 8, draft, 8, &match), 0);
	assert_int_equal(match, 0);
	suffix_close(m);
}

static void the_longest_match_wins(void **state)
{
	(void)state;
	struct suffix_memory *m = suffix_open(1024);
	struct suffix_cursor a = {0}, b = {0}, c = {0};
	int32_t draft[4];
	int match;

	FEED(m, &a, 1, 5, 6, 7, 8, 100);
	FEED(m, &b, 1, 9, 6, 7, 8, 200);
	FEED(m, &c, 1, 5, 6, 7, 8);
	assert_int_equal(suffix_propose(m, &c, 1, draft, 4, &match), 1);
	assert_int_equal(match, 4);
	assert_int_equal(draft[0], 100);
	suffix_close(m);
}

static void its_own_words_repeat(void **state)
{
	(void)state;
	struct suffix_memory *m = suffix_open(1024);
	struct suffix_cursor a = {0};
	int32_t draft[4];
	int match;

	FEED(m, &a, 1, 1, 2, 3, 4, 1, 2, 3);
	assert_int_equal(suffix_propose(m, &a, 1, draft, 4, &match), 4);
	assert_memory_equal(draft, ((int32_t[]){4, 1, 2, 3}), sizeof draft);
	suffix_close(m);
}

/* Growing a sample token by token is feeding it whole. */
static void feeding_goes_on(void **state)
{
	(void)state;
	struct suffix_memory *whole = suffix_open(4096), *parts = suffix_open(4096);
	struct suffix_cursor a = {0}, b = {0};
	struct ugly u = {3};
	int32_t tokens[600], want[16], got[16];
	int match_want, match_got;

	for (int i = 0; i < 600; i++) tokens[i] = ugly_below(&u, 3);
	for (int n = 1; n <= 600; n++) {
		suffix_feed(parts, &b, 5, tokens, n);
		int n_got = suffix_propose(parts, &b, 5, got, 16, &match_got);
		suffix_close(whole);
		whole = suffix_open(4096);
		a = (struct suffix_cursor){0};
		suffix_feed(whole, &a, 5, tokens, n);
		int n_want = suffix_propose(whole, &a, 5, want, 16, &match_want);
		assert_int_equal(n_got, n_want);
		assert_int_equal(match_got, match_want);
		assert_memory_equal(got, want, (size_t)n_got * sizeof *got);
		if (n_got == 0) continue;
		/* What is proposed did follow the same words somewhere. */
		bool seen = false;
		for (int i = match_got; i + n_got <= n && !seen; i++)
			seen = memcmp(tokens + i - match_got, tokens + n - match_got, (size_t)match_got * 4) == 0 &&
			       memcmp(tokens + i, got, (size_t)n_got * 4) == 0;
		assert_true(seen);
	}
	suffix_close(whole);
	suffix_close(parts);
}

/* Many samples through a small ring: memory stays, and nothing that is gone is touched (sanitizers). */
static void old_text_fades(void **state)
{
	(void)state;
	struct suffix_memory *m = suffix_open(1);
	size_t bytes = suffix_bytes(m);
	struct suffix_cursor cursors[50] = {{0}};
	int32_t tokens[50][400], draft[8];
	struct ugly u = {4};
	int match, proposed = 0;

	for (int i = 0; i < 50; i++)
		for (int j = 0; j < 400; j++) tokens[i][j] = ugly_below(&u, 4);
	for (int n = 1; n <= 400; n++) {
		for (int i = 0; i < 50; i++) {
			suffix_feed(m, &cursors[i], (uint64_t)i % 7, tokens[i], n);
			proposed += suffix_propose(m, &cursors[i], (uint64_t)i % 7, draft, 8, &match) > 0;
		}
	}
	assert_true(proposed > 1000);
	assert_int_equal(suffix_bytes(m), bytes);
	suffix_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sibling_is_followed), cmocka_unit_test(the_longest_match_wins),
		cmocka_unit_test(its_own_words_repeat),  cmocka_unit_test(feeding_goes_on),
		cmocka_unit_test(old_text_fades),
	};
	return cmocka_run_group_tests_name("suffix", tests, NULL, NULL);
}
