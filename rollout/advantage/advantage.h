/* advantage.h - group advantages from rewards; one estimator per file (advantage_*.c).
 *
 * Members are given with explicit indices and may be in any order; nothing depends on position in
 * the array but through `sample`.  Ties are deterministic (lowest sample index).
 */
#ifndef ROLLOUT_ADVANTAGE_ADVANTAGE_H
#define ROLLOUT_ADVANTAGE_ADVANTAGE_H

#include "configs/config.h"
#include "rollout/trajectory.h"

struct group_advantage {
	double baseline, scale;
	bool degenerate;     /* all rewards equal: every advantage is 0 */
	bool mad_zero;       /* median absolute deviation was 0 though the group is not degenerate */
	bool median_tie;     /* more than one member at the median */
	bool binary;         /* only two distinct rewards */
};

/* All members of one group, n >= 1, each with has_reward (others, such as FINISH_ERROR, are left out:
 * advantage 0, loss_weight 0).  Writes advantage, baseline, scale, pivot, loss_weight, has_advantage. */
void advantage_compute(struct trajectory *const *members, int n, const struct config_advantage *options,
                       struct group_advantage *out);

/* Samples to draw so that the trainer gets group_size that count: G + 1 for MC-GRPO. */
int advantage_samples_to_draw(const struct config_advantage *options, int group_size);

#endif
