/* verifier_log.h - what verifiers write to their standard error, in a file of the run directory.
 *
 * A verifier may write without end: lines pass at LOG_BYTES_PER_SECOND after a burst of LOG_BURST_BYTES, and the file
 * never grows past LOG_BYTES_MAX.  What is left out is counted, and the file says so. */
#ifndef SCHEDULER_VERIFIER_VERIFIER_LOG_H
#define SCHEDULER_VERIFIER_VERIFIER_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

enum { LOG_BYTES_PER_SECOND = 16 << 10, LOG_BURST_BYTES = 256 << 10, LOG_BYTES_MAX = 64 << 20 };

struct verifier_log;

int verifier_log_open(struct verifier_log **log, const char *path, struct err *err);
void verifier_log_close(struct verifier_log *log); /* NULL is allowed */

/* One line, newline added; now: seconds of a clock that does not go back. */
void verifier_log_line(struct verifier_log *log, int process, const char *line, size_t n_bytes, double now);
/* The same of ours, about a process: never left out. */
void verifier_log_note(struct verifier_log *log, int process, const char *text);
uint64_t verifier_log_left_out(const struct verifier_log *log); /* bytes */

#endif
