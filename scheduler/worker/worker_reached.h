/* worker_reached.h - a rank tells of samples that have gone past prune.at_tokens. */
#ifndef SCHEDULER_WORKER_WORKER_REACHED_H
#define SCHEDULER_WORKER_WORKER_REACHED_H

#include "scheduler/ranks/rank_messages.h"
#include "scheduler/worker/leases.h"

/* After a round, before anything that it finished is sent: PROGRESS and REACHED for each. */
int worker_say_reached(struct engine *engine, struct leases *leases, struct transport *transport,
                       struct message_writer *writer, struct err *err);

#endif
