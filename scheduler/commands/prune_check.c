/* prune_check.c - pruning is refused where the estimate of what it leaves could not be unbiased, or where it could not act. */
#include "scheduler/commands/prune_check.h"

#include "rollout/advantage/advantage_pruned.h"

static int check_estimator(const struct config_advantage *a, struct err *err)
{
	if (a->estimator == ADVANTAGE_MC_GRPO)
		return err_set(err, ERR_CONFIG, "prune.at_tokens is set, but advantage.estimator is mc_grpo: a median needs the rewards of all samples "
		               "that were started, and of those that are pruned there are none: choose rloo or dr_grpo");
	if (!advantage_takes_pruned(a))
		return err_set(err, ERR_CONFIG, "prune.at_tokens is set, but advantages are divided by a deviation of the group's rewards, of which "
		               "the pruned samples' are not known; no weights make that unbiased: set advantage.scale to none, or "
		               "advantage.estimator to rloo or dr_grpo with scale auto");
	return 0;
}

int prune_check_config(const struct config *c, struct err *err)
{
	const struct config_prune *p = &c->prune;
	int drawn = advantage_samples_to_draw(&c->advantage, (int)c->rollout.group_size);

	if (p->at_tokens == 0) return 0;
	if (c->rollout.mode != ROLLOUT_EXACT && c->rollout.mode != ROLLOUT_SPECULATIVE)
		return err_set(err, ERR_CONFIG, "prune.at_tokens is set, but rollout.mode is not exact or speculative: the quality head reads the "
		               "target's hidden state, and here the target does not draw");
	if (c->allocation.kind != ALLOCATION_UNIFORM)
		return err_set(err, ERR_CONFIG, "prune.at_tokens and allocation.kind are both set: what a group is extended by is not known when its "
		               "samples are pruned, and its difficulty not when they are: set prune.at_tokens to 0, or allocation.kind to uniform");
	if (c->reward.kind == REWARD_NONE)
		return err_set(err, ERR_CONFIG, "prune.at_tokens is set, but reward.kind is none: the quality head learns from rewards: choose a verifier");
	if (p->at_tokens >= c->rollout.max_tokens)
		return err_set(err, ERR_CONFIG, "prune.at_tokens is %lld, but no response gets beyond rollout.max_tokens, %lld: nothing would be saved",
		               (long long)p->at_tokens, (long long)c->rollout.max_tokens);
	if (drawn > PRUNE_SAMPLES_MAX)
		return err_set(err, ERR_TOO_BIG, "prune.at_tokens is set and a group has %d samples; with more than %d the probabilities of all pairs "
		               "take too long", drawn, PRUNE_SAMPLES_MAX);
	if (p->keep * p->weight_max < 1)
		return err_set(err, ERR_CONFIG, "prune.keep is %g: on average that is a loss weight of %g, beyond prune.weight_max, %g", p->keep,
		               1 / p->keep, p->weight_max);
	if (p->keep_min < c->advantage.min_group)
		return err_set(err, ERR_CONFIG, "prune.keep_min is %lld, but groups with fewer than %lld rewards (advantage.min_group) are dropped",
		               (long long)p->keep_min, (long long)c->advantage.min_group);
	if (drawn <= p->keep_min)
		return err_set(err, ERR_CONFIG, "prune.at_tokens is set, but of the %d samples of a group prune.keep_min keeps %lld: none is left to be "
		               "pruned", drawn, (long long)p->keep_min);
	return check_estimator(&c->advantage, err);
}
