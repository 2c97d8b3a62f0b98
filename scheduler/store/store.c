/* store.c - opening, locking, group commit and the small rows of drumroll.db.
 *
 * WAL with synchronous=NORMAL: a commit appends to the log, survives the death of the process and
 * costs no fsync; a power cut may lose the last commits but never the file.  Writes begin a
 * transaction when there is none; store_flush commits it.  What moves the log into the file does wait for the disk:
 * store_tidy, which its owner calls when nobody waits for the store.  A clean close leaves a plain single file
 * that can be read from read-only media.
 */
#include "scheduler/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "configs/config.h"
#include "scheduler/clock.h"

enum { BUSY_MS = 2000 }; /* how long to wait for another process's short write or checkpoint */
enum { LOG_PAGES = 1000, LOG_PAGES_MAX = 32000 }; /* of 4 KiB, in the log: worth moving; too many to wait for a call */

int store_fail(struct store *store, const char *doing, struct err *err)
{
	const char *why = sqlite3_errmsg(store->db);
	switch (sqlite3_errcode(store->db)) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(err, ERR_STATE,
		               "%s %s: another process holds it locked; end that process and try again", doing,
		               store->path);
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return err_set(err, ERR_INVALID,
		               "%s %s: expected a drumroll store, found a damaged file or none (%s); "
		               "restore a copy or choose another run.dir",
		               doing, store->path, why);
	case SQLITE_FULL:
		return err_set(err, ERR_IO, "%s %s: the disk is full; free some space, what was committed is safe",
		               doing, store->path);
	case SQLITE_READONLY:
		return err_set(err, ERR_IO, "%s %s: the file or its directory is read-only; choose another run.dir",
		               doing, store->path);
	default:
		return err_set(err, ERR_IO, "%s %s: %s", doing, store->path, why);
	}
}

int store_execute(struct store *store, const char *sql, const char *doing, struct err *err)
{
	if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return store_fail(store, doing, err);
	return 0;
}

int store_begin(struct store *store, const char *doing, struct err *err)
{
	if (store->lost)
		return err_set(err, ERR_STATE, "%s %s: an earlier write failed, and what was not committed before is lost", doing,
		               store->path);
	if (!store->in_transaction && store_execute(store, "BEGIN IMMEDIATE", doing, err))
		return err->code;
	store->in_transaction = true;
	return 0;
}

void store_give_up(struct store *store)
{
	if (!store->in_transaction)
		return;
	sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL); /* fails where a full disk has rolled back already */
	store->in_transaction = false;
	store->lost = true;
}

int store_run(struct store *store, enum statement which, const char *doing, struct err *err)
{
	sqlite3_stmt *statement = store->statements[which];
	double began = clock_seconds();
	int code = store_begin(store, doing, err);
	if (code == 0 && sqlite3_step(statement) != SQLITE_DONE)
		code = store_fail(store, doing, err);
	sqlite3_reset(statement);
	if (code)
		store_give_up(store);
	sqlite3_clear_bindings(statement);
	store->seconds += clock_seconds() - began;
	return code;
}

/* One writer per run directory.  The lock goes when the process does. */
static int store_lock(struct store *store, const char *run_dir, struct err *err)
{
	char path[STORE_PATH_MAX];
	snprintf(path, sizeof(path), "%s/drumroll.lock", run_dir);
	store->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (store->lock < 0)
		return err_set_errno(err, ERR_IO, "run directory %s: expected to write %s; choose another run.dir",
		                     run_dir, path);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(store->lock, F_SETLK, &lock) == 0)
		return 0;
	if (errno != EACCES && errno != EAGAIN)
		return err_set_errno(err, ERR_IO, "cannot lock %s", path);
	if (fcntl(store->lock, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
		lock.l_pid = 0;
	return err_set(err, ERR_STATE,
	               "run directory %s is in use by another drumroll (process %ld); end it or "
	               "choose another run.dir",
	               run_dir, (long)lock.l_pid);
}

/* The directory is one, and its name leaves room for the file's. */
static int store_path_set(struct store *store, const char *run_dir, struct err *err)
{
	struct stat status;
	if (strlen(run_dir) > STORE_PATH_MAX - 32)
		return err_set(err, ERR_TOO_BIG, "run directory: expected a path of at most %d bytes, found %zu",
		               STORE_PATH_MAX - 32, strlen(run_dir));
	if (stat(run_dir, &status) != 0)
		return err_set_errno(err, errno == ENOENT ? ERR_MISSING : ERR_IO, "run directory %s", run_dir);
	if (!S_ISDIR(status.st_mode))
		return err_set(err, ERR_INVALID, "run directory %s: expected a directory, found a file", run_dir);
	snprintf(store->path, sizeof(store->path), "%s/drumroll.db", run_dir);
	return 0;
}

static int store_prepare(struct store *store, struct err *err)
{
	static const char *const sql[] = {
#define X(name, text) text,
		STATEMENT_LIST(X)
#undef X
	};
	for (int i = store->lock >= 0 ? 0 : STATEMENT_READ; i < STATEMENT_COUNT; i++)
		if (sqlite3_prepare_v3(store->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &store->statements[i],
		                       NULL) != SQLITE_OK)
			return store_fail(store, "cannot use", err);
	return 0;
}

static int store_put_run(struct store *store, const char *run_id, const char *config_yaml, struct err *err)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db, "INSERT OR REPLACE INTO runs VALUES (?1, datetime('now'), ?2)",
	                              -1, &statement, NULL);
	sqlite3_bind_text(statement, 1, run_id, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, config_yaml, -1, SQLITE_STATIC);
	if (code != SQLITE_OK || sqlite3_step(statement) != SQLITE_DONE)
		code = store_fail(store, "cannot write", err);
	sqlite3_finalize(statement);
	return code;
}

static int store_connect(struct store *store, int flags, struct err *err)
{
	if (sqlite3_open_v2(store->path, &store->db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		return store_fail(store, "cannot open", err);
	sqlite3_busy_timeout(store->db, BUSY_MS);
	return 0;
}

static void store_release(struct store *store)
{
	for (int i = 0; i < STATEMENT_COUNT; i++)
		sqlite3_finalize(store->statements[i]);
	sqlite3_close(store->db);
	if (store->lock >= 0)
		close(store->lock);
	free(store);
}

static int count_log_pages(void *context, sqlite3 *db, const char *name, int n)
{
	struct store *store = context;
	(void)db, (void)name;
	store->log_pages = n;
	return SQLITE_OK;
}

static int store_count_increments(struct store *store, struct err *err)
{
	sqlite3_stmt *rows = NULL;
	int code = sqlite3_prepare_v2(store->db, "SELECT trajectory FROM increments", -1, &rows, NULL);
	while (code == SQLITE_OK && sqlite3_step(rows) == SQLITE_ROW)
		++*store_increments_of(store, (uint64_t)sqlite3_column_int64(rows, 0));
	if (code == SQLITE_OK) /* finalize says how the steps went */
		code = sqlite3_finalize(rows);
	return code == SQLITE_OK ? 0 : store_fail(store, "cannot read", err);
}

/* flags: SQLITE_OPEN_CREATE or 0 */
static int store_open_writer(struct store *store, const char *run_dir, int flags, struct err *err)
{
	int version;
	if (store_lock(store, run_dir, err) || store_connect(store, SQLITE_OPEN_READWRITE | flags, err) ||
	    store_schema_check(store, &version, err) ||
	    store_execute(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", "cannot write", err))
		return err->code;
	if (version == 0 ? store_schema_create(store, err) : store_schema_verify(store, err))
		return err->code;
	if (version != 0 && (store_schema_migrate(store, version, err) || store_count_increments(store, err)))
		return err->code;
	sqlite3_wal_hook(store->db, count_log_pages, store); /* SQLite's own would move it in the middle of a commit */
	return store_prepare(store, err);
}

int store_open(struct store **store, const char *run_dir, const char *run_id, const char *config_yaml,
               struct err *err)
{
	struct store *opened = xcalloc(1, sizeof(*opened));
	opened->lock = -1;
	if (store_path_set(opened, run_dir, err) || store_open_writer(opened, run_dir, SQLITE_OPEN_CREATE, err) ||
	    store_put_run(opened, run_id, config_yaml, err)) {
		store_release(opened);
		return err->code;
	}
	*store = opened;
	return 0;
}

/* There is a database in the directory, whatever is in it. */
static int store_must_exist(const struct store *store, const char *run_dir, struct err *err)
{
	if (access(store->path, F_OK) == 0)
		return 0;
	return err_set(err, ERR_MISSING,
	               "%s: expected the run directory of a drumroll run, found no drumroll.db "
	               "in it",
	               run_dir);
}

static int store_resume_writer(struct store *store, const char *run_dir, struct err *err)
{
	struct stat status;
	if (store_path_set(store, run_dir, err) || store_must_exist(store, run_dir, err))
		return err->code;
	if (stat(store->path, &status) == 0 && status.st_size == 0)
		return err_set(err, ERR_INVALID, "%s: expected a drumroll store, found an empty file", store->path);
	return store_open_writer(store, run_dir, 0, err);
}

int store_resume(struct store **store, const char *run_dir, struct err *err)
{
	struct store *opened = xcalloc(1, sizeof(*opened));
	opened->lock = -1;
	if (store_resume_writer(opened, run_dir, err)) {
		store_release(opened);
		return err->code;
	}
	*store = opened;
	return 0;
}

int store_set_durability(struct store *store, int durability, struct err *err)
{
	store->off = durability == DURABILITY_OFF;
	if (durability != DURABILITY_POWER)
		return 0;
	return store_execute(store, "PRAGMA synchronous = FULL", "cannot write", err);
}

static int store_open_reader(struct store *store, const char *run_dir, struct err *err)
{
	int version;
	if (store_path_set(store, run_dir, err))
		return err->code;
	if (store_must_exist(store, run_dir, err))
		return err->code;
	if (store_connect(store, SQLITE_OPEN_READONLY, err) || store_schema_check(store, &version, err))
		return err->code;
	if (version == 0)
		return err_set(err, ERR_INVALID, "%s: expected a drumroll store, found an empty database",
		               store->path);
	return store_prepare(store, err);
}

int store_open_existing(struct store **store, const char *run_dir, struct err *err)
{
	struct store *opened = xcalloc(1, sizeof(*opened));
	opened->lock = -1;
	if (store_open_reader(opened, run_dir, err)) {
		store_release(opened);
		return err->code;
	}
	*store = opened;
	return 0;
}

int store_flush(struct store *store, struct err *err)
{
	struct timespec now;
	if (!store->in_transaction && !store->lost)
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	if (store_put_number(store, STATE_COMMITTED, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, err))
		return err->code;
	double began = clock_seconds();
	int code = store_execute(store, "COMMIT", "cannot write", err);
	store->seconds += clock_seconds() - began;
	if (code)
		store_give_up(store);
	if (code)
		return code;
	store->in_transaction = false;
	if (store->log_pages >= LOG_PAGES_MAX)
		store_tidy(store);
	return 0;
}

void store_tidy(struct store *store)
{
	double began = clock_seconds();
	if (store->in_transaction || store->log_pages < LOG_PAGES)
		return;
	/* What cannot be moved, because somebody reads it or the disk is full, stays in the log. */
	sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	store->log_pages = 0; /* until the next commit counts again */
	store->seconds += clock_seconds() - began;
}

double store_seconds(const struct store *store)
{
	return store->seconds;
}

int store_close(struct store *store, struct err *err)
{
	int code = store_flush(store, err);
	/* Fails harmlessly, keeping WAL, while somebody reads. */
	if (store->lock >= 0 && code == 0)
		sqlite3_exec(store->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
	store_release(store);
	return code;
}

int store_put_group(struct store *store, uint64_t group_id, const char *prompt_id, int32_t epoch,
                    int32_t n_samples, bool eval, uint64_t ordinal, struct err *err)
{
	sqlite3_stmt *statement = store->statements[PUT_GROUP];
	if (store->off)
		return 0;
	sqlite3_bind_int64(statement, 1, (int64_t)group_id);
	sqlite3_bind_text(statement, 2, prompt_id, -1, SQLITE_STATIC);
	sqlite3_bind_int(statement, 3, epoch);
	sqlite3_bind_int(statement, 4, n_samples);
	sqlite3_bind_int(statement, 5, eval);
	sqlite3_bind_int(statement, 6, STORE_PARTIAL);
	sqlite3_bind_int64(statement, 7, (int64_t)ordinal);
	return store_run(store, PUT_GROUP, "cannot write a group to", err);
}

int store_group_size(struct store *store, uint64_t group_id, int32_t n_samples, struct err *err)
{
	if (store->off)
		return 0;
	sqlite3_bind_int64(store->statements[GROUP_SIZE], 1, (int64_t)group_id);
	sqlite3_bind_int(store->statements[GROUP_SIZE], 2, n_samples);
	return store_run(store, GROUP_SIZE, "cannot write a group's size to", err);
}

int store_group_state(struct store *store, uint64_t group_id, enum store_state state, int64_t step,
                      struct err *err)
{
	sqlite3_stmt *group = store->statements[GROUP_STATE];
	if (store->off)
		return 0;
	sqlite3_bind_int64(group, 1, (int64_t)group_id);
	sqlite3_bind_int(group, 2, (int)state);
	sqlite3_bind_int64(group, 3, step);
	return store_run(store, GROUP_STATE, "cannot write a group's state to", err);
}

int store_drop_samples(struct store *store, uint64_t group_id, int n, struct err *err)
{
	if (store->off)
		return 0;
	sqlite3_bind_int64(store->statements[DROP_SAMPLES], 1, (int64_t)trajectory_id(group_id, 0));
	sqlite3_bind_int64(store->statements[DROP_SAMPLES], 2, (int64_t)trajectory_id(group_id, n - 1));
	return store_run(store, DROP_SAMPLES, "cannot write a group's state to", err);
}

int store_put_increment(struct store *store, uint64_t trajectory_id, const struct segment *segment,
                        const int32_t *tokens, const float *logprobs, struct err *err)
{
	sqlite3_stmt *statement = store->statements[PUT_INCREMENT];
	if (store->off)
		return 0;
	sqlite3_bind_int64(statement, 1, (int64_t)trajectory_id);
	sqlite3_bind_int(statement, 2, segment->start);
	sqlite3_bind_blob64(statement, 3, tokens, (size_t)segment->length * sizeof(*tokens), SQLITE_STATIC);
	sqlite3_bind_blob64(statement, 4, logprobs, (size_t)segment->length * sizeof(*logprobs), SQLITE_STATIC);
	sqlite3_bind_int(statement, 5, segment->version);
	sqlite3_bind_int(statement, 6, segment->rank);
	sqlite3_bind_int(statement, 7, segment->mode);
	sqlite3_bind_int64(statement, 8, (int64_t)store_increment_checksum(segment, tokens, logprobs));
	if (store_run(store, PUT_INCREMENT, "cannot write a sample in flight to", err))
		return err->code;
	++*store_increments_of(store, trajectory_id);
	return 0;
}

int store_put_delivery(struct store *store, uint64_t batch_id, int64_t step, int64_t version, int n,
                       const char *metrics, struct err *err)
{
	sqlite3_stmt *statement = store->statements[PUT_DELIVERY];
	if (store->off)
		return 0;
	sqlite3_bind_text(statement, 5, metrics, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 1, (int64_t)batch_id);
	sqlite3_bind_int64(statement, 2, step);
	sqlite3_bind_int64(statement, 3, version);
	sqlite3_bind_int(statement, 4, n);
	return store_run(store, PUT_DELIVERY, "cannot write a delivery to", err);
}

int store_ack_delivery(struct store *store, uint64_t batch_id, struct err *err)
{
	if (store->off)
		return 0;
	sqlite3_bind_int64(store->statements[ACK_DELIVERY], 1, (int64_t)batch_id);
	return store_run(store, ACK_DELIVERY, "cannot write an acknowledgement to", err);
}

int store_put_version(struct store *store, int64_t version, int64_t step, uint64_t xxh3, size_t bytes,
                      struct err *err)
{
	sqlite3_stmt *statement = store->statements[PUT_VERSION];
	sqlite3_bind_int64(statement, 1, version);
	sqlite3_bind_int64(statement, 2, step);
	sqlite3_bind_int64(statement, 3, (int64_t)xxh3);
	sqlite3_bind_int64(statement, 4, (int64_t)bytes);
	return store_run(store, PUT_VERSION, "cannot write a weight version to", err);
}

int store_version_kept(struct store *store, int64_t version, struct err *err)
{
	if (store->off)
		return 0;
	sqlite3_bind_int64(store->statements[VERSION_KEPT], 1, version);
	return store_run(store, VERSION_KEPT, "cannot write a weight version to", err);
}

int store_put_number(struct store *store, enum store_number which, int64_t value, struct err *err)
{
	static const char *const keys[] = {
#define X(name, key) key,
		STORE_STATE_LIST(X)
#undef X
	};
	if (store->off)
		return 0;
	sqlite3_bind_text(store->statements[PUT_STATE], 1, keys[which], -1, SQLITE_STATIC);
	sqlite3_bind_int64(store->statements[PUT_STATE], 2, value);
	return store_run(store, PUT_STATE, "cannot write the run's state to", err);
}

int store_put_metrics(struct store *store, int64_t step, const char *json, struct err *err)
{
	sqlite3_stmt *statement = store->statements[PUT_METRICS];
	sqlite3_bind_int64(statement, 1, step);
	sqlite3_bind_text(statement, 2, json, -1, SQLITE_STATIC);
	return store_run(store, PUT_METRICS, "cannot write metrics to", err);
}
