/* advantage_mc_grpo.c - MC-GRPO (Y. Kim 2026, "MC-GRPO", arXiv 2601.22582): median baseline.
 *
 *     b = median(r_1 .. r_{G+1}),   A_i = (r_i - b) / MAD,   MAD = median(|r_i - b|)
 *
 * One sample more than the trainer wants is drawn.  The pivot, the member at the median (the lowest
 * sample index among equals), has A = 0 and is left out of the loss, so G samples train.  With small G
 * a median baseline flips the sign of fewer advantages than a mean does.
 *
 * Differences from the paper: groups are formed by explicit id; where MAD is 0 though rewards differ
 * (always so for binary rewards and odd G+1, whose majority is the median), the standard deviation
 * takes its place instead of MAD + 0.001, which would give advantages of 1000; the divisor has a
 * floor and the result a clamp; advantages are not multiplied by (G+1)/#nonzero; the median of an
 * even number, which a failed sample can leave, is the lower middle.  O(G log G).
 */
#include "rollout/advantage/advantage_estimators.h"

void advantage_mc_grpo(const struct group_rewards *group, struct estimate *estimate)
{
	estimate->baseline = group->median;
	estimate->scale = group->mad > 0 ? SCALE_MAD : SCALE_STD;
	estimate->pivot = -1;
	for (int i = 0; i < group->n; i++) {
		estimate->baselines[i] = group->median;
		if (estimate->pivot < 0 && group->rewards[i] == group->median) estimate->pivot = i;
	}
}
