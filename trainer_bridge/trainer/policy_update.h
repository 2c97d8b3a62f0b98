/* policy_update.h - one batch of trajectories to one or more optimizer steps, by the token-level clipped
 * objective (objective.h).
 *
 * What is trained on: tokens with loss_mask 1 of trajectories with an advantage and loss_weight > 0
 * that are not evaluation.  The loss is the mean over those tokens, each weighted by its trajectory's
 * loss_weight.  Log-probabilities are taken at the trajectory's temperature (1 where it was greedy)
 * over the whole vocabulary.  Where top-p or top-k truncated the sampling, the recorded
 * log-probabilities are of the truncated distribution: the importance weight exp(old - recorded) is
 * then the mass that was kept, at most 1, and corrects for it.
 *
 * The old policy of the objective is, token by token:
 * - that of the weights at the start of the batch, by a pass of this trainer, where the target drew (exact and
 *   speculative mode).  What lies between it and the recorded log-probability is staleness and kept mass.
 * - the target of the version that drew, as recorded in target_logprobs, where the quantized copy drew: the
 *   importance weight exp(target - behaviour) is then the quantization's alone, has mean 1 under the behaviour
 *   policy, and needs no pass here; staleness is left to the clipped ratio.
 * - the first again where sampling was truncated or greedy: target_logprobs are then not of the whole
 *   vocabulary's distribution, which is what the ratio compares.
 */
#ifndef TRAINER_BRIDGE_TRAINER_POLICY_UPDATE_H
#define TRAINER_BRIDGE_TRAINER_POLICY_UPDATE_H

#include "configs/config.h"
#include "rollout/trajectory.h"
#include "trainer_bridge/server/server.h"
#include "trainer_bridge/trainer/learner.h"

/* options: learning rate, clips, minibatches (sample i of those trained on goes to minibatch
 * i mod minibatches, so that each has members of every group).  reference [n_elements]: parameters of
 * the KL's reference policy; NULL with kl_coef 0.  Fills the report but for step and seconds; nothing to
 * train on gives zeros and leaves the weights.  A gradient that is not finite is an error, and so are
 * tokens that the model does not have. */
int policy_update(struct learner *learner, const struct model_config *model, const float *reference,
                  struct trajectory *const *trajectories, int n, const struct config_trainer *options,
                  int64_t step, struct trainer_report *report, struct err *err);

#endif
