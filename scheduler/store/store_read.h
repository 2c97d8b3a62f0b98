/* store_read.h - what the store knows of a run, for going on with it (`drumroll run --resume`) and for going over it again
 * (`drumroll replay`), and for statistics (`drumroll report`).
 *
 * All of this is as of the last commit.  Records are checked as store_each_trajectory does. */
#ifndef SCHEDULER_STORE_STORE_READ_H
#define SCHEDULER_STORE_STORE_READ_H

#include "scheduler/store/store.h"

enum { STORE_RUN_ID_MAX = 64 };

struct store_progress {
	char run_id[STORE_RUN_ID_MAX];
	int64_t step;        /* of the last batch that was put, 0: none */
	int64_t batch_out;   /* the last batch, if no weights have reached the ranks since; else 0 */
	int64_t evaluated;   /* step of the last evaluation, -1: none */
	int64_t line;        /* the last batch whose line of metrics was written */
	int64_t version;     /* the highest that ranks ever had, 0: the model directory's */
	int64_t kept;        /* the highest whose weights are in their file, 0: none */
	uint64_t kept_xxh3;  /* of its weights */
	uint64_t next_group, next_ordinal; /* of groups and training prompts */
	int dropped;         /* training groups that were dropped since the last batch */
	int n_unacknowledged; /* batches */
	int extra;           /* samples that groups were extended by since the last batch */
	int64_t committed_ms; /* since 1970 */
};

int store_read_progress(struct store *store, struct store_progress *progress, struct err *err);

struct stored_group {
	uint64_t id, ordinal;
	const char *prompt_id; /* borrowed for the call */
	int32_t epoch, n_samples;
	bool kept;             /* complete, scored, and found worth sending */
};

/* Training groups that are neither delivered nor dropped, in order of id. */
int store_each_open_group(struct store *store, int (*each)(void *context, const struct stored_group *group, struct err *err),
                          void *context, struct err *err);

/* What is stored of the group's samples into samples[n]; NULL where there is nothing; owned by the caller, also after
 * an error. */
int store_get_group(struct store *store, uint64_t group_id, struct trajectory **samples, int n, struct err *err);
/* To a stored or fresh trajectory, what it got in flight since it was put or opened. */
int store_add_increments(struct store *store, struct trajectory *trajectory, struct err *err);

struct stored_batch {
	uint64_t id;
	int64_t step, version;
	struct trajectory **trajectories; /* [n], in the order in which they were put */
	int n;
};

/* Batches that nobody has acknowledged, in order, borrowed for the call; ERR_INVALID where one is not complete. */
int store_each_unacknowledged(struct store *store,
                              int (*each)(void *context, const struct stored_batch *batch, struct err *err),
                              void *context, struct err *err);

/* The first batch after step `after`, acknowledged or not; step 0: there is none.  Owned by the caller. */
int store_next_batch(struct store *store, int64_t after, struct stored_batch *batch, struct err *err);
void stored_batch_free(struct stored_batch *batch);

/* A sample without its tokens; reals it has not are NAN. */
struct stored_sample {
	uint64_t id, group_id;
	int64_t step;           /* in which its group was delivered, evaluated or dropped; -1: none of these, or given up */
	bool eval, pivot;
	enum store_state state;
	int32_t n_response;     /* tokens; without what came in flight since */
	int32_t n_positions;    /* that it may grow to */
	int32_t deferrals, staleness;
	enum finish_reason finish;
	double reward, answer, advantage, reward_seconds;
};

/* Every sample in order of id, as its row says: unlike store_each_trajectory without tokens and unchecked. */
int store_each_sample(struct store *store, int (*each)(void *context, const struct stored_sample *sample, struct err *err),
                      void *context, struct err *err);
/* The record with what came in flight since it was put, owned by the caller; ERR_MISSING, ERR_INVALID. */
int store_get_trajectory(struct store *store, uint64_t id, struct trajectory **trajectory, struct err *err);
/* XXH3-64 of the weights of a version; *known false: the store has no such version. */
int store_get_version(struct store *store, int64_t version, uint64_t *xxh3, bool *known, struct err *err);

/* The lines of metrics in order, and the provisional one of a batch; *json is owned by the caller, NULL if none. */
int store_each_metrics(struct store *store, int (*each)(void *context, const char *json, struct err *err),
                       void *context, struct err *err);
int store_get_delivery_metrics(struct store *store, int64_t step, char **json, struct err *err);

/* An evaluation that was not finished will be made again: its groups are dropped. */
int store_drop_unresumed(struct store *store, struct err *err);

#endif
