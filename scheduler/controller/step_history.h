/* step_history.h - lines of metrics that were written before the run was resumed. */
#ifndef SCHEDULER_CONTROLLER_STEP_HISTORY_H
#define SCHEDULER_CONTROLLER_STEP_HISTORY_H

#include "scheduler/controller/progress.h"

/* A step's line as it was stored when its batch went out, with what is known since: the trainer's report and seconds.
 * Owned by the caller; NULL if the line is no JSON object. */
char *step_history_complete(const char *line, const struct step_metrics *since);

/* A line of a step or of an evaluation, as part of the summary; others are passed over. */
void step_history_add(struct run_summary *summary, const char *line);

#endif
