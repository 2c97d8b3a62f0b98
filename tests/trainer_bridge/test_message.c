/* test_message.c - msgpack out and in, and what hostile bytes are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "tests/support/bridge_fixture.h"
#include "trainer_bridge/wire/message.h"

static struct message *parse(const char *hex, struct err *err)
{
	uint8_t bytes[4096];
	size_t n_bytes = bridge_unhex(hex, bytes, sizeof bytes);
	uint8_t *exact = malloc(n_bytes ? n_bytes : 1); /* so that the sanitizer sees a read beyond it */
	struct message *message;

	memcpy(exact, bytes, n_bytes);
	err->code = 0;
	message_parse(&message, exact, n_bytes, err);
	free(exact);
	return message;
}

static void refuses(const char *hex, int code, const char *said)
{
	struct err err;
	struct message *message = parse(hex, &err);

	assert_null(message);
	assert_int_equal(err.code, code);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
}

static void test_every_kind_goes_round(void **state)
{
	struct message_writer *w = message_writer_open();
	struct message *message;
	struct err err;
	size_t n_bytes;
	uint8_t bin[300];
	int64_t integer;
	uint64_t natural;
	double real;
	bool boolean;
	const char *text;
	const void *bytes;

	(void)state;
	memset(bin, 0xab, sizeof bin);
	message_begin_map(w, 9);
	message_key(w, "least"); message_put_int(w, INT64_MIN);
	message_key(w, "most"); message_put_uint(w, UINT64_MAX);
	message_key(w, "real"); message_put_real(w, -0.1);
	message_key(w, "yes"); message_put_bool(w, true);
	message_key(w, "text"); message_put_text(w, "gr\xc3\xbc\xc3\x9f dich");
	message_key(w, "none"); message_put_text(w, NULL);
	message_key(w, "empty"); message_put_text(w, "");
	message_key(w, "bin"); message_put_bin(w, bin, sizeof bin);
	message_key(w, "list"); message_begin_array(w, 2);
	message_put_text(w, "a");
	message_begin_map(w, 1); message_key(w, "k"); message_put_int(w, 7);
	bytes = message_bytes(w, &n_bytes);
	assert_int_equal(message_parse(&message, bytes, n_bytes, &err), 0);
	memset(bin, 0xab, sizeof bin);
	message_writer_close(w);

	const struct message_node *root = message_root(message);
	assert_int_equal(message_get_int(root, "least", INT64_MIN, 0, &integer, &err), 0);
	assert_true(integer == INT64_MIN);
	assert_int_equal(message_get_uint(root, "most", &natural, &err), 0);
	assert_true(natural == UINT64_MAX);
	assert_int_equal(message_get_real(root, "real", &real, &err), 0);
	assert_true(real == -0.1);
	assert_int_equal(message_get_bool(root, "yes", &boolean, &err), 0);
	assert_true(boolean);
	assert_int_equal(message_get_text(root, "text", &text, &err), 0);
	assert_string_equal(text, "gr\xc3\xbc\xc3\x9f dich");
	assert_int_equal(message_get_text(root, "none", &text, &err), 0);
	assert_null(text);
	assert_int_equal(message_get_text(root, "empty", &text, &err), 0);
	assert_string_equal(text, "");
	assert_int_equal(message_get_bin(root, "bin", &bytes, &n_bytes, &err), 0);
	assert_int_equal(n_bytes, sizeof bin);
	assert_memory_equal(bytes, bin, sizeof bin);
	const struct message_node *list = message_field(root, "list");
	assert_int_equal(message_count(list), 2);
	assert_int_equal(message_get_int(message_item(list, 1), "k", 0, 9, &integer, &err), 0);
	assert_int_equal(integer, 7);
	assert_null(message_field(list, "k"));
	assert_int_equal(message_count(root), -1);
	assert_int_equal(message_count(NULL), -1);
	assert_true(message_is_nil(message_field(root, "none")));
	message_close(message);
}

static void test_fields_say_what_is_wrong(void **state)
{
	struct err err;
	/* {"a": 300, "b": "x", "c": nil, "d": u64 max, "e": "a NUL inside"} */
	struct message *message =
		parse("85 a161 cd012c a162 a178 a163 c0 a164 cfffffffffffffffff a165 a3610062", &err);
	const struct message_node *root;
	int64_t integer;
	uint64_t natural;
	double real;
	bool boolean;
	const char *text;
	const void *bytes;
	size_t n_bytes;

	(void)state;
	assert_non_null(message);
	root = message_root(message);
	assert_int_equal(message_get_int(root, "z", 0, 1, &integer, &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "'z'"));
	assert_int_equal(message_get_int(root, "a", 0, 299, &integer, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "0 to 299, found 300"));
	assert_int_equal(message_get_int(root, "b", 0, 1, &integer, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "expected an integer, found a text"));
	assert_int_equal(message_get_int(root, "d", 0, INT64_MAX, &integer, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "18446744073709551615"));
	assert_int_equal(message_get_uint(root, "b", &natural, &err), ERR_INVALID);
	assert_int_equal(message_get_real(root, "b", &real, &err), ERR_INVALID);
	assert_int_equal(message_get_real(root, "a", &real, &err), 0);
	assert_true(real == 300);
	assert_int_equal(message_get_bool(root, "a", &boolean, &err), ERR_INVALID);
	assert_int_equal(message_get_text(root, "a", &text, &err), ERR_INVALID);
	assert_int_equal(message_get_text(root, "e", &text, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "NUL"));
	assert_int_equal(message_get_bin(root, "b", &bytes, &n_bytes, &err), ERR_INVALID);
	assert_int_equal(message_get_bin(root, "c", &bytes, &n_bytes, &err), ERR_INVALID);
	message_close(message);
	message = parse("93 01 02 03", &err);
	assert_int_equal(message_get_int(message_root(message), "a", 0, 1, &integer, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "expected a map"));
	message_close(message);
}

static void test_texts_are_terminated_whatever_follows(void **state)
{
	struct err err;
	const char *text;
	struct message *message = parse("82 a161 a3616263 a162 a3646566", &err);

	(void)state;
	assert_int_equal(message_get_text(message_root(message), "a", &text, &err), 0);
	assert_string_equal(text, "abc");
	assert_int_equal(message_get_text(message_root(message), "b", &text, &err), 0);
	assert_string_equal(text, "def");
	message_close(message);
}

static void test_hostile_bytes_are_refused(void **state)
{
	(void)state;
	refuses("", ERR_INCOMPLETE, "0 bytes");
	refuses("81", ERR_INCOMPLETE, "needs at least");
	refuses("81 a161", ERR_INCOMPLETE, "values missing");
	refuses("82 a161", ERR_INCOMPLETE, "needs at least 4");
	refuses("82 a161 a162 a163", ERR_INCOMPLETE, "values missing");
	refuses("a5 6162", ERR_INCOMPLETE, "5 more bytes");
	refuses("cd 01", ERR_INCOMPLETE, "needs at least 2");
	refuses("dd ffff", ERR_INCOMPLETE, "inside the length");
	refuses("dd ffffffff 00", ERR_INCOMPLETE, "4294967295");      /* an array of 4 billion in 6 bytes */
	refuses("df ffffffff 00", ERR_INCOMPLETE, "8589934590");
	refuses("c6 ffffffff 00", ERR_INCOMPLETE, "4294967295");
	refuses("db 7fffffff 00", ERR_INCOMPLETE, "2147483647");
	refuses("c1", ERR_INVALID, "0xc1");
	refuses("d4 01 00", ERR_INVALID, "extension");
	refuses("c8 0001 01 00", ERR_INVALID, "extension");
	refuses("01 02", ERR_INVALID, "1 bytes that belong to nothing");
	refuses("80 80", ERR_INVALID, "belong to nothing");
}

static void test_nesting_has_a_limit(void **state)
{
	char hex[128] = "";
	struct err err;

	(void)state;
	for (int i = 0; i < MESSAGE_NESTING_MAX; i++)
		strcat(hex, "91 ");
	strcat(hex, "01");
	struct message *message = parse(hex, &err);
	assert_non_null(message);
	message_close(message);
	memcpy(strrchr(hex, ' ') + 1, "91", 3);
	strcat(hex, " 01");
	refuses(hex, ERR_TOO_BIG, "nested deeper than 16");
}

static void test_value_count_has_a_limit(void **state)
{
	size_t n = MESSAGE_VALUES_MAX;
	uint8_t *bytes = calloc(n + 5, 1);
	struct message *message;
	struct err err;

	(void)state;
	bytes[0] = 0xdd;
	for (int i = 0; i < 4; i++)
		bytes[1 + i] = (uint8_t)(n >> 8 * (3 - i));
	assert_int_equal(message_parse(&message, bytes, n + 5, &err), ERR_TOO_BIG);
	assert_non_null(strstr(err.text, "1048576 values"));
	free(bytes);
}

/* A valid message with bytes changed at random is parsed or refused; the sanitizers watch. */
static void test_damaged_messages_never_crash(void **state)
{
	struct message_writer *w = message_writer_open();
	struct trajectory *t = bridge_trajectory(1, 0, 4);
	uint64_t random = 1;
	int n_parsed = 0;
	size_t n_bytes;

	(void)state;
	message_begin_map(w, 3);
	message_key(w, "text"); message_put_text(w, t->meta);
	message_key(w, "bin"); message_put_bin(w, t->tokens, 20);
	message_key(w, "list"); message_begin_array(w, 3);
	message_put_int(w, -70000); message_put_real(w, 0.5); message_put_text(w, NULL);
	const uint8_t *good = message_bytes(w, &n_bytes);
	for (int i = 0; i < 20000; i++) {
		struct message *message;
		struct err err;
		size_t n = n_bytes - bridge_random(&random) % 3;
		uint8_t *bytes = malloc(n);
		memcpy(bytes, good, n);
		for (uint32_t k = bridge_random(&random) % 4; k > 0; k--)
			bytes[bridge_random(&random) % n] = (uint8_t)bridge_random(&random);
		if (message_parse(&message, bytes, n, &err) == 0) {
			const char *text;
			message_get_text(message_root(message), "text", &text, &err);
			n_parsed++;
		}
		message_close(message);
		free(bytes);
	}
	assert_in_range(n_parsed, 1000, 19999);
	trajectory_free(t);
	message_writer_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind_goes_round),
		cmocka_unit_test(test_fields_say_what_is_wrong),
		cmocka_unit_test(test_texts_are_terminated_whatever_follows),
		cmocka_unit_test(test_hostile_bytes_are_refused),
		cmocka_unit_test(test_nesting_has_a_limit),
		cmocka_unit_test(test_value_count_has_a_limit),
		cmocka_unit_test(test_damaged_messages_never_crash),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
