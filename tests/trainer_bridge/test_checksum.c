/* test_checksum.c - whole, in pieces and as published; and what the library leaves behind in the vector registers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka needs the headers above */
#include <cmocka.h>
#include <xxhash.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "trainer_bridge/wire/checksum.h"

enum { BYTES = 300001 };

static uint8_t *made_up(void)
{
	uint8_t *bytes = malloc(BYTES);
	uint32_t x = 1;

	assert_non_null(bytes);
	for (size_t i = 0; i < BYTES; i++) bytes[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
	return bytes;
}

static void test_pieces_have_the_sum_of_the_whole(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 1, 3, 16, 17, 128, 129, 240, 241, 1024, 65537, BYTES };
	uint8_t *bytes = made_up();
	struct checksum *sum = checksum_open();

	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		uint64_t expected = XXH3_64bits(bytes, sizes[s]); /* the library's own code for any CPU */
		assert_true(checksum(bytes, sizes[s]) == expected);
		checksum_begin(sum);
		for (size_t at = 0, n; at < sizes[s]; at += n) {
			n = at % 1000 + 1 < sizes[s] - at ? at % 1000 + 1 : sizes[s] - at;
			checksum_add(sum, bytes + at, n);
		}
		assert_true(checksum_end(sum) == expected);
	}
	checksum_close(sum);
	free(bytes);
}

#if defined(__x86_64__)
/* XINUSE: which parts of the registers' state are not as after a reset.  2: upper halves of YMM, 6: of ZMM 0 to 15. */
static uint32_t in_use(void)
{
	uint32_t low, high;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
	return low;
}

static bool can_tell(void)
{
	unsigned a, b, c, d;
	return __builtin_cpu_supports("avx") && __get_cpuid_count(0xd, 1, &a, &b, &c, &d) && (a & 4);
}
#endif

/* Or SSE code would be many times slower from then on. */
static void test_upper_halves_are_left_clear(void **state)
{
	(void)state;
#if defined(__x86_64__)
	if (!can_tell()) skip();
	uint8_t *bytes = made_up();
	struct checksum *sum = checksum_open();
	enum { UPPER = 1 << 2 | 1 << 6 };

	uint64_t whole = checksum(bytes, BYTES);
	uint32_t after_whole = in_use();
	checksum_add(sum, bytes, BYTES);
	uint32_t after_piece = in_use();
	uint64_t pieces = checksum_end(sum);
	uint32_t after_end = in_use();
	assert_int_equal((after_whole | after_piece | after_end) & UPPER, 0);
	assert_true(whole == pieces);
	checksum_close(sum);
	free(bytes);
#else
	skip();
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces_have_the_sum_of_the_whole),
		cmocka_unit_test(test_upper_halves_are_left_clear),
	};
	return cmocka_run_group_tests_name("checksum", tests, NULL, NULL);
}
