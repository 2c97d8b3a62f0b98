/* engine.h - the samples of one rank, decoded together: continuous batching with chunked prefill,
 * shared group prompts, self-speculation and a KV budget.
 *
 * In quantized mode the policy's quantized copy draws, alone; the target's log-probabilities of its tokens are
 * added (rescore.c) when a sample ends, is put aside, or gets new weights, always under the version that drew.
 * In explore mode the copy draws the samples that are marked so, and nothing is rescored; all others are the target's,
 * as in speculative mode, and where they bring a proposal it is verified first (draft_given.c).
 *
 * The engine owns the sessions (mutable timelines) and the KV cache; the policy is borrowed and
 * immutable.  It knows no MPI, socket, file or clock but the one passed in options.  All decisions
 * that could differ between runs (batch, chunk, order) cannot change a trajectory's bits.  Only under
 * COUPLING_MAXIMAL do the tokens depend on draft lengths (their distribution does not): there a trajectory
 * is the same bits where the lengths are: draft_length fixed, drafter quant, KV for all.
 */
#ifndef ROLLOUT_ENGINE_H
#define ROLLOUT_ENGINE_H

#include "policy/forward.h"
#include "rollout/kv_parcel.h"
#include "rollout/trajectory.h"

struct engine;
struct speculation_costs; /* speculation.h */

struct engine_options {
	int mode;            /* enum rollout_mode (configs/config.h) */
	int drafter;         /* enum drafter_kind, in speculative mode */
	int coupling;        /* enum coupling: how drafts are verified */
	int draft_length;    /* tokens drafted per round; 0: chosen every round (speculation.h) */
	int draft_made;      /* with a fixed length: which of the drafters that make to order (draft.h) */
	int draft_length_max; /* where it is chosen */
	int explore_chunk;   /* explore mode: tokens of a proposal per round, 1 .. 32 */
	int64_t suffix_tokens; /* that the suffix drafter remembers */
	int max_active;      /* sessions decoded together */
	int prefill_chunk;   /* prompt rows per round at most */
	int n_threads;
	enum kv_type kv_type; /* numbers in the KV cache */
	size_t kv_bytes;     /* hard budget */
	int rank;            /* written into segments */
	int32_t stop_token;  /* extra stop token or -1 */
	bool ignore_end;     /* the model's end tokens do not stop: lengths are given, as in a measurement */
	int32_t observe_at;  /* response tokens after which the hidden state is handed out (engine_each_observed); 0: never */
	double (*clock)(void); /* seconds, monotonic */
	const struct speculation_costs *costs; /* borrowed for engine_open; NULL: learned from the first calls on */
};

enum { ENGINE_POSITIONS = 32 }; /* places of a draft that are counted apart */

/* Sums since open; all rates are ratios of these. */
struct engine_stats {
	uint64_t tokens;              /* response tokens made */
	uint64_t prefill_rows, decode_rows, verify_rows, draft_rows;
	uint64_t drafted, accepted, rounds, preemptions, prefix_shared_tokens;
	uint64_t drafting_rounds;     /* rounds in which some session drafted */
	uint64_t probe_rounds;        /* of all rounds: those that tried something else than the best plan */
	double plan_seconds, probe_seconds; /* planning; what probes lost against the best plan, as estimated */
	double planned_tokens, planned_seconds, planned_exact_seconds; /* as the controller predicted them */
	double prefill_seconds, draft_seconds, verify_seconds, sample_seconds;
	uint64_t explored_tokens;     /* of tokens: explore mode, by the quantized copy */
	double explored_seconds;      /* of prefill_, verify_ and sample_seconds: of calls in which the copy draws */
	uint64_t proposed, proposals_accepted; /* of drafted and accepted: tokens of proposals */
	uint64_t rescored_tokens, rescore_rows; /* quantized mode: tokens that got the target's log-probability */
	double rescore_seconds;
	/* prefill_rows, but for those of rescoring, are of prompts that were not computed here before, or done again:
	 * of resumed samples, after new weights, after preemption.  imported: spared by KV that came along. */
	uint64_t prompt_tokens, recomputed_tokens, imported_tokens;
	/* [place in the draft]: tokens drafted there, and those of them that stand.  accepted[j] / drafted[j] is the share of
	 * drafts so long of which more than j tokens stood; accepted[j] / accepted[j - 1] that of place j, once it is reached. */
	uint64_t drafted_by_position[ENGINE_POSITIONS], accepted_by_position[ENGINE_POSITIONS];
	int active, queued;           /* now */
	int kv_pages_used, kv_pages_max;
};

/* X(name) for each of the sums. */
#define ENGINE_SUMS(X) \
	X(tokens) X(prefill_rows) X(decode_rows) X(verify_rows) X(draft_rows) X(drafted) X(accepted) X(rounds) \
	X(preemptions) X(prefix_shared_tokens) X(drafting_rounds) X(planned_tokens) X(planned_seconds) \
	X(planned_exact_seconds) X(probe_rounds) X(plan_seconds) X(probe_seconds) X(prefill_seconds) X(draft_seconds) \
	X(verify_seconds) X(sample_seconds) X(rescored_tokens) X(rescore_rows) X(rescore_seconds) X(explored_tokens) X(proposed) \
	X(proposals_accepted) X(explored_seconds)

/* Refuses a budget that cannot hold one sequence of max_context_needed positions. */
int engine_open(struct engine **engine, const struct policy *policy, const struct engine_options *options,
                int max_context_needed, struct err *err);
void engine_close(struct engine *engine);

/* New weights: sessions in flight keep their tokens.  keep_kv false: their KV is recomputed under the new version
 * before they go on, and a trajectory stays a function of its segments.  keep_kv true: sessions that decode go on
 * over the KV that they have, and what they draw is marked SEGMENT_KV_KEPT, since it depends on how the rounds
 * fell; all others are recomputed.  Not in quantized mode.  The old policy is not touched after this returns. */
void engine_set_policy(struct engine *engine, const struct policy *policy, bool keep_kv);

/* Queue a fresh or partial sample; takes ownership.  Samples of one group that share a prompt share
 * its KV. */
void engine_add(struct engine *engine, struct trajectory *trajectory);

/* The same with KV from engine_withdraw_with_kv (borrowed), which is taken where version, model and budget
 * allow, and computed again where not. */
void engine_add_with_kv(struct engine *engine, struct trajectory *trajectory, const struct kv_parcel *parcel);

/* Samples queued or active. */
int engine_pending(const struct engine *engine);

/* One round: prefill chunk, draft, verify or decode.  Returns sessions that made progress. */
int engine_round(struct engine *engine);

/* A finished sample (finish set), owned by the caller; NULL if none. */
struct trajectory *engine_take_finished(struct engine *engine);

/* Put a sample aside: any one still pending (id 0), or the given one; owned by the caller, NULL if
 * none.  deferrals is not touched.  Its tokens, log-probabilities and segments are complete. */
struct trajectory *engine_withdraw(struct engine *engine, uint64_t trajectory_id);

/* Every pending sample as it is between two rounds, borrowed for the call; in quantized mode its target_logprobs are not
 * all there yet. */
void engine_each_pending(const struct engine *engine, void (*each)(void *context, const struct trajectory *trajectory),
                         void *context);

/* Samples of training that have gone past options.observe_at tokens since the last call: the final norm's output of the
 * row that had read so many and drew the next one, [dim] f32, and the version that computed it; borrowed for the call.
 * Verified rows only: a function of prompt, tokens and version, however they were drafted and batched.  Call it after
 * every round, before samples are taken out. */
void engine_each_observed(struct engine *engine,
                          void (*each)(void *context, const struct trajectory *trajectory, const float *hidden, int dim,
                                       int32_t version),
                          void *context);

/* Throw a pending sample away, if it is there: for one that nobody wants, cheaper than taking it back. */
void engine_discard(struct engine *engine, uint64_t trajectory_id);

/* The same, and its KV if it has more than the prompt's (parcel->bytes NULL if not); owned by the caller. */
struct trajectory *engine_withdraw_with_kv(struct engine *engine, uint64_t trajectory_id, struct kv_parcel *parcel);
/* Positions that its parcel would hold, 0: none; and the bytes of so many. */
int32_t engine_kv_positions(const struct engine *engine, uint64_t trajectory_id);
size_t engine_kv_bytes(const struct engine *engine, int32_t n_positions);

/* The pending sample that is the least loss to give away: the last queued, else the one with fewest response
 * tokens; 0: there is none. */
uint64_t engine_least_progress(const struct engine *engine);

void engine_stats_read(const struct engine *engine, struct engine_stats *stats);

/* What calls cost, as speculation has learned it: for the engine_options of another (speculation.h). */
void engine_costs_read(const struct engine *engine, struct speculation_costs *costs);

#endif
