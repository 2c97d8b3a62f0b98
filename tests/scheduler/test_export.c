/* test_export.c - `drumroll export`: valid JSON lines, exact numbers, --stable, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>
#include <jansson.h>

#include "scheduler/commands/commands.h"
#include "scheduler/store/store.h"
#include "tests/scheduler/made_up_trajectory.h"

enum { GROUPS = 8, SAMPLES = 3 };

static char directory[] = "/tmp/drumroll_test_export_XXXXXX";
static char runs[2][64], out[64];

static void must(int code, const struct err *err)
{
	if (code)
		fail_msg("%s", err->text);
}

static void fill_run(struct store *store, int run)
{
	struct err err = {0};
	for (uint64_t group = GROUPS; group > 0; group--)
		for (int sample = 0; sample < SAMPLES; sample++) {
			struct trajectory *made = made_up_trajectory(group, sample);
			for (int i = 0; i < made->n_segments; i++)
				made->segments[i].rank = run ? 1 : made->segments[i].rank;
			made->decode_seconds += run;
			made->accepted += run;
			made->deferrals += run;
			must(store_put_trajectory(store, made, STORE_DELIVERED, &err), &err);
			trajectory_free(made);
		}
}

/* Two runs alike but for what --stable leaves out. */
static int make_runs(void **state)
{
	(void)state;
	struct err err = {0};
	struct store *store;
	if (!mkdtemp(directory))
		return -1;
	snprintf(out, sizeof(out), "%s/out.jsonl", directory);
	for (int run = 0; run < 2; run++) {
		snprintf(runs[run], sizeof(runs[run]), "%s/%d", directory, run);
		if (mkdir(runs[run], 0755))
			return -1;
		must(store_open(&store, runs[run], "r", "", &err), &err);
		fill_run(store, run);
		must(store_close(store, &err), &err);
	}
	return 0;
}

static int remove_runs(void **state)
{
	(void)state;
	char path[256];
	unlink(out);
	for (int run = 0; run < 2; run++) {
		snprintf(path, sizeof(path), "%s/drumroll.db", runs[run]);
		unlink(path);
		snprintf(path, sizeof(path), "%s/drumroll.lock", runs[run]);
		unlink(path);
		rmdir(runs[run]);
	}
	return rmdir(directory);
}

static int export(int argc, const char *const *arguments)
{
	char *argv[9] = {NULL};
	for (int i = 0; i < argc; i++)
		argv[i] = strcpy(malloc(strlen(arguments[i]) + 1), arguments[i]);
	int status = export_command(argc, argv);
	for (int i = 0; i < argc; i++)
		free(argv[i]);
	return status;
}

#define EXPORT(...) export((int)(sizeof((const char *[]){"export", __VA_ARGS__}) / sizeof(char *)), \
                           (const char *[]){"export", __VA_ARGS__})

static char *read_out(void)
{
	FILE *file = fopen(out, "rb");
	assert_non_null(file);
	char *text = calloc(1, 1 << 20);
	size_t n = fread(text, 1, (1 << 20) - 1, file);
	assert_true(n < (1 << 20) - 1);
	fclose(file);
	return text;
}

static void assert_floats(const json_t *array, const float *values, int32_t n)
{
	assert_int_equal(json_array_size(array), n);
	for (int32_t i = 0; i < n; i++) {
		const json_t *item = json_array_get(array, (size_t)i);
		assert_int_equal(json_is_null(item), !isfinite(values[i]));
		if (json_is_null(item))
			continue;
		float value = (float)json_number_value(item);
		assert_memory_equal(&value, &values[i], sizeof(value));
	}
}

static void assert_line(const json_t *line, const struct trajectory *made)
{
	assert_true((uint64_t)json_integer_value(json_object_get(line, "id")) == made->id);
	assert_string_equal(json_string_value(json_object_get(line, "prompt_id")), made->prompt_id);
	assert_same_text(json_string_value(json_object_get(line, "answer")), made->answer);
	assert_same_text(json_string_value(json_object_get(line, "error")), made->error);
	assert_true(json_is_object(json_object_get(line, "meta")) == (made->meta != NULL));
	assert_string_equal(json_string_value(json_object_get(line, "finish_reason")), finish_name(made->finish));
	assert_string_equal(json_string_value(json_object_get(line, "state")), "delivered");
	assert_true(strtoull(json_string_value(json_object_get(line, "seed")), NULL, 16) == made->seed);
	assert_int_equal(json_integer_value(json_object_get(line, "n_prompt")), made->n_prompt);
	assert_true(json_real_value(json_object_get(line, "reward")) == made->reward);
	assert_true(json_is_null(json_object_get(line, "advantage")) == !made->has_advantage);
	const json_t *tokens = json_object_get(line, "tokens");
	assert_int_equal(json_array_size(tokens), made->n_tokens);
	for (int32_t i = 0; i < made->n_tokens; i++)
		assert_int_equal(json_integer_value(json_array_get(tokens, (size_t)i)), made->tokens[i]);
	assert_floats(json_object_get(line, "logprobs"), made->logprobs, made->n_tokens);
	assert_int_equal(json_object_get(line, "target_logprobs") != NULL, made->target_logprobs != NULL);
	if (made->target_logprobs)
		assert_floats(json_object_get(line, "target_logprobs"), made->target_logprobs, made->n_tokens);
	assert_int_equal(json_array_size(json_object_get(line, "segments")), made->n_segments);
}

static void test_lines_hold_the_records(void **state)
{
	(void)state;
	assert_int_equal(EXPORT(runs[0], "--format", "jsonl", "--out", out), 0);
	char *text = read_out(), *rest = text;
	for (int i = 0; i < GROUPS * SAMPLES; i++) {
		struct trajectory *made = made_up_trajectory(1 + (uint64_t)(i / SAMPLES), i % SAMPLES);
		char *end = strchr(rest, '\n');
		assert_non_null(end);
		*end = '\0';
		json_error_t error;
		json_t *line = json_loads(rest, JSON_REJECT_DUPLICATES, &error);
		if (!line)
			fail_msg("line %d: %s: %s", i, error.text, rest);
		assert_line(line, made);
		json_decref(line);
		trajectory_free(made);
		rest = end + 1;
	}
	assert_string_equal(rest, "");
	free(text);
}

static void test_stable_leaves_out_circumstances(void **state)
{
	(void)state;
	char *texts[2][2];
	for (int run = 0; run < 2; run++) {
		assert_int_equal(EXPORT(runs[run], "--out", out), 0);
		texts[run][0] = read_out();
		assert_int_equal(EXPORT("--stable", "--out", out, runs[run]), 0);
		texts[run][1] = read_out();
	}
	assert_string_not_equal(texts[0][0], texts[1][0]);
	assert_string_equal(texts[0][1], texts[1][1]);
	assert_non_null(strstr(texts[0][0], "\"rank\":"));
	assert_null(strstr(texts[0][1], "\"rank\":"));
	for (int i = 0; i < 4; i++)
		free(texts[i / 2][i % 2]);
}

static void test_refusals(void **state)
{
	(void)state;
	assert_int_equal(EXPORT("--stable"), 2);
	assert_int_equal(EXPORT(runs[0], runs[1]), 2);
	assert_int_equal(EXPORT(runs[0], "--out"), 2);
	assert_int_equal(EXPORT(runs[0], "--format", "xml"), 2);
	assert_int_equal(EXPORT(runs[0], "--nonsense"), 2);
	assert_int_equal(EXPORT("/nonexistent"), 1);
	assert_int_equal(EXPORT(directory), 1);
	assert_int_equal(EXPORT(runs[0], "--out", "/nonexistent/x"), 1);
	if (access("/dev/full", W_OK) == 0)
		assert_int_equal(EXPORT(runs[0], "--out", "/dev/full"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines_hold_the_records),
		cmocka_unit_test(test_stable_leaves_out_circumstances),
		cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, make_runs, remove_runs);
}
