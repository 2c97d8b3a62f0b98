/* live_run.h - a real `mpirun drumroll run` of the quickstart model, for tests that are its trainer. */
#ifndef TESTS_SUPPORT_LIVE_RUN_H
#define TESTS_SUPPORT_LIVE_RUN_H

#include <sys/types.h>

#include "trainer_bridge/client/client.h"

struct live_run {
	pid_t pid;
	char dir[256];      /* temporary; the run directory is dir/run */
	char address[300];  /* of its socket */
};

/* configs/quickstart/run.yaml on one controller and one worker, external trainer, no evaluation of its own, and
 * these settings ("section.key=value") up to a NULL.  Fails the test where it cannot be started. */
void live_run_start(struct live_run *run, const char *const *settings);
/* Its exit status once it has ended by itself, -1 where it had to be killed after `seconds`; says what the run said if
 * it is not 0.  The directory stays until live_run_remove. */
int live_run_wait(struct live_run *run, double seconds);
void live_run_kill(struct live_run *run);
void live_run_remove(struct live_run *run);

/* The last value of a number in metrics.jsonl, or -1. */
double live_run_metric(const struct live_run *run, const char *name);

struct client *live_run_connect(const struct live_run *run, const struct client_options *options);

#endif
