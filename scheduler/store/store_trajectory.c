/* store_trajectory.c - trajectories to rows and back, bit for bit.
 *
 * A prompt's text fields are stored once, under the hash of their content.  Reading trusts nothing:
 * sizes are checked against each other and the record against its checksum.
 */
#include "scheduler/store/store_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the blobs are little-endian");

static uint64_t prompt_key(const struct trajectory *trajectory)
{
	const char *const fields[] = {trajectory->prompt_id, trajectory->answer, trajectory->meta};
	uint64_t key = 0;
	for (int i = 0; i < 3; i++) /* the seed keeps NULL, "" and the order of fields apart */
		key = fields[i] ? XXH3_64bits_withSeed(fields[i], strlen(fields[i]), key + 1) : key + 2;
	return key;
}

/* The samples of a group share it: most are known to be there. */
static int put_prompt(struct store *store, const struct trajectory *trajectory, uint64_t key, struct err *err)
{
	sqlite3_stmt *statement = store->statements[PUT_PROMPT];
	uint64_t *known = &store->prompts[key % STORE_PROMPTS_KNOWN];
	if (*known == key)
		return 0;
	sqlite3_bind_int64(statement, 1, (int64_t)key);
	sqlite3_bind_text(statement, 2, trajectory->prompt_id, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 3, trajectory->answer, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 4, trajectory->meta, -1, SQLITE_STATIC);
	if (store_run(store, PUT_PROMPT, "cannot write a prompt to", err))
		return err->code;
	*known = key;
	return 0;
}

static int clear_segments(struct store *store, const struct trajectory *trajectory, struct err *err)
{
	sqlite3_bind_int64(store->statements[CLEAR_SEGMENTS], 1, (int64_t)trajectory->id);
	return store_run(store, CLEAR_SEGMENTS, "cannot write segments to", err);
}

static int clear_increments(struct store *store, const struct trajectory *trajectory, struct err *err)
{
	uint32_t *count = store_increments_of(store, trajectory->id);
	if (*count == 0)
		return 0;
	sqlite3_bind_int64(store->statements[CLEAR_INCREMENTS], 1, (int64_t)trajectory->id);
	if (store_run(store, CLEAR_INCREMENTS, "cannot write a trajectory to", err))
		return err->code;
	*count -= (uint32_t)sqlite3_changes(store->db);
	return 0;
}

static int put_segments(struct store *store, const struct trajectory *trajectory, struct err *err)
{
	for (int i = 0; i < trajectory->n_segments; i++) {
		const struct segment *segment = &trajectory->segments[i];
		sqlite3_stmt *statement = store->statements[PUT_SEGMENT];
		sqlite3_bind_int64(statement, 1, (int64_t)trajectory->id);
		sqlite3_bind_int(statement, 2, i);
		sqlite3_bind_int(statement, 3, segment->start);
		sqlite3_bind_int(statement, 4, segment->length);
		sqlite3_bind_int(statement, 5, segment->version);
		sqlite3_bind_int(statement, 6, segment->rank);
		sqlite3_bind_int(statement, 7, segment->mode);
		if (store_run(store, PUT_SEGMENT, "cannot write segments to", err))
			return err->code;
	}
	return 0;
}

#define BIND_INT(value) sqlite3_bind_int64(statement, at++, (int64_t)(value));
#define BIND_REAL(value) sqlite3_bind_double(statement, at++, (double)(value));
#define BIND_TEXT(value) sqlite3_bind_text(statement, at++, (value), -1, SQLITE_STATIC);
#define BIND_COLUMN(kind, column, field) BIND_##kind(trajectory->field)
#define BIND_ARRAY(column, field, bytes) \
	sqlite3_bind_blob64(statement, at++, trajectory->field, (size_t)trajectory->n_tokens * (bytes), \
	                    SQLITE_STATIC);

static int put_row(struct store *store, enum statement which, const struct trajectory *trajectory, uint64_t key,
                   enum store_state state, struct err *err)
{
	sqlite3_stmt *statement = store->statements[which];
	int at = 1;
	BIND_INT(trajectory->id)
	BIND_INT(key)
	BIND_INT(state)
	BIND_INT(trajectory_checksum(trajectory))
	TRAJECTORY_COLUMNS(BIND_COLUMN)
	TRAJECTORY_ARRAYS(BIND_ARRAY)
	TRAJECTORY_OPTIONAL_ARRAYS(BIND_ARRAY)
	return store_run(store, which, "cannot write a trajectory to", err);
}

int store_put_again(struct store *store, const struct trajectory *trajectory, enum store_state state, struct err *err)
{
	return store->off ? 0 : put_row(store, PUT_TRAJECTORY, trajectory, prompt_key(trajectory), state, err);
}

int store_put_trajectory(struct store *store, const struct trajectory *trajectory, enum store_state state,
                         struct err *err)
{
	if (store->off)
		return 0;
	uint64_t key = prompt_key(trajectory);
	if (put_prompt(store, trajectory, key, err) || put_row(store, PUT_NEW_TRAJECTORY, trajectory, key, state, err))
		return err->code;
	bool is_new = sqlite3_changes(store->db) > 0;
	if (!is_new && (put_row(store, PUT_TRAJECTORY, trajectory, key, state, err) || clear_segments(store, trajectory, err)))
		return err->code;
	return clear_increments(store, trajectory, err) ? err->code : put_segments(store, trajectory, err);
}

uint64_t store_increment_checksum(const struct segment *segment, const void *tokens, const void *logprobs)
{
	size_t n_bytes = 4 * (size_t)segment->length;
	uint64_t key = (uint64_t)segment->start << 32 | (uint32_t)segment->version;
	return XXH3_64bits_withSeed(logprobs, n_bytes, XXH3_64bits_withSeed(tokens, n_bytes, key));
}

/* NaN is stored as NULL. */
static double column_real(sqlite3_stmt *statement, int at)
{
	return sqlite3_column_type(statement, at) == SQLITE_NULL ? (double)NAN
	                                                         : sqlite3_column_double(statement, at);
}

static char *column_text(sqlite3_stmt *statement, int at)
{
	const char *text = (const char *)sqlite3_column_text(statement, at);
	return text ? xstrdup(text) : NULL;
}

static int get_segments(struct store *store, struct trajectory *trajectory, struct err *err)
{
	sqlite3_stmt *statement = store->statements[GET_SEGMENTS];
	int code;
	sqlite3_bind_int64(statement, 1, (int64_t)trajectory->id);
	while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
		size_t n = (size_t)++trajectory->n_segments;
		trajectory->segments = xrealloc(trajectory->segments, n * sizeof(*trajectory->segments));
		trajectory->segments[n - 1] = (struct segment){
			.start = sqlite3_column_int(statement, 0),
			.length = sqlite3_column_int(statement, 1),
			.version = sqlite3_column_int(statement, 2),
			.rank = sqlite3_column_int(statement, 3),
			.mode = sqlite3_column_int(statement, 4),
		};
	}
	if (code != SQLITE_DONE)
		store_fail(store, "cannot read segments of", err);
	sqlite3_reset(statement);
	return code == SQLITE_DONE ? 0 : err->code;
}

/* An owned copy of a blob of exactly n_bytes, NULL if it has another size. */
static void *column_array(sqlite3_stmt *statement, int at, size_t n_bytes)
{
	if ((size_t)sqlite3_column_bytes(statement, at) != n_bytes)
		return NULL;
	void *array = xmalloc(n_bytes ? n_bytes : 1);
	if (n_bytes)
		memcpy(array, sqlite3_column_blob(statement, at), n_bytes);
	return array;
}

#define GET_INT(field) \
	trajectory->field = (__typeof__(trajectory->field))sqlite3_column_int64(statement, at++);
#define GET_REAL(field) trajectory->field = (__typeof__(trajectory->field))column_real(statement, at++);
#define GET_TEXT(field) trajectory->field = column_text(statement, at++);
#define GET_COLUMN(kind, column, field) GET_##kind(field)
#define GET_ARRAY(column, field, bytes) \
	trajectory->field = column_array(statement, at++, (size_t)trajectory->n_tokens * (bytes)); \
	complete = complete && trajectory->field;

#define GET_OPTIONAL_ARRAY(column, field, bytes) \
	if (sqlite3_column_type(statement, at) == SQLITE_NULL) at++; \
	else { GET_ARRAY(column, field, bytes) }

/* The columns of the current row; false if sizes do not match. */
static bool get_row(sqlite3_stmt *statement, struct trajectory *trajectory, enum store_state *state,
                    uint64_t *checksum)
{
	int at = 2; /* after id and prompt */
	bool complete = true;
	trajectory->id = (uint64_t)sqlite3_column_int64(statement, 0);
	*state = (enum store_state)sqlite3_column_int64(statement, at++);
	*checksum = (uint64_t)sqlite3_column_int64(statement, at++);
	TRAJECTORY_COLUMNS(GET_COLUMN)
	if (trajectory->n_prompt < 0 || trajectory->n_tokens < trajectory->n_prompt)
		return false;
	TRAJECTORY_ARRAYS(GET_ARRAY)
	TRAJECTORY_OPTIONAL_ARRAYS(GET_OPTIONAL_ARRAY)
	trajectory->capacity = trajectory->n_tokens;
	GET_TEXT(prompt_id)
	GET_TEXT(answer)
	GET_TEXT(meta)
	return complete && trajectory->finish <= FINISH_ERROR;
}

static bool segments_fit(const struct trajectory *trajectory)
{
	for (int i = 0; i < trajectory->n_segments; i++) {
		const struct segment *segment = &trajectory->segments[i];
		if (segment->start < trajectory->n_prompt || segment->length < 0 ||
		    segment->length > trajectory->n_tokens - segment->start)
			return false;
	}
	return true;
}

static int get_trajectory(struct store *store, struct trajectory *trajectory, enum store_state *state,
                          struct err *err)
{
	uint64_t checksum;
	const char *damage = NULL;
	if (!get_row(store->statements[GET_TRAJECTORIES], trajectory, state, &checksum))
		damage = "its sizes contradict each other";
	else if (trajectory_checksum(trajectory) != checksum)
		damage = "its checksum does not match";
	else if (get_segments(store, trajectory, err))
		return err->code;
	else if (!segments_fit(trajectory))
		damage = "its segments do not fit its tokens";
	if (!damage)
		return 0;
	return err_set(err, ERR_INVALID,
	               "%s: trajectory %llu is damaged: %s; restore a copy of the run directory", store->path,
	               (unsigned long long)trajectory->id, damage);
}

int store_each_trajectory(struct store *store,
                          int (*each)(void *context, const struct trajectory *trajectory,
                                      enum store_state state),
                          void *context, struct err *err)
{
	return store_each_between(store, (uint64_t)INT64_MIN, INT64_MAX, each, context, err);
}

int store_each_between(struct store *store, uint64_t first, uint64_t last,
                       int (*each)(void *context, const struct trajectory *trajectory, enum store_state state),
                       void *context, struct err *err)
{
	sqlite3_stmt *rows = store->statements[GET_TRAJECTORIES];
	int code = 0, row = SQLITE_DONE;
	sqlite3_bind_int64(rows, 1, (int64_t)first);
	sqlite3_bind_int64(rows, 2, (int64_t)last);
	while (code == 0 && (row = sqlite3_step(rows)) == SQLITE_ROW) {
		struct trajectory *trajectory = xcalloc(1, sizeof(*trajectory));
		enum store_state state;
		code = get_trajectory(store, trajectory, &state, err);
		if (code == 0)
			code = each(context, trajectory, state);
		trajectory_free(trajectory);
	}
	if (code == 0 && row != SQLITE_DONE)
		code = store_fail(store, "cannot read", err);
	sqlite3_reset(rows);
	return code;
}
