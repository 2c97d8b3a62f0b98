/* advantage_pruned.c - advantages of the survivors of pruning, unbiased over all started samples.
 *
 * n samples were started; I_i = 1 if i was kept, with probability P_i, pairs with P_ij (prune.h); q_i is what the quality
 * head expected of i when that was drawn (any number that does not depend on I will do).  A kept sample has
 *     w_i = 1 / P_i,      A_i = r_i - b_i,
 *     b_i = 1 / (n - 1)  sum_{j != i} [ q_j + I_j (P_i / P_ij) (r_j - q_j) ]            (RLOO)
 * and (n - 1) / n of that for Dr.GRPO and GRPO without a divisor, whose A_i = r_i - mean(r) is (n - 1) / n of RLOO's.
 * Since E[I_i w_i] = 1 and E[I_i w_i I_j P_i / P_ij] = 1, for any vectors s_i (gradients of log-probabilities)
 *     E[ sum_i I_i w_i A_i s_i | the n samples ] = sum_i (r_i - 1/(n-1) sum_{j != i} r_j) s_i:
 * over the draw of who is pruned, the gradient of the group is the one that it would have had unpruned.  (Horvitz and
 * Thompson 1952 for the weights; the difference estimator, "doubly robust", for the baselines: the better q, the less
 * noise.)  The mean of survivors as a baseline has no such property: survivors were chosen for their scores.
 *
 * A deviation in the divisor, a median, a clamp are not linear in rewards, so that no weights make them unbiased:
 * refused (advantage_takes_pruned).  Of a sample whose verifier failed r_j - q_j is taken for 0.  O(n^2) pairs of O(n^2).
 */
#include "rollout/advantage/advantage_pruned.h"

#include <assert.h>
#include <math.h>

bool advantage_takes_pruned(const struct config_advantage *options)
{
	bool divides = options->scale == SCALE_MAD || options->scale == SCALE_STD ||
	               (options->scale == SCALE_AUTO && options->estimator == ADVANTAGE_GRPO);
	return options->estimator != ADVANTAGE_MC_GRPO && !divides;
}

/* r_j - q_j, 0 where there is no reward. */
static double surprise(struct trajectory *const *members, const struct prune_decision *d, int j)
{
	return members[j]->has_reward ? members[j]->reward - d->scores[j] : 0;
}

static double baseline_of(struct trajectory *const *members, const struct prune_decision *d, int i)
{
	double sum = 0;

	for (int j = 0; j < d->n; j++) {
		if (j == i) continue;
		sum += d->scores[j];
		if (d->fate[j] != PRUNE_PRUNED && members[j]->has_reward)
			sum += d->probability[i] / prune_joint(d, i, j) * surprise(members, d, j);
	}
	return sum / (d->n - 1);
}

/* Horvitz-Thompson's of the mean reward, by differences. */
static double mean_of(struct trajectory *const *members, const struct prune_decision *d)
{
	double sum = 0;

	for (int j = 0; j < d->n; j++) {
		sum += d->scores[j];
		if (d->fate[j] != PRUNE_PRUNED) sum += surprise(members, d, j) / d->probability[j];
	}
	return sum / d->n;
}

void advantage_pruned(struct trajectory *const *members, const struct prune_decision *d,
                      const struct config_advantage *options, struct group_advantage *out)
{
	double share = options->estimator == ADVANTAGE_RLOO ? 1 : (double)(d->n - 1) / d->n;

	assert(advantage_takes_pruned(options) && d->n > 1);
	*out = (struct group_advantage){ .baseline = mean_of(members, d), .scale = 1 };
	for (int i = 0; i < d->n; i++) {
		struct trajectory *t = members[i];
		bool counts = d->fate[i] != PRUNE_PRUNED && t->has_reward;
		double baseline = counts ? baseline_of(members, d, i) : 0;
		t->has_advantage = counts;
		t->pivot = false;
		t->baseline = (float)baseline;
		t->scale = counts;
		t->advantage = counts ? (float)(share * (t->reward - baseline)) : 0;
		t->loss_weight = counts ? (float)(1 / d->probability[i]) : 0;
	}
}
