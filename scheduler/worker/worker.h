/* worker.h - one rollout rank: leases in, trajectories out. */
#ifndef SCHEDULER_WORKER_WORKER_H
#define SCHEDULER_WORKER_WORKER_H

#include "configs/config.h"
#include "scheduler/ranks/transport.h"

/* Serves the controller (rank 0) until it says QUIT, or is silent for cluster.controller_seconds (before START for
 * run.stall_seconds); returns the exit status.  Errors are told to the controller, which prints them. */
int worker_run(struct transport *transport, const struct config *config);

#endif
