/* allocation_dars.c - difficulty-adaptive rollout sampling (DARS; Yang et al. 2025, "Depth-Breadth Synergy in RLVR:
 * Unlocking LLM Reasoning Gains with Adaptive Exploration", arXiv 2508.13755, and its code, ray_dars_trainer.py).
 *
 * Each prompt begins with n samples, of which the share a is right.  With a group baseline the advantages of binary
 * rewards add up, in magnitude, to n S(a) per prompt,
 *
 *     S(a) = 2 a (1 - a)        (r - mean)
 *     S(a) = 2 sqrt(a (1 - a))  (r - mean) / std,
 *
 * which is largest at a = 1/2, n P with P = S(1/2) = 1/2 or 1, and vanishes for hard prompts.  A second stage of dn
 * samples for a < 1/2 lifts the sum (n + dn) S(a) to
 *
 *     n P              equal treatment (ET):    dn = (n P - n S) / S
 *     2 (1 - a) n P    hardness weighted (HW):  dn = (2 (1 - a) n P - n S) / S
 *
 * rounded up, at most n_max - n.  Where nothing was right yet, a = 1 / (2 n) stands for it.  O(1).
 *
 * Differences from the paper: the second stage is not a second pass over the whole batch; a prompt gets it as soon as
 * its first one is judged, while others are still at theirs.  n_max may be cut by a budget per step, the oldest groups
 * first.  Rewards may be graded: a is the mean of reward_answer in [0, 1], and S is that of binary rewards with that mean.
 * Samples without a verdict count neither as right nor as wrong, and n is the number of those that have one.
 */
#include "rollout/allocation.h"

#include <math.h>

static const double NOTHING_RIGHT = 1e-6;

int allocation_dars(int kind, bool standardized, int n, double accuracy, int n_max)
{
	if (n <= 0 || n >= n_max || accuracy >= 0.5) return 0;
	double a = accuracy <= NOTHING_RIGHT ? 0.5 / n : accuracy;
	double s = standardized ? 2 * sqrt(a * (1 - a)) : 2 * a * (1 - a);
	double peak = standardized ? n : 0.5 * n;
	double aim = kind == ALLOCATION_DARS_HW ? 2 * (1 - a) * peak : peak;
	double more = (aim - n * s) / s;
	/* 24.000000000000004 is 24, not 25. */
	more = ceil(more - 1e-9 * n);
	return more <= 0 ? 0 : more < n_max - n ? (int)more : n_max - n;
}
