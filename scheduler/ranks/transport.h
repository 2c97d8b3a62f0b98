/* transport.h - byte messages between ranks; the only file pair that knows <mpi.h>.
 *
 * Point-to-point calls only, never blocking: a send is queued and completes in the background, a
 * receive is polled (survivors go on when a rank dies only under these rules).  One
 * thread per rank talks to MPI.
 */
#ifndef SCHEDULER_RANKS_TRANSPORT_H
#define SCHEDULER_RANKS_TRANSPORT_H

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

/* Rank 0 waits up to `seconds` until all others that are not lost are closing too, the others for their queued sends.
 * Then finalises, but where a rank was lost or has a guard. */
void transport_close(struct transport *transport, double seconds);

/* MPI has refused a message to this rank: nothing more will reach it. */
bool transport_is_broken(const struct transport *transport, int rank);
/* Nothing is expected of this rank any more: nobody waits for what is queued to it, and nobody finalises, which
 * would wait for it.  What still comes from it is received. */
void transport_lost(struct transport *transport, int rank);
/* It speaks again. */
void transport_found(struct transport *transport, int rank);
/* Some rank is lost, says one who knows: close without waiting for everybody. */
void transport_leave_alone(struct transport *transport);

int transport_rank(const struct transport *transport);
int transport_size(const struct transport *transport);

/* Queue a copy of the bytes.  A rank that cannot be reached is no error here, but broken from then on. */
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
