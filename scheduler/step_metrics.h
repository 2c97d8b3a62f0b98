/* step_metrics.h - what one step did, gathered by the controller; names follow slime and verl.
 *
 * Rates are ratios of sums, never means of ratios. */
#ifndef SCHEDULER_STEP_METRICS_H
#define SCHEDULER_STEP_METRICS_H

#include "rollout/advantage.h"
#include "trainer_bridge/server.h"

struct step_metrics {
	int64_t step, version;
	double rollout_seconds;   /* step begun until every rank was quiet */
	double train_seconds;     /* batch put until the new version had arrived */
	double broadcast_seconds; /* arrived until every rank had requantized */
	/* what came back from the ranks during the step */
	uint64_t tokens, drafted, accepted, verify_calls;
	int resumed, put_aside, failed;
	double aside_tokens;      /* response tokens of what was put aside */
	/* groups that were completed, those that the filter drops included: what the policy can do */
	int completed, passed;    /* samples with a reward; with a right answer */
	double reward_sum;
	/* what was delivered: what the trainer sees */
	int trajectories, truncated, delivered_rewarded;
	double delivered_reward_sum, staleness_sum, advantage_abs_sum;
	int staleness_max, off_policy_tokens, delivered_tokens;
	int *lengths;             /* [trajectories], owned */
	int lengths_capacity;
	/* groups completed in the step */
	int groups, dropped, degenerate, mad_zero, median_tie, binary;
	int unscored;             /* dropped for want of two rewards */
	struct trainer_report report;
	bool has_report;
};

void step_metrics_begin(struct step_metrics *m, int64_t step, int64_t version);
void step_metrics_free(struct step_metrics *m);

/* A sample came back; before: as it was leased. */
void step_metrics_returned(struct step_metrics *m, const struct trajectory *before, const struct trajectory *now);
/* A group of n samples is complete. */
void step_metrics_group(struct step_metrics *m, struct trajectory *const *samples, int n,
                        const struct group_advantage *advantage, bool dropped);
void step_metrics_delivered(struct step_metrics *m, const struct trajectory *t);

double step_metrics_tokens_per_sec(const struct step_metrics *m);
double step_metrics_acceptance(const struct step_metrics *m); /* 0 where nothing was drafted */
double step_metrics_reward(const struct step_metrics *m);     /* mean over completed samples */
double step_metrics_pass_rate(const struct step_metrics *m);
double step_metrics_length_mean(const struct step_metrics *m);
int step_metrics_length_max(const struct step_metrics *m);

/* One JSON object on one line; owned by the caller. */
char *step_metrics_json(const struct step_metrics *m);

#endif
