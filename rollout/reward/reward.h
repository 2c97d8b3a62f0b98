/* reward.h - verifiers: response text to reward.  A failed verifier is an error on the sample,
 * never a zero reward. */
#ifndef ROLLOUT_REWARD_REWARD_H
#define ROLLOUT_REWARD_REWARD_H

#include "configs/config.h"
#include "rollout/trajectory.h"

struct reward; /* compiled pattern and options; immutable */

int reward_open(struct reward **reward, const struct config_reward *options, struct err *err);
void reward_close(struct reward *reward);

/* Sets has_reward, reward, reward_answer, reward_steps from the response text (without special
 * tokens), trajectory->answer and trajectory->meta.  On error (say, no answer to compare with)
 * finish becomes FINISH_ERROR, error is set and has_reward stays false; returns the code. */
int reward_score(const struct reward *reward, struct trajectory *trajectory, const char *text,
                 struct err *err);

#endif
