/* replay_progress.h - how far a command has come: a line that is written anew on a terminal, now and then a plain one in a
 * log. */
#ifndef SCHEDULER_REPLAY_REPLAY_PROGRESS_H
#define SCHEDULER_REPLAY_REPLAY_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress_line {
	const char *who;    /* borrowed */
	bool quiet, terminal, shown;
	double began, next; /* clock_seconds() */
};

void progress_line_open(struct progress_line *line, const char *who, bool quiet);
/* On standard error, if it is time for it: tokens done, of all, per second, and the time that the rest may take. */
void progress_line_show(struct progress_line *line, uint64_t tokens, uint64_t tokens_all);
void progress_line_close(struct progress_line *line); /* the terminal's line is free again */

#endif
