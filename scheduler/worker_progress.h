/* worker_progress.h - a rank tells of what its samples in flight have got. */
#ifndef SCHEDULER_WORKER_PROGRESS_H
#define SCHEDULER_WORKER_PROGRESS_H

#include "scheduler/leases.h"
#include "scheduler/rank_messages.h"

/* PROGRESS, with the tokens that the controller does not have yet; nothing where there are none. */
int worker_say_progress(struct engine *engine, struct leases *leases, struct transport *transport,
                        struct message_writer *writer, struct err *err);

#endif
