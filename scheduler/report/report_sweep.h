/* report_sweep.h - a sweep's results: DIR/sweep.json and DIR/results.jsonl of `drumroll throughput`. */
#ifndef SCHEDULER_REPORT_REPORT_SWEEP_H
#define SCHEDULER_REPORT_REPORT_SWEEP_H

#include <jansson.h>

#include "scheduler/report/report_series.h"

enum { SWEEP_REASON_MAX = 512 };

/* One run of a variant. */
struct sweep_run {
	int repetition;
	int status;     /* exit status */
	double value;   /* of the sweep's metric; NAN: failed, or has none */
	double seconds;
	char *dir;      /* "" : none is on record */
	json_t *metrics;
	struct report_table evals, steps; /* of its metrics.jsonl, where it is still there */
};

struct sweep_variant {
	char *name;
	int baseline;   /* index of the variant that it is compared with, maybe itself; -1: none */
	char *baseline_name;
	json_t *set;    /* {"section.key": value} */
	struct sweep_run *runs; /* [n] */
	int n;
};

struct report_sweep {
	char *dir, *label, *name, *metric, *command, *machine; /* "" where it is unknown */
	bool higher_is_better;
	char **about;   /* [n_about] paragraphs of the comment at the head of DIR/sweep.yaml: claim, paper, what to expect */
	int n_about;
	struct sweep_variant *variants; /* [n], in the order of sweep.json, or else by the values of what they set, numbers by size */
	int n, bad_lines;
	char absent[SWEEP_REASON_MAX]; /* why there are no results; empty: there are */
};

struct sweep_statistics {
	int n, failed;
	double median, min, max;
	int pairs;      /* repetitions in which the baseline has a value too */
	double ratio, ratio_low, ratio_high; /* to it: geometric mean over pairs, its 95 % interval (Student's t of logarithms);
	                                      * NAN: no pair; the interval: fewer than two */
	double ratio_min, ratio_max;
	double difference, difference_half; /* mean over pairs, half of its interval */
};

bool sweep_is_here(const char *dir);
void report_sweep_load(struct report_sweep *sweep, const char *dir);
void report_sweep_free(struct report_sweep *sweep);
/* Median over its runs of a number of summary.json; NAN where none has it. */
double sweep_median(const struct sweep_variant *v, const char *key);
void sweep_statistics(struct sweep_statistics *s, const struct report_sweep *sweep, int variant);

#endif
