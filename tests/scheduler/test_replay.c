/* test_replay.c - `drumroll replay` on small recorded runs: what was recorded comes out equal in every mode, and each thing
 * that may be wrong in a record is found and named; what cannot be drawn again is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>
#include <jansson.h>

#include "scheduler/commands/commands.h"
#include "tests/scheduler/recorded_run.h"
#include "tests/support/model_dir.h"

static char run[MODEL_DIR_PATH_MAX];

static void make_run(const struct recorded_options *options)
{
	model_dir_make(run);
	recorded_run_make(run, options);
}

static void remove_run(void)
{
	char versions[MODEL_DIR_PATH_MAX + 16];

	snprintf(versions, sizeof versions, "%s/versions", run);
	model_dir_remove(versions);
	model_dir_remove(run);
}

/* What `drumroll replay run --json ...` writes, and its exit status. */
static json_t *replay_words(int *status, int n, const char *const *words)
{
	char *argv[32] = { xstrdup("replay"), xstrdup(run), xstrdup("--json"), xstrdup("--threads"), xstrdup("1") }, *owned[32];
	char out[MODEL_DIR_PATH_MAX + 16];
	int argc = 5;

	for (int i = 0; i < n; i++) argv[argc++] = xstrdup(words[i]);
	memcpy(owned, argv, sizeof owned);
	snprintf(out, sizeof out, "%s/out.json", run);
	fflush(stdout);
	int kept = dup(STDOUT_FILENO);
	assert_non_null(freopen(out, "w", stdout));
	*status = replay_command(argc, argv);
	fflush(stdout);
	dup2(kept, STDOUT_FILENO);
	close(kept);
	for (int i = 0; i < argc; i++) free(owned[i]);
	json_error_t error;
	json_t *json = json_load_file(out, 0, &error);
	unlink(out);
	return json;
}

#define REPLAY(status, ...) \
	replay_words(status, (int)(sizeof((const char *[]){ "", __VA_ARGS__ }) / sizeof(char *)) - 1, \
	             &((const char *[]){ "", __VA_ARGS__ })[1])

static int64_t number(const json_t *json, const char *key)
{
	const json_t *value = json_object_get(json, key);
	if (!json_is_integer(value)) fail_msg("no number %s", key);
	return json_integer_value(value);
}

static bool differs_in(const json_t *difference, const char *field)
{
	const json_t *item, *list = json_object_get(difference, "differs");
	size_t i;

	json_array_foreach(list, i, item) if (strcmp(json_string_value(item), field) == 0) return true;
	return false;
}

static void assert_all_equal(int status, json_t *json)
{
	if (!json || status || number(json, "different") > 0) {
		char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
		fail_msg("status %d, %s", status, text ? text : "nothing was written");
	}
	assert_int_equal(number(json, "trajectories"), RECORDED_GROUPS * RECORDED_SAMPLES);
	assert_int_equal(number(json, "equal"), RECORDED_GROUPS * RECORDED_SAMPLES - number(json, "empty") - number(json, "not_replayed"));
	assert_true(number(json, "equal") > 0 && number(json, "tokens_replayed") > 0);
	json_decref(json);
}

/* ---- everything equal ---- */

static void test_equal_in_every_mode(void **state)
{
	const struct recorded_options options = { .mode = ROLLOUT_SPECULATIVE, .versions_kept = 3 };
	int status;

	(void)state;
	make_run(&options);
	json_t *json = REPLAY(&status, "--mode", "recorded");
	assert_int_equal(number(json, "tokens"), number(json, "tokens_replayed"));
	assert_true(number(json, "checksums") > 0 && number(json, "rewards") > 0);
	assert_int_equal(number(json, "with_not_kept") + number(json, "with_kv_kept") + number(json, "with_maximal"), 0);
	assert_all_equal(status, json);
	json = REPLAY(&status, "--mode", "exact", "--max-active", "2");
	assert_all_equal(status, json);
	json = REPLAY(&status, "--mode", "speculative", "--drafter", "suffix", "--threads", "2");
	assert_all_equal(status, json);
	json = REPLAY(&status, "--draft-length", "7", "--drafter", "quant", "--kv-memory-mb", "1");
	assert_all_equal(status, json);
	remove_run();
}

static void test_quantized_is_drawn_by_the_copy(void **state)
{
	const struct recorded_options options = { .mode = ROLLOUT_QUANTIZED, .versions_kept = 3 };
	int status;

	(void)state;
	make_run(&options);
	json_t *json = REPLAY(&status, "--mode", "exact");
	assert_all_equal(status, json);
	remove_run();
}

/* What delivery decides, not drawing: the mask of tokens that lag too much, the advantage, the loss weight. */
static void test_what_is_not_drawn_is_the_records(void **state)
{
	const struct recorded_options options = { .mode = ROLLOUT_EXACT, .versions_kept = 3 };
	int status;

	(void)state;
	make_run(&options);
	struct trajectory *t = recorded_get(run, trajectory_id(2, 1));
	assert_true(t->n_segments > 0);
	t->loss_mask[t->n_prompt] = 0;
	t->loss_weight = 0;
	t->has_advantage = true;
	t->advantage = -1.5f;
	t->pivot = true;
	recorded_replace(run, t);
	trajectory_free(t);
	json_t *json = REPLAY(&status, "--mode", "speculative");
	assert_all_equal(status, json);
	remove_run();
}

/* ---- what cannot be drawn again ---- */

static void test_versions_not_kept_are_counted(void **state)
{
	const struct recorded_options options = { .mode = ROLLOUT_EXACT, .versions_kept = 1 };
	int status;

	(void)state;
	make_run(&options);
	json_t *json = REPLAY(&status, "--mode", "speculative");
	const json_t *not_kept = json_object_get(json, "not_kept");
	assert_int_equal(json_object_size(not_kept), 1); /* 0 is the model's, 2 the newest */
	assert_true(number(not_kept, "1") > 0 && number(not_kept, "1") == number(json, "tokens_not_kept"));
	assert_int_equal(number(json, "tokens"), number(json, "tokens_replayed") + number(json, "tokens_not_kept"));
	assert_true(number(json, "with_not_kept") > 0 && number(json, "replayed_partly") > 0);
	assert_all_equal(status, json);
	remove_run();
}

static void test_kept_keys_are_told_apart(void **state)
{
	const struct recorded_options options = { .mode = ROLLOUT_EXACT, .keep_kv = true, .versions_kept = 3 };
	int status;

	(void)state;
	make_run(&options);
	json_t *json = REPLAY(&status, "--mode", "recorded");
	assert_true(number(json, "tokens_kv_kept") > 0 && number(json, "with_kv_kept") > 0);
	assert_int_equal(number(json, "tokens"), number(json, "tokens_replayed") + number(json, "tokens_kv_kept"));
	assert_all_equal(status, json);
	remove_run();
}

static void test_maximal_coupling_is_told_apart(void **state)
{
	const struct recorded_options options = { .mode = ROLLOUT_SPECULATIVE, .maximal = true, .versions_kept = 3 };
	int status;

	(void)state;
	make_run(&options);
	json_t *json = REPLAY(&status, "--mode", "recorded");
	assert_int_equal(status, 1); /* nothing was compared, which is no success */
	assert_int_equal(number(json, "tokens_maximal"), number(json, "tokens"));
	assert_int_equal(number(json, "equal") + number(json, "different"), 0);
	json_decref(json);
	remove_run();
}

/* ---- what is wrong in a record is found ---- */

struct damage {
	const char *field;     /* what must be named */
	bool at_a_token;
	void (*apply)(struct trajectory *t, int32_t at);
};

static void flip_token(struct trajectory *t, int32_t at) { t->tokens[at] ^= 1; }

/* The last bit. */
static void flip_float(float *value)
{
	uint32_t bits;
	memcpy(&bits, value, sizeof bits);
	bits ^= 1;
	memcpy(value, &bits, sizeof bits);
}

static void flip_logprob(struct trajectory *t, int32_t at) { flip_float(&t->logprobs[at]); }
static void flip_target(struct trajectory *t, int32_t at) { flip_float(&t->target_logprobs[at]); }

static void change_version(struct trajectory *t, int32_t at) { t->versions[at]++; }
static void shorten_segment(struct trajectory *t, int32_t at) { (void)at; t->segments[0].length--; }
static void change_reward(struct trajectory *t, int32_t at) { (void)at; t->reward += 1e-12; }
static void change_seed(struct trajectory *t, int32_t at) { (void)at; t->epoch++; }
static void change_finish(struct trajectory *t, int32_t at) { (void)at; t->finish = t->finish == FINISH_STOP ? FINISH_LENGTH : FINISH_STOP; }
static void cut_off(struct trajectory *t, int32_t at)
{
	t->n_tokens--;
	t->segments[t->n_segments - 1].length--;
	if (t->segments[t->n_segments - 1].length == 0) t->n_segments--;
	(void)at;
}

/* The first trajectory that has ended, with a token of its own at every place that is changed. */
static struct trajectory *find_ended(int min_segments)
{
	for (uint64_t g = 1; g <= RECORDED_GROUPS; g++)
		for (int i = 0; i < RECORDED_SAMPLES; i++) {
			struct trajectory *t = recorded_get(run, trajectory_id(g, i));
			if (t->finish != FINISH_NONE && t->n_segments >= min_segments && trajectory_response_length(t) > 4) return t;
			trajectory_free(t);
		}
	fail_msg("no trajectory has ended in %d segments", min_segments);
	return NULL;
}

static void assert_found(const struct damage *damage, int min_segments)
{
	struct trajectory *t = find_ended(min_segments), *changed = trajectory_copy(t);
	int32_t at = t->n_tokens - 2;
	int status;

	damage->apply(changed, at);
	recorded_replace(run, changed);
	json_t *json = REPLAY(&status, "--mode", "recorded");
	assert_non_null(json);
	assert_int_equal(status, 1);
	assert_int_equal(number(json, "different"), 1);
	const json_t *difference = json_array_get(json_object_get(json, "differences"), 0);
	assert_true((uint64_t)number(difference, "trajectory") == t->id);
	if (!differs_in(difference, damage->field)) {
		char *text = json_dumps(difference, JSON_INDENT(2));
		fail_msg("expected %s, found %s", damage->field, text);
	}
	if (damage->at_a_token) {
		const json_t *recorded = json_object_get(difference, "recorded"), *replayed = json_object_get(difference, "replayed");
		assert_int_equal(number(difference, "position"), at);
		assert_int_equal(number(recorded, "token"), changed->tokens[at]);
		assert_int_equal(number(replayed, "token"), t->tokens[at]);
		float found = (float)json_real_value(json_object_get(replayed, "logprob"));
		assert_memory_equal(&found, &t->logprobs[at], sizeof found);
		assert_int_equal(number(json_object_get(difference, "segment"), "version"), t->versions[at]);
		assert_true(json_string_length(json_object_get(difference, "prompt")) > 0);
	}
	json_decref(json);
	recorded_replace(run, t);
	trajectory_free(t);
	trajectory_free(changed);
}

static void test_every_difference_is_found(void **state)
{
	static const struct recorded_options options = { .mode = ROLLOUT_EXACT, .versions_kept = 3 };
	static const struct damage damages[] = {
		{ "tokens", true, flip_token }, { "logprobs", true, flip_logprob }, { "segments", false, change_version },
		{ "segments", false, shorten_segment }, { "reward", false, change_reward }, { "seed", false, change_seed },
		{ "finish_reason", false, change_finish }, { "finish_reason", false, cut_off } };
	int status;

	(void)state;
	make_run(&options);
	for (size_t i = 0; i < sizeof damages / sizeof *damages; i++)
		for (int segments = 1; segments <= 2; segments++) assert_found(&damages[i], segments);
	json_t *json = REPLAY(&status, "--mode", "recorded"); /* all were taken back */
	assert_all_equal(status, json);
	remove_run();
}

static void test_target_logprobs_are_compared(void **state)
{
	static const struct recorded_options options = { .mode = ROLLOUT_QUANTIZED, .versions_kept = 3 };
	static const struct damage damage = { "target_logprobs", true, flip_target };

	(void)state;
	make_run(&options);
	assert_found(&damage, 1);
	assert_found(&damage, 2);
	remove_run();
}

/* A bit of the file itself: the record's own checksum gives it away, and the others are compared all the same. */
static void test_damaged_record_is_a_difference(void **state)
{
	static const struct recorded_options options = { .mode = ROLLOUT_EXACT, .versions_kept = 3 };
	char path[MODEL_DIR_PATH_MAX + 32], *bytes;
	size_t n;
	int status;

	(void)state;
	make_run(&options);
	struct trajectory *t = find_ended(1);
	snprintf(path, sizeof path, "%s/drumroll.db", run);
	FILE *file = fopen(path, "r+b");
	assert_non_null(file);
	bytes = malloc(1 << 24);
	n = fread(bytes, 1, 1 << 24, file);
	size_t length = (size_t)t->n_tokens * sizeof *t->logprobs, at = 0;
	while (at + length <= n && memcmp(bytes + at, t->logprobs, length) != 0) at++;
	assert_true(at + length <= n);
	fseek(file, (long)(at + length - 1), SEEK_SET);
	fputc(bytes[at + length - 1] ^ 1, file);
	fclose(file);
	json_t *json = REPLAY(&status, "--mode", "exact");
	assert_int_equal(status, 1);
	assert_int_equal(number(json, "different"), 1);
	const json_t *difference = json_array_get(json_object_get(json, "differences"), 0);
	assert_true((uint64_t)number(difference, "trajectory") == t->id && differs_in(difference, "record"));
	assert_non_null(strstr(json_string_value(json_object_get(difference, "note")), "checksum"));
	assert_true(number(json, "equal") > 5);
	json_decref(json);
	free(bytes);
	trajectory_free(t);
	remove_run();
}

/* ---- selection and refusals ---- */

static void test_selection(void **state)
{
	static const struct recorded_options options = { .mode = ROLLOUT_EXACT, .versions_kept = 3 };
	int status;

	(void)state;
	make_run(&options);
	json_t *all = REPLAY(&status, "--steps", "1-"), *some;
	assert_int_equal(number(all, "trajectories"), 9); /* of the delivered groups 2, 4, 6 */
	json_decref(all);
	some = REPLAY(&status, "--steps", "2");
	assert_int_equal(number(some, "trajectories"), 6);
	json_decref(some);
	some = REPLAY(&status, "--sample", "5", "--seed", "3");
	assert_int_equal(number(some, "trajectories"), 5);
	json_decref(some);
	some = REPLAY(&status, "--ids", "8193,4096,8193");
	assert_int_equal(number(some, "trajectories"), 2);
	json_decref(some);
	static const struct { const char *option, *value; int status; } refused[] = {
		{ "--ids", "8193,1", 1 }, { "--steps", "3-", 1 }, { "--steps", "2-1", 2 }, { "--steps", "x", 2 }, { "--ids", "4096,", 0 },
		{ "--ids", "a", 2 }, { "--mode", "quantized", 2 }, { "--model", "/nonexistent", 2 }, { "--set", "no.key=1", 2 } };
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		json_decref(REPLAY(&status, refused[i].option, refused[i].value));
		if (status != refused[i].status) fail_msg("%s %s: status %d", refused[i].option, refused[i].value, status);
	}
	remove_run();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_in_every_mode),
		cmocka_unit_test(test_quantized_is_drawn_by_the_copy),
		cmocka_unit_test(test_what_is_not_drawn_is_the_records),
		cmocka_unit_test(test_versions_not_kept_are_counted),
		cmocka_unit_test(test_kept_keys_are_told_apart),
		cmocka_unit_test(test_maximal_coupling_is_told_apart),
		cmocka_unit_test(test_every_difference_is_found),
		cmocka_unit_test(test_target_logprobs_are_compared),
		cmocka_unit_test(test_damaged_record_is_a_difference),
		cmocka_unit_test(test_selection),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
