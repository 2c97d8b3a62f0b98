/* test_export_formats.c - `drumroll export --format csv|npz`: every number and text comes back; steps and limits; what
 * --stable must not hide; archives with 64-bit sizes. */
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

#include "scheduler/commands/commands.h"
#include "scheduler/export/export_columns.h"
#include "scheduler/export/zip_file.h"
#include "scheduler/store/step_range.h"
#include "scheduler/store/store.h"
#include "tests/scheduler/made_up_trajectory.h"

enum { GROUPS = 8, SAMPLES = 3, N = GROUPS * SAMPLES };

static char directory[] = "/tmp/drumroll_test_formats_XXXXXX";
static char run[64], out[64];

static void must(int code, const struct err *err)
{
	if (code) fail_msg("%s", err->text);
}

/* Some with kept keys and values, some with a text beyond ASCII as their prompt's id. */
static struct trajectory *make(int i)
{
	struct trajectory *t = made_up_trajectory(1 + (uint64_t)(i / SAMPLES), i % SAMPLES);

	if (i % 4 == 1)
		for (int s = 0; s < t->n_segments; s++) t->segments[s].mode |= s % 2 ? SEGMENT_KV_KEPT : 0;
	if (t->group_id % 4 == 2) {
		free(t->prompt_id);
		t->prompt_id = made_up_text("\xe5\x95\x8f \xf0\x9f\xa5\x81,\xc3\xa9");
	}
	return t;
}

static int make_run(void **state)
{
	struct err err = { 0 };
	struct store *store;

	(void)state;
	if (!mkdtemp(directory)) return -1;
	snprintf(out, sizeof out, "%s/out", directory);
	snprintf(run, sizeof run, "%s/run", directory);
	if (mkdir(run, 0755)) return -1;
	must(store_open(&store, run, "r", "", &err), &err);
	for (int i = 0; i < N; i++) {
		struct trajectory *t = make(i);
		if (t->sample == 0) must(store_put_group(store, t->group_id, t->prompt_id, t->epoch, SAMPLES, t->eval, 0, &err), &err);
		must(store_put_trajectory(store, t, STORE_DELIVERED, &err), &err);
		must(store_group_state(store, t->group_id, t->group_id == 8 ? STORE_DROPPED : STORE_DELIVERED, (int64_t)t->group_id / 2, &err), &err);
		trajectory_free(t);
	}
	must(store_close(store, &err), &err);
	return 0;
}

static int remove_run(void **state)
{
	char path[256];

	(void)state;
	unlink(out);
	snprintf(path, sizeof path, "%s/drumroll.db", run);
	unlink(path);
	snprintf(path, sizeof path, "%s/drumroll.lock", run);
	unlink(path);
	rmdir(run);
	return rmdir(directory);
}

/* What the command writes; owned by the caller. */
static char *export(size_t *n_bytes, int n, const char *const *words)
{
	char *argv[16] = { xstrdup("export"), xstrdup(run), xstrdup("--out"), xstrdup(out) };
	int argc = 4;

	for (int i = 0; i < n; i++) argv[argc++] = xstrdup(words[i]);
	assert_int_equal(export_command(argc, argv), 0);
	for (int i = 0; i < argc; i++) free(argv[i]);
	FILE *file = fopen(out, "rb");
	assert_non_null(file);
	char *bytes = calloc(1, 1 << 20);
	*n_bytes = fread(bytes, 1, (1 << 20) - 1, file);
	fclose(file);
	return bytes;
}

#define EXPORT(n_bytes, ...) \
	export(n_bytes, (int)(sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *)), (const char *[]){ __VA_ARGS__ })

/* ---- CSV ---- */

/* The next field, unquoted in place; *at moves behind it and what ends it, which is returned. */
static char *next_field(char **at, char *end)
{
	char *field = *at, *to = *at, *from = *at;

	if (*from == '"')
		for (from++; *from && (*from != '"' || from[1] == '"'); from++) {
			if (*from == '"') from++;
			*to++ = *from;
		}
	else while (*from && *from != ',' && *from != '\n') *to++ = *from++;
	if (*from == '"') from++;
	*end = *from;
	*at = from + 1;
	*to = '\0';
	return field;
}

static void assert_field(const char *field, enum export_column c, const struct export_row *row)
{
	struct column_value v = export_column_value(c, row);

	switch (export_columns[c].kind) {
	case COLUMN_U64: assert_true(strtoull(field, NULL, c == EXPORT_COLUMN_seed ? 16 : 10) == v.u); break;
	case COLUMN_I64:
	case COLUMN_I32:
	case COLUMN_BOOL: assert_true(strtoll(field, NULL, 10) == v.i); break;
	case COLUMN_F32:
	case COLUMN_F64: {
		double found = *field ? strtod(field, NULL) : (double)NAN, same = export_columns[c].kind == COLUMN_F32 ? (double)(float)found : found;
		if (isnan(v.r) ? *field : memcmp(&same, &v.r, sizeof same) != 0) fail_msg("%s: expected %.17g, found %s", export_columns[c].name, v.r, field);
		break;
	}
	case COLUMN_WORD:
	case COLUMN_TEXT: assert_string_equal(field, v.text ? v.text : ""); break;
	}
}

static void test_csv_holds_every_column(void **state)
{
	size_t n_bytes;
	char *text = EXPORT(&n_bytes, "--format", "csv"), *at = text, end = 0;

	(void)state;
	for (int c = 0; c < EXPORT_COLUMNS; c++) assert_string_equal(next_field(&at, &end), export_columns[c].name);
	assert_int_equal(end, '\n');
	for (int i = 0; i < N; i++) {
		struct trajectory *t = make(i);
		struct export_row row = { .t = t, .state = t->group_id == 8 ? STORE_DROPPED : STORE_DELIVERED, .step = (int64_t)t->group_id / 2 };
		for (int c = 0; c < EXPORT_COLUMNS; c++) {
			assert_field(next_field(&at, &end), (enum export_column)c, &row);
			assert_int_equal(end, c + 1 < EXPORT_COLUMNS ? ',' : '\n');
		}
		trajectory_free(t);
	}
	assert_true(at == text + n_bytes);
	free(text);
}

static int count_lines(const char *text)
{
	int n = 0;
	for (; (text = strchr(text, '\n')); text++) n++;
	return n;
}

static void test_steps_limit_delivered(void **state)
{
	size_t n_bytes;
	static const struct { const char *option, *value; int lines; } cases[] = {
		{ "--steps", "1", 2 * SAMPLES }, { "--steps", "0-1", 3 * SAMPLES }, { "--steps", "-0", SAMPLES }, { "--steps", "3-", 3 * SAMPLES },
		{ "--limit", "5", 5 }, { "--delivered", "--stable", (GROUPS - 1) * SAMPLES } };

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *text = EXPORT(&n_bytes, cases[i].option, cases[i].value);
		if (count_lines(text) != cases[i].lines) fail_msg("%s %s: %d lines", cases[i].option, cases[i].value, count_lines(text));
		free(text);
	}
}

static void test_step_ranges(void **state)
{
	static const struct { const char *text; int64_t first, last; } good[] = {
		{ NULL, -1, INT64_MAX }, { "7", 7, 7 }, { "2-9", 2, 9 }, { "4-", 4, INT64_MAX }, { "-5", 0, 5 }, { "0-0", 0, 0 } };
	static const char *const bad[] = { "", "-", "x", "3x", "9-2", "1-2-3", "--3", "99999999999999999999", " 1" };
	struct step_range range;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_int_equal(step_range_parse(&range, good[i].text, &err), 0);
		assert_true(range.first == good[i].first && range.last == good[i].last);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (step_range_parse(&range, bad[i], &err) != ERR_USAGE) fail_msg("'%s' was taken", bad[i]);
}

/* --stable leaves out ranks and modes, but not that the record is not enough to draw the tokens again. */
static void test_stable_says_what_was_kept(void **state)
{
	size_t n_bytes;
	char *stable = EXPORT(&n_bytes, "--stable"), *line = stable;

	(void)state;
	for (int i = 0; i < N; i++) {
		struct trajectory *t = make(i);
		bool kept = i % 4 == 1 && t->n_segments > 1;
		char *end = strchr(line, '\n');
		assert_non_null(end);
		*end = '\0';
		assert_int_equal(strstr(line, "\"kv_kept\":true") != NULL, kept);
		assert_null(strstr(line, "\"rank\""));
		line = end + 1;
		trajectory_free(t);
	}
	free(stable);
}

/* ---- NumPy archives ---- */

static uint64_t little(const char *at, int n)
{
	uint64_t value = 0;
	for (int i = n; i > 0; i--) value = value << 8 | (unsigned char)at[i - 1];
	return value;
}

/* The data of a stored member, and how many items of which type; NULL: it is not there. */
static const char *find_array(const char *zip, const char *name, const char *descr, uint64_t *n)
{
	char file[64], expected[64];

	snprintf(file, sizeof file, "%s.npy", name);
	while (little(zip, 4) == 0x04034b50) {
		uint64_t n_bytes = little(zip + 18, 4), n_name = little(zip + 26, 2), n_extra = little(zip + 28, 2);
		const char *body = zip + 30 + n_name + n_extra;
		if (zip_crc(0, body, n_bytes) != little(zip + 14, 4)) fail_msg("the checksum of %.*s is wrong", (int)n_name, zip + 30);
		if (n_name == strlen(file) && memcmp(zip + 30, file, n_name) == 0) {
			uint64_t n_header = 10 + little(body + 8, 2);
			assert_memory_equal(body, "\x93NUMPY\x01\x00", 8);
			assert_int_equal(n_header % 64, 0);
			snprintf(expected, sizeof expected, "{'descr': '%s", descr);
			assert_memory_equal(body + 10, expected, strlen(expected));
			*n = strtoull(strstr(body + 10, "'shape': (") + 10, NULL, 10);
			return body + n_header;
		}
		zip = body + n_bytes;
	}
	return NULL;
}

static void test_npz_holds_the_records(void **state)
{
	size_t n_bytes;
	uint64_t n, n_tokens, n_segments;
	char *zip = EXPORT(&n_bytes, "--format", "npz");

	(void)state;
	const char *ids = find_array(zip, "id", "<u8", &n), *offsets = find_array(zip, "offsets", "<i8", &n);
	assert_int_equal(n, N + 1);
	const char *tokens = find_array(zip, "tokens", "<i4", &n_tokens), *logprobs = find_array(zip, "logprobs", "<f4", &n);
	assert_int_equal(n, n_tokens);
	const char *targets = find_array(zip, "target_logprobs", "<f4", &n), *masks = find_array(zip, "loss_mask", "|u1", &n);
	const char *starts = find_array(zip, "segment_start", "<i4", &n_segments), *modes = find_array(zip, "segment_mode", "<i4", &n);
	const char *segments = find_array(zip, "segment_offsets", "<i8", &n), *answers = find_array(zip, "answer", "|u1", &n);
	const char *answer_offsets = find_array(zip, "answer_offsets", "<i8", &n), *rewards = find_array(zip, "reward", "<f8", &n);
	const char *advantages = find_array(zip, "advantage", "<f4", &n);
	assert_int_equal(n, N);
	for (int i = 0; i < N; i++) {
		struct trajectory *t = make(i);
		uint64_t at = little(offsets + 8 * i, 8), length = little(offsets + 8 * (i + 1), 8) - at;
		uint64_t s = little(segments + 8 * i, 8), a = little(answer_offsets + 8 * i, 8), n_answer = t->answer ? strlen(t->answer) : 0;
		assert_true(little(ids + 8 * i, 8) == t->id);
		assert_int_equal(length, t->n_tokens);
		assert_memory_equal(tokens + 4 * at, t->tokens, 4 * length);
		assert_memory_equal(logprobs + 4 * at, t->logprobs, 4 * length);
		assert_memory_equal(masks + at, t->loss_mask, length);
		for (uint64_t k = 0; k < length; k++) {
			float target;
			memcpy(&target, targets + 4 * (at + k), sizeof target);
			if (!t->target_logprobs) assert_true(isnan(target));
			else assert_memory_equal(&target, &t->target_logprobs[k], sizeof target);
		}
		assert_int_equal(little(segments + 8 * (i + 1), 8) - s, t->n_segments);
		for (int k = 0; k < t->n_segments; k++) {
			assert_int_equal(little(starts + 4 * (s + (uint64_t)k), 4), t->segments[k].start);
			assert_int_equal(little(modes + 4 * (s + (uint64_t)k), 4), t->segments[k].mode);
		}
		assert_int_equal(little(answer_offsets + 8 * (i + 1), 8) - a, n_answer);
		if (n_answer) assert_memory_equal(answers + a, t->answer, n_answer);
		assert_memory_equal(rewards + 8 * i, &t->reward, 8);
		if (t->has_advantage) assert_memory_equal(advantages + 4 * i, &t->advantage, 4);
		trajectory_free(t);
	}
	assert_int_equal(little(offsets + 8 * N, 8), n_tokens);
	assert_int_equal(little(segments + 8 * N, 8), n_segments);
	free(zip);
}

static void test_npz_texts_are_utf32(void **state)
{
	static const uint32_t expected[] = { 0x554f, ' ', 0x1f941, ',', 0xe9 }; /* the longest id */
	size_t n_bytes;
	uint64_t n;
	char *zip = EXPORT(&n_bytes, "--format", "npz", "--stable");

	(void)state;
	const char *ids = find_array(zip, "prompt_id", "<U5'", &n);
	assert_int_equal(n, N);
	assert_memory_equal(ids + (size_t)SAMPLES * sizeof expected, expected, sizeof expected);
	assert_memory_equal(ids, "p\0\0\0-\0\0\0" "1\0\0\0\0\0\0\0\0\0\0\0", sizeof expected);
	assert_null(find_array(zip, "segment_rank", "<i4", &n));
	assert_null(find_array(zip, "decode_seconds", "<f8", &n));
	free(zip);
}

/* Python's reader, of an archive in which every size and offset from 10 bytes on is 64 bits wide. */
static void test_zip64(void **state)
{
	static const char *const bodies[] = { "short", "a member of more than ten bytes", "" };
	char command[512];
	FILE *file = fopen(out, "wb");
	struct zip_file *zip = zip_file_open(file, 10);

	(void)state;
	assert_non_null(file);
	assert_int_equal(zip_crc(0, "123456789", 9), 0xcbf43926); /* the check value of CRC-32/ISO-HDLC */
	assert_int_equal(zip_crc(zip_crc(0, "1234", 4), "56789", 5), 0xcbf43926);
	for (int i = 0; i < 3; i++) {
		char name[24];
		snprintf(name, sizeof name, "member-%d", i);
		zip_file_member(zip, name, strlen(bodies[i]), zip_crc(0, bodies[i], strlen(bodies[i])));
		fputs(bodies[i], file);
	}
	zip_file_end(zip);
	assert_int_equal(fclose(file), 0);
	snprintf(command, sizeof command, "python3 -c \"import zipfile; z = zipfile.ZipFile('%s'); assert z.testzip() is None; "
	         "assert [z.read(n).decode() for n in ('member-0', 'member-1', 'member-2')] == ['%s', '%s', '']; "
	         "assert z.infolist()[1].extra[:2] == b'\\\\x01\\\\x00'\"", out, bodies[0], bodies[1]);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_csv_holds_every_column),
		cmocka_unit_test(test_steps_limit_delivered),
		cmocka_unit_test(test_step_ranges),
		cmocka_unit_test(test_stable_says_what_was_kept),
		cmocka_unit_test(test_npz_holds_the_records),
		cmocka_unit_test(test_npz_texts_are_utf32),
		cmocka_unit_test(test_zip64),
	};
	return cmocka_run_group_tests(tests, make_run, remove_run);
}
