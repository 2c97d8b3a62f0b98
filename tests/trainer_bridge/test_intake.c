/* test_intake.c - a version is complete iff all tensors, all checksums and the commit are there. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "tests/support/random_model.h"
#include "trainer_bridge/server/intake.h"
#include "trainer_bridge/wire/sha256.h"

struct world {
	struct intake *intake;
	struct weights sent;
};

static int set_up(void **state)
{
	struct world *world = calloc(1, sizeof *world);
	struct model_config config = random_model_small();

	world->intake = intake_open(&config);
	random_model(&world->sent, &config, 7);
	*state = world;
	return 0;
}

static int tear_down(void **state)
{
	struct world *world = *state;

	intake_close(world->intake);
	weights_free(&world->sent);
	free(world);
	return 0;
}

static size_t bytes_of(const struct weight_tensor *tensor)
{
	return (size_t)tensor->rows * (size_t)tensor->cols * 2;
}

static const char *data_of(const struct world *world, int i)
{
	return (const char *)(world->sent.data + world->sent.tensors[i].offset);
}

/* Tensors [first, last) in chunks. */
static void send(struct world *world, int first, int last, int64_t version, size_t chunk)
{
	struct err err;

	for (int i = first; i < last; i++) {
		const struct weight_tensor *tensor = &world->sent.tensors[i];
		size_t n = bytes_of(tensor);
		for (size_t at = 0; at < n; at += chunk)
			if (intake_chunk(world->intake, version, tensor->name, at, data_of(world, i) + at,
			                 n - at < chunk ? n - at : chunk, &err))
				fail_msg("%s", err.text);
		if (intake_checksum(world->intake, version, tensor->name, XXH3_64bits(data_of(world, i), n), &err))
			fail_msg("%s", err.text);
	}
}

static void test_a_whole_version_arrives(void **state)
{
	struct world *world = *state;
	const struct weights *got;
	struct err err;

	for (int64_t version = 1; version < 4; version++) {
		assert_int_equal(intake_begin(world->intake, version, version - 1, &err), 0);
		send(world, 0, world->sent.n_tensors, version, 777 + (size_t)version);
		assert_int_equal(intake_commit(world->intake, version, &got, &err), 0);
		assert_int_equal(got->n_elements, world->sent.n_elements);
		assert_memory_equal(got->data, world->sent.data, 2 * got->n_elements);
		intake_adopt(world->intake);
	}
}

static void test_tensors_may_come_in_any_order(void **state)
{
	struct world *world = *state;
	const struct weights *got;
	struct err err;
	int n = world->sent.n_tensors;

	intake_begin(world->intake, 1, 0, &err);
	for (int i = n - 1; i >= 0; i--)
		send(world, i, i + 1, 1, 1 << 20);
	assert_int_equal(intake_commit(world->intake, 1, &got, &err), 0);
	assert_memory_equal(got->data, world->sent.data, 2 * got->n_elements);
	intake_adopt(world->intake);
}

#define SAYS(call, expected, said) do { \
	err.text[0] = 0; \
	assert_int_equal(call, expected); \
	if (!strstr(err.text, said)) fail_msg("'%s' does not say '%s'", err.text, said); \
} while (0)

static void test_versions_must_be_new_and_begun(void **state)
{
	struct world *world = *state;
	struct intake *intake = world->intake;
	const struct weights *got;
	struct err err;
	const char *name = world->sent.tensors[0].name;

	SAYS(intake_begin(intake, 5, 5, &err), ERR_INVALID, "push 6 or more");
	SAYS(intake_chunk(intake, 6, name, 0, "xx", 2, &err), ERR_STATE, "begin version 6 first");
	SAYS(intake_commit(intake, 6, &got, &err), ERR_STATE, "begin");
	assert_int_equal(intake_begin(intake, 6, 5, &err), 0);
	SAYS(intake_begin(intake, 7, 5, &err), ERR_STATE, "version 6 is being taken in");
	SAYS(intake_chunk(intake, 7, name, 0, "xx", 2, &err), ERR_INVALID, "found 7");
	SAYS(intake_commit(intake, 7, &got, &err), ERR_INVALID, "found 7");
	intake_abandon(intake);
	assert_int_equal(intake_begin(intake, 7, 5, &err), 0);
}

static void test_shapes_are_held(void **state)
{
	struct world *world = *state;
	struct intake *intake = world->intake;
	const struct weight_tensor *tensor = &world->sent.tensors[1];
	size_t n = bytes_of(tensor);
	const struct weights *got;
	struct err err;

	intake_begin(intake, 1, 0, &err);
	SAYS(intake_chunk(intake, 1, "model.nothing", 0, "xx", 2, &err), ERR_MISSING, "model.nothing");
	SAYS(intake_chunk(intake, 1, tensor->name, 2, "xx", 2, &err), ERR_INVALID,
	     "expected the chunk at byte 0");
	SAYS(intake_chunk(intake, 1, tensor->name, 0, world->sent.data, n + 2, &err), ERR_TOO_BIG,
	     "found 130 or more");
	SAYS(intake_chunk(intake, 1, tensor->name, UINT64_MAX, "xx", 2, &err), ERR_INVALID, "byte 0, found");
	assert_int_equal(intake_chunk(intake, 1, tensor->name, 0, data_of(world, 1), n - 2, &err), 0);
	SAYS(intake_checksum(intake, 1, tensor->name, 0, &err), ERR_INCOMPLETE,
	     "expected 128 bytes"); /* it shrank */
	SAYS(intake_commit(intake, 1, &got, &err), ERR_INCOMPLETE, "lacks 20 of 20 tensors");
	assert_int_equal(intake_chunk(intake, 1, tensor->name, n - 2, data_of(world, 1) + n - 2, 2, &err), 0);
	SAYS(intake_chunk(intake, 1, tensor->name, n, "xx", 2, &err), ERR_TOO_BIG, "found 130 or more");
}

static void test_checksums_are_held(void **state)
{
	struct world *world = *state;
	const struct weights *got;
	struct err err;
	int last = world->sent.n_tensors - 1;
	const char *name = world->sent.tensors[last].name;

	intake_begin(world->intake, 1, 0, &err);
	send(world, 0, last, 1, 4096);
	SAYS(intake_commit(world->intake, 1, &got, &err), ERR_INCOMPLETE,
	     "lacks 1 of 20 tensors, the first is 'model.norm");
	assert_int_equal(intake_chunk(world->intake, 1, name, 0, data_of(world, last), 128, &err), 0);
	SAYS(intake_commit(world->intake, 1, &got, &err), ERR_INCOMPLETE,
	     "lacks 1"); /* its checksum never came */
	SAYS(intake_checksum(world->intake, 1, name, 12345, &err), ERR_INVALID, "0000000000003039");
	SAYS(intake_commit(world->intake, 1, &got, &err), ERR_INCOMPLETE, "lacks 1");
	assert_int_equal(intake_checksum(world->intake, 1, name, XXH3_64bits(data_of(world, last), 128), &err),
	                 0);
	SAYS(intake_chunk(world->intake, 1, name, 128, "", 0, &err), ERR_STATE, "behind its checksum");
	assert_int_equal(intake_commit(world->intake, 1, &got, &err), 0);
	intake_adopt(world->intake);
}

static void test_sha256_serves_as_well(void **state)
{
	struct world *world = *state;
	const struct weight_tensor *tensor = &world->sent.tensors[2];
	struct sha256 sha;
	uint8_t digest[SHA256_BYTES];
	struct err err;
	size_t n = bytes_of(tensor);

	sha256_begin(&sha);
	sha256_add(&sha, data_of(world, 2), n);
	sha256_end(&sha, digest);
	intake_begin(world->intake, 1, 0, &err);
	SAYS(intake_checksum_sha256(world->intake, 1, tensor->name, digest, &err), ERR_INCOMPLETE, "found 0");
	assert_int_equal(intake_chunk(world->intake, 1, tensor->name, 0, data_of(world, 2), n, &err), 0);
	digest[31] ^= 1;
	SAYS(intake_checksum_sha256(world->intake, 1, tensor->name, digest, &err), ERR_INVALID, "SHA-256");
	digest[31] ^= 1;
	assert_int_equal(intake_checksum_sha256(world->intake, 1, tensor->name, digest, &err), 0);
}

static void test_diverged_weights_are_refused(void **state)
{
	struct world *world = *state;
	struct err err;

	world->sent.data[world->sent.tensors[3].offset + 1] = 0x7fc0; /* NaN */
	intake_begin(world->intake, 1, 0, &err);
	send(world, 0, 3, 1, 4096);
	const struct weight_tensor *tensor = &world->sent.tensors[3];
	assert_int_equal(intake_chunk(world->intake, 1, tensor->name, 0, data_of(world, 3), 3, &err), 0); /* cut in it */
	assert_int_equal(intake_chunk(world->intake, 1, tensor->name, 3, data_of(world, 3) + 3, bytes_of(tensor) - 3, &err), 0);
	SAYS(intake_checksum(world->intake, 1, tensor->name, XXH3_64bits(data_of(world, 3), bytes_of(tensor)), &err),
	     ERR_INVALID, tensor->name);
	assert_non_null(strstr(err.text, "diverged"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_whole_version_arrives, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tensors_may_come_in_any_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_versions_must_be_new_and_begun, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_shapes_are_held, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_checksums_are_held, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_sha256_serves_as_well, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_diverged_weights_are_refused, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
