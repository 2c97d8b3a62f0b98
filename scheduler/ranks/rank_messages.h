/* rank_messages.h - what controller and workers say to each other.
 *
 * Every message is one msgpack map (trainer_bridge/wire/message.h) whose field "type" is a rank_message.
 * The other fields:
 *
 *   controller -> worker
 *     START    context (positions the longest sequence may need)
 *     LEASE    lease, trajectory, [cargo], [unscored], [explored], [proposal (i32)]
 *     STOP     keep (array of {id}: trajectories that go on to their end)
 *     RECALL   recall, keep (samples; what it holds beyond them goes back)
 *     ALIVE    (said every few seconds, so that silence means that the controller is gone)
 *     QUIT     alone (1: a rank was lost, so leave without MPI_Finalize, which would wait for it)
 *     RESET    epoch (it was silent and given up: it throws away what it holds and says READY again)
 *     CANCEL   lease, id (of a trajectory that nobody wants any more: thrown away, no answer)
 *   controller or worker -> worker, down the tree of a stream (weights_stream.h)
 *     WEIGHTS_BEGIN  stream (number), version, bytes (of all), fanout, ranks (i32, who takes part)
 *     WEIGHTS        stream, offset, data
 *     WEIGHTS_TENSOR stream, tensor (index), xxh3: all its bytes were sent, and this is their checksum
 *     WEIGHTS_COMMIT stream: it is complete, and what is drawn from now on is drawn with it
 *     WEIGHTS_DROP   stream: it never will be
 *   worker -> controller
 *     READY    capacity, active (of those, decoded together), threads, cpu, weight_bytes, kv_pages, version,
 *              pack_seconds (to make its policy from weights), epoch (of the RESET that it answers, 0: START)
 *     DONE     lease, trajectory (scored if the verifier runs here), cargo
 *     PARTIAL  lease, trajectory, cargo
 *     RETURNED lease, trajectory, cargo   by a recall
 *     RECALLED recall   (all of it has been answered)
 *     STATS    struct rank_stats: its sums, by name, since the last STATS, and what is so now; before QUIET, before the
 *              last of what was held is DONE, and every run.timeline_seconds
 *     PROGRESS samples (array of {id, lease, start, tokens i32, logprobs f32, segments}: what each in flight has got from
 *              token `start` on, every half of run.commit_seconds, so that it is not generated again after a crash)
 *     REACHED  id, lease, version, hidden (f32 [dim]): the sample has gone past prune.at_tokens, and this is the policy's
 *              hidden state there, computed by `version`; a PROGRESS with its tokens comes before
 *     QUIET    nothing is held but what had to be kept
 *     UPDATED  version, seconds (from COMMIT on), requantize (seconds of packing and quantizing in all)
 *     FIRST    version: samples have grown under it for the first time
 *     ALIVE    rounds (of its engine so far: more than before is progress, though no sample may end for minutes)
 *     FAILED   text
 *   cargo: prompt_tokens, recomputed_tokens, imported_tokens (struct rank_cargo), and the sample's keys and values
 *     if they come along: kv_version, kv_mode, kv_positions, kv (whole pages)
 */
#ifndef SCHEDULER_RANKS_RANK_MESSAGES_H
#define SCHEDULER_RANKS_RANK_MESSAGES_H

#include "rollout/engine.h"
#include "rollout/kv_parcel.h"
#include "scheduler/ranks/transport.h"
#include "trainer_bridge/wire/message.h"

enum rank_message {
	RANK_START = 1,
	RANK_LEASE,
	RANK_STOP,
	RANK_WEIGHTS_BEGIN,
	RANK_WEIGHTS,
	RANK_WEIGHTS_TENSOR,
	RANK_WEIGHTS_COMMIT,
	RANK_WEIGHTS_DROP,
	RANK_ALIVE,
	RANK_QUIT,
	RANK_CANCEL,
	RANK_RECALL,
	RANK_RESET,
	RANK_READY,
	RANK_DONE,
	RANK_PARTIAL,
	RANK_RETURNED,
	RANK_RECALLED,
	RANK_STATS,
	RANK_QUIET,
	RANK_UPDATED,
	RANK_FIRST,
	RANK_PROGRESS,
	RANK_REACHED,
	RANK_FAILED
};

/* How often both sides say ALIVE, so that neither gives the other up. */
double rank_alive_seconds(const struct config_cluster *options);

/* Begin a message with n_fields more fields, which the caller writes before rank_message_send. */
void rank_message_begin(struct message_writer *writer, enum rank_message type, uint32_t n_fields);
int rank_message_send(struct transport *transport, int rank, const struct message_writer *writer, struct err *err);

/* What travels with a trajectory. */
struct rank_cargo {
	/* engine_stats of the rank since its last message of this kind */
	uint64_t prompt_tokens, recomputed_tokens, imported_tokens;
	bool unscored;       /* LEASE: no verifier is to be asked */
	bool explored;       /* LEASE: the quantized copy draws it (explore mode) */
	const void *proposal; /* LEASE: i32[proposal_bytes / 4], at any address, borrowed; NULL: none */
	size_t proposal_bytes;
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

/* An item of PROGRESS: the trajectory's tokens from `start` on. */
void rank_message_put_increment(struct message_writer *writer, uint64_t lease, const struct trajectory *trajectory,
                                int32_t start);

/* What a rank has done since it began, and what it is at. */
struct rank_stats {
	struct engine_stats engine;
	/* Seconds of its one thread outside its engine: at new weights, asking the verifier, without anything to do; and in all. */
	double weights_seconds, reward_seconds, wait_seconds, seconds;
	int64_t version; /* of its weights */
};

/* X(name) for each of the sums beside the engine's. */
#define RANK_SUMS(X) X(weights_seconds) X(reward_seconds) X(wait_seconds) X(seconds)

/* Sums are added, the rest is `added`'s. */
void rank_stats_add(struct rank_stats *sums, const struct rank_stats *added);

/* A whole STATS: what has been added to the sums since `before`, which becomes `now`. */
void rank_message_put_stats(struct message_writer *writer, const struct rank_stats *now, struct rank_stats *before);
/* ERR_MISSING, ERR_INVALID: not finite, or a count that is not one; *added is then of no use. */
int rank_message_get_stats(const struct message_node *root, struct rank_stats *added, struct err *err);

#endif
