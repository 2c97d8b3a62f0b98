/* test_safetensors.c - the container: what is valid is found, everything else is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/safetensors.h"
#include "tests/support/random_model.h"

struct blob { /* exactly as many bytes as there are, so that the sanitizers see a read past them */
	unsigned char *bytes;
	size_t n_bytes;
};

static struct blob blob_make(const char *header, size_t header_length, size_t data_bytes)
{
	struct blob blob = {.n_bytes = 8 + strlen(header) + data_bytes};
	blob.bytes = malloc(blob.n_bytes);
	for (int i = 0; i < 8; i++) blob.bytes[i] = (unsigned char)((uint64_t)header_length >> 8 * i);
	memcpy(blob.bytes + 8, header, strlen(header));
	for (size_t i = 0; i < data_bytes; i++) blob.bytes[8 + strlen(header) + i] = (unsigned char)i;
	return blob;
}

static int parse(struct safetensors *file, const char *header, size_t data_bytes, struct err *err)
{
	struct blob blob = blob_make(header, strlen(header), data_bytes);
	memset(err, 0, sizeof *err);
	int code = safetensors_parse(file, blob.bytes, blob.n_bytes, err);
	if (code == 0) safetensors_free(file);
	free(blob.bytes);
	return code;
}

#define VALID                                                                                                \
	"{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]" \
	"},"                                                                                                     \
	"\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"                                       \
	"\"c\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[28,36]}}  "
enum { VALID_DATA = 36 };

static void test_valid(void **state)
{
	(void)state;
	struct safetensors file;
	struct err err;
	struct blob blob = blob_make(VALID, strlen(VALID), VALID_DATA);
	assert_int_equal(safetensors_parse(&file, blob.bytes, blob.n_bytes, &err), 0);
	assert_int_equal(file.n_tensors, 3);
	const struct safetensors_tensor *b = safetensors_find(&file, "b");
	assert_non_null(b);
	assert_string_equal(b->dtype, "F32");
	assert_int_equal(b->n_dims, 2);
	assert_int_equal(b->shape[0], 2);
	assert_int_equal(b->shape[1], 3);
	assert_int_equal(b->n_bytes, 24);
	assert_int_equal(b->data[0], 4);
	assert_int_equal(safetensors_find(&file, "c")->n_dims, 0);
	assert_null(safetensors_find(&file, "__metadata__"));
	assert_null(safetensors_find(&file, "d"));
	safetensors_free(&file);
	free(blob.bytes);
}

static void test_empty(void **state)
{
	(void)state;
	struct safetensors file;
	struct err err;
	assert_int_equal(parse(&file, "{}", 0, &err), 0);
	assert_int_equal(parse(&file, "{}", 1, &err), ERR_INVALID);
}

#define TENSOR(dtype, shape, offsets)                                                                        \
	"{\"t\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *header;
		int data_bytes, code;
		const char *says;
	} cases[] = {
		{"", 0, ERR_INVALID, "JSON"},
		{"[]", 0, ERR_INVALID, "a JSON object, found a list"},
		{"7", 0, ERR_INVALID, "JSON"},
		{"{}x", 0, ERR_INVALID, "byte"},
		{"{\"a\\u0000b\":{}}", 0, ERR_INVALID, "JSON"},
		{"{\"\xFF\":{}}", 0, ERR_INVALID, "0xff"},
		{"{\"\\ud800\":{}}", 0, ERR_INVALID, "JSON"},
		{"{\"__metadata__\":7}", 0, ERR_INVALID, "__metadata__ to be an object, found a number"},
		{"{\"__metadata__\":{\"a\":7}}", 0, ERR_INVALID, "__metadata__.a to be a string"},
		{"{\"t\":1}", 0, ERR_INVALID, "tensor t"},
		{"{\"t\":{},\"t\":{}}", 0, ERR_INVALID, "duplicate"},
		{TENSOR("\"F33\"", "[1]", "[0,4]"), 4, ERR_UNSUPPORTED, "F33"},
		{TENSOR("7", "[1]", "[0,4]"), 4, ERR_INVALID, "dtype"},
		{TENSOR("\"F32\"", "7", "[0,4]"), 4, ERR_INVALID, "a list of sizes, found a number"},
		{"{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, ERR_INVALID, "a list of sizes, found nothing"},
		{TENSOR("\"F32\"", "[0,18446744073709551616]", "[0,0]"), 0, ERR_INVALID, "too big"},
		{TENSOR("\"F64\"", "[2305843009213693952]", "[0,0]"), 0, ERR_TOO_BIG, "2^64"},
		{TENSOR("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, ERR_INVALID, "9"},
		{TENSOR("\"F32\"", "[-1]", "[0,4]"), 4, ERR_INVALID, "dimension 0"},
		{TENSOR("\"F32\"", "[1.0]", "[0,4]"), 4, ERR_INVALID, "dimension 0"},
		{TENSOR("\"F32\"", "[4294967296,4294967296]", "[0,4]"), 4, ERR_TOO_BIG, "2^64"},
		{TENSOR("\"F32\"", "[4611686018427387905]", "[0,4]"), 4, ERR_TOO_BIG, "2^64"},
		{TENSOR("\"F32\"", "[2]", "[0,4]"), 4, ERR_INVALID, "8 bytes"},
		{TENSOR("\"F32\"", "[1]", "[0,8]"), 8, ERR_INVALID, "4 bytes"},
		{TENSOR("\"F32\"", "[1]", "[4,0]"), 4, ERR_INVALID, "behind the end"},
		{TENSOR("\"F32\"", "[1]", "[-4,0]"), 4, ERR_INVALID, "a negative number"},
		{TENSOR("\"F32\"", "[1]", "[0]"), 4, ERR_INVALID, "data_offsets"},
		{TENSOR("\"F32\"", "[1]", "[0,4,8]"), 4, ERR_INVALID, "data_offsets"},
		{TENSOR("\"F32\"", "[1]", "\"0,4\""), 4, ERR_INVALID, "data_offsets"},
		{TENSOR("\"F32\"", "[1]", "[0,9223372036854775807]"), 4, ERR_INCOMPLETE, "truncated"},
		{TENSOR("\"F32\"", "[2]", "[0,8]"), 7, ERR_INCOMPLETE, "found 7"},
		{TENSOR("\"F32\"", "[1]", "[4,8]"), 8, ERR_INVALID, "gap"},
		{TENSOR("\"F32\"", "[1]", "[0,4]"), 5, ERR_INVALID, "found 5"},
		{"{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
		 "\"u\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}", 7, ERR_INVALID, "overlap"},
		{"{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
		 "\"u\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, ERR_INVALID, "overlap"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct safetensors file;
		struct err err;
		int code = parse(&file, cases[i].header, (size_t)cases[i].data_bytes, &err);
		if (code != cases[i].code || !strstr(err.text, cases[i].says))
			fail_msg("case %zu: code %d (expected %d), text \"%s\" (expected \"%s\")", i, code, cases[i].code,
			         err.text, cases[i].says);
	}
}

static void test_header_lengths(void **state)
{
	(void)state;
	static const struct {
		uint64_t length;
		int code;
	} cases[] = {
		{0, ERR_INVALID},
		{1, ERR_INVALID},
		{3, ERR_INCOMPLETE},
		{SAFETENSORS_HEADER_MAX, ERR_INCOMPLETE},
		{(uint64_t)SAFETENSORS_HEADER_MAX + 1, ERR_TOO_BIG},
		{UINT64_MAX, ERR_TOO_BIG},
		{UINT64_MAX - 7, ERR_TOO_BIG},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct safetensors file;
		struct err err;
		struct blob blob = blob_make("{}", cases[i].length, 0);
		assert_int_equal(safetensors_parse(&file, blob.bytes, blob.n_bytes, &err), cases[i].code);
		free(blob.bytes);
	}
}

/* JSON that is deeper than any header. */
static void test_deep_nesting(void **state)
{
	(void)state;
	enum { DEPTH = 100000 };
	struct err err;
	char *header = malloc(DEPTH + 1);
	memset(header, '[', DEPTH);
	header[DEPTH] = '\0';
	assert_int_equal(parse(&(struct safetensors){0}, header, 0, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "depth"));
	free(header);
}

static void test_truncated_anywhere(void **state)
{
	(void)state;
	struct blob whole = blob_make(VALID, strlen(VALID), VALID_DATA);
	for (size_t n = 0; n < whole.n_bytes; n++) {
		struct safetensors file;
		struct err err = {0};
		unsigned char *copy = malloc(n > 0 ? n : 1);
		memcpy(copy, whole.bytes, n);
		assert_int_equal(safetensors_parse(&file, copy, n, &err), ERR_INCOMPLETE);
		assert_true(err.text[0] != '\0');
		free(copy);
	}
	free(whole.bytes);
}

/* Every tensor that is given out lies within the bytes. */
static void check_within(const struct safetensors *file, const unsigned char *bytes, size_t n_bytes)
{
	for (size_t i = 0; i < file->n_tensors; i++) {
		const struct safetensors_tensor *tensor = &file->tensors[i];
		assert_true(tensor->data >= bytes && tensor->n_bytes <= n_bytes);
		assert_true((size_t)(tensor->data - bytes) + tensor->n_bytes <= n_bytes);
	}
}

static void parse_damaged(unsigned char *bytes, size_t n_bytes)
{
	struct safetensors file;
	struct err err = {0};
	if (safetensors_parse(&file, bytes, n_bytes, &err) == 0) {
		check_within(&file, bytes, n_bytes);
		safetensors_free(&file);
	} else {
		assert_true(err.text[0] != '\0');
	}
}

static void test_flipped_bits(void **state)
{
	(void)state;
	struct blob blob = blob_make(VALID, strlen(VALID), VALID_DATA);
	for (size_t at = 0; at < 8 + strlen(VALID); at++) {
		for (int bit = 0; bit < 8; bit++) {
			blob.bytes[at] = (unsigned char)(blob.bytes[at] ^ 1 << bit);
			parse_damaged(blob.bytes, blob.n_bytes);
			blob.bytes[at] = (unsigned char)(blob.bytes[at] ^ 1 << bit);
		}
	}
	free(blob.bytes);
}

/* Several random bytes of the header replaced by characters that JSON is made of. */
static void test_random_edits(void **state)
{
	(void)state;
	static const char alphabet[] = "0123456789,:[]{}\"-e.F\\ \x00\xff";
	uint64_t random = 3;
	for (int i = 0; i < 20000; i++) {
		struct blob blob = blob_make(VALID, strlen(VALID), VALID_DATA);
		for (uint64_t k = 1 + random_bits(&random) % 4; k > 0; k--)
			blob.bytes[8 + random_bits(&random) % strlen(VALID)] =
				(unsigned char)alphabet[random_bits(&random) % sizeof alphabet];
		parse_damaged(blob.bytes, blob.n_bytes);
		free(blob.bytes);
	}
}

static void test_shape_text(void **state)
{
	(void)state;
	char text[64], tiny[6];
	uint64_t shape[] = {32000, 288, 7};
	assert_string_equal(safetensors_shape_text(shape, 2, text, sizeof text), "[32000, 288]");
	assert_string_equal(safetensors_shape_text(shape, 0, text, sizeof text), "[]");
	assert_int_equal(strlen(safetensors_shape_text(shape, 3, tiny, sizeof tiny)), sizeof tiny - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_valid),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_header_lengths),
		cmocka_unit_test(test_deep_nesting),
		cmocka_unit_test(test_truncated_anywhere),
		cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_random_edits),
		cmocka_unit_test(test_shape_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
