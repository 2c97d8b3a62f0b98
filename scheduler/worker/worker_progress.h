/* worker_progress.h - a rank tells of what its samples in flight have got. */
#ifndef SCHEDULER_WORKER_WORKER_PROGRESS_H
#define SCHEDULER_WORKER_WORKER_PROGRESS_H

#include "scheduler/ranks/rank_messages.h"
#include "scheduler/worker/leases.h"

/* PROGRESS, with the tokens that the controller does not have yet; nothing where there are none. */
int worker_say_progress(struct engine *engine, struct leases *leases, struct transport *transport,
                        struct message_writer *writer, struct err *err);

#endif
