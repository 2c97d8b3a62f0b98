/* advantage_grpo.c - GRPO (Shao et al. 2024, "DeepSeekMath", arXiv 2402.03300, section 4.1).
 *
 *     A_i = (r_i - mean(r)) / std(r)
 *
 * std is the sample standard deviation (divisor G - 1), as TRL and verl compute it; the paper does not
 * say.  Differences from the paper: the divisor has a floor instead of a small addend, and the result
 * a clamp.  O(G).
 */
#include "rollout/advantage/advantage_estimators.h"

void advantage_grpo(const struct group_rewards *group, struct estimate *estimate)
{
	estimate->baseline = group->mean;
	estimate->scale = SCALE_STD;
	estimate->pivot = -1;
	for (int i = 0; i < group->n; i++) estimate->baselines[i] = group->mean;
}
