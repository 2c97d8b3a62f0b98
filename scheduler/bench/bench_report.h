/* bench_report.h - what the measurements share: the machine's name and limits, medians, lists of options,
 * aligned tables for people and JSON lines for programs. */
#ifndef SCHEDULER_BENCH_BENCH_REPORT_H
#define SCHEDULER_BENCH_BENCH_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "configs/err.h"
#include "quant/machine_peaks.h"

/* ---- the machine ---- */

/* As the system calls it, or "unknown CPU".  Static. */
const char *bench_cpu_name(void);

/* Bytes of the last-level caches of all cores together; 0 if the system does not say. */
size_t bench_cache_bytes(void);

int bench_threads_default(void);

/* The limits of this machine as they change: measured again and again between what is compared with
 * them.  ERR_MEMORY where buffer_bytes (read over and over) are not to be had. */
enum { BENCH_PEAKS_MAX = 64 };
struct bench_peaks {
	const struct kernels *kernels; /* whose instructions are used */
	int n_threads;
	size_t buffer_bytes;
	double seconds_each;
	int n;
	double read[BENCH_PEAKS_MAX], fma[BENCH_PEAKS_MAX], int8[BENCH_PEAKS_MAX]; /* [n], sorted once asked for */
};
int bench_peaks_measure(struct bench_peaks *peaks, struct err *err);

/* Medians of what was measured so far. */
struct machine_peaks bench_peaks_median(struct bench_peaks *peaks);

/* "read 20.1 GB/s (19.8 to 20.3), FMA ..." */
void bench_peaks_print(struct bench_peaks *peaks, FILE *out);

/* ---- bounds ---- */

/* The least that a piece of work costs. */
struct bench_work {
	double bytes;    /* read from memory */
	double fma_ops;  /* FP32, two per multiply-add */
	double int8_ops; /* the same */
};

enum bench_bound { BOUND_READ, BOUND_FMA, BOUND_INT8 };
extern const char *const bench_bound_names[]; /* "read", ... */

/* Seconds that the work takes at least: reading it, or computing it, whichever is longer. */
double bench_bound_seconds(const struct machine_peaks *peaks, const struct bench_work *work,
                           enum bench_bound *bound);

/* ---- numbers ---- */

/* Sorts samples [n], n >= 1. */
double bench_median(double *samples, int n);

/* "1,8,32" to numbers from min to max; returns how many, or ERR_USAGE naming the option. */
int bench_list(int *numbers, int n_max, const char *option, const char *text, int min, int max, struct err *err);

/* ---- output ---- */

/* One line of JSON on standard output; takes record. */
void bench_json(json_t *record);

/* "round 3 of 7" on standard error, if that is a terminal; wiped when done is all. */
void bench_progress(const char *what, int done, int all);

struct bench_table; /* cells of text, printed with their columns aligned */

/* Of n_columns, the first n_left of them aligned left. */
struct bench_table *bench_table_open(int n_columns, int n_left);
void bench_cell(struct bench_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Fill the row that was begun with empty cells. */
void bench_row_end(struct bench_table *table);

/* Print (out NULL: not) and free. */
void bench_table_close(struct bench_table *table, FILE *out);

#endif
