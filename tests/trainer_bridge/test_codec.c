/* test_codec.c - trajectories through msgpack and back, whole, partial and damaged. */
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
#include "trainer_bridge/wire/codec.h"

static struct message *pack(const struct trajectory *t)
{
	struct message_writer *w = message_writer_open();
	struct message *message;
	struct err err;
	size_t n_bytes;

	codec_put_trajectory(w, t);
	const void *bytes = message_bytes(w, &n_bytes);
	if (message_parse(&message, bytes, n_bytes, &err))
		fail_msg("%s", err.text);
	message_writer_close(w);
	return message;
}

static void goes_round(const struct trajectory *t)
{
	struct message *message = pack(t);
	struct trajectory *back;
	struct err err;

	if (codec_get_trajectory(message_root(message), &back, &err))
		fail_msg("%s", err.text);
	message_close(message);
	assert_true(bridge_same_trajectory(t, back));
	trajectory_append(back, 1, -1, 9, 2, 0); /* it is a live one: a partial goes on elsewhere */
	trajectory_free(back);
}

static void test_finished_ones_go_round(void **state)
{
	(void)state;
	for (int32_t n = 0; n < 5; n++) {
		struct trajectory *t = bridge_trajectory(1 + (uint64_t)n, n, 10 * n);
		goes_round(t);
		trajectory_free(t);
	}
}

static void test_fresh_and_partial_ones_go_round(void **state)
{
	const int32_t prompt[] = {3, 1, 4};
	struct trajectory *t = trajectory_new(prompt, 3, 100);

	(void)state;
	t->group_id = 12;
	t->group_size = 1;
	t->id = trajectory_id(12, 0);
	goes_round(t);
	for (int i = 0; i < 20; i++)
		trajectory_append(t, i, -0.5f, i / 7, 1, 1);
	goes_round(t);
	trajectory_free(t);
}

static void test_odd_values_go_round(void **state)
{
	struct trajectory *t =
		bridge_trajectory(UINT64_MAX / TRAJECTORY_SAMPLES_MAX, TRAJECTORY_SAMPLES_MAX - 5, 3);

	(void)state;
	t->group_size = TRAJECTORY_SAMPLES_MAX;
	t->logprobs[4] = -1e-45f; /* the smallest denormal */
	t->reward = -0.0;
	t->prompt_id[0] = '\x01';
	free(t->answer);
	t->answer = xstrdup("");
	free(t->meta);
	t->meta = NULL;
	goes_round(t);
	trajectory_free(t);
}

static void refuses(const struct trajectory *t, int code, const char *said)
{
	struct message *message = pack(t);
	struct trajectory *back;
	struct err err;

	assert_int_equal(codec_get_trajectory(message_root(message), &back, &err), code);
	assert_null(back);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
	message_close(message);
}

#define REFUSES(change, code, said) do { \
	struct trajectory *t = bridge_trajectory(3, 1, 8); \
	change; \
	refuses(t, code, said); \
	trajectory_free(t); \
} while (0)

static void test_inconsistent_ones_are_refused(void **state)
{
	(void)state;
	REFUSES(t->id++, ERR_INVALID, "'id'");
	REFUSES(t->group_id = 0, ERR_INVALID, "'group'");
	REFUSES(t->sample = t->group_size, ERR_INVALID, "'sample'");
	REFUSES(t->group_size = TRAJECTORY_SAMPLES_MAX + 1, ERR_INVALID, "'group_size'");
	REFUSES(t->n_prompt = t->n_tokens + 1, ERR_INVALID, "'n_prompt'");
	REFUSES(t->n_prompt = -1, ERR_INVALID, "'n_prompt'");
	REFUSES(t->max_tokens = -1, ERR_INVALID, "'max_tokens'");
	REFUSES(t->segments[0].length++, ERR_INVALID, "'segments'");
	REFUSES(t->segments[1].start--, ERR_INVALID, "'segments'");
	REFUSES(t->segments[0].length = 0, ERR_INVALID, "'segments'");
	REFUSES(t->n_segments = 1, ERR_INVALID, "'segments'");
	REFUSES(t->n_segments = 0, ERR_INVALID, "'segments'");
}

/* The trajectory's map with one bin of the record cut short, byte by byte as it lies on the wire. */
static void test_damage_is_noticed_by_the_checksum(void **state)
{
	struct message_writer *w = message_writer_open();
	struct trajectory *t = bridge_trajectory(3, 1, 8);
	size_t n_bytes;

	(void)state;
	codec_put_trajectory(w, t);
	const uint8_t *good = message_bytes(w, &n_bytes);
	uint8_t *bad = malloc(n_bytes);
	int n_checksum = 0, n_accepted = 0;
	for (size_t i = 0; i < n_bytes; i++)
		for (int bit = 0; bit < 8; bit++) {
			struct message *message;
			struct trajectory *back = NULL;
			struct err err;
			memcpy(bad, good, n_bytes);
			bad[i] ^= (uint8_t)(1 << bit);
			if (message_parse(&message, bad, n_bytes, &err) == 0 &&
			    codec_get_trajectory(message_root(message), &back, &err) == 0) {
				n_accepted++;
				assert_int_equal(trajectory_checksum(back), trajectory_checksum(t));
			} else {
				n_checksum += strstr(err.text, "checksum") != NULL;
			}
			trajectory_free(back);
			message_close(message);
		}
	assert_true(n_checksum > 1000); /* tokens, log-probabilities, versions, mask, ids */
	assert_true(n_accepted > 100);  /* answer, meta, error, timings, counters: not covered */
	free(bad);
	trajectory_free(t);
	message_writer_close(w);
}

static void test_missing_fields_and_other_schemas_are_named(void **state)
{
	struct message_writer *w = message_writer_open();
	struct trajectory *back;
	struct message *message;
	struct err err;
	size_t n_bytes;

	(void)state;
	message_begin_map(w, 2);
	message_key(w, "schema"); message_put_int(w, TRAJECTORY_SCHEMA + 1);
	message_key(w, "tokens"); message_put_bin(w, "", 0);
	const void *bytes = message_bytes(w, &n_bytes);
	assert_int_equal(message_parse(&message, bytes, n_bytes, &err), 0);
	assert_int_equal(codec_get_trajectory(message_root(message), &back, &err), ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "schema 2"));
	message_close(message);

	message_writer_reset(w);
	message_begin_map(w, 2);
	message_key(w, "schema"); message_put_int(w, TRAJECTORY_SCHEMA);
	message_key(w, "tokens"); message_put_bin(w, "abc", 3);
	bytes = message_bytes(w, &n_bytes);
	assert_int_equal(message_parse(&message, bytes, n_bytes, &err), 0);
	assert_int_equal(codec_get_trajectory(message_root(message), &back, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "'tokens': 3 bytes"));
	message_close(message);

	message_writer_reset(w);
	message_put_int(w, 5);
	bytes = message_bytes(w, &n_bytes);
	assert_int_equal(message_parse(&message, bytes, n_bytes, &err), 0);
	assert_int_equal(codec_get_trajectory(message_root(message), &back, &err), ERR_INVALID);
	message_close(message);
	message_writer_close(w);
}

/* max_tokens is a claim: memory follows the tokens that are there. */
static void test_a_large_claim_costs_nothing(void **state)
{
	struct trajectory *t = bridge_trajectory(3, 1, 8), *back;
	struct err err;

	(void)state;
	t->max_tokens = INT32_MAX;
	struct message *message = pack(t);
	assert_int_equal(codec_get_trajectory(message_root(message), &back, &err), 0);
	assert_int_equal(back->max_tokens, INT32_MAX);
	assert_true(back->capacity < 64);
	message_close(message);
	trajectory_free(back);
	trajectory_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finished_ones_go_round),
		cmocka_unit_test(test_fresh_and_partial_ones_go_round),
		cmocka_unit_test(test_odd_values_go_round),
		cmocka_unit_test(test_inconsistent_ones_are_refused),
		cmocka_unit_test(test_damage_is_noticed_by_the_checksum),
		cmocka_unit_test(test_missing_fields_and_other_schemas_are_named),
		cmocka_unit_test(test_a_large_claim_costs_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
