/* advantage_rloo.c - REINFORCE leave-one-out (Kool, van Hoof, Welling 2019, "Buy 4 REINFORCE Samples,
 * Get a Baseline for Free!"; Ahmadian et al. 2024, "Back to Basics", arXiv 2402.14740, section 3).
 *
 *     A_i = r_i - mean_{j != i}(r_j) = G / (G - 1) (r_i - mean(r))
 *
 * Each member's baseline is the mean of the others, so it does not depend on the member itself and the
 * gradient is unbiased.  The reported baseline of the group is the mean.  O(G).
 */
#include "rollout/advantage/advantage_estimators.h"

void advantage_rloo(const struct group_rewards *group, struct estimate *estimate)
{
	double sum = group->mean * group->n;
	estimate->baseline = group->mean;
	estimate->scale = SCALE_NONE;
	estimate->pivot = -1;
	for (int i = 0; i < group->n; i++) {
		double own = group->rewards[i];
		estimate->baselines[i] = group->n > 1 ? (sum - own) / (group->n - 1) : own;
	}
}
