/* engine.h - the samples of one rank, decoded together: continuous batching with chunked prefill,
 * shared group prompts, self-speculation and a KV budget.
 *
 * The engine owns the sessions (mutable timelines) and the KV cache; the policy is borrowed and
 * immutable.  It knows no MPI, socket, file or clock but the one passed in options.  All decisions
 * that could differ between runs (batch, chunk, order) cannot change a trajectory's bits.
 */
#ifndef ROLLOUT_ENGINE_H
#define ROLLOUT_ENGINE_H

#include "policy/forward.h"
#include "rollout/trajectory.h"

struct engine;

struct engine_options {
	int mode;            /* enum rollout_mode (configs/config.h) */
	int drafter;         /* enum drafter_kind, in speculative mode */
	int draft_length;    /* tokens drafted per round; 0: chosen every round (speculation.h) */
	int draft_length_max; /* where it is chosen */
	int64_t suffix_tokens; /* that the suffix drafter remembers */
	int max_active;      /* sessions decoded together */
	int prefill_chunk;   /* prompt rows per round at most */
	int n_threads;
	enum kv_type kv_type; /* numbers in the KV cache */
	size_t kv_bytes;     /* hard budget */
	int rank;            /* written into segments */
	int32_t stop_token;  /* extra stop token or -1; the model's end tokens always stop */
	double (*clock)(void); /* seconds, monotonic */
};

/* Sums since open; all rates are ratios of these. */
struct engine_stats {
	uint64_t tokens;              /* response tokens made */
	uint64_t prefill_rows, decode_rows, verify_rows, draft_rows;
	uint64_t drafted, accepted, rounds, preemptions, prefix_shared_tokens;
	uint64_t drafting_rounds;     /* rounds in which some session drafted */
	double planned_tokens, planned_seconds, planned_exact_seconds; /* as the controller predicted them */
	double prefill_seconds, draft_seconds, verify_seconds, sample_seconds;
	int active, queued;           /* now */
	int kv_pages_used, kv_pages_max;
};

/* Refuses a budget that cannot hold one sequence of max_context_needed positions. */
int engine_open(struct engine **engine, const struct policy *policy, const struct engine_options *options,
                int max_context_needed, struct err *err);
void engine_close(struct engine *engine);

/* New weights: sessions in flight keep their tokens and have their KV recomputed under the new
 * version before they go on.  The old policy is not touched after this returns. */
void engine_set_policy(struct engine *engine, const struct policy *policy);

/* Queue a fresh or partial sample; takes ownership.  Samples of one group that share a prompt share
 * its KV. */
void engine_add(struct engine *engine, struct trajectory *trajectory);

/* Samples queued or active. */
int engine_pending(const struct engine *engine);

/* One round: prefill chunk, draft, verify or decode.  Returns sessions that made progress. */
int engine_round(struct engine *engine);

/* A finished sample (finish set), owned by the caller; NULL if none. */
struct trajectory *engine_take_finished(struct engine *engine);

/* Put a sample aside: any one still pending (id 0), or the given one; owned by the caller, NULL if
 * none.  deferrals is not touched.  Its tokens, log-probabilities and segments are complete. */
struct trajectory *engine_withdraw(struct engine *engine, uint64_t trajectory_id);

void engine_stats_read(const struct engine *engine, struct engine_stats *stats);

#endif
