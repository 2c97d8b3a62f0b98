/* rank_messages.h - what controller and workers say to each other.
 *
 * Every message is one msgpack map (trainer_bridge/message.h) whose field "type" is a rank_message.
 * The other fields:
 *
 *   controller -> worker
 *     START    context (positions the longest sequence may need)
 *     LEASE    lease, trajectory, [cargo]
 *     STOP     keep (array of {id}: trajectories that go on to their end)
 *     RECALL   recall, keep (samples; what it holds beyond them goes back)
 *     WEIGHTS  version, offset, bytes (of all), data, xxh3 (of all)   in ascending order of offset
 *     ALIVE    (said every few seconds, so that silence means that the controller is gone)
 *     QUIT
 *     CANCEL   lease, id (of a trajectory that nobody wants any more: thrown away, no answer)
 *   worker -> controller
 *     READY    capacity, active (of those, decoded together), threads, cpu, weight_bytes, kv_pages
 *     DONE     lease, trajectory (scored if the verifier runs here), cargo
 *     PARTIAL  lease, trajectory, cargo
 *     RETURNED lease, trajectory, cargo   by a recall
 *     RECALLED recall   (all of it has been answered)
 *     STATS    the sums of struct engine_stats (rollout/engine.h), by name, since the last STATS; before QUIET,
 *              and before the last of what was held is DONE
 *     QUIET    nothing is held but what had to be kept
 *     UPDATED  version, seconds (to pack and requantize)
 *     ALIVE    (said every few seconds while samples grow: a long one may be the only news for minutes)
 *     FAILED   text
 *   cargo: prompt_tokens, recomputed_tokens, imported_tokens (struct rank_cargo), and the sample's keys and values
 *     if they come along: kv_version, kv_mode, kv_positions, kv (whole pages)
 */
#ifndef SCHEDULER_RANK_MESSAGES_H
#define SCHEDULER_RANK_MESSAGES_H

#include "rollout/engine.h"
#include "rollout/kv_parcel.h"
#include "scheduler/transport.h"
#include "trainer_bridge/message.h"

enum rank_message {
	RANK_START = 1,
	RANK_LEASE,
	RANK_STOP,
	RANK_WEIGHTS,
	RANK_ALIVE,
	RANK_QUIT,
	RANK_CANCEL,
	RANK_RECALL,
	RANK_READY,
	RANK_DONE,
	RANK_PARTIAL,
	RANK_RETURNED,
	RANK_RECALLED,
	RANK_STATS,
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

/* What travels with a trajectory. */
struct rank_cargo {
	/* engine_stats of the rank since its last message of this kind */
	uint64_t prompt_tokens, recomputed_tokens, imported_tokens;
	struct kv_parcel kv; /* borrowed; bytes NULL: none */
};

/* A whole message with a lease number and a trajectory (LEASE, DONE, PARTIAL, RETURNED). */
int rank_message_send_trajectory(struct transport *transport, int rank, struct message_writer *writer,
                                 enum rank_message type, uint64_t lease, const struct trajectory *trajectory,
                                 const struct rank_cargo *cargo, struct err *err);
/* Its cargo; kv's bytes are borrowed from the message.  All zero where there is none. */
int rank_message_get_cargo(const struct message_node *root, struct rank_cargo *cargo, struct err *err);
/* Its reading side; *trajectory is owned by the caller. */
int rank_message_get_trajectory(const struct message_node *root, uint64_t *lease, struct trajectory **trajectory,
                                struct err *err);

/* STATS: what has been added to the sums since `before`, which becomes `now`; and into sums. */
int rank_message_send_stats(struct transport *transport, int rank, struct message_writer *writer,
                            const struct engine_stats *now, struct engine_stats *before, struct err *err);
int rank_message_add_stats(const struct message_node *root, struct engine_stats *sums, struct err *err);

#endif
