/* scheduler.h - admission, partial rollouts and leases as a pure state machine.
 *
 * Owns: which groups and samples exist, where each sample is, and when a step is complete.  Knows no
 * MPI, clock, socket, file or token: events in (scheduler_on_*), actions out
 * (scheduler_next_action).  Drive it the same way twice and it does the same twice.
 *
 * A step: begin -> groups opened and leased until in flight -> enough groups complete and scored -> STOP to
 * every rank that holds samples -> partials come back -> every rank quiet -> STEP_READY.
 *
 * Asynchronously there is no STOP at the end of a step: work is leased between steps too, STEP_READY comes as soon
 * as a step is open and enough groups are complete, and versions change under samples in flight (on_version).
 *
 * Invariants, checked by scheduler_check() after every event in the simulator:
 *  S1  A sample is in exactly one state (waiting, leased, aside, done), leased to at most one rank.
 *  S2  A group is delivered at most once, and only with all its samples done.
 *  S3  No sample is lost: opened = waiting + leased + aside + done, until its group is delivered or
 *      dropped by a stated decision.
 *  S4  A rank never holds more than its capacity.
 *  S5  A delivered batch has exactly the wanted number of groups.
 *  S6  ORDER_OLDEST: partials are leased before fresh groups, oldest group first.  ORDER_LONGEST: what is
 *      due first, then whatever is expected to go on longest; fresh groups are opened ahead, up to the
 *      limit, and are leased once something is expected of them.
 *  S7  Under ON_DEFERRALS_FINISH and ON_STALE_FINISH a sample put aside max_deferrals times, or whose oldest
 *      token lags max_staleness versions, is not put aside again: the step waits for it, whether it is leased
 *      by now or still to be.  (Its age counts so synchronously; for the other modes see S11.)
 *  S8  Progress: while a step is open and a rank has room, waiting or openable work is leased.
 *  S9  A result under a lease that is no longer current changes nothing.
 *  S10 An evaluation step delivers exactly the evaluation groups, and training partials rest.  Asynchronously
 *      what is in flight is put aside for it; without partial rollouts it runs to its end beside it.
 *  S11 Staleness: one step off and asynchronously, under ON_STALE_FINISH, no token of a delivered group lags more
 *      than max_staleness versions behind the version with which it is delivered, if a trainer makes at most one
 *      version per batch; under ON_STALE_DROP always, and synchronously too.
 *  S12 Capacity: asynchronously, training groups opened and not dropped never exceed (versions + max_staleness
 *      + 1) * groups_per_step, but for one batch while a step is open though more than max_staleness batches
 *      are without a version.
 *  S13 A group that is given up is named once, by DROP_GROUP, after a CANCEL for each of its samples that is
 *      leased; it is never delivered and nothing of it is leased again.
 *  S14 A rank is recalled from only while nothing is left to lease and another has slots free that decode;
 *      it keeps as much as the other will hold, and answers one recall before the next.
 *  S15 A recall is no deferral: what comes back is leased again within the step, and stays due if it was.
 *      Only where the step is closing and it is not due it is put aside, and that counts.
 *  S16 Streaming (on_stream) delivers groups before their step is ready, and only such as would be in its batch
 *      anyway: a batch has the same groups with it and without, except that what has left is not given up for its
 *      age when a version comes before the step is ready (async, ON_STALE_DROP).
 *  S17 Prompts that are offered are opened in their order and before any other, each once.  A group whose prompt was
 *      offered is opened with the number of samples that was asked for.
 *  S18 A group is extended at most once, and only when asked for its score: never one of an evaluation, one whose
 *      prompt was offered, or beyond samples_max samples.  Indices of what is added go on counting, its samples are
 *      leased, put aside and counted as any others, and it is complete again once they are done.
 *  S19 Between two training batches groups are extended by no more than extension_budget samples, where there is one;
 *      and as long as any of it is left, groups are judged in ascending order, one at a time.
 *  S20 A sample that is pruned is done, wherever it was: called back by one CANCEL if it is leased, and leased no more.
 *      Its group is complete and delivered as if it had ended; nothing late of it changes anything (S9).
 *  S21 A batch waits for no score but those that it needs: once `groups_per_step` groups are complete and kept, and every
 *      rank is quiet, it is delivered, and groups whose scores are awaited then are there for the next one.  Only one
 *      that would be in this batch, and would lag more than max_staleness with the next version, is waited for.
 *      A score that is said before all actions have been taken is never late.
 */
#ifndef SCHEDULER_SCHEDULER_H
#define SCHEDULER_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct scheduler;

enum asynchrony { SYNCHRONOUS, ASYNCHRONOUS_BY_ONE_STEP, ASYNCHRONOUS };
enum on_stale { ON_STALE_FINISH, ON_STALE_MASK /* who delivers does */, ON_STALE_DROP };
enum on_deferrals { ON_DEFERRALS_FINISH, ON_DEFERRALS_DROP };
enum scheduler_order { ORDER_OLDEST, ORDER_LONGEST };
enum scheduler_stream { STREAM_OFF, STREAM_IN_ORDER /* ascending group */, STREAM_AS_COMPLETE };

#define SCHEDULER_NO_TOKENS INT64_MIN /* as an oldest version */

struct scheduler_options {
	int groups_per_step;   /* complete groups in a batch */
	double over_sampling;  /* groups in flight / groups wanted, >= 1 */
	int samples_per_group; /* drawn, MC-GRPO's extra one included */
	int eval_samples;      /* per evaluation group */
	bool partial_rollouts; /* false: the step waits for everything it started */
	int max_staleness;     /* versions */
	int max_deferrals;
	enum asynchrony asynchrony; /* not SYNCHRONOUS: max_staleness >= 1 */
	enum on_stale stale_action;
	enum on_deferrals deferral_action;
	enum scheduler_order order; /* in which samples are leased (S6) */
	bool offered_only;          /* training groups are opened for prompts that were offered, and for no others */
	bool migrate;               /* take samples back from loaded ranks for idle ones (S14) */
	int samples_max;            /* of a group that is extended (S18); 0: none is */
	int extension_budget;       /* samples that groups are extended by per step, at most (S19); 0: no bound */
};

enum action_type {
	ACTION_NONE,
	ACTION_OPEN_GROUP,     /* group, eval, n_samples, offered: take the next prompt, or the next that was offered; no
	                          reply needed */
	ACTION_LEASE,          /* group, sample, rank, lease: send the sample to the rank */
	ACTION_STOP,           /* rank: put everything aside and report quiet; samples named by ACTION_KEEP
	                          before it go on */
	ACTION_KEEP,           /* rank, group, sample: must run to its end (S7) */
	ACTION_GROUP_COMPLETE, /* group: compute advantages, then call scheduler_on_group_scored,
	                          or scheduler_on_group_extended and await this again */
	ACTION_STEP_READY,     /* step, eval: the delivered groups were named by ACTION_DELIVER before it */
	ACTION_DELIVER,        /* group: part of the step's batch, in order of delivery; streaming, long before it is ready */
	ACTION_CANCEL,         /* rank, group, sample, lease: take it back and throw it away (S13, S20); no answer */
	ACTION_DROP_GROUP,     /* group: given up, too old or put aside too often; forget it */
	ACTION_RECALL          /* rank, lease (the recall's number), n_samples: the rank gives back what it holds
	                          beyond n_samples, what has the least progress first, then says so */
};

struct action {
	enum action_type type;
	uint64_t group;
	int sample, rank, n_samples;
	uint64_t lease;
	int64_t step;
	bool eval, offered;
};

struct scheduler *scheduler_open(const struct scheduler_options *options);
void scheduler_close(struct scheduler *scheduler);

/* Events.  Take all actions after each.  A rank that joins again has lost what it held. */
void scheduler_on_rank_joined(struct scheduler *scheduler, int rank, int capacity);
/* The same for a rank that decodes `active` samples together and queues the rest of its capacity. */
void scheduler_on_rank_joined_slots(struct scheduler *scheduler, int rank, int capacity, int active);
void scheduler_on_rank_lost(struct scheduler *scheduler, int rank); /* its samples wait, as last known */
/* Begin a training step under `version`, or an evaluation of n_eval groups.  One step off, `version` is what
 * generates, and the batch is delivered with the next one.  Async, a step is a batch that somebody wants. */
void scheduler_on_step_begin(struct scheduler *scheduler, int64_t step, int64_t version);
void scheduler_on_eval_begin(struct scheduler *scheduler, int64_t step, int n_eval);
/* The same with another number of samples per group than options.eval_samples. */
void scheduler_on_eval_begin_samples(struct scheduler *scheduler, int64_t step, int n_eval, int n_samples);
/* True where an evaluation may begin: no step is open. */
bool scheduler_is_idle(const struct scheduler *scheduler);
/* At any time: prompts to open groups for before any others, with n_samples[i] samples; behind those that wait, or, one
 * that comes again since its group was given up, before them. */
void scheduler_on_prompts_offered(struct scheduler *scheduler, const int *n_samples, int n, bool first);
/* Async only, at any time: every rank has `version`. */
void scheduler_on_version(struct scheduler *scheduler, int64_t version);
/* Async, between steps: put everything aside and lease nothing until the next step begins. */
void scheduler_on_rest(struct scheduler *scheduler);
void scheduler_on_sample_done(struct scheduler *scheduler, uint64_t group, int sample, uint64_t lease);
/* oldest_version: version of its first response token, or the current one if it has none. */
void scheduler_on_sample_partial(struct scheduler *scheduler, uint64_t group, int sample, uint64_t lease,
                                 int64_t oldest_version);
/* A sample came back by a recall; oldest_version as above, or SCHEDULER_NO_TOKENS.  True if it is put aside,
 * which counts as a deferral (S15). */
bool scheduler_on_sample_recalled(struct scheduler *scheduler, uint64_t group, int sample, uint64_t lease,
                                  int64_t oldest_version);
/* The rank has given back what the recall asked for. */
void scheduler_on_rank_recalled(struct scheduler *scheduler, int rank, uint64_t recall);
/* Tokens that a sample (-1: all of the group that are not done) will still make, by what is known so far.
 * With ORDER_LONGEST every ACTION_OPEN_GROUP is answered by it; ORDER_OLDEST takes no notice. */
void scheduler_on_sample_expected(struct scheduler *scheduler, uint64_t group, int sample, int tokens);
/* It need not go on, wherever it is: it is done as it stands (S20).  Nothing if its group is gone or it is done. */
void scheduler_on_sample_pruned(struct scheduler *scheduler, uint64_t group, int sample);
/* keep false: drop it, and open another where the step needs it; evaluation groups are always kept. */
void scheduler_on_group_scored(struct scheduler *scheduler, uint64_t group, bool keep);
/* Instead, where there is room: n_more samples, 1 to scheduler_extension_room(), with indices from n_samples on.  Whoever
 * calls this has made them and put them on record.  With ORDER_LONGEST say next what is expected of each. */
void scheduler_on_group_extended(struct scheduler *scheduler, uint64_t group, int n_more);
/* Samples that a group which waits for its score may be extended by (S18, S19); 0: it is final. */
int scheduler_extension_room(const struct scheduler *scheduler, uint64_t group);
void scheduler_on_rank_quiet(struct scheduler *scheduler, int rank);
/* At any time: whether groups are delivered as soon as they are certain to be in the batch of the open step. */
void scheduler_on_stream(struct scheduler *scheduler, enum scheduler_stream stream);

/* For resuming from the store, before the first step: a training group that is not delivered, with the
 * states of its samples to follow by scheduler_restore_sample (those left out wait afresh; not done:
 * put aside with tokens).  A group whose samples are all done asks to be scored again. */
void scheduler_restore_group(struct scheduler *scheduler, uint64_t group, int n_samples);
void scheduler_restore_sample(struct scheduler *scheduler, uint64_t group, int sample, bool done,
                              int deferrals, int64_t oldest_version);
/* Before its samples: its number of samples is final, since it was extended or judged complete before. */
void scheduler_restore_settled(struct scheduler *scheduler, uint64_t group);
/* Samples that groups have been extended by since the last training batch. */
void scheduler_restore_extra(struct scheduler *scheduler, int n_extra);
/* Ids of new groups start here or after the restored ones: those delivered before are not reused. */
void scheduler_restore_next_group(struct scheduler *scheduler, uint64_t next_group);

/* The version that generates, and batches that are out for which none has come yet (counted asynchronously). */
void scheduler_restore_version(struct scheduler *scheduler, int64_t version, int n_outstanding);

/* The next action, in order; false if there is none. */
bool scheduler_next_action(struct scheduler *scheduler, struct action *action);

struct scheduler_counts {
	int groups_open, groups_complete; /* complete and not yet delivered */
	int waiting, leased, aside, done; /* samples of groups not yet delivered */
	uint64_t resumed;                 /* leases of samples that had been put aside, since open */
	uint64_t deferred;                /* times a sample was put aside, since open */
	uint64_t groups_dropped, groups_delivered;
	uint64_t groups_given_up; /* S13; not among groups_dropped, which scoring dropped */
	uint64_t recalls, migrated;       /* recalls said; samples that came back by them */
	int extra;                        /* samples that groups were extended by since the last training batch */
	uint64_t pruned;                  /* samples that were not done when they were pruned */
};
void scheduler_counts_read(const struct scheduler *scheduler, struct scheduler_counts *counts);

/* True if every invariant holds; otherwise says which one to out (may be NULL). */
bool scheduler_check(const struct scheduler *scheduler, FILE *out);

#endif
