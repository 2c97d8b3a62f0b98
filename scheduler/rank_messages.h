/* rank_messages.h - what controller and workers say to each other.
 *
 * Every message is one msgpack map (trainer_bridge/message.h) whose field "type" is a rank_message.
 * The other fields:
 *
 *   controller -> worker
 *     START    context (positions the longest sequence may need)
 *     LEASE    lease, trajectory
 *     STOP     keep (array of {id}: trajectories that go on to their end)
 *     WEIGHTS  version, offset, bytes (of all), data, xxh3 (of all)   in ascending order of offset
 *     ALIVE    (said every few seconds, so that silence means that the controller is gone)
 *     QUIT
 *   worker -> controller
 *     READY    capacity, threads, cpu, weight_bytes, kv_pages
 *     DONE     lease, trajectory (scored if the verifier runs here)
 *     PARTIAL  lease, trajectory
 *     QUIET    nothing is held but what had to be kept
 *     UPDATED  version, seconds (to pack and requantize)
 *     ALIVE    (said every few seconds while samples grow: a long one may be the only news for minutes)
 *     FAILED   text
 */
#ifndef SCHEDULER_RANK_MESSAGES_H
#define SCHEDULER_RANK_MESSAGES_H

#include "rollout/trajectory.h"
#include "scheduler/transport.h"
#include "trainer_bridge/message.h"

enum rank_message {
	RANK_START = 1,
	RANK_LEASE,
	RANK_STOP,
	RANK_WEIGHTS,
	RANK_ALIVE,
	RANK_QUIT,
	RANK_READY,
	RANK_DONE,
	RANK_PARTIAL,
	RANK_QUIET,
	RANK_UPDATED,
	RANK_FAILED
};

/* How often ALIVE is said, so that a listener who gives up after stall_seconds does not. */
static inline double rank_alive_seconds(double stall_seconds)
{
	return stall_seconds < 20 ? stall_seconds / 4 : 5;
}

/* Begin a message with n_fields more fields, which the caller writes before rank_message_send. */
void rank_message_begin(struct message_writer *writer, enum rank_message type, uint32_t n_fields);
int rank_message_send(struct transport *transport, int rank, const struct message_writer *writer, struct err *err);

/* A whole message with a lease number and a trajectory (LEASE, DONE, PARTIAL). */
int rank_message_send_trajectory(struct transport *transport, int rank, struct message_writer *writer,
                                 enum rank_message type, uint64_t lease, const struct trajectory *trajectory,
                                 struct err *err);
/* Its reading side; *trajectory is owned by the caller. */
int rank_message_get_trajectory(const struct message_node *root, uint64_t *lease, struct trajectory **trajectory,
                                struct err *err);

#endif
