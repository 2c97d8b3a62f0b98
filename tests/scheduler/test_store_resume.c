/* test_store_resume.c - what a run needs to go on comes out of drumroll.db as of the last commit: groups, samples in
 * flight, batches without acknowledgement, metrics; older schemas are brought up to date. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>
#include <sqlite3.h>

#include "configs/config.h"
#include "scheduler/store/store_read.h"
#include "tests/scheduler/made_up_trajectory.h"
#include "tests/support/model_dir.h"

static char dir[MODEL_DIR_PATH_MAX];

static int make_dir(void **state)
{
	(void)state;
	model_dir_make(dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	model_dir_remove(dir);
	return 0;
}

#define well(call) \
	do { \
		struct err well_err = {0}; \
		if ((call) != 0) \
			fail_msg("%s: %s", #call, well_err.text); \
	} while (0)

static struct store *opened(void)
{
	struct store *store = NULL;
	well(store_open(&store, dir, "run-7", "run: {}", &well_err));
	return store;
}

static struct store *resumed(struct store_progress *progress)
{
	struct store *store = NULL;
	well(store_resume(&store, dir, &well_err));
	well(store_read_progress(store, progress, &well_err));
	return store;
}

/* Group and samples of training; finish NONE for those in flight. */
static struct trajectory *sample(uint64_t group, int k, enum finish_reason finish)
{
	struct trajectory *t = made_up_trajectory(group, k);
	t->eval = false;
	t->finish = finish;
	free(t->error);
	t->error = NULL;
	t->max_tokens = 100;
	return t;
}

static void put(struct store *store, struct trajectory *t, enum store_state state)
{
	well(store_put_trajectory(store, t, state, &well_err));
	trajectory_free(t);
}

/* `n` more tokens in flight, to the trajectory and to the store. */
static void grow(struct store *store, struct trajectory *t, int n, int32_t version)
{
	struct segment segment = { .start = t->n_tokens, .length = n, .version = version, .rank = 2, .mode = 1 };
	for (int i = 0; i < n; i++) trajectory_append(t, 7 * i, -0.25f * (float)i, version, 2, 1);
	well(store_put_increment(store, t->id, &segment, t->tokens + segment.start, t->logprobs + segment.start, &well_err));
}

struct seen {
	uint64_t ids[16];
	int n, n_lines;
	struct stored_group groups[16];
};

static int see_group(void *context, const struct stored_group *group, struct err *err)
{
	struct seen *seen = context;
	(void)err;
	seen->groups[seen->n] = *group;
	seen->ids[seen->n++] = group->id;
	return 0;
}

static int see_batch(void *context, const struct stored_batch *batch, struct err *err)
{
	struct seen *seen = context;
	(void)err;
	assert_int_equal(batch->step, batch->id);
	for (int i = 0; i < batch->n; i++) seen->ids[seen->n++] = batch->trajectories[i]->id;
	return 0;
}

static int see_line(void *context, const char *json, struct err *err)
{
	struct seen *seen = context;
	(void)err;
	assert_int_equal(json[8], '1' + seen->n_lines++);
	return 0;
}

static void test_a_fresh_run(void **state)
{
	(void)state;
	struct store_progress p;
	well(store_close(opened(), &well_err));
	struct store *store = resumed(&p);
	assert_string_equal(p.run_id, "run-7");
	assert_true(p.step == 0 && p.batch_out == 0 && p.version == 0 && p.kept == 0 && p.next_group == 1 && p.next_ordinal == 0);
	assert_int_equal(p.evaluated, -1);
	well(store_close(store, &well_err));
}

static void test_what_there_is_comes_back(void **state)
{
	(void)state;
	struct store_progress p;
	struct seen seen = {0};
	struct store *store = opened();
	/* 1: delivered and acknowledged, 2: delivered, 3: dropped, 4: an evaluation's, 5: kept, 6: in flight, 7: fresh, 8: given up */
	for (uint64_t g = 1; g <= 8; g++) well(store_put_group(store, g, "p", 2, 3, g == 4, g + 10, &well_err));
	for (uint64_t g = 1; g <= 5; g++)
		for (int k = 2; k >= 0; k--) put(store, sample(g, k, FINISH_STOP), STORE_DONE);
	well(store_group_state(store, 1, STORE_DELIVERED, 1, &well_err));
	well(store_group_state(store, 2, STORE_DELIVERED, 2, &well_err));
	well(store_group_state(store, 3, STORE_DROPPED, 3, &well_err));
	well(store_group_state(store, 5, STORE_DONE, 3, &well_err));
	well(store_group_state(store, 8, STORE_DROPPED, STORE_NO_STEP, &well_err));
	for (int step = 1; step <= 2; step++) {
		char line[] = "{\"step\":X}";
		line[8] = (char)('0' + step);
		well(store_put_delivery(store, (uint64_t)step, step, 4, 3, line, &well_err));
		if (step == 1) well(store_put_metrics(store, step, line, &well_err));
	}
	well(store_ack_delivery(store, 1, &well_err));
	well(store_put_version(store, 4, 1, 0xfedcba9876543210u, 100, &well_err));
	well(store_version_kept(store, 4, &well_err));
	well(store_put_version(store, 5, 2, 5, 100, &well_err));
	well(store_put_number(store, STATE_BATCH_OUT, 2, &well_err));
	well(store_put_number(store, STATE_EVALUATED, 2, &well_err));
	well(store_put_number(store, STATE_LINE, 1, &well_err));
	struct trajectory *flying = sample(6, 1, FINISH_NONE), *fresh = sample(6, 2, FINISH_NONE);
	well(store_put_trajectory(store, flying, STORE_PARTIAL, &well_err));
	fresh->n_tokens = fresh->n_prompt;
	fresh->n_segments = 0;
	struct trajectory *base = trajectory_copy(fresh);
	grow(store, flying, 3, 4);
	grow(store, flying, 2, 5);
	grow(store, fresh, 4, 5);
	well(store_close(store, &well_err));

	store = resumed(&p);
	assert_true(p.step == 2 && p.batch_out == 2 && p.evaluated == 2 && p.line == 1 && p.version == 5 && p.kept == 4);
	assert_true(p.kept_xxh3 == 0xfedcba9876543210u && p.next_group == 9 && p.next_ordinal == 19);
	assert_true(p.dropped == 1 && p.n_unacknowledged == 1 && p.committed_ms > 1600000000000);
	well(store_drop_unresumed(store, &well_err));
	well(store_each_open_group(store, see_group, &seen, &well_err));
	assert_int_equal(seen.n, 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(seen.ids[i], 5 + i);
		assert_int_equal(seen.groups[i].ordinal, 15 + i);
		assert_true(seen.groups[i].kept == (i == 0) && seen.groups[i].epoch == 2 && seen.groups[i].n_samples == 3);
	}
	struct trajectory *samples[3];
	well(store_get_group(store, 6, samples, 3, &well_err));
	assert_true(!samples[0] && samples[1] && !samples[2]);
	well(store_add_increments(store, samples[1], &well_err));
	assert_same_trajectory(samples[1], flying);
	well(store_add_increments(store, base, &well_err));
	assert_same_trajectory(base, fresh);
	trajectory_free(samples[1]);
	seen.n = 0;
	well(store_each_unacknowledged(store, see_batch, &seen, &well_err));
	assert_int_equal(seen.n, 3);
	for (int i = 0; i < 3; i++) assert_int_equal(seen.ids[i], trajectory_id(2, i));
	well(store_each_metrics(store, see_line, &seen, &well_err));
	assert_int_equal(seen.n_lines, 1);
	char *line;
	well(store_get_delivery_metrics(store, 2, &line, &well_err));
	assert_string_equal(line, "{\"step\":2}");
	free(line);
	/* Once a trajectory is put, what it got before is void: of one that had a row and one that had none, twice. */
	struct trajectory *both[] = { flying, fresh };
	for (int i = 0; i < 4; i++) {
		struct trajectory *t = both[i % 2];
		if (i >= 2) grow(store, t, 2, 6);
		well(store_put_trajectory(store, t, STORE_PARTIAL, &well_err));
		int before = t->n_tokens;
		well(store_add_increments(store, t, &well_err));
		assert_int_equal(t->n_tokens, before);
	}
	well(store_close(store, &well_err));
	trajectory_free(flying);
	trajectory_free(fresh);
	trajectory_free(base);
}

/* A process that dies: what was flushed is there, what came after is not. */
static void test_after_a_kill(void **state)
{
	(void)state;
	struct store_progress p;
	pid_t child = fork();
	if (child == 0) {
		struct err err;
		struct store *store;
		if (store_open(&store, dir, "run-7", "", &err)) _exit(1);
		struct trajectory *t = sample(1, 0, FINISH_NONE);
		t->n_tokens = t->n_prompt;
		t->n_segments = 0;
		if (store_put_group(store, 1, "p", 0, 3, false, 0, &err)) _exit(1);
		grow(store, t, 5, 0);
		if (store_flush(store, &err)) _exit(1);
		grow(store, t, 5, 0);
		if (store_put_group(store, 2, "p", 0, 3, false, 1, &err)) _exit(1);
		_exit(9);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(WEXITSTATUS(status), 9);
	struct store *store = resumed(&p);
	assert_int_equal(p.next_group, 2);
	struct trajectory *t = sample(1, 0, FINISH_NONE);
	t->n_tokens = t->n_prompt;
	t->n_segments = 0;
	well(store_add_increments(store, t, &well_err));
	assert_int_equal(trajectory_response_length(t), 5);
	trajectory_free(t);
	well(store_close(store, &well_err));
}

static void change(const char *sql)
{
	char path[MODEL_DIR_PATH_MAX + 32];
	sqlite3 *db;
	snprintf(path, sizeof path, "%s/drumroll.db", dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

static void test_damage_is_named(void **state)
{
	(void)state;
	struct store_progress p;
	struct err err = {0};
	struct seen seen = {0};
	static const char *const damages[] = {
		"UPDATE increments SET tokens = x'00000000'", "UPDATE increments SET logprobs = zeroblob(20)",
		"UPDATE increments SET start = start + 1", "UPDATE increments SET version = 3",
		"UPDATE increments SET tokens = zeroblob(500), logprobs = zeroblob(500)" };
	for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
		struct store *store = opened();
		struct trajectory *t = sample(1, 0, FINISH_NONE);
		well(store_put_trajectory(store, t, STORE_PARTIAL, &well_err));
		struct trajectory *base = trajectory_copy(t);
		grow(store, t, 5, 0);
		well(store_close(store, &well_err));
		change(damages[i]);
		store = resumed(&p);
		assert_int_equal(store_add_increments(store, base, &err), ERR_INVALID);
		assert_non_null(strstr(err.text, "damaged"));
		well(store_close(store, &well_err));
		trajectory_free(t);
		trajectory_free(base);
	}
	struct store *store = opened();
	well(store_put_delivery(store, 1, 1, 0, 3, "{}", &well_err));
	assert_int_equal(store_each_unacknowledged(store, see_batch, &seen, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "batch 1 is damaged: expected 3 trajectories, found 0"));
	well(store_put_group(store, 9, "p", 0, 0, false, 1, &well_err));
	assert_int_equal(store_each_open_group(store, see_group, &seen, &err), ERR_INVALID);
	well(store_close(store, &well_err));
	change("DELETE FROM runs");
	well(store_resume(&store, dir, &well_err));
	assert_int_equal(store_read_progress(store, &p, &err), ERR_INVALID);
	well(store_close(store, &well_err));
}

static void test_directories_that_are_no_run(void **state)
{
	(void)state;
	struct store *store;
	struct err err = {0};
	assert_int_equal(store_resume(&store, dir, &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "found no drumroll.db"));
	assert_int_equal(model_dir_count(dir), 0); /* nothing was made */
	model_dir_put(dir, "drumroll.db", "", 0);
	assert_int_equal(store_resume(&store, dir, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "empty"));
}

/* A store of schema 2, as drumroll wrote it: its tables, less what came after. */
static void test_an_older_schema(void **state)
{
	(void)state;
	struct store_progress p;
	struct seen seen = {0};
	struct store *store = opened();
	for (uint64_t g = 3; g <= 8; g++) well(store_put_group(store, g, "p", 0, 1, g == 4, 0, &well_err));
	well(store_group_state(store, 3, STORE_DELIVERED, 1, &well_err));
	put(store, sample(3, 0, FINISH_STOP), STORE_DELIVERED);
	well(store_put_delivery(store, 1, 1, 0, 1, "{}", &well_err));
	well(store_put_version(store, 1, 1, 9, 9, &well_err));
	well(store_close(store, &well_err));
	change("ALTER TABLE groups DROP COLUMN ordinal; ALTER TABLE deliveries DROP COLUMN metrics;"
	       "ALTER TABLE weight_versions DROP COLUMN kept; DROP TABLE increments; DROP TABLE state; PRAGMA user_version = 2");
	well(store_open_existing(&store, dir, &well_err)); /* readers take it as it is */
	well(store_close(store, &well_err));
	store = resumed(&p);
	assert_true(p.step == 1 && p.version == 1 && p.kept == 0 && p.n_unacknowledged == 1 && p.next_group == 9);
	assert_int_equal(p.next_ordinal, 5); /* groups 3, 5, 6, 7, 8 took prompts 0 to 4 */
	well(store_each_open_group(store, see_group, &seen, &well_err));
	assert_int_equal(seen.n, 4);
	for (int i = 0; i < 4; i++) assert_int_equal(seen.groups[i].ordinal, i + 1);
	seen.n = 0;
	well(store_each_unacknowledged(store, see_batch, &seen, &well_err));
	assert_int_equal(seen.ids[0], trajectory_id(3, 0));
	well(store_put_number(store, STATE_BATCH_OUT, 1, &well_err));
	well(store_close(store, &well_err));
}

static void test_durability_off_keeps_metrics_alone(void **state)
{
	(void)state;
	struct store_progress p;
	struct seen seen = {0};
	struct store *store = opened();
	well(store_set_durability(store, DURABILITY_OFF, &well_err));
	well(store_put_group(store, 1, "p", 0, 1, false, 0, &well_err));
	put(store, sample(1, 0, FINISH_STOP), STORE_DONE);
	well(store_put_delivery(store, 1, 1, 0, 1, "{}", &well_err));
	well(store_put_metrics(store, 1, "{\"step\":1}", &well_err));
	well(store_close(store, &well_err));
	store = resumed(&p);
	assert_true(p.step == 0 && p.next_group == 1 && p.n_unacknowledged == 0);
	well(store_each_metrics(store, see_line, &seen, &well_err));
	assert_int_equal(seen.n_lines, 1);
	well(store_close(store, &well_err));
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)
	const struct CMUnitTest tests[] = {
		CASE(test_a_fresh_run),
		CASE(test_what_there_is_comes_back),
		CASE(test_after_a_kill),
		CASE(test_damage_is_named),
		CASE(test_directories_that_are_no_run),
		CASE(test_an_older_schema),
		CASE(test_durability_off_keeps_metrics_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
