/* worker_farewell.h - the last words of a rank that has failed. */
#ifndef SCHEDULER_WORKER_WORKER_FAREWELL_H
#define SCHEDULER_WORKER_WORKER_FAREWELL_H

#include "scheduler/ranks/rank_messages.h"

/* Tells the controller why (FAILED), and waits for its QUIT, so that the message is not lost, for a few seconds at most. */
void worker_farewell(struct transport *transport, struct message_writer *writer, const struct err *why);

#endif
