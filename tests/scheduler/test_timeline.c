/* test_timeline.c - lines of ranks and events, what a resume goes on with, and a file that does not grow for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "scheduler/status/timeline.h"

static char path[64];

static int setup(void **state)
{
	(void)state;
	snprintf(path, sizeof path, "/tmp/timeline-%d.jsonl", getpid());
	unlink(path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static struct timeline *open_it(double interval, size_t bytes_max)
{
	struct timeline *t;
	struct err err;

	assert_int_equal(timeline_open(&t, path, interval, bytes_max, 4, &err), 0);
	return t;
}

static void flush(struct timeline *t)
{
	struct err err;
	assert_int_equal(timeline_flush(t, &err), 0);
}

/* Every line is an object with "t" and "step"; the rank's or event's own. */
static size_t read_lines(json_t **lines, size_t max)
{
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t size = 0, n = 0;

	assert_non_null(f);
	while (getline(&line, &size, f) > 0) {
		assert_true(n < max);
		assert_non_null(strchr(line, '\n'));
		lines[n] = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
		assert_true(json_is_object(lines[n]));
		assert_true(json_is_number(json_object_get(lines[n], "t")));
		assert_true(json_is_integer(json_object_get(lines[n], "step")));
		n++;
	}
	free(line);
	fclose(f);
	return n;
}

static void free_lines(json_t **lines, size_t n)
{
	for (size_t i = 0; i < n; i++) json_decref(lines[i]);
}

static double number(const json_t *o, const char *key)
{
	assert_true(json_is_number(json_object_get(o, key)));
	return json_number_value(json_object_get(o, key));
}

static void test_lines(void **state)
{
	(void)state;
	struct timeline *t = open_it(1, 1 << 20);
	struct rank_stats s = { .engine = { .tokens = 100, .drafted = 30, .decode_rows = 5, .verify_rows = 40, .active = 3, .queued = 1,
	                                    .kv_pages_used = 5, .kv_pages_max = 20, .drafted_by_position = { 20, 10 },
	                                    .accepted_by_position = { 12, 4 }, .verify_seconds = 2.5 },
	                        .wait_seconds = 0.5, .seconds = 4, .version = 7 };
	json_t *lines[8];

	assert_true(timeline_wants(t, 1, 0));
	timeline_event(t, 0.5, 1, "step_begin", ",\"version\":7");
	timeline_rank(t, 1, 1, 1, SHOWN_GENERATING, &s);
	assert_false(timeline_wants(t, 1, 1.5));
	assert_true(timeline_wants(t, 1, 2));
	assert_true(timeline_wants(t, 2, 1.5));
	assert_false(timeline_lacks(t, 1, 1, &s));
	assert_true(timeline_lacks(t, 1, 2, &s)); /* another step */
	s.engine.rounds++;
	assert_true(timeline_lacks(t, 1, 1, &s));
	s.engine.drafted += 10;
	s.engine.verify_rows += 15; /* 5 turns */
	timeline_rank(t, 2, 2, 1, SHOWN_IDLE, &s);
	flush(t);
	timeline_close(t);

	size_t n = read_lines(lines, 8);
	assert_int_equal(n, 3);
	assert_string_equal(json_string_value(json_object_get(lines[0], "event")), "step_begin");
	assert_float_equal(number(lines[0], "version"), 7, 0);
	assert_string_equal(json_string_value(json_object_get(lines[1], "state")), "generating");
	assert_float_equal(number(lines[1], "rank"), 1, 0);
	assert_float_equal(number(lines[1], "active"), 3, 0);
	assert_float_equal(number(lines[1], "queued"), 1, 0);
	assert_float_equal(number(lines[1], "tokens"), 100, 0);
	assert_float_equal(number(lines[1], "version"), 7, 0);
	assert_float_equal(number(lines[1], "kv_used"), 0.25, 1e-9);
	assert_float_equal(number(lines[1], "draft_length"), 2, 1e-9); /* 30 of 15 turns */
	assert_float_equal(number(lines[2], "draft_length"), 2, 1e-9); /* 10 of 5 */
	const json_t *drafted = json_object_get(lines[1], "drafted_by_position"), *seconds = json_object_get(lines[1], "seconds");
	assert_int_equal(json_array_size(drafted), 2);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(lines[1], "accepted_by_position"), 1)), 4);
	assert_float_equal(number(seconds, "verify"), 2.5, 1e-9);
	assert_float_equal(number(seconds, "wait"), 0.5, 1e-9);
	static const char *const kinds[] = { "prefill", "draft", "verify", "sampling", "weights", "wait", "total" };
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) number(seconds, kinds[i]);
	free_lines(lines, n);
}

static void test_resume_goes_on(void **state)
{
	(void)state;
	struct timeline *t = open_it(1, 1 << 20);
	struct rank_stats s = { .engine = { .tokens = 100, .drafted_by_position = { 20, 10 } }, .wait_seconds = 0.5 };
	json_t *lines[8];

	timeline_rank(t, 3, 1, 1, SHOWN_IDLE, &s);
	timeline_event(t, 4.25, 1, "batch", "");
	flush(t);
	timeline_close(t);
	FILE *f = fopen(path, "a"); /* a crash in the middle of a line */
	fputs("{\"t\":9,\"step\":2,\"rank\":1,\"tok", f);
	fclose(f);

	t = open_it(1, 1 << 20);
	assert_float_equal(timeline_before(t), 4.25, 1e-9);
	s = (struct rank_stats){ .engine = { .tokens = 7, .drafted_by_position = { 1 } }, .wait_seconds = 0.25 };
	timeline_rank(t, 0.5, 2, 1, SHOWN_IDLE, &s);
	timeline_rank(t, 0.5, 2, 2, SHOWN_IDLE, &s);
	flush(t);
	timeline_close(t);
	size_t n = read_lines(lines, 8);
	assert_int_equal(n, 4);
	assert_float_equal(number(lines[2], "t"), 4.75, 1e-9);
	assert_float_equal(number(lines[2], "tokens"), 107, 0);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(lines[2], "drafted_by_position"), 0)), 21);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(lines[2], "drafted_by_position"), 1)), 10);
	assert_float_equal(number(json_object_get(lines[2], "seconds"), "wait"), 0.75, 1e-9);
	assert_float_equal(number(lines[3], "tokens"), 7, 0); /* a rank that was not there before */
	free_lines(lines, n);
}

/* 20,000 seconds of three ranks into 64 KiB: what is left covers all of it, evenly, every rank alike. */
static void test_thinned(void **state)
{
	(void)state;
	enum { BYTES = 64 << 10, SECONDS = 20000 };
	struct timeline *t = open_it(1, BYTES);
	static json_t *lines[BYTES / 16];
	struct stat about;

	for (int i = 0; i < SECONDS; i++) {
		struct rank_stats s = { .engine = { .tokens = (uint64_t)i } };
		for (int r = 1; r < 4; r++)
			if (timeline_wants(t, r, i)) timeline_rank(t, i, i / 100, r, SHOWN_GENERATING, &s);
		if (i % 100 == 0) timeline_event(t, i, i / 100, i == 5000 ? "rank_lost" : "batch", "");
		flush(t);
		assert_int_equal(stat(path, &about), 0);
		assert_true(about.st_size <= BYTES + 1024);
	}
	double interval = timeline_interval(t);
	timeline_close(t);
	assert_true(interval > 1 && interval < SECONDS / 8.0);
	size_t n = read_lines(lines, sizeof lines / sizeof *lines);
	double last[4] = { -1, -1, -1, -1 };
	int of_rank[4] = { 0 };
	bool lost = false;
	for (size_t i = 0; i < n; i++) {
		int rank = (int)json_integer_value(json_object_get(lines[i], "rank"));
		const char *event = json_string_value(json_object_get(lines[i], "event"));
		lost = lost || (event && strcmp(event, "rank_lost") == 0);
		if (rank == 0) continue;
		double at = number(lines[i], "t");
		assert_true(last[rank] < 0 || at - last[rank] <= 2 * interval);
		last[rank] = at;
		of_rank[rank]++;
	}
	assert_true(lost); /* rare events stay */
	assert_true(of_rank[1] > 20 && of_rank[1] == of_rank[2] && of_rank[2] == of_rank[3]);
	assert_true(last[1] > SECONDS - 3 * interval);
	free_lines(lines, n);
	t = open_it(1, BYTES); /* a resume does not fall back to short intervals */
	assert_float_equal(timeline_interval(t), interval, 0);
	timeline_close(t);
}

static void test_cannot_be_written(void **state)
{
	(void)state;
	struct timeline *t;
	struct err err;

	assert_int_equal(timeline_open(&t, "/nonexistent/timeline.jsonl", 1, 1 << 20, 2, &err), ERR_IO);
	assert_non_null(strstr(err.text, "/nonexistent/timeline.jsonl"));
	t = NULL;
	if (access("/dev/full", W_OK) == 0) {
		assert_int_equal(timeline_open(&t, "/dev/full", 1, 1 << 20, 2, &err), 0);
		timeline_event(t, 1, 1, "batch", "");
		assert_int_equal(timeline_flush(t, &err), ERR_IO);
		timeline_close(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resume_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_thinned, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cannot_be_written, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
