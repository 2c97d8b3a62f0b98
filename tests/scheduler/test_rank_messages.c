/* test_rank_messages.c - what a rank tells of itself: sums over the wire, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "scheduler/ranks/rank_messages.h"

static struct rank_stats some_stats(void)
{
	return (struct rank_stats){
		.engine = { .tokens = 1000, .drafted = 60, .accepted = 50, .rounds = 40, .prefill_rows = 300, .probe_seconds = -0.25,
		            .verify_seconds = 1.5, .drafted_by_position = { 40, 20 }, .accepted_by_position = { 35, 15 },
		            .active = 7, .queued = 3, .kv_pages_used = 11, .kv_pages_max = 100 },
		.weights_seconds = 0.5, .reward_seconds = 0.125, .wait_seconds = 2, .seconds = 5, .version = 3,
	};
}

/* What `now` puts on the wire since `before`, read back. */
static int exchange(const struct rank_stats *now, struct rank_stats *before, struct rank_stats *added, struct err *err)
{
	struct message_writer *writer = message_writer_open();
	struct message *message;
	size_t n_bytes;

	rank_message_put_stats(writer, now, before);
	const void *bytes = message_bytes(writer, &n_bytes);
	assert_int_equal(message_parse(&message, bytes, n_bytes, err), 0);
	int rc = rank_message_get_stats(message_root(message), added, err);
	message_close(message);
	message_writer_close(writer);
	return rc;
}

static void test_stats_add_up(void **state)
{
	(void)state;
	struct rank_stats now = some_stats(), before = { 0 }, added, sums = { 0 };
	struct err err;

	assert_int_equal(exchange(&now, &before, &added, &err), 0);
	rank_stats_add(&sums, &added);
	now.engine.tokens += 17;
	now.engine.drafted_by_position[5] += 2; /* a place that was not reached before */
	now.engine.active = 2;
	now.engine.probe_seconds -= 0.5;
	now.wait_seconds += 1;
	now.version = 4;
	assert_int_equal(exchange(&now, &before, &added, &err), 0);
	assert_int_equal(added.engine.tokens, 17);
	assert_int_equal(added.engine.rounds, 0);
	rank_stats_add(&sums, &added);
	assert_memory_equal(&sums, &now, sizeof now);
	assert_memory_equal(&before, &now, sizeof now);
}

/* A STATS of zeros but for one field. */
static int read_spoilt(const char *key, double value, struct err *err)
{
	static const char *const others[] = { "weights_seconds", "reward_seconds", "wait_seconds", "seconds", "active", "queued",
	                                      "kv_pages_used", "kv_pages_max", "version" };
	struct message_writer *writer = message_writer_open();
	struct rank_stats added;
	struct message *message;
	size_t n_bytes;
#define COUNT(name) + 1
#define PUT(name) \
	message_key(writer, #name); \
	message_put_real(writer, strcmp(#name, key) == 0 ? value : 0);
	message_begin_map(writer, 11 ENGINE_SUMS(COUNT));
	ENGINE_SUMS(PUT)
#undef COUNT
#undef PUT
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		message_key(writer, others[i]);
		if (strcmp(others[i], key) == 0) message_put_real(writer, value);
		else message_put_int(writer, 0);
	}
	message_key(writer, "drafted_by_position");
	message_put_bin(writer, "", 0);
	message_key(writer, "accepted_by_position");
	message_put_bin(writer, "", 0);
	const void *bytes = message_bytes(writer, &n_bytes);
	assert_int_equal(message_parse(&message, bytes, n_bytes, err), 0);
	int rc = rank_message_get_stats(message_root(message), &added, err);
	message_close(message);
	message_writer_close(writer);
	return rc;
}

/* A double that is no count must never be made one: the conversion is undefined. */
static void test_nonsense_is_refused(void **state)
{
	(void)state;
	static const double nonsense[] = { NAN, INFINITY, -INFINITY, -1, 0.5, 1e300, 18446744073709551616.0 };
	static const char *const counts[] = { "tokens", "rounds", "rescore_rows" }, *const seconds[] = { "verify_seconds", "wait_seconds" };
	struct err err;

	assert_int_equal(read_spoilt("", 0, &err), 0);
	for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
		for (size_t k = 0; k < 3; k++) {
			assert_int_equal(read_spoilt(counts[k], nonsense[i], &err), ERR_INVALID);
			assert_non_null(strstr(err.text, counts[k]));
		}
		for (size_t k = 0; k < 2; k++)
			assert_int_equal(read_spoilt(seconds[k], nonsense[i], &err), isfinite(nonsense[i]) ? 0 : ERR_INVALID);
	}
	assert_true(read_spoilt("active", -1, &err) < 0);
}

static void test_positions_are_bounded(void **state)
{
	(void)state;
	struct rank_stats now = some_stats(), before = { 0 }, added;
	struct err err;

	now.engine.drafted_by_position[ENGINE_POSITIONS - 1] = 9;
	assert_int_equal(exchange(&now, &before, &added, &err), 0);
	assert_int_equal(added.engine.drafted_by_position[ENGINE_POSITIONS - 1], 9);
	now.engine.drafted_by_position[2] += UINT64_C(1) << 60;
	assert_int_equal(exchange(&now, &before, &added, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "drafted_by_position"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stats_add_up),
		cmocka_unit_test(test_nonsense_is_refused),
		cmocka_unit_test(test_positions_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
