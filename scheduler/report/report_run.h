/* report_run.h - a run directory as numbers.  What is absent or unreadable is a reason, not an error: a report is
 * wanted most of a run that went wrong. */
#ifndef SCHEDULER_REPORT_REPORT_RUN_H
#define SCHEDULER_REPORT_REPORT_RUN_H

#include <stdint.h>

#include "configs/err.h"
#include "scheduler/report/report_series.h"
#include "scheduler/report/report_timeline.h"

enum { REPORT_REASON_MAX = ERR_TEXT_MAX + 64 };

/* Samples of training that were delivered, by field; NAN: has none. */
struct report_samples {
	int n, capacity;
	float *lengths, *advantages, *rewards; /* [n] */
	int16_t *staleness, *deferrals;        /* [n] */
	int truncated, failed, pivots;
	int partial, waiting, dropped, evals;  /* others: unfinished, finished and not delivered, dropped, of evaluations */
	double reward_seconds;
	char absent[REPORT_REASON_MAX];        /* why there are none; empty: there are */
};

struct report_setting {
	char *key, *value; /* "section.key" */
};

enum run_state { RUN_FINISHED, RUN_STOPPED, RUN_FAILED, RUN_GOES_ON, RUN_ENDED_EARLY };

struct report_run {
	char *dir, *label, *name;      /* label: tells it from the other runs; name: run.name */
	enum run_state state;
	struct report_table steps, evals; /* lines of metrics.jsonl */
	struct report_table summary;   /* one row, of summary.json, or none */
	int bad_lines;                 /* of metrics.jsonl */
	char steps_absent[REPORT_REASON_MAX], settings_absent[REPORT_REASON_MAX];
	struct report_setting *settings;
	int n_settings;
	struct report_samples samples;
	struct report_timeline timeline;
};

bool run_is_here(const char *dir); /* it holds files of a run */
void run_load(struct report_run *run, const char *dir);
void run_free(struct report_run *run);
const char *run_setting(const struct report_run *run, const char *key); /* NULL: not there */
/* Held-out pass rate in percent at the start and at the end; NAN: not measured. */
double run_pass_rate(const struct report_run *run, bool at_end);

/* "section.key" and values of text as config_print writes it; owned by the caller. */
struct report_setting *settings_read(const char *text, int *n);
void settings_free(struct report_setting *settings, int n);

#endif
