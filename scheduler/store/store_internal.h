/* store_internal.h - what the store*.c files share: the connection, its statements, the columns. */
#ifndef SCHEDULER_STORE_STORE_INTERNAL_H
#define SCHEDULER_STORE_STORE_INTERNAL_H

#include <sqlite3.h>

#include "scheduler/store/store.h"

enum { STORE_SCHEMA = 3, STORE_SCHEMA_READ_MIN = 2 /* for reading alone */, STORE_PATH_MAX = 4096,
       STORE_PROMPTS_KNOWN = 256, STORE_INCREMENTS_COUNTS = 1024 /* a power of two */ };

/* X(kind, column, field of struct trajectory): what a row holds beside its prompt, state, checksum and
 * arrays.  REAL columns have no declared type: SQLite would store a declared -0.0 as 0. */
#define TRAJECTORY_COLUMNS(X) \
	X(INT, group_id, group_id) \
	X(INT, sample, sample) \
	X(INT, group_size, group_size) \
	X(INT, epoch, epoch) \
	X(INT, eval, eval) \
	X(INT, seed, seed) \
	X(REAL, temperature, sampling.temperature) \
	X(REAL, top_p, sampling.top_p) \
	X(INT, top_k, sampling.top_k) \
	X(REAL, min_p, sampling.min_p) \
	X(INT, max_tokens, max_tokens) \
	X(INT, n_prompt, n_prompt) \
	X(INT, n_tokens, n_tokens) \
	X(INT, finish, finish) \
	X(TEXT, error, error) \
	X(INT, deferrals, deferrals) \
	X(INT, has_reward, has_reward) \
	X(REAL, reward, reward) \
	X(REAL, reward_answer, reward_answer) \
	X(REAL, reward_steps, reward_steps) \
	X(INT, has_advantage, has_advantage) \
	X(REAL, advantage, advantage) \
	X(REAL, baseline, baseline) \
	X(REAL, scale, scale) \
	X(INT, pivot, pivot) \
	X(REAL, loss_weight, loss_weight) \
	X(INT, drafted, drafted) \
	X(INT, accepted, accepted) \
	X(INT, verify_calls, verify_calls) \
	X(REAL, queue_seconds, queue_seconds) \
	X(REAL, prefill_seconds, prefill_seconds) \
	X(REAL, decode_seconds, decode_seconds) \
	X(REAL, reward_seconds, reward_seconds) \
	X(INT, staleness_max, staleness_max) \
	X(INT, staleness_min, staleness_min)

/* X(column, field, bytes per token): little-endian blobs of n_tokens items. */
#define TRAJECTORY_ARRAYS(X) \
	X(tokens, tokens, 4) \
	X(logprobs, logprobs, 4) \
	X(versions, versions, 4) \
	X(loss_mask, loss_mask, 1)

/* The same, or NULL. */
#define TRAJECTORY_OPTIONAL_ARRAYS(X) X(target_logprobs, target_logprobs, 4)

/* X(name, SQL): prepared once at open. */
#define STATEMENT_LIST(X) \
	X(PUT_GROUP, "INSERT OR REPLACE INTO groups VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7)") \
	X(GROUP_STATE, "UPDATE groups SET state = ?2, step = ?3 WHERE id = ?1") \
	X(GROUP_SIZE, "UPDATE groups SET n_samples = ?2 WHERE id = ?1") \
	X(DROP_SAMPLES, "UPDATE trajectories SET state = 3 WHERE id BETWEEN ?1 AND ?2") \
	X(PUT_PROMPT, "INSERT OR IGNORE INTO prompts VALUES (?1, ?2, ?3, ?4)") \
	X(PUT_NEW_TRAJECTORY, STORE_SQL_PUT_TRAJECTORY("IGNORE")) \
	X(PUT_TRAJECTORY, STORE_SQL_PUT_TRAJECTORY("REPLACE")) \
	X(CLEAR_SEGMENTS, "DELETE FROM segments WHERE trajectory = ?1") \
	X(PUT_SEGMENT, "INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)") \
	X(CLEAR_INCREMENTS, "DELETE FROM increments WHERE trajectory = ?1") \
	X(PUT_INCREMENT, "INSERT OR REPLACE INTO increments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)") \
	X(PUT_DELIVERY, "INSERT OR REPLACE INTO deliveries VALUES (?1, ?2, ?3, ?4, 0, ?5)") \
	X(ACK_DELIVERY, "UPDATE deliveries SET acked = 1 WHERE batch_id = ?1") \
	X(PUT_VERSION, "INSERT OR REPLACE INTO weight_versions VALUES (?1, ?2, ?3, ?4, 0)") \
	X(VERSION_KEPT, "UPDATE weight_versions SET kept = 1 WHERE version = ?1") \
	X(PUT_STATE, "INSERT OR REPLACE INTO state VALUES (?1, ?2)") \
	X(PUT_METRICS, "INSERT INTO metrics VALUES (?1, ?2)") \
	X(GET_TRAJECTORIES, STORE_SQL_GET_TRAJECTORIES) \
	X(GET_SEGMENTS, "SELECT start, length, version, rank, mode FROM segments WHERE trajectory = ?1 " \
	                "ORDER BY ordinal")

#define STORE_COLUMN(kind, column, field) ", " #column
#define STORE_ARRAY(column, field, bytes) ", " #column
#define STORE_VALUE(...) ", ?"
#define STORE_TRAJECTORY_NAMES(state) \
	"id, prompt, " state ", checksum" TRAJECTORY_COLUMNS(STORE_COLUMN) TRAJECTORY_ARRAYS(STORE_ARRAY) \
	TRAJECTORY_OPTIONAL_ARRAYS(STORE_ARRAY)
#define STORE_SQL_PUT_TRAJECTORY(or_else) \
	"INSERT OR " or_else " INTO trajectories (" STORE_TRAJECTORY_NAMES("state") ") VALUES (?, ?, ?, ?" \
	TRAJECTORY_COLUMNS(STORE_VALUE) TRAJECTORY_ARRAYS(STORE_VALUE) TRAJECTORY_OPTIONAL_ARRAYS(STORE_VALUE) ")"
/* Of a trajectory t: what became of its group, unless it was dropped by itself.  So a group of any size is delivered by
 * writing one row. */
#define STORE_SQL_STATE \
	"coalesce((SELECT g.state FROM groups g WHERE g.id = t.group_id AND g.state >= 2 AND t.state <> 3), t.state)"
#define STORE_SQL_GET_TRAJECTORIES \
	"SELECT " STORE_TRAJECTORY_NAMES(STORE_SQL_STATE) ", prompt_id, answer, meta " \
	"FROM trajectories t LEFT JOIN prompts ON key = prompt WHERE id BETWEEN ?1 AND ?2 ORDER BY id"

enum statement {
#define X(name, sql) name,
	STATEMENT_LIST(X)
#undef X
	STATEMENT_COUNT,
	STATEMENT_READ = GET_TRAJECTORIES /* from here on: those of a reader, which takes older schemas too */
};

struct store {
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENT_COUNT];
	char path[STORE_PATH_MAX]; /* of the database */
	int lock;                  /* descriptor of drumroll.lock, -1 for a reader */
	bool in_transaction;
	bool lost;                 /* a transaction was rolled back: what is put now may build on it, so nothing is */
	double seconds;            /* spent in writing */
	int log_pages;             /* in the write-ahead log after the last commit */
	uint64_t prompts[STORE_PROMPTS_KNOWN]; /* keys that are there, each where it hashes to */
	uint32_t increments[STORE_INCREMENTS_COUNTS]; /* store_increments_of */
	bool off;                  /* of what is put, only metrics are kept */
};

/* What SQLite refused, as an error that says what to do; returns err->code. */
int store_fail(struct store *store, const char *doing, struct err *err);

/* SQL without results. */
int store_execute(struct store *store, const char *sql, const char *doing, struct err *err);

/* The transaction is begun if there is none; refused once one was lost. */
int store_begin(struct store *store, const char *doing, struct err *err);
/* Of a write that failed within a transaction: all of it is taken back, so that no half of it is ever committed. */
void store_give_up(struct store *store);

/* Run a bound statement that returns no rows, inside the current transaction (begun if there is none),
 * and unbind it. */
int store_run(struct store *store, enum statement which, const char *doing, struct err *err);

/* store_schema.c: 0, or an error if the file is no store of this schema version; *version is what it
 * says, 0 for a fresh file. */
int store_schema_check(struct store *store, int *version, struct err *err);
/* From an older schema to this one, in one transaction. */
int store_schema_migrate(struct store *store, int from, struct err *err);
/* O(size of the file): reads all of it. */
int store_schema_verify(struct store *store, struct err *err);
int store_schema_create(struct store *store, struct err *err);

/* store_trajectory.c */
uint64_t store_increment_checksum(const struct segment *segment, const void *tokens, const void *logprobs);
/* How many increments there are at most of the trajectories with this one's hash: most have none to clear. */
static inline uint32_t *store_increments_of(struct store *store, uint64_t trajectory_id)
{
	return &store->increments[(trajectory_id * 0x9e3779b97f4a7c15u >> 32) % STORE_INCREMENTS_COUNTS];
}
/* The trajectories with ids from first to last, as store_each_trajectory. */
int store_each_between(struct store *store, uint64_t first, uint64_t last,
                       int (*each)(void *context, const struct trajectory *trajectory, enum store_state state),
                       void *context, struct err *err);

#endif
