/* status_source.h - where `drumroll top` reads a run's state: the run's directory, or the HTTP address of metrics.listen. */
#ifndef SCHEDULER_STATUS_STATUS_SOURCE_H
#define SCHEDULER_STATUS_STATUS_SOURCE_H

#include <stdbool.h>

#include "configs/err.h"

struct status_source {
	bool is_directory;
	char where[1024]; /* the directory, or unix:PATH or tcp:HOST:PORT */
};

/* A directory, HOST:PORT, http://HOST:PORT, tcp:HOST:PORT or unix:PATH.  ERR_USAGE. */
int status_source_find(struct status_source *source, const char *text, struct err *err);

/* The state as JSON (run_status.h), owned by the caller.  From a directory that has no status.json (run.timeline_seconds 0,
 * or an older run) what metrics.jsonl and summary.json tell, without ranks.  Waits a few seconds at most. */
int status_source_read(const struct status_source *source, char **json, struct err *err);

#endif
