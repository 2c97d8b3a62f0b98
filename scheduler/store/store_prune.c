/* store_prune.c - the tables of pruning.  Statements are prepared as they are used: a few a sample. */
#include "scheduler/store/store_prune.h"

#include <stdlib.h>
#include <string.h>

#include "rollout/trajectory.h"
#include "scheduler/store/store_internal.h"

static const char tables[] =
	"CREATE TABLE IF NOT EXISTS quality_features (trajectory INTEGER PRIMARY KEY, version INTEGER, hidden BLOB);"
	"CREATE TABLE IF NOT EXISTS prunings (grp INTEGER PRIMARY KEY, head INTEGER, survivors INTEGER, tilt REAL,"
	" learned INTEGER, samples BLOB);"
	"CREATE TABLE IF NOT EXISTS quality_heads (number INTEGER PRIMARY KEY, head BLOB);";

static const char cannot_write[] = "cannot write what was pruned to", cannot_read[] = "cannot read what was pruned from";

int store_prune_open(struct store *store, struct err *err)
{
	return store->off ? 0 : store_execute(store, tables, cannot_write, err);
}

static int prepare(struct store *store, const char *sql, sqlite3_stmt **statement, const char *doing, struct err *err)
{
	return sqlite3_prepare_v2(store->db, sql, -1, statement, NULL) == SQLITE_OK ? 0 : store_fail(store, doing, err);
}

/* A bound statement without results, in the store's transaction. */
static int run(struct store *store, sqlite3_stmt *statement, struct err *err)
{
	int rc = store_begin(store, cannot_write, err);

	if (!rc && sqlite3_step(statement) != SQLITE_DONE) rc = store_fail(store, cannot_write, err);
	sqlite3_finalize(statement);
	if (rc) store_give_up(store);
	return rc;
}

int store_put_features(struct store *store, uint64_t trajectory_id, int64_t version, const float *hidden, int dim,
                       struct err *err)
{
	sqlite3_stmt *s;

	if (store->off) return 0;
	int rc = prepare(store, "INSERT OR REPLACE INTO quality_features VALUES (?1, ?2, ?3)", &s, cannot_write, err);
	if (rc) return rc;
	sqlite3_bind_int64(s, 1, (int64_t)trajectory_id);
	sqlite3_bind_int64(s, 2, version);
	sqlite3_bind_blob64(s, 3, hidden, (size_t)dim * sizeof *hidden, SQLITE_STATIC);
	return run(store, s, err);
}

int store_put_pruning(struct store *store, uint64_t group_id, const struct stored_pruning *p, struct err *err)
{
	sqlite3_stmt *s;

	if (store->off) return 0;
	int rc = prepare(store, "INSERT OR REPLACE INTO prunings VALUES (?1, ?2, ?3, ?4, ?5, ?6)", &s, cannot_write, err);
	if (rc) return rc;
	sqlite3_bind_int64(s, 1, (int64_t)group_id);
	sqlite3_bind_int64(s, 2, (int64_t)p->head);
	sqlite3_bind_int(s, 3, p->survivors);
	sqlite3_bind_double(s, 4, p->tilt);
	sqlite3_bind_int64(s, 5, (int64_t)p->learned);
	sqlite3_bind_blob64(s, 6, p->samples, (size_t)p->n * sizeof *p->samples, SQLITE_STATIC);
	return run(store, s, err);
}

int store_pruning_learned(struct store *store, uint64_t group_id, uint64_t head, struct err *err)
{
	sqlite3_stmt *s;

	if (store->off) return 0;
	int rc = prepare(store, "UPDATE prunings SET learned = ?2 WHERE grp = ?1", &s, cannot_write, err);
	if (rc) return rc;
	sqlite3_bind_int64(s, 1, (int64_t)group_id);
	sqlite3_bind_int64(s, 2, (int64_t)head);
	return run(store, s, err);
}

int store_put_quality_head(struct store *store, uint64_t number, const void *bytes, size_t n_bytes, struct err *err)
{
	sqlite3_stmt *s;

	if (store->off) return 0;
	int rc = prepare(store, "INSERT OR REPLACE INTO quality_heads VALUES (?1, ?2)", &s, cannot_write, err);
	if (rc) return rc;
	sqlite3_bind_int64(s, 1, (int64_t)number);
	sqlite3_bind_blob64(s, 2, bytes, n_bytes, SQLITE_STATIC);
	return run(store, s, err);
}

/* ---- reading ---- */

int store_each_features(struct store *store, uint64_t group_id,
                        int (*each)(void *context, int sample, int64_t version, const void *hidden, size_t n_bytes),
                        void *context, struct err *err)
{
	uint64_t first = trajectory_id(group_id, 0);
	sqlite3_stmt *s;
	int code = SQLITE_DONE;

	int rc = prepare(store, "SELECT trajectory, version, hidden FROM quality_features WHERE trajectory BETWEEN ?1 AND ?2 "
	                 "ORDER BY trajectory", &s, cannot_read, err);
	if (rc) return rc;
	sqlite3_bind_int64(s, 1, (int64_t)first);
	sqlite3_bind_int64(s, 2, (int64_t)first + TRAJECTORY_SAMPLES_MAX - 1);
	while (!rc && (code = sqlite3_step(s)) == SQLITE_ROW)
		rc = each(context, (int)((uint64_t)sqlite3_column_int64(s, 0) - first), sqlite3_column_int64(s, 1),
		          sqlite3_column_blob(s, 2), (size_t)sqlite3_column_bytes(s, 2));
	if (!rc && code != SQLITE_DONE) rc = store_fail(store, cannot_read, err);
	sqlite3_finalize(s);
	return rc;
}

int store_get_pruning(struct store *store, uint64_t group_id,
                      void (*each)(void *context, const struct stored_pruning *pruning), void *context, struct err *err)
{
	sqlite3_stmt *s;

	int rc = prepare(store, "SELECT head, survivors, tilt, learned, samples FROM prunings WHERE grp = ?1", &s, cannot_read, err);
	if (rc) return rc;
	sqlite3_bind_int64(s, 1, (int64_t)group_id);
	int code = sqlite3_step(s);
	if (code == SQLITE_ROW) {
		size_t n = (size_t)sqlite3_column_bytes(s, 4) / sizeof(struct stored_pruning_sample);
		struct stored_pruning_sample *samples = xmalloc((n + 1) * sizeof *samples);
		if (n > 0) memcpy(samples, sqlite3_column_blob(s, 4), n * sizeof *samples);
		struct stored_pruning p = { .head = (uint64_t)sqlite3_column_int64(s, 0), .survivors = sqlite3_column_int(s, 1),
			.tilt = sqlite3_column_double(s, 2), .learned = (uint64_t)sqlite3_column_int64(s, 3), .n = (int)n, .samples = samples };
		if (each) each(context, &p);
		free(samples);
		rc = 1;
	} else if (code != SQLITE_DONE) rc = store_fail(store, cannot_read, err);
	sqlite3_finalize(s);
	return rc;
}

int store_each_unlearned(struct store *store, int (*each)(void *context, uint64_t group_id, int n_samples, struct err *err),
                         void *context, struct err *err)
{
	sqlite3_stmt *s;
	int code = SQLITE_DONE;

	_Static_assert(STORE_DROPPED == 3, "as in the SQL here");
	int rc = prepare(store, "SELECT g.id, g.n_samples FROM prunings p JOIN groups g ON g.id = p.grp WHERE p.learned = 0 AND "
	                 "g.state = 3 AND NOT g.eval ORDER BY g.id", &s, cannot_read, err);
	if (rc) return rc;
	while (!rc && (code = sqlite3_step(s)) == SQLITE_ROW)
		rc = each(context, (uint64_t)sqlite3_column_int64(s, 0), sqlite3_column_int(s, 1), err);
	if (!rc && code != SQLITE_DONE) rc = store_fail(store, cannot_read, err);
	sqlite3_finalize(s);
	return rc;
}

int store_get_quality_head(struct store *store, uint64_t number, void **bytes, size_t *n_bytes, struct err *err)
{
	sqlite3_stmt *s;

	*bytes = NULL;
	*n_bytes = 0;
	int rc = prepare(store, "SELECT head FROM quality_heads WHERE ?1 = 0 OR number = ?1 ORDER BY number DESC LIMIT 1", &s, cannot_read, err);
	if (rc) return rc;
	sqlite3_bind_int64(s, 1, (int64_t)number);
	int code = sqlite3_step(s);
	if (code == SQLITE_ROW) {
		*n_bytes = (size_t)sqlite3_column_bytes(s, 0);
		*bytes = xmalloc(*n_bytes + 1);
		if (*n_bytes > 0) memcpy(*bytes, sqlite3_column_blob(s, 0), *n_bytes);
	} else if (code != SQLITE_DONE) rc = store_fail(store, cannot_read, err);
	sqlite3_finalize(s);
	return rc;
}
