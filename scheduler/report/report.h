/* report.h - `drumroll report`: what runs and sweeps did, as one HTML file that needs nothing else.
 *
 * Reads run directories (config.yaml, metrics.jsonl, summary.json, timeline.jsonl, drumroll.db), also of a run that
 * goes on or was killed, and directories of `drumroll throughput` (sweep.json, results.jsonl).  What is absent is
 * said where it would stand.  Plots are drawn by gnuplot.
 */
#ifndef SCHEDULER_REPORT_REPORT_H
#define SCHEDULER_REPORT_REPORT_H

#include "configs/err.h"

/* Of n >= 1 directories, in their order; runs are compared with the first of them.  out NULL or "-": standard output;
 * a file is replaced as a whole.  ERR_MISSING: a directory or gnuplot is not there; ERR_INVALID: a directory holds
 * neither a run nor a sweep; ERR_IO. */
int report_write(const char *const *dirs, int n, const char *out, struct err *err);

#endif
