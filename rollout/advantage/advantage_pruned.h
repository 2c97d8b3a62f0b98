/* advantage_pruned.h - advantages of a group of which samples were pruned in flight (prune.h). */
#ifndef ROLLOUT_ADVANTAGE_ADVANTAGE_PRUNED_H
#define ROLLOUT_ADVANTAGE_ADVANTAGE_PRUNED_H

#include "rollout/advantage/advantage.h"
#include "rollout/prune.h"

/* Estimators whose expectation survives pruning: RLOO, Dr.GRPO and GRPO, none divided by a deviation. */
bool advantage_takes_pruned(const struct config_advantage *options);

/* members [decision->n] by sample index.  Survivors and those that ended before get their advantage and a loss weight of
 * 1 / probability, pruned ones and those without a reward none.  out->baseline is the estimate of the mean reward of
 * all that were started.  Advantages are not clamped: that would bias them; weights are bounded by weight_max. */
void advantage_pruned(struct trajectory *const *members, const struct prune_decision *decision,
                      const struct config_advantage *options, struct group_advantage *out);

#endif
