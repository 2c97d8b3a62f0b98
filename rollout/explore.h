/* explore.h - two stages for each prompt: a large pool of samples that the quantized copy draws, and the few of it
 * that say most, drawn again by the target with the same noise.
 *
 * After Sol-RL ("FP4 Explore, BF16 Train: Diffusion Reinforcement Learning via Efficient Rollout Scaling",
 * arXiv 2604.06916, 2026).  The pool only decides which seeds are worth the target's time; what is trained on is the
 * target's own sample with the target's log-probabilities, bit for bit what exact mode draws at that seed.
 *
 * A decision is a pure function of the pool's rewards, and these of weights, prompt, seed and settings.
 */
#ifndef ROLLOUT_EXPLORE_H
#define ROLLOUT_EXPLORE_H

#include "configs/config.h"
#include "rollout/trajectory.h"

/* A place in the pool's order: higher reward first, then lower sample index. */
struct explore_place {
	int index; /* in the pool's array */
	int rank;  /* from 0, among those that have a reward */
};

/* The ceil(keep / 2) first and the floor(keep / 2) last of the order, in the order; all that have a reward where there
 * are not more than keep.  Samples without a reward (FINISH_ERROR) have no place.  Returns how many were chosen. */
int explore_choose(struct trajectory *const *pool, int n, int keep, struct explore_place *chosen);

/* True if no two rewards of the pool differ: it says nothing about which seeds teach. */
bool explore_is_flat(struct trajectory *const *pool, int n);

/* A fresh sample of the same prompt, seed and settings, that brings the response of `explored` as its proposal; its
 * identity (id, sample, group_size) is that of the pool's until the caller gives it another.  Owned by the caller. */
struct trajectory *explore_again(const struct trajectory *explored);

/* Response tokens that both begin with; all of either: they do not differ. */
int32_t explore_agreed(const struct trajectory *explored, const struct trajectory *again);

/* Where they differ: index of the first response token that is another, or -1. */
int32_t explore_divergence(const struct trajectory *explored, const struct trajectory *again);

/* Into again->meta, key "explore": {pool, sample, rank (from 1), explored_reward, reward, explored_tokens,
 * divergence (null: none)}; reward is null where the sample has none.  Written anew if it is there. */
void explore_note(struct trajectory *again, const struct trajectory *explored, int pool, int rank);

/* What cannot go together with rollout.mode explore, with the reason; 0 where all can. */
int explore_check(const struct config *config, struct err *err);

/* Spearman's rank correlation of n pairs, ties at their mean rank; NaN where one side is constant or n < 2. */
double explore_spearman(const double *x, const double *y, int n);

#endif
