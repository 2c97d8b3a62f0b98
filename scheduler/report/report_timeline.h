/* report_timeline.h - timeline.jsonl of a run (scheduler/status/timeline.h): what each rank did, second by second. */
#ifndef SCHEDULER_REPORT_REPORT_TIMELINE_H
#define SCHEDULER_REPORT_REPORT_TIMELINE_H

#include <jansson.h>
#include <stdint.h>

enum { TIMELINE_POSITIONS = 32, TIMELINE_REASON_MAX = 512 };
enum rank_activity { RANK_GENERATING, RANK_IDLE, RANK_WEIGHTS, RANK_LOST, RANK_STATES };

/* X(name, key in "seconds"): what the time of ranks' threads goes to.  OTHER: the rest of their total: messages, plans,
 * bookkeeping. */
#define TIME_KINDS(X) \
	X(PREFILL, "prefill") X(DRAFT, "draft") X(VERIFY, "verify") X(SAMPLING, "sampling") X(RESCORE, "rescore") \
	X(REWARD, "reward") X(WEIGHTS, "weights") X(OTHER, "other") X(WAIT, "wait")
enum time_kind {
#define X(name, text) TIME_##name,
	TIME_KINDS(X)
#undef X
	TIME_COUNT
};
const char *time_kind_name(enum time_kind kind);

/* From t - interval to t. */
struct rank_point {
	double t, interval, tokens; /* tokens: of the interval */
	float draft_length, kv_used;
	float work, weights;    /* shares of the interval; the rest: waits, or lost */
	int32_t step, active, queued, version;
	enum rank_activity state;
};

struct rank_line {
	int rank;
	struct rank_point *points; /* [n], ascending in t */
	int n, capacity;
	double tokens_before, seconds_before[TIME_COUNT], total_before; /* cumulative values as last seen */
	double drafted_before[TIMELINE_POSITIONS], accepted_before[TIMELINE_POSITIONS];
	double tokens, seconds[TIME_COUNT], lost; /* sums */
};

struct position_counts {
	int32_t step;
	double drafted[TIMELINE_POSITIONS], accepted[TIMELINE_POSITIONS];
};

struct timeline_event {
	double t;
	int32_t step;
	char *text;
};

struct report_timeline {
	struct rank_line *ranks; /* [n_ranks], by rank */
	struct position_counts *by_step; /* [n_steps] */
	struct timeline_event *events;
	int n_ranks, n_steps, n_events, events_capacity, bad_lines;
	double end;
	char absent[TIMELINE_REASON_MAX]; /* why there is nothing; empty: there is */
};

void report_timeline_load(struct report_timeline *timeline, const char *run_dir);
/* One line of the file, for tests. */
void report_timeline_add(struct report_timeline *timeline, json_t *line);
void report_timeline_free(struct report_timeline *timeline);
/* Of all steps; positions that were drafted at all. */
int report_timeline_positions(const struct report_timeline *timeline, struct position_counts *total);

#endif
