/* throughput_run.h - one run of a sweep: mpirun as a child in a process group of its own, so that a Ctrl-C at the terminal
 * reaches this program alone, which then stops the run. */
#ifndef SCHEDULER_THROUGHPUT_THROUGHPUT_RUN_H
#define SCHEDULER_THROUGHPUT_THROUGHPUT_RUN_H

#include <jansson.h>

#include "scheduler/ranks/launch.h"

/* SIGINT and SIGTERM are counted from now on, and no longer end this program. */
void throughput_catch_signals(void);
int throughput_signals(void);

enum { THROUGHPUT_TOO_LONG = 124 }; /* exit status of a run that was ended for that */

/* Starts it with output to the file `log`, and waits.  After limit_seconds, or with a first signal, mpirun is told to stop, which the
 * ranks do as after a Ctrl-C; with a second signal, or grace_seconds later, all of it is killed.  *status: mpirun's, 128 + n after
 * signal n.  *seconds: wall time.  An error only where nothing could be started. */
int throughput_run(const struct launch *launch, const char *log, double limit_seconds, double grace_seconds, int *status,
                   double *seconds, struct err *err);

/* The numbers at the top of run_dir/summary.json; {} where there is none or the run did not finish.  Owned by the caller. */
json_t *throughput_metrics(const char *run_dir);

/* Everything below and including the directory; absent is fine. */
int throughput_remove(const char *dir, struct err *err);

#endif
