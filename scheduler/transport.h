/* transport.h - byte messages between ranks; the only file pair that knows <mpi.h>.
 *
 * Point-to-point calls only, never blocking: a send is queued and completes in the background, a
 * receive is polled (DESIGN 5.10: survivors go on when a rank dies only under these rules).  One
 * thread per rank talks to MPI.
 */
#ifndef SCHEDULER_TRANSPORT_H
#define SCHEDULER_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "configs/err.h"

enum { TRANSPORT_MESSAGE_MAX = 1 << 30 };

struct transport;

struct transport_message {
	int rank;      /* sender */
	void *bytes;   /* owned by the receiver: free */
	size_t n_bytes;
};

/* Initialises MPI (funneled threads, errors returned). */
int transport_open(struct transport **transport, struct err *err);

/* Waits up to `seconds` for queued sends, then finalises. */
void transport_close(struct transport *transport, double seconds);

int transport_rank(const struct transport *transport);
int transport_size(const struct transport *transport);

/* Queue a copy of the bytes. */
int transport_send(struct transport *transport, int rank, const void *bytes, size_t n_bytes, struct err *err);

/* Bytes queued and not yet gone to this rank (for backpressure). */
size_t transport_backlog(const struct transport *transport, int rank);

/* Push what is queued to this rank until it is gone, but not longer than `seconds`; true if it is gone. */
bool transport_wait(struct transport *transport, int rank, double seconds);

/* Complete what can be; true and a message if one has arrived. */
bool transport_poll(struct transport *transport, struct transport_message *message);

/* True under mpirun as a rank other than 0, before transport_open: such a rank stays quiet about
 * errors that every rank sees alike. */
bool transport_is_follower(void);

#endif
