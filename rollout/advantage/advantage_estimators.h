/* advantage_estimators.h - what the estimators share.  Private to rollout/advantage/.
 *
 * advantage.c gathers a group's rewards in order of sample index, so that sums, medians and ties do
 * not depend on the order of arrival; an estimator says what each reward is compared with and what
 * `scale: auto` means for it; advantage.c divides, clamps and writes the result.
 */
#ifndef ROLLOUT_ADVANTAGE_ADVANTAGE_ESTIMATORS_H
#define ROLLOUT_ADVANTAGE_ADVANTAGE_ESTIMATORS_H

#include "configs/config.h"

struct group_rewards {
	const double *rewards; /* [n], by ascending sample index; finite */
	int n;                 /* >= 1 */
	double mean;
	double std;            /* sample standard deviation (n - 1); 0 for n = 1 */
	double median;         /* the lower middle where n is even: always one of the rewards */
	double mad;            /* median absolute deviation from the median, same rule */
};

struct estimate {
	double *baselines;         /* [n], filled in by the estimator */
	double baseline;           /* the group's, for reporting */
	enum advantage_scale scale; /* what auto stands for: SCALE_MAD, SCALE_STD or SCALE_NONE */
	int pivot;                 /* index of the member left out of the loss, or -1 */
};

void advantage_mc_grpo(const struct group_rewards *group, struct estimate *estimate);
void advantage_grpo(const struct group_rewards *group, struct estimate *estimate);
void advantage_dr_grpo(const struct group_rewards *group, struct estimate *estimate);
void advantage_rloo(const struct group_rewards *group, struct estimate *estimate);

#endif
