/* store_samples.c - what is known of every sample but its tokens, to choose among them and for statistics: the blobs stay
 * on disk, so that this takes microseconds a sample; nothing is checked against checksums. */
#include <math.h>

#include "scheduler/store/store_internal.h"
#include "scheduler/store/store_read.h"

static double real_or_nan(sqlite3_stmt *rows, int at)
{
	return sqlite3_column_type(rows, at) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(rows, at);
}

static struct stored_sample read_sample(sqlite3_stmt *rows)
{
	bool has_reward = sqlite3_column_int(rows, 7), has_advantage = sqlite3_column_int(rows, 10);
	return (struct stored_sample){
		.id = (uint64_t)sqlite3_column_int64(rows, 0),
		.state = (enum store_state)sqlite3_column_int(rows, 1),
		.step = sqlite3_column_int64(rows, 2),
		.eval = sqlite3_column_int(rows, 3),
		.n_response = sqlite3_column_int(rows, 4),
		.finish = (enum finish_reason)sqlite3_column_int(rows, 5),
		.deferrals = sqlite3_column_int(rows, 6),
		.reward = has_reward ? real_or_nan(rows, 8) : (double)NAN,
		.answer = has_reward ? real_or_nan(rows, 9) : (double)NAN,
		.advantage = has_advantage ? real_or_nan(rows, 11) : (double)NAN,
		.pivot = sqlite3_column_int(rows, 12),
		.staleness = sqlite3_column_int(rows, 13),
		.reward_seconds = real_or_nan(rows, 14),
		.group_id = (uint64_t)sqlite3_column_int64(rows, 15),
		.n_positions = sqlite3_column_int(rows, 16),
	};
}

int store_each_sample(struct store *store, int (*each)(void *context, const struct stored_sample *sample, struct err *err),
                      void *context, struct err *err)
{
	static const char sql[] =
		"SELECT t.id, " STORE_SQL_STATE ", CASE WHEN g.state < 2 THEN -1 ELSE coalesce(g.step, -1) END, t.eval, t.n_tokens - t.n_prompt,"
		" t.finish, t.deferrals, t.has_reward, t.reward, t.reward_answer, t.has_advantage, t.advantage, t.pivot, t.staleness_max, t.reward_seconds, t.group_id,"
		" t.n_prompt + t.max_tokens"
		" FROM trajectories t LEFT JOIN groups g ON g.id = t.group_id ORDER BY t.id";
	sqlite3_stmt *rows = NULL;
	int row = SQLITE_DONE, code = 0;

	if (sqlite3_prepare_v2(store->db, sql, -1, &rows, NULL) != SQLITE_OK) return store_fail(store, "cannot read", err);
	while (!code && (row = sqlite3_step(rows)) == SQLITE_ROW) {
		struct stored_sample sample = read_sample(rows);
		code = each(context, &sample, err);
	}
	if (!code && row != SQLITE_DONE) code = store_fail(store, "cannot read", err);
	sqlite3_finalize(rows);
	return code;
}
