/* store.h - the run directory's database, drumroll.db: SQLite in WAL mode; store*.c alone know
 * <sqlite3.h>.
 *
 * One writer, which a lock on drumroll.lock enforces between processes.  Rows gathered between
 * store_flush calls are one transaction (group commit): after a crash the file is as of the last flush.
 */
#ifndef SCHEDULER_STORE_STORE_H
#define SCHEDULER_STORE_STORE_H

#include "rollout/trajectory.h"

struct store;

/* Of a group: PARTIAL: not complete, or not scored yet; DONE: complete, scored and kept.  A trajectory is PARTIAL, DONE or
 * DROPPED as it was put, and goes with its group once that is DELIVERED or DROPPED. */
enum store_state { STORE_PARTIAL, STORE_DONE, STORE_DELIVERED, STORE_DROPPED };

/* X(name, key): numbers of which the last one put is kept.
 * BATCH_OUT  the batch for which no weights have reached the ranks yet, 0: none
 * EVALUATED  step of the last evaluation that was finished
 * LINE       the last batch whose line of metrics was written
 * COMMITTED  milliseconds since 1970 at the last commit
 * EXTRA      samples that groups were extended by since the last batch */
#define STORE_STATE_LIST(X) X(STATE_BATCH_OUT, "batch_out") X(STATE_EVALUATED, "evaluated") \
	X(STATE_LINE, "line") X(STATE_COMMITTED, "committed_ms") X(STATE_EXTRA, "extra")
enum store_number {
#define X(name, key) name,
	STORE_STATE_LIST(X)
#undef X
	STATE_COUNT
};

/* Create run_dir/drumroll.db with its tables (schema version in user_version): runs, prompts, groups,
 * trajectories, segments, deliveries, weight_versions, metrics; or go on with the one that is there.
 * The directory must exist.  Refuses a directory that another process writes to (ERR_STATE), another
 * schema version (ERR_UNSUPPORTED), a damaged file (ERR_INVALID), what cannot be written (ERR_IO). */
int store_open(struct store **store, const char *run_dir, const char *run_id, const char *config_yaml,
               struct err *err);
/* Go on with the store of a run: the same refusals, ERR_MISSING where there is none, and an older schema is brought
 * up to date.  store_read.h has what it knows of the run. */
int store_resume(struct store **store, const char *run_dir, struct err *err);
/* enum durability; right after opening. */
int store_set_durability(struct store *store, int durability, struct err *err);
/* Flushes; the store is closed whatever it returns. */
int store_close(struct store *store, struct err *err);

/* A group whose prompt a trainer submitted: it has no place in the run's order, and a resume does without it. */
#define STORE_SUBMITTED UINT64_MAX
/* ordinal: the place of its prompt in the run's order, or STORE_SUBMITTED. */
int store_put_group(struct store *store, uint64_t group_id, const char *prompt_id, int32_t epoch,
                    int32_t n_samples, bool eval, uint64_t ordinal, struct err *err);
/* It has more samples than it was put with. */
int store_group_size(struct store *store, uint64_t group_id, int32_t n_samples, struct err *err);
/* Of a group that was given up: no filter of a step dropped it. */
enum { STORE_NO_STEP = -1 };
/* Of the group, and with DELIVERED and DROPPED of its stored trajectories. */
int store_group_state(struct store *store, uint64_t group_id, enum store_state state, int64_t step,
                      struct err *err);
/* The first n samples of a group: on record, and no part of what is delivered. */
int store_drop_samples(struct store *store, uint64_t group_id, int n, struct err *err);
/* Insert or replace by id; tokens, logprobs, target_logprobs, versions as blobs; segments in their own table. */
int store_put_trajectory(struct store *store, const struct trajectory *trajectory, enum store_state state,
                         struct err *err);
/* The same for one that has been put since it got its last token: prompt and segments stay as they are. */
int store_put_again(struct store *store, const struct trajectory *trajectory, enum store_state state, struct err *err);
/* Tokens [start, start + n) of a sample in flight, in one segment; they are void once its trajectory is put. */
int store_put_increment(struct store *store, uint64_t trajectory_id, const struct segment *segment,
                        const int32_t *tokens, const float *logprobs, struct err *err);
/* metrics: the step's line as far as it is known. */
int store_put_delivery(struct store *store, uint64_t batch_id, int64_t step, int64_t version, int n,
                       const char *metrics, struct err *err);
int store_ack_delivery(struct store *store, uint64_t batch_id, struct err *err);
int store_put_version(struct store *store, int64_t version, int64_t step, uint64_t xxh3, size_t bytes,
                      struct err *err);
int store_version_kept(struct store *store, int64_t version, struct err *err); /* its weights are in their file */
int store_put_number(struct store *store, enum store_number which, int64_t value, struct err *err);
/* One metrics row: JSON object text. */
int store_put_metrics(struct store *store, int64_t step, const char *json, struct err *err);
int store_flush(struct store *store, struct err *err);
/* Moves what was committed from the log into the file, if that is due: syncs, up to 10 ms per 4 MB on an SSD.  Between
 * transactions; without it the log grows to 128 MB. */
void store_tidy(struct store *store);
double store_seconds(const struct store *store); /* that all of this has taken */

/* Every stored trajectory in order of id, for export and tests; the callback borrows it; non-zero
 * from the callback ends the walk and is returned.  A record that breaks the format or its checksum
 * is ERR_INVALID. */
int store_each_trajectory(struct store *store,
                          int (*each)(void *context, const struct trajectory *trajectory,
                                      enum store_state state),
                          void *context, struct err *err);
/* Open an existing run directory read-only, also while a run writes to it. */
int store_open_existing(struct store **store, const char *run_dir, struct err *err);

#endif
