/* store_schema.c - the tables of drumroll.db, and whether a file has them.
 *
 *   sqlite3 RUN_DIR/drumroll.db 'SELECT step, avg(reward) FROM trajectories t JOIN groups g
 *           ON t.group_id = g.id WHERE NOT t.eval GROUP BY step'
 *
 * states: enum store_state; a trajectory that was not dropped by itself (3) goes with its group once that has 2 or 3.
 * Unsigned 64-bit values (seeds, checksums) are stored as the signed integer of the same bits.
 */
#include "scheduler/store/store_internal.h"

#include <string.h>

#define DECLARED_INT " INTEGER"
#define DECLARED_REAL ""
#define DECLARED_TEXT " TEXT"
#define DECLARE_COLUMN(kind, column, field) ", " #column DECLARED_##kind
#define DECLARE_ARRAY(column, field, bytes) ", " #column " BLOB"

/* increments: what a sample in flight has got since its trajectory was put.  state: X(name) of STORE_STATE_LIST. */
#define TABLES_OF_3 \
	"CREATE TABLE increments (trajectory INTEGER, start INTEGER, tokens BLOB, logprobs BLOB, version INTEGER," \
	" rank INTEGER, mode INTEGER, checksum INTEGER, PRIMARY KEY (trajectory, start)) WITHOUT ROWID;" \
	"CREATE TABLE state (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;"

static const char schema[] =
	"CREATE TABLE runs (run_id TEXT PRIMARY KEY, started TEXT, config TEXT);"
	"CREATE TABLE prompts (key INTEGER PRIMARY KEY, prompt_id TEXT, answer TEXT, meta TEXT);"
	"CREATE TABLE groups (id INTEGER PRIMARY KEY, prompt_id TEXT, epoch INTEGER, n_samples INTEGER,"
	" eval INTEGER, state INTEGER, step INTEGER, ordinal INTEGER);"
	"CREATE TABLE trajectories (id INTEGER PRIMARY KEY, prompt INTEGER, state INTEGER, checksum INTEGER"
	TRAJECTORY_COLUMNS(DECLARE_COLUMN) TRAJECTORY_ARRAYS(DECLARE_ARRAY)
	TRAJECTORY_OPTIONAL_ARRAYS(DECLARE_ARRAY) ");"
	"CREATE TABLE segments (trajectory INTEGER, ordinal INTEGER, start INTEGER, length INTEGER,"
	" version INTEGER, rank INTEGER, mode INTEGER, PRIMARY KEY (trajectory, ordinal)) WITHOUT ROWID;"
	"CREATE TABLE deliveries (batch_id INTEGER PRIMARY KEY, step INTEGER, version INTEGER, n INTEGER,"
	" acked INTEGER, metrics TEXT);"
	"CREATE TABLE weight_versions (version INTEGER PRIMARY KEY, step INTEGER, xxh3 INTEGER, bytes INTEGER,"
	" kept INTEGER);"
	"CREATE TABLE metrics (step INTEGER, json TEXT);"
	TABLES_OF_3;

/* steps[i] makes schema i + 1 of schema i, NULL: never released with a way on.  2 did not say which prompt a group
 * has, but groups of training took one after the other. */
static const char *const steps[STORE_SCHEMA] = {
	[2] = "ALTER TABLE groups ADD COLUMN ordinal INTEGER;"
	      "UPDATE groups SET ordinal = (SELECT count(*) FROM groups g WHERE g.eval = groups.eval AND g.id < groups.id);"
	      "ALTER TABLE deliveries ADD COLUMN metrics TEXT;"
	      "ALTER TABLE weight_versions ADD COLUMN kept INTEGER DEFAULT 0;"
	      TABLES_OF_3,
};

/* The single integer that a statement gives. */
static int query_int(struct store *store, const char *sql, int *value, struct err *err)
{
	sqlite3_stmt *statement = NULL;
	bool got = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) == SQLITE_OK &&
	           sqlite3_step(statement) == SQLITE_ROW;
	if (got)
		*value = sqlite3_column_int(statement, 0);
	else
		store_fail(store, "cannot read", err);
	sqlite3_finalize(statement);
	return got ? 0 : err->code;
}

int store_schema_check(struct store *store, int *version, struct err *err)
{
	int n_tables = 0;
	if (query_int(store, "PRAGMA user_version", version, err) ||
	    query_int(store, "SELECT count(*) FROM sqlite_master", &n_tables, err))
		return err->code;
	if (*version == 0 && n_tables > 0)
		return err_set(err, ERR_INVALID,
		               "%s: expected a drumroll store, found an SQLite database of something else; "
		               "choose another run.dir", store->path);
	if (*version != 0 && (*version < STORE_SCHEMA_READ_MIN || *version > STORE_SCHEMA))
		return err_set(err, ERR_UNSUPPORTED,
		               "%s: expected schema version %d, found %d; use the drumroll that wrote it, or "
		               "choose another run.dir", store->path, STORE_SCHEMA, *version);
	return 0;
}

int store_schema_migrate(struct store *store, int from, struct err *err)
{
	for (int version = from; version < STORE_SCHEMA; version++) {
		char *sql = sqlite3_mprintf("BEGIN; %s PRAGMA user_version = %d; COMMIT", steps[version], version + 1);
		int code = store_execute(store, sql, "cannot bring up to date", err);
		sqlite3_free(sql);
		if (code) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
		if (code) return code;
	}
	return 0;
}

int store_schema_verify(struct store *store, struct err *err)
{
	sqlite3_stmt *statement = NULL;
	bool got = sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &statement, NULL) == SQLITE_OK &&
	           sqlite3_step(statement) == SQLITE_ROW;
	const char *found = got ? (const char *)sqlite3_column_text(statement, 0) : NULL;
	int code = 0;
	if (!found)
		code = store_fail(store, "cannot check", err);
	else if (strcmp(found, "ok") != 0)
		code = err_set(err, ERR_INVALID, "%s is damaged (%s); restore a copy or choose another run.dir",
		               store->path, found);
	sqlite3_finalize(statement);
	return code;
}

int store_schema_create(struct store *store, struct err *err)
{
	char *sql = sqlite3_mprintf("BEGIN; %s PRAGMA user_version = %d; COMMIT", schema, STORE_SCHEMA);
	int code = store_execute(store, sql, "cannot create the tables of", err);
	sqlite3_free(sql);
	return code;
}
