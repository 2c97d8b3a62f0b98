/* throughput_results.h - what the runs of a sweep came to: DIR/results.jsonl, a line a run, and what the lines say together.
 *
 * A line is written whole or, where a crash cuts it off, is no line: reading stops there. */
#ifndef SCHEDULER_THROUGHPUT_THROUGHPUT_RESULTS_H
#define SCHEDULER_THROUGHPUT_THROUGHPUT_RESULTS_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "configs/sweep.h"

struct throughput_result {
	int point, repetition;
	double value; /* of the metric; NaN: the run failed, or has none */
	int exit;
};

struct throughput_results {
	struct throughput_result *items; /* [n], at most one of a point and repetition, in the order of the file */
	int n, capacity;
};

void throughput_results_free(struct throughput_results *results);

/* The whole lines of path; no file: none.  A later line of the same
 * run replaces an earlier one.  ERR_INVALID for a line that is no result, ERR_STATE for one of another sweep. */
int throughput_results_read(struct throughput_results *results, const char *path, const struct sweep_points *points,
                            const char *metric, struct err *err);
/* Takes the record: checks it, appends the line to path, and adds it. */
int throughput_results_add(struct throughput_results *results, const char *path, json_t *record,
                           const struct sweep_points *points, const char *metric, struct err *err);
/* NULL: not run yet. */
const struct throughput_result *throughput_results_find(const struct throughput_results *results, int point, int repetition);

/* Over the repetitions of one point that gave a number. */
struct throughput_statistics {
	int runs, failed;
	double median, min, max;
	double mean, interval;          /* half the width of the 95 % interval of the mean (Student's t); NaN below 2 runs */
	int pairs;                      /* repetitions in which the baseline gave a number too */
	double ratio, ratio_min, ratio_max; /* median, least and largest quotient by the baseline of the same repetition; NaN: no pair */
	double difference, difference_interval; /* the mean difference to it, in the same way */
};
void throughput_statistics(struct throughput_statistics *s, const struct throughput_results *results,
                           const struct sweep_points *points, int point);

/* The table for people, or a JSON line for each point. */
void throughput_print(const struct throughput_results *results, const struct sweep_points *points, const char *metric,
                      bool higher_is_better, FILE *out);
void throughput_print_json(const struct throughput_results *results, const struct sweep_points *points, const char *metric);

#endif
