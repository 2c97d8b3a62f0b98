/* bench_subjects.h - what `drumroll bench kernels` measures: each kernel with data of its own to work on.
 *
 * A subject is cut into units (panels, rows, heads).  A sample is a window of them, and goes on where the
 * last one ended.  Out of cache means: the weights of all formats together are larger than the last-level
 * cache, and all are read between two uses of one of them.
 */
#ifndef SCHEDULER_BENCH_BENCH_SUBJECTS_H
#define SCHEDULER_BENCH_BENCH_SUBJECTS_H

#include "policy/team.h"
#include "scheduler/bench/bench_report.h"

enum { SUBJECT_ROUNDS_MAX = 31, SUBJECTS_MAX = 256, SUBJECT_ROWS = 7 };

extern const int subject_rows[SUBJECT_ROWS]; /* of the products out of cache */

struct bench_data; /* all buffers */

struct bench_subject {
	const char *kernel, *format; /* "matmul_q8", "int4" */
	int m, n, k;                 /* rows (or query heads), outputs (or positions), inputs (or head_dim) */
	bool cached;                 /* its data stay in the core's cache, and any number of units may be run */
	struct bench_work work;      /* of one unit */
	int units;                   /* of one pass over its data */
	void (*run)(const struct bench_subject *subject, const struct team *team, struct range units);
	struct bench_data *data;
	int part;                    /* which of data's buffers */
	int *cursor;                 /* where the next sample begins; subjects that read one buffer may share it */
	int own_cursor, window;      /* units of a sample */
	double seconds[SUBJECT_ROUNDS_MAX]; /* per unit */
};

struct bench_subjects {
	struct bench_subject list[SUBJECTS_MAX]; /* in the order in which a round runs them */
	int n;
	int vocabulary;      /* of the head and of sampling */
	size_t weight_bytes; /* of all formats together */
	struct bench_data *data;
};

/* Kernels are those of the table, fill those that prepare the data.  quick: less data, fewer subjects.
 * weights_min: what all formats together should be at least, in bytes. */
struct bench_subjects *bench_subjects_open(const struct kernels *kernels, const struct kernels *fill, int n_threads,
                                           bool quick, size_t weights_min);
void bench_subjects_close(struct bench_subjects *subjects);

#endif
