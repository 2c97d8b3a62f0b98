/* timeline.h - timeline.jsonl of a run directory: what each rank was at, second by second, and what happened when.
 *
 * A line per rank and interval, another where a step ends, and a line per event:
 *
 *   {"t":12.5,"step":3,"rank":1,"state":"generating","active":8,"queued":0,"tokens":4711,
 *    "drafted_by_position":[900,700],"accepted_by_position":[810,500],"draft_length":1.8,"version":2,"kv_used":0.31,
 *    "seconds":{"prefill":0.5,"draft":2,"verify":7,"sampling":0.6,"rescore":0,"plan":0.01,"reward":0.1,"weights":0.4,
 *    "wait":1.7,"total":12.4}}
 *   {"t":12.6,"step":3,"event":"batch","version":2}
 *
 * t: seconds since the run began, without those between its end and a resume.  tokens, *_by_position and seconds are sums
 * since the run began, which a resume goes on with; draft_length is the mean since the rank's line before, 0 where nothing
 * was drafted; kv_used the share of the KV cache.  seconds are of the rank's one thread: their rest to `total` is messages
 * and bookkeeping; threads that wait for each other within a call count as the call.  What a rank says comes with its
 * next round's end, so `state` is the controller's: a rank generates while it holds samples.
 *
 * A file of more than bytes_max is thinned: every second line of each rank stays, and from then on the interval is twice
 * as long.  Where events alone are a quarter of it, every second of each name goes too. */
#ifndef SCHEDULER_STATUS_TIMELINE_H
#define SCHEDULER_STATUS_TIMELINE_H

#include "scheduler/ranks/rank_messages.h"

struct timeline;

/* Seconds by kind of work: X(name in the file, field of struct rank_stats) */
#define TIMELINE_SECONDS(X) \
	X("prefill", engine.prefill_seconds) X("draft", engine.draft_seconds) X("verify", engine.verify_seconds) \
	X("sampling", engine.sample_seconds) X("rescore", engine.rescore_seconds) X("plan", engine.plan_seconds) \
	X("reward", reward_seconds) X("weights", weights_seconds) X("wait", wait_seconds) X("total", seconds)

enum rank_shown { SHOWN_IDLE, SHOWN_GENERATING, SHOWN_WEIGHTS, SHOWN_LOST };
const char *rank_shown_text(enum rank_shown state); /* as in the lines */

/* Makes the file, or goes on with what is there; a last line that a crash cut short goes.  interval: seconds between lines
 * of a rank, > 0.  n_ranks: highest rank + 1. */
int timeline_open(struct timeline **timeline, const char *path, double interval, size_t bytes_max, int n_ranks,
                  struct err *err);
void timeline_close(struct timeline *timeline); /* NULL is allowed */

/* `now`, here and below: seconds since timeline_open, ascending. */
bool timeline_wants(const struct timeline *timeline, int rank, double now); /* an interval since its last line? */
/* Does its last line belong to another step, or tell less than stats? */
bool timeline_lacks(const struct timeline *timeline, int rank, int64_t step, const struct rank_stats *stats);
/* stats: sums of the rank since timeline_open. */
void timeline_rank(struct timeline *timeline, double now, int64_t step, int rank, enum rank_shown state,
                   const struct rank_stats *stats);
/* fields: "" or `,"name":value...`, JSON. */
void timeline_event(struct timeline *timeline, double now, int64_t step, const char *event, const char *fields);

/* What was written goes to the file, thinned if it has become too long. */
int timeline_flush(struct timeline *timeline, struct err *err);

double timeline_interval(const struct timeline *timeline);
double timeline_before(const struct timeline *timeline); /* seconds of the run before timeline_open */
/* The sums of a rank since the run began, of what the file keeps. */
void timeline_sums(const struct timeline *timeline, int rank, const struct rank_stats *stats, struct rank_stats *sums);

#endif
