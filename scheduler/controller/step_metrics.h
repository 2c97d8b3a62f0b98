/* step_metrics.h - what one step did, gathered by the controller; names follow slime and verl.
 *
 * Rates are ratios of sums, never means of ratios. */
#ifndef SCHEDULER_CONTROLLER_STEP_METRICS_H
#define SCHEDULER_CONTROLLER_STEP_METRICS_H

#include "rollout/advantage/advantage.h"
#include "rollout/engine.h"
#include "scheduler/controller/prune_metrics.h"
#include "trainer_bridge/server/server.h"

struct step_metrics {
	int64_t step, version;
	double rollout_seconds;   /* step begun until every rank was quiet */
	double stop_seconds;      /* of them: from the first rank told to stop until all were quiet */
	double store_seconds;     /* that the controller has spent on the store since it said so in the line before */
	double train_seconds;     /* batch put until the new version had arrived */
	double receive_seconds;   /* of that version, from the trainer's first byte to its last */
	double broadcast_seconds; /* committed until every rank had requantized */
	double requantize_seconds; /* of packing and quantizing it, the slowest rank's, mostly while it arrived */
	double first_token_seconds; /* last byte of the version that the step was drawn with until samples grew under it */
	/* what came back from the ranks during the step */
	uint64_t tokens, drafted, accepted, verify_calls;
	int resumed, put_aside, migrated, failed;
	double aside_tokens;      /* response tokens of what was put aside */
	struct engine_stats engine; /* what the ranks' engines did: sums over ranks */
	/* Rollouts, as the controller sees them: seconds, sessions that a rank decodes (up to worker.max_active of what it
	 * holds) and ranks that hold any times seconds, ranks that serve times seconds; the tail, with fewer than a quarter
	 * of the slots in use (as in simulate.h). */
	double watched_seconds, session_seconds, busy_rank_seconds, serving_rank_seconds, tail_seconds;
	int sessions_max;
	double ranks_weights_seconds, ranks_reward_seconds, ranks_wait_seconds, ranks_seconds; /* as in struct rank_stats */
	/* Tokens of prompts computed, those that were computed again, those spared by KV that travelled; and tokens of
	 * prompts that had to be computed: once per group and rank. */
	uint64_t prefill_tokens, recomputed_tokens, imported_tokens, needed_prompt_tokens;
	int known;                /* samples of training with tokens at the end of the step, the delivered ones included */
	double known_tokens;
	/* groups that were completed, those that the filter drops included: what the policy can do */
	int completed, passed;    /* samples with a reward; with a right answer */
	double reward_sum;
	/* what was delivered: what the trainer sees */
	int trajectories, truncated, delivered_rewarded;
	double delivered_reward_sum, staleness_sum, advantage_abs_sum;
	int staleness_max, off_policy_tokens, delivered_tokens;
	int masked_tokens;        /* of them, out of the loss for their age */
	/* quantized mode: tokens with the target's log-probability, those of them that it would not draw at all,
	 * and over the others the estimators of KL(behaviour || target), k1 and k3 (Schulman 2020) */
	int rescored_tokens, outside_tokens;
	double kl_sum, k3_kl_sum;
	int *lengths;             /* [trajectories], owned */
	int lengths_capacity;
	/* groups completed in the step */
	int groups, dropped, degenerate, mad_zero, median_tie, binary;
	int unscored;             /* dropped for want of two rewards */
	int solved;               /* of groups: at least one right answer */
	int extended, added, wanted; /* groups that got a second stage; its samples, and those its rule asked for */
	/* explore mode: pools that were complete, those of equal rewards; samples drawn again, those that are the copy's
	 * token by token, their tokens and those that agree; pairs of rewards, the copy's and the target's, of which
	 * correlations within a group are defined so often */
	int pools, flat_pools, again, same, n_pairs, pairs_capacity, correlated_groups;
	double again_tokens, agreed_tokens, explored_reward_sum, again_reward_sum, correlation_sum;
	double *explored_rewards, *again_rewards; /* [n_pairs], owned */
	int given_up;             /* too old, or put aside too often */
	int cancelled;            /* samples called back from their ranks with them */
	int ranks_lost, ranks_returned, orphans, late_answers; /* ranks given up and taken back in; samples they held */
	/* External verifiers, since the batch before: requests, those asked again, verdicts, and those that are still awaited. */
	int judged, judge_failed, judge_bad_data, judge_waiting_max, judge_waiting;
	uint64_t judge_asked, judge_retried, judge_strays, judge_restarts;
	double judge_seconds;     /* of all judged: from the end of a sample to its verdict */
	bool judges;              /* there are any */
	double blocked_seconds;   /* ranks had nothing to do, for the trainer had not taken or not answered what there was */
	int unacknowledged, prompts_waiting; /* batches, submitted prompts: as the line is written */
	struct prune_metrics prune;
	struct trainer_report report;
	bool has_report;
};

void step_metrics_begin(struct step_metrics *m, int64_t step, int64_t version);
/* The same, but what was judged since the batch before stays: verdicts, and the groups that were complete with them. */
void step_metrics_begin_again(struct step_metrics *m, int64_t step, int64_t version);
void step_metrics_free(struct step_metrics *m);

/* A sample came back; before: as it was leased. */
void step_metrics_returned(struct step_metrics *m, const struct trajectory *before, const struct trajectory *now);
/* It was put aside by the end of the step. */
void step_metrics_put_aside(struct step_metrics *m, const struct trajectory *t);
/* A sample with tokens, delivered, finished or put aside, at the end of the step. */
void step_metrics_known(struct step_metrics *m, const struct trajectory *t);
/* A group of n samples is complete. */
void step_metrics_group(struct step_metrics *m, struct trajectory *const *samples, int n,
                        const struct group_advantage *advantage, bool dropped);
/* A sample of a pool and what the target made of it; and, from the pair `first` on, those of one group. */
void step_metrics_again(struct step_metrics *m, const struct trajectory *explored, const struct trajectory *again);
void step_metrics_fidelity(struct step_metrics *m, int first);
void step_metrics_delivered(struct step_metrics *m, const struct trajectory *t);

double step_metrics_tokens_per_sec(const struct step_metrics *m);
double step_metrics_acceptance(const struct step_metrics *m); /* 0 where nothing was drafted */
double step_metrics_reward(const struct step_metrics *m);     /* mean over completed samples */
double step_metrics_pass_rate(const struct step_metrics *m);
double step_metrics_length_mean(const struct step_metrics *m);
/* Mean length of what was delivered over that of all samples that have tokens: 1 where nothing was selected. */
double step_metrics_length_bias(const struct step_metrics *m);
int step_metrics_length_max(const struct step_metrics *m);

/* For `seconds` of rollouts, so many ranks serve with so many slots, so many of them hold samples, so many sessions decode. */
void step_metrics_watched(struct step_metrics *m, double seconds, int serving, int slots, int busy, int sessions);

/* One JSON object on one line; owned by the caller. */
char *step_metrics_json(const struct step_metrics *m);

#endif
