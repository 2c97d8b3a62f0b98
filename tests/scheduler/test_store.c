/* test_store.c - drumroll.db: what goes in comes out bit for bit, and what cannot be used is refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "scheduler/store/store.h"
#include "scheduler/store/store_read.h"
#include "tests/scheduler/made_up_trajectory.h"

enum { TRAJECTORIES_MAX = 64 };

static char run_dir[] = "/tmp/drumroll_test_store_XXXXXX";

static int make_directory(void **state)
{
	(void)state;
	strcpy(strrchr(run_dir, '_'), "_XXXXXX");
	return mkdtemp(run_dir) ? 0 : -1;
}

static int remove_directory(void **state)
{
	(void)state;
	const char *const names[] = {"drumroll.db", "drumroll.db-wal", "drumroll.db-shm", "drumroll.db-journal",
	                             "drumroll.lock"};
	char path[256];
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", run_dir, names[i]);
		unlink(path);
	}
	return rmdir(run_dir);
}

static const char *database_path(void)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/drumroll.db", run_dir);
	return path;
}

/* A call that must not fail and takes &well_err. */
#define well(call) \
	do { \
		struct err well_err = {0}; \
		if ((call) != 0) \
			fail_msg("%s: %s", #call, well_err.text); \
	} while (0)

static struct store *opened(void)
{
	struct store *store = NULL;
	well(store_open(&store, run_dir, "run", "run: {}", &well_err));
	return store;
}

static struct store *opened_to_read(void)
{
	struct store *store = NULL;
	well(store_open_existing(&store, run_dir, &well_err));
	return store;
}

static void assert_refused(int code, int expected, const struct err *err, const char *part)
{
	if (code != expected || err->code != expected || !strstr(err->text, part))
		fail_msg("expected %s with \"%s\", found %s: %s", err_name(expected), part, err_name(code),
		         err->text);
}

struct found {
	struct trajectory *trajectories[TRAJECTORIES_MAX];
	enum store_state states[TRAJECTORIES_MAX];
	int n;
};

static int collect(void *context, const struct trajectory *trajectory, enum store_state state)
{
	struct found *found = context;
	if (found->n == TRAJECTORIES_MAX)
		return 1;
	found->states[found->n] = state;
	found->trajectories[found->n++] = trajectory_copy(trajectory);
	return 0;
}

static void found_free(struct found *found)
{
	for (int i = 0; i < found->n; i++)
		trajectory_free(found->trajectories[i]);
}

static int count_stored(struct store *store)
{
	struct found found = {0};
	well(store_each_trajectory(store, collect, &found, &well_err));
	int n = found.n;
	found_free(&found);
	return n;
}

static void put_some(struct store *store, int n, uint64_t first_group)
{
	for (int i = 0; i < n; i++) {
		struct trajectory *made = made_up_trajectory(first_group + (uint64_t)i / 3, i % 3);
		well(store_put_trajectory(store, made, STORE_DONE, &well_err));
		trajectory_free(made);
	}
}

static void test_round_trip(void **state)
{
	(void)state;
	enum { N = 60 };
	struct trajectory *made[N];
	struct found found = {0};
	struct store *store = opened();
	for (int i = 0; i < N; i++)
		made[i] = made_up_trajectory(1000 - (uint64_t)i / 3 * 7, i % 3);
	for (int i = 0; i < N; i++) {
		well(store_put_trajectory(store, made[i], (enum store_state)(i % 4), &well_err));
		if (i % 17 == 0)
			well(store_flush(store, &well_err));
	}
	well(store_close(store, &well_err));
	store = opened_to_read();
	well(store_each_trajectory(store, collect, &found, &well_err));
	well(store_close(store, &well_err));
	assert_int_equal(found.n, N);
	for (int i = 0; i < N; i++) {
		if (i > 0)
			assert_true(found.trajectories[i]->id > found.trajectories[i - 1]->id);
		int at = 0;
		while (made[at]->id != found.trajectories[i]->id)
			at++;
		assert_same_trajectory(made[at], found.trajectories[i]);
		assert_int_equal(found.states[i], at % 4);
	}
	for (int i = 0; i < N; i++)
		trajectory_free(made[i]);
	found_free(&found);
}

static void test_a_record_is_replaced_with_its_segments(void **state)
{
	(void)state;
	struct found found = {0};
	struct store *store = opened();
	struct trajectory *partial = made_up_trajectory(5, 0), *done = made_up_trajectory(5, 0);
	for (int i = 0; i < 9; i++)
		trajectory_append(partial, i, -1, 100 + i, 1, 0);
	well(store_put_trajectory(store, partial, STORE_PARTIAL, &well_err));
	trajectory_append(done, 3, -0.25f, 7, 2, 1);
	well(store_put_trajectory(store, done, STORE_DONE, &well_err));
	well(store_each_trajectory(store, collect, &found, &well_err));
	assert_int_equal(found.n, 1);
	assert_same_trajectory(done, found.trajectories[0]);
	assert_int_equal(found.states[0], STORE_DONE);
	well(store_close(store, &well_err));
	trajectory_free(partial);
	trajectory_free(done);
	found_free(&found);
}

static int sample_state_matches(void *context, const struct stored_sample *sample, struct err *err)
{
	struct found *found = context;
	(void)err;
	assert_int_equal(sample->state, found->states[found->n++]);
	return 0;
}

/* Delivered or dropped with their group, but those that were dropped by themselves. */
static void test_group_state_is_that_of_its_trajectories(void **state)
{
	(void)state;
	const enum store_state expected[] = {STORE_DONE, STORE_DONE, STORE_DONE, STORE_DROPPED, STORE_DELIVERED, STORE_DELIVERED,
	                                     STORE_DROPPED, STORE_DROPPED, STORE_DROPPED, STORE_DELIVERED, STORE_DELIVERED,
	                                     STORE_DELIVERED};
	struct found found = {0};
	struct store *store = opened();
	for (uint64_t group = 1; group <= 4; group++)
		well(store_put_group(store, group, "p", 0, 3, false, group, &well_err));
	put_some(store, 12, 1);
	well(store_group_state(store, 1, STORE_DONE, 4, &well_err));
	well(store_group_state(store, 2, STORE_DELIVERED, 4, &well_err));
	well(store_drop_samples(store, 2, 1, &well_err));
	well(store_group_state(store, 3, STORE_DROPPED, 4, &well_err));
	well(store_group_state(store, 4, STORE_DELIVERED, 5, &well_err));
	well(store_each_trajectory(store, collect, &found, &well_err));
	assert_int_equal(found.n, 12);
	for (int i = 0; i < 12; i++)
		assert_int_equal(found.states[i], expected[i]);
	struct found samples = {0};
	memcpy(samples.states, expected, sizeof(expected));
	well(store_each_sample(store, sample_state_matches, &samples, &well_err));
	assert_int_equal(samples.n, 12);
	well(store_close(store, &well_err));
	found_free(&found);
}

static void test_the_other_tables_take_rows(void **state)
{
	(void)state;
	struct store *store = opened();
	well(store_put_delivery(store, 7, 3, 2, 72, "{}", &well_err));
	well(store_ack_delivery(store, 7, &well_err));
	well(store_put_version(store, 3, 3, UINT64_MAX, (size_t)1 << 33, &well_err));
	well(store_put_metrics(store, 3, "{\"step\":3}", &well_err));
	well(store_flush(store, &well_err));
	well(store_flush(store, &well_err));
	well(store_close(store, &well_err));
}

/* A reader sees whole transactions, and only those. */
static void test_flush_commits_what_was_gathered(void **state)
{
	(void)state;
	struct store *store = opened(), *reader = opened_to_read();
	put_some(store, 6, 1);
	assert_int_equal(count_stored(reader), 0);
	assert_int_equal(count_stored(store), 6);
	well(store_flush(store, &well_err));
	assert_int_equal(count_stored(reader), 6);
	put_some(store, 3, 10);
	assert_int_equal(count_stored(reader), 6);
	well(store_close(store, &well_err)); /* flushes */
	assert_int_equal(count_stored(reader), 9);
	well(store_close(reader, &well_err));
}

/* Run in a child process, which then dies without closing anything. */
static int in_child(int (*work)(void))
{
	fflush(NULL);
	pid_t child = fork();
	if (child == 0)
		_exit(work());
	int status = -1;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int write_and_die(void)
{
	struct store *store = opened();
	put_some(store, 6, 1);
	well(store_flush(store, &well_err));
	put_some(store, 6, 100);
	return 0;
}

static void test_a_crash_loses_nothing_flushed(void **state)
{
	(void)state;
	assert_int_equal(in_child(write_and_die), 0);
	struct store *store = opened();
	assert_int_equal(count_stored(store), 6);
	put_some(store, 3, 200);
	well(store_close(store, &well_err));
	store = opened_to_read();
	assert_int_equal(count_stored(store), 9);
	well(store_close(store, &well_err));
}

static int stop_at_third(void *context, const struct trajectory *trajectory, enum store_state state)
{
	(void)trajectory;
	(void)state;
	return ++*(int *)context == 3 ? 42 : 0;
}

/* What comes after a transaction that was rolled back may build on what it held. */
static void test_nothing_is_put_on_top_of_what_was_lost(void **state)
{
	(void)state;
	struct err err;
	struct stat status;
	struct rlimit before, small;
	char path[300];
	struct store *store = opened();
	put_some(store, 3, 1);
	well(store_flush(store, &well_err));
	snprintf(path, sizeof(path), "%s-wal", database_path());
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	small = before;
	small.rlim_cur = (rlim_t)status.st_size + 4096; /* as a full disk: there is room for less than a commit */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	put_some(store, 30, 10);
	int code = store_flush(store, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(code, ERR_IO);
	assert_refused(store_put_group(store, 40, "p", 0, 3, false, 40, &err), ERR_STATE, &err, "an earlier write failed");
	assert_refused(store_close(store, &err), ERR_STATE, &err, "an earlier write failed");
	store = opened_to_read();
	assert_int_equal(count_stored(store), 3);
	well(store_close(store, &well_err));
}

static void test_the_callback_can_end_the_walk(void **state)
{
	(void)state;
	struct err err = {0};
	int n = 0;
	struct store *store = opened();
	put_some(store, 9, 1);
	assert_int_equal(store_each_trajectory(store, stop_at_third, &n, &err), 42);
	assert_int_equal(n, 3);
	assert_int_equal(count_stored(store), 9);
	well(store_close(store, &well_err));
}

static void test_missing_and_wrong_places(void **state)
{
	(void)state;
	struct err err = {0};
	struct store *store = NULL;
	char *long_path = malloc(6001);
	memset(long_path, 'x', 6000);
	long_path[6000] = '\0';
	assert_refused(store_open(&store, "/nonexistent/run", "r", "", &err), ERR_MISSING, &err,
	               "/nonexistent/run");
	assert_refused(store_open(&store, "/dev/null", "r", "", &err), ERR_INVALID, &err, "expected a directory");
	assert_refused(store_open(&store, long_path, "r", "", &err), ERR_TOO_BIG, &err, "found 6000");
	assert_refused(store_open_existing(&store, run_dir, &err), ERR_MISSING, &err, "no drumroll.db");
	assert_null(store);
	free(long_path);
}

static int open_read_only(void)
{
	struct err err = {0};
	struct store *store;
	/* Root may write anywhere: be nobody. */
	if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
		return 2;
	int code = store_open(&store, run_dir, "r", "", &err);
	return code == ERR_IO && strstr(err.text, run_dir) && strstr(err.text, "choose another run.dir") ? 0 : 1;
}

static void test_a_read_only_directory(void **state)
{
	(void)state;
	assert_int_equal(chmod(run_dir, 0555), 0);
	assert_int_equal(in_child(open_read_only), 0);
	assert_int_equal(chmod(run_dir, 0755), 0);
}

static void test_a_directory_in_use(void **state)
{
	(void)state;
	struct err err = {0};
	struct store *store = NULL;
	int ready[2];
	char byte, process[32];
	assert_int_equal(pipe(ready), 0);
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		opened();
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	snprintf(process, sizeof(process), "process %ld", (long)child);
	assert_refused(store_open(&store, run_dir, "r", "", &err), ERR_STATE, &err, process);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	store = opened(); /* the lock went with the process */
	well(store_close(store, &well_err));
	close(ready[0]);
	close(ready[1]);
}

static void patch(long at, const void *bytes, size_t n)
{
	FILE *file = fopen(database_path(), "r+b");
	assert_non_null(file);
	assert_int_equal(fseek(file, at, SEEK_SET), 0);
	assert_int_equal(fwrite(bytes, 1, n, file), n);
	fclose(file);
}

/* Byte 60 of an SQLite file is its user_version, big-endian. */
static void test_other_schema_versions(void **state)
{
	(void)state;
	struct err err = {0};
	struct store *store = opened();
	well(store_close(store, &well_err));
	patch(60, "\0\0\0\7", 4);
	assert_refused(store_open(&store, run_dir, "r", "", &err), ERR_UNSUPPORTED, &err,
	               "expected schema version 3, found 7");
	assert_refused(store_open_existing(&store, run_dir, &err), ERR_UNSUPPORTED, &err, "found 7");
	patch(60, "\0\0\0\0", 4);
	assert_refused(store_open(&store, run_dir, "r", "", &err), ERR_INVALID, &err, "something else");
}

static void test_files_that_are_no_store(void **state)
{
	(void)state;
	struct err err = {0};
	struct store *store = NULL;
	FILE *file = fopen(database_path(), "wb");
	assert_non_null(file);
	for (int i = 0; i < 1000; i++)
		fputs("this is no database ", file);
	fclose(file);
	assert_refused(store_open(&store, run_dir, "r", "", &err), ERR_INVALID, &err, database_path());
	assert_refused(store_open_existing(&store, run_dir, &err), ERR_INVALID, &err, database_path());
	assert_int_equal(truncate(database_path(), 0), 0);
	assert_refused(store_open_existing(&store, run_dir, &err), ERR_INVALID, &err, "empty database");
}

struct checksums {
	uint64_t sums[TRAJECTORIES_MAX];
	int n, n_unknown;
};

static int gather_checksum(void *context, const struct trajectory *trajectory, enum store_state state)
{
	(void)state;
	struct checksums *checksums = context;
	checksums->sums[checksums->n++] = trajectory_checksum(trajectory);
	return 0;
}

static int know_checksum(void *context, const struct trajectory *trajectory, enum store_state state)
{
	(void)state;
	struct checksums *checksums = context;
	int at = 0;
	while (at < checksums->n && checksums->sums[at] != trajectory_checksum(trajectory))
		at++;
	checksums->n_unknown += at == checksums->n;
	return 0;
}

/* Any byte may be wrong: an error, or records as they were written; never a crash or other records. */
static void test_damaged_bytes_are_found(void **state)
{
	(void)state;
	struct err err = {0};
	struct stat status;
	struct checksums checksums = {0};
	int n_refused = 0;
	struct store *store = opened();
	put_some(store, 9, 1);
	well(store_each_trajectory(store, gather_checksum, &checksums, &well_err));
	well(store_close(store, &well_err));
	assert_int_equal(checksums.n, 9);
	assert_int_equal(stat(database_path(), &status), 0);
	FILE *file = fopen(database_path(), "rb");
	char *bytes = malloc((size_t)status.st_size);
	assert_int_equal(fread(bytes, 1, (size_t)status.st_size, file), status.st_size);
	fclose(file);
	for (long at = 0; at < status.st_size; at += 1 + status.st_size / 600) {
		char wrong = (char)(bytes[at] ^ (1 << at % 8));
		patch(at, &wrong, 1);
		int code = store_open_existing(&store, run_dir, &err);
		if (code == 0) {
			code = store_each_trajectory(store, know_checksum, &checksums, &err);
			well(store_close(store, &well_err));
		}
		assert_int_equal(checksums.n_unknown, 0);
		if (code < 0)
			assert_true(strlen(err.text) > 20);
		n_refused += code < 0;
		patch(at, &bytes[at], 1);
	}
	assert_true(n_refused > 50);
	memset(bytes, 0, 4096);
	patch(4096, bytes, 4096); /* a writer checks all of a file that it goes on with */
	assert_refused(store_open(&store, run_dir, "r", "", &err), ERR_INVALID, &err, "damaged");
	free(bytes);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)
	const struct CMUnitTest tests[] = {
		CASE(test_round_trip),
		CASE(test_a_record_is_replaced_with_its_segments),
		CASE(test_group_state_is_that_of_its_trajectories),
		CASE(test_the_other_tables_take_rows),
		CASE(test_flush_commits_what_was_gathered),
		CASE(test_a_crash_loses_nothing_flushed),
		CASE(test_nothing_is_put_on_top_of_what_was_lost),
		CASE(test_the_callback_can_end_the_walk),
		CASE(test_missing_and_wrong_places),
		CASE(test_a_read_only_directory),
		CASE(test_a_directory_in_use),
		CASE(test_other_schema_versions),
		CASE(test_files_that_are_no_store),
		CASE(test_damaged_bytes_are_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
