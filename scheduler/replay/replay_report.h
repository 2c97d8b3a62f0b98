/* replay_report.h - what a replay found, for people and for machines. */
#ifndef SCHEDULER_REPLAY_REPLAY_REPORT_H
#define SCHEDULER_REPLAY_REPLAY_REPORT_H

#include <stdio.h>

#include "scheduler/replay/replay_result.h"

struct replay_report {
	const char *run_dir;
	const char *mode;      /* as asked for */
	int ranks, threads;
	double seconds;
	const struct replay_result *result;
};

void replay_report_text(const struct replay_report *report, FILE *out);
void replay_report_json(const struct replay_report *report, FILE *out); /* one object, one line */

#endif
