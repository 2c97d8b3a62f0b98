/* advantage_dr_grpo.c - Dr. GRPO (Liu et al. 2025, "Understanding R1-Zero-Like Training: A Critical
 * Perspective", arXiv 2503.20783, section 3).
 *
 *     A_i = r_i - mean(r)
 *
 * GRPO without the division by the standard deviation, which weighs very easy and very hard prompts
 * up.  (The paper's other half, no division by the response's length, is the trainer's: its loss is a
 * mean over tokens.)  O(G).
 */
#include "rollout/advantage/advantage_estimators.h"

void advantage_dr_grpo(const struct group_rewards *group, struct estimate *estimate)
{
	estimate->baseline = group->mean;
	estimate->scale = SCALE_NONE;
	estimate->pivot = -1;
	for (int i = 0; i < group->n; i++) estimate->baselines[i] = group->mean;
}
