/* store_read.c - the reading side of drumroll.db for a run that is resumed, or gone over again.
 *
 * Statements are prepared when needed: beside a record's blobs that costs nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/store/store_internal.h"
#include "scheduler/store/store_read.h"

static sqlite3_stmt *prepare(struct store *store, const char *sql, struct err *err)
{
	sqlite3_stmt *statement = NULL;
	if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK) store_fail(store, "cannot read", err);
	return statement;
}

/* After the last row: an error if it was not the last. */
static int finish(struct store *store, sqlite3_stmt *statement, int row, int code, struct err *err)
{
	if (!code && row != SQLITE_DONE) code = store_fail(store, "cannot read", err);
	sqlite3_finalize(statement);
	return code;
}

/* The integer that the statement gives for ?1. */
static int read_number(struct store *store, const char *sql, int64_t parameter, int64_t *value, struct err *err)
{
	sqlite3_stmt *statement = prepare(store, sql, err);
	if (!statement) return err->code;
	sqlite3_bind_int64(statement, 1, parameter);
	int row = sqlite3_step(statement);
	*value = row == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
	return finish(store, statement, row == SQLITE_ROW ? SQLITE_DONE : row, 0, err);
}

static int read_run_id(struct store *store, char run_id[STORE_RUN_ID_MAX], struct err *err)
{
	sqlite3_stmt *statement = prepare(store, "SELECT run_id FROM runs ORDER BY started", err);
	if (!statement) return err->code;
	int code = 0, row = sqlite3_step(statement);
	if (row == SQLITE_ROW)
		snprintf(run_id, STORE_RUN_ID_MAX, "%s", (const char *)sqlite3_column_text(statement, 0));
	else if (row == SQLITE_DONE)
		code = err_set(err, ERR_INVALID, "%s has no run: it ended before it began; start a new one", store->path);
	return finish(store, statement, SQLITE_DONE, code ? code : row == SQLITE_ROW ? 0 : store_fail(store, "cannot read", err),
	              err);
}

int store_read_progress(struct store *store, struct store_progress *progress, struct err *err)
{
	int64_t next_group = 0, next_ordinal = 0, dropped = 0, unacknowledged = 0, xxh3 = 0, extra = 0;
	const struct { const char *sql; int64_t *value; } numbers[] = {
		{ "SELECT coalesce(max(step), 0) FROM deliveries", &progress->step },
		{ "SELECT coalesce((SELECT value FROM state WHERE key = 'batch_out'), 0)", &progress->batch_out },
		{ "SELECT coalesce((SELECT value FROM state WHERE key = 'evaluated'), -1)", &progress->evaluated },
		{ "SELECT coalesce((SELECT value FROM state WHERE key = 'line'), 0)", &progress->line },
		{ "SELECT coalesce((SELECT value FROM state WHERE key = 'committed_ms'), 0)", &progress->committed_ms },
		{ "SELECT coalesce(max(version), 0) FROM weight_versions", &progress->version },
		{ "SELECT coalesce(max(version), 0) FROM weight_versions WHERE kept", &progress->kept },
		{ "SELECT coalesce((SELECT xxh3 FROM weight_versions WHERE kept ORDER BY version DESC LIMIT 1), 0)", &xxh3 },
		{ "SELECT coalesce(max(id), 0) + 1 FROM groups", &next_group },
		{ "SELECT coalesce(max(ordinal) + 1, 0) FROM groups WHERE NOT eval", &next_ordinal },
		{ "SELECT count(*) FROM deliveries WHERE NOT acked", &unacknowledged },
		{ "SELECT coalesce((SELECT value FROM state WHERE key = 'extra'), 0)", &extra },
	};

	memset(progress, 0, sizeof *progress);
	int rc = read_run_id(store, progress->run_id, err);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers && !rc; i++)
		rc = read_number(store, numbers[i].sql, 0, numbers[i].value, err);
	/* by a filter of the step: those that were given up have STORE_NO_STEP */
	if (!rc) rc = read_number(store, "SELECT count(*) FROM groups WHERE NOT eval AND state = 3 AND step > ?1",
	                          progress->step, &dropped, err);
	_Static_assert(STORE_PARTIAL == 0 && STORE_DONE == 1 && STORE_DELIVERED == 2 && STORE_DROPPED == 3, "as in the SQL here");
	progress->kept_xxh3 = (uint64_t)xxh3;
	progress->next_group = (uint64_t)next_group;
	progress->next_ordinal = (uint64_t)next_ordinal;
	progress->dropped = (int)dropped;
	progress->n_unacknowledged = (int)unacknowledged;
	progress->extra = (int)extra;
	return rc;
}

int store_each_open_group(struct store *store, int (*each)(void *context, const struct stored_group *group, struct err *err),
                          void *context, struct err *err)
{
	sqlite3_stmt *rows = prepare(store, "SELECT id, ordinal, prompt_id, epoch, n_samples, state FROM groups "
	                             "WHERE state < 2 AND NOT eval ORDER BY id", err);
	int row, code = 0;
	if (!rows) return err->code;
	while ((row = sqlite3_step(rows)) == SQLITE_ROW && !code) {
		const char *prompt_id = (const char *)sqlite3_column_text(rows, 2);
		struct stored_group group = {
			.id = (uint64_t)sqlite3_column_int64(rows, 0), .ordinal = (uint64_t)sqlite3_column_int64(rows, 1),
			.prompt_id = prompt_id ? prompt_id : "", .epoch = sqlite3_column_int(rows, 3),
			.n_samples = sqlite3_column_int(rows, 4), .kept = sqlite3_column_int(rows, 5) == STORE_DONE };
		if (group.id == 0 || group.n_samples < 1 || group.n_samples > TRAJECTORY_SAMPLES_MAX)
			code = err_set(err, ERR_INVALID, "%s: group %llu is damaged: it has %d samples; restore a copy of the run directory",
			               store->path, (unsigned long long)group.id, group.n_samples);
		else code = each(context, &group, err);
	}
	return finish(store, rows, code ? SQLITE_DONE : row, code, err);
}

/* ---- samples ---- */

struct gathered {
	struct trajectory **samples;
	uint64_t group_id;
	int n;
};

static int gather(void *context, const struct trajectory *t, enum store_state state)
{
	struct gathered *g = context;
	(void)state;
	if (t->group_id == g->group_id && t->sample >= 0 && t->sample < g->n && !g->samples[t->sample])
		g->samples[t->sample] = trajectory_copy(t);
	return 0;
}

static int damaged_increment(const struct store *store, uint64_t id, struct err *err)
{
	return err_set(err, ERR_INVALID, "%s: what was added to trajectory %llu in flight is damaged; restore a copy of the run "
	               "directory", store->path, (unsigned long long)id);
}

int store_add_increments(struct store *store, struct trajectory *t, struct err *err)
{
	sqlite3_stmt *rows = prepare(store, "SELECT start, tokens, logprobs, version, rank, mode, checksum FROM increments "
	                             "WHERE trajectory = ?1 ORDER BY start", err);
	int row, code = 0;
	if (!rows) return err->code;
	sqlite3_bind_int64(rows, 1, (int64_t)t->id);
	while ((row = sqlite3_step(rows)) == SQLITE_ROW && !code) {
		int n_bytes = sqlite3_column_bytes(rows, 1), n = n_bytes / 4;
		const char *tokens = sqlite3_column_blob(rows, 1), *logprobs = sqlite3_column_blob(rows, 2);
		struct segment segment = { .start = sqlite3_column_int(rows, 0), .length = n, .version = sqlite3_column_int(rows, 3) };
		if (segment.start != t->n_tokens || n_bytes % 4 || n < 1 || sqlite3_column_bytes(rows, 2) != n_bytes ||
		    trajectory_response_length(t) + n > t->max_tokens || t->finish != FINISH_NONE ||
		    store_increment_checksum(&segment, tokens, logprobs) != (uint64_t)sqlite3_column_int64(rows, 6)) {
			code = damaged_increment(store, t->id, err);
			break;
		}
		for (int i = 0; i < n; i++) {
			int32_t token;
			float logprob;
			memcpy(&token, tokens + 4 * i, sizeof token);
			memcpy(&logprob, logprobs + 4 * i, sizeof logprob);
			trajectory_append(t, token, logprob, segment.version, sqlite3_column_int(rows, 4), sqlite3_column_int(rows, 5));
		}
	}
	return finish(store, rows, code ? SQLITE_DONE : row, code, err);
}

int store_get_group(struct store *store, uint64_t group_id, struct trajectory **samples, int n, struct err *err)
{
	struct gathered gathered = { .samples = samples, .group_id = group_id, .n = n };

	memset(samples, 0, (size_t)n * sizeof *samples);
	return store_each_between(store, trajectory_id(group_id, 0), trajectory_id(group_id, TRAJECTORY_SAMPLES_MAX - 1), gather,
	                          &gathered, err);
}

struct found {
	struct trajectory *trajectory;
	enum store_state state;
};

static int take_one(void *context, const struct trajectory *t, enum store_state state)
{
	struct found *found = context;
	*found = (struct found){ trajectory_copy(t), state };
	return 0;
}

int store_get_trajectory(struct store *store, uint64_t id, struct trajectory **trajectory, struct err *err)
{
	struct found found = { 0 };
	int64_t in_flight = 0; /* older stores have none */

	*trajectory = NULL;
	int rc = store_each_between(store, id, id, take_one, &found, err);
	if (!rc && !found.trajectory)
		rc = err_set(err, ERR_MISSING, "%s: trajectory %llu is not there (any more)", store->path, (unsigned long long)id);
	if (!rc && found.trajectory->finish == FINISH_NONE)
		rc = read_number(store, "SELECT count(*) FROM sqlite_master WHERE name = 'increments'", 0, &in_flight, err);
	if (!rc && in_flight) rc = store_add_increments(store, found.trajectory, err);
	if (rc) trajectory_free(found.trajectory);
	else *trajectory = found.trajectory;
	return rc;
}

int store_get_version(struct store *store, int64_t version, uint64_t *xxh3, bool *known, struct err *err)
{
	int64_t number = 0, n = 0;
	int rc = read_number(store, "SELECT count(*) FROM weight_versions WHERE version = ?1", version, &n, err);

	if (!rc && n) rc = read_number(store, "SELECT xxh3 FROM weight_versions WHERE version = ?1", version, &number, err);
	*xxh3 = (uint64_t)number;
	*known = n > 0;
	return rc;
}

/* ---- batches ---- */

struct batch_gathered {
	struct trajectory **trajectories; /* [n] */
	int n, capacity;
};

static int gather_batch(void *context, const struct trajectory *t, enum store_state state)
{
	struct batch_gathered *g = context;
	if (state != STORE_DELIVERED) return 0; /* a pool that was chosen from */
	if (g->n == g->capacity) {
		g->capacity = g->capacity ? 2 * g->capacity : 64;
		g->trajectories = xrealloc(g->trajectories, (size_t)g->capacity * sizeof *g->trajectories);
	}
	g->trajectories[g->n++] = trajectory_copy(t);
	return 0;
}

/* Groups are delivered in order of id, and so are the samples of each. */
static int read_batch(struct store *store, int64_t step, struct batch_gathered *g, struct err *err)
{
	sqlite3_stmt *rows = prepare(store, "SELECT id FROM groups WHERE NOT eval AND state = 2 AND step = ?1 ORDER BY id", err);
	int row, code = 0;
	if (!rows) return err->code;
	sqlite3_bind_int64(rows, 1, step);
	while ((row = sqlite3_step(rows)) == SQLITE_ROW && !code) {
		uint64_t id = (uint64_t)sqlite3_column_int64(rows, 0);
		code = store_each_between(store, trajectory_id(id, 0), trajectory_id(id, TRAJECTORY_SAMPLES_MAX - 1), gather_batch, g, err);
	}
	return finish(store, rows, code ? SQLITE_DONE : row, code, err);
}

void stored_batch_free(struct stored_batch *batch)
{
	for (int i = 0; i < batch->n; i++) trajectory_free(batch->trajectories[i]);
	free(batch->trajectories);
	*batch = (struct stored_batch){ 0 };
}

/* The batch of the current row: batch_id, step, version, n. */
static int load_batch(struct store *store, sqlite3_stmt *row, struct stored_batch *batch, struct err *err)
{
	struct batch_gathered g = { 0 };

	*batch = (struct stored_batch){ .id = (uint64_t)sqlite3_column_int64(row, 0), .step = sqlite3_column_int64(row, 1),
	                                .version = sqlite3_column_int64(row, 2) };
	int code = read_batch(store, batch->step, &g, err);
	batch->trajectories = g.trajectories;
	batch->n = g.n;
	if (!code && g.n != sqlite3_column_int(row, 3))
		code = err_set(err, ERR_INVALID, "%s: batch %llu is damaged: expected %d trajectories, found %d; restore a copy of the "
		               "run directory", store->path, (unsigned long long)batch->id, sqlite3_column_int(row, 3), g.n);
	if (code) stored_batch_free(batch);
	return code;
}

int store_each_unacknowledged(struct store *store,
                              int (*each)(void *context, const struct stored_batch *batch, struct err *err),
                              void *context, struct err *err)
{
	sqlite3_stmt *rows = prepare(store, "SELECT batch_id, step, version, n FROM deliveries WHERE NOT acked ORDER BY batch_id",
	                             err);
	int row, code = 0;
	if (!rows) return err->code;
	while ((row = sqlite3_step(rows)) == SQLITE_ROW && !code) {
		struct stored_batch batch;
		code = load_batch(store, rows, &batch, err);
		if (code) break;
		code = each(context, &batch, err);
		stored_batch_free(&batch);
	}
	return finish(store, rows, code ? SQLITE_DONE : row, code, err);
}

int store_next_batch(struct store *store, int64_t after, struct stored_batch *batch, struct err *err)
{
	sqlite3_stmt *rows = prepare(store, "SELECT batch_id, step, version, n FROM deliveries WHERE step > ?1 ORDER BY step LIMIT 1",
	                             err);
	*batch = (struct stored_batch){ 0 };
	if (!rows) return err->code;
	sqlite3_bind_int64(rows, 1, after);
	int row = sqlite3_step(rows), code = row == SQLITE_ROW ? load_batch(store, rows, batch, err) : 0;
	return finish(store, rows, row == SQLITE_ROW ? SQLITE_DONE : row, code, err);
}

/* ---- metrics ---- */

int store_each_metrics(struct store *store, int (*each)(void *context, const char *json, struct err *err),
                       void *context, struct err *err)
{
	sqlite3_stmt *rows = prepare(store, "SELECT json FROM metrics ORDER BY rowid", err);
	int row, code = 0;
	if (!rows) return err->code;
	while ((row = sqlite3_step(rows)) == SQLITE_ROW && !code) {
		const char *json = (const char *)sqlite3_column_text(rows, 0);
		code = each(context, json ? json : "", err);
	}
	return finish(store, rows, code ? SQLITE_DONE : row, code, err);
}

int store_get_delivery_metrics(struct store *store, int64_t step, char **json, struct err *err)
{
	sqlite3_stmt *rows = prepare(store, "SELECT metrics FROM deliveries WHERE step = ?1", err);
	*json = NULL;
	if (!rows) return err->code;
	sqlite3_bind_int64(rows, 1, step);
	int row = sqlite3_step(rows);
	const char *text = row == SQLITE_ROW ? (const char *)sqlite3_column_text(rows, 0) : NULL;
	if (text) *json = xstrdup(text);
	return finish(store, rows, row == SQLITE_ROW ? SQLITE_DONE : row, 0, err);
}

int store_drop_unresumed(struct store *store, struct err *err)
{
	return store_execute(store, "UPDATE groups SET state = 3 WHERE (eval OR ordinal < 0) AND state < 2", "cannot write to", err);
}
