/* policy_update.h - one batch of trajectories to one or more optimizer steps, by the token-level clipped
 * objective (objective.h).
 *
 * What is trained on: tokens with loss_mask 1 of trajectories with an advantage and loss_weight > 0
 * that are not evaluation.  The loss is the mean over those tokens, each weighted by its trajectory's
 * loss_weight.  Log-probabilities are taken at the trajectory's temperature (1 where it was greedy)
 * over the whole vocabulary.  Where top-p or top-k truncated the sampling, the recorded
 * log-probabilities are of the truncated distribution: the importance weight exp(old - recorded) is
 * then the mass that was kept, at most 1, and corrects for it.
 */
#ifndef TRAINER_BRIDGE_POLICY_UPDATE_H
#define TRAINER_BRIDGE_POLICY_UPDATE_H

#include "configs/config.h"
#include "rollout/trajectory.h"
#include "trainer_bridge/learner.h"
#include "trainer_bridge/server.h"

/* options: learning rate, clips, minibatches (sample i of those trained on goes to minibatch
 * i mod minibatches, so that each has members of every group).  reference [n_elements]: parameters of
 * the KL's reference policy; NULL with kl_coef 0.  Fills the report but for step and seconds; nothing to
 * train on gives zeros and leaves the weights.  A gradient that is not finite is an error, and so are
 * tokens that the model does not have. */
int policy_update(struct learner *learner, const struct model_config *model, const float *reference,
                  struct trajectory *const *trajectories, int n, const struct config_trainer *options,
                  int64_t step, struct trainer_report *report, struct err *err);

#endif
