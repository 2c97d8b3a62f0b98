/* allocation.h - how many samples a prompt gets, once those that it began with are judged; one rule per file
 * (allocation_*.c).  Pure functions of rewards: what a budget leaves of it is the scheduler's (S19 of scheduler.h).
 */
#ifndef ROLLOUT_ALLOCATION_H
#define ROLLOUT_ALLOCATION_H

#include "configs/config.h"
#include "rollout/trajectory.h"

const char *allocation_name(int kind); /* as in the config */

/* What the first stage said, and what follows. */
struct allocation {
	int n;             /* samples with a reward */
	double accuracy;   /* mean of their reward_answer; 0 for n = 0 */
	int wanted;        /* samples that the rule adds */
};

/* The rule of allocation.kind for a group whose n_members first samples are done.  O(n_members).  ERR_INVALID where a
 * reward_answer is outside [0, 1], which only a verifier of somebody else's can say. */
int allocation_decide(const struct config *config, struct trajectory *const *members, int n_members,
                      struct allocation *allocation, struct err *err);

/* DARS: samples to add to n, of which the share `accuracy` was right, with at most n_max in all; 0 where there is no n.
 * standardized: advantages are divided by the standard deviation. */
int allocation_dars(int kind, bool standardized, int n, double accuracy, int n_max);

/* Whether advantages of these options are divided by the standard deviation of binary rewards. */
bool allocation_is_standardized(const struct config_advantage *options);

/* What cannot go together with allocation.kind, with the reason; 0 where all can. */
int allocation_check(const struct config *config, struct err *err);

/* A prompt that is right too often to train on: allocation.upper, where there is a second stage. */
bool allocation_is_too_easy(const struct config *config, struct trajectory *const *members, int n_members);

#endif
