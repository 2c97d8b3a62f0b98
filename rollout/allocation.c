/* allocation.c - which rule, on what, and with what it cannot go together. */
#include "rollout/allocation.h"

#include <inttypes.h>
#include <math.h>

const char *allocation_name(int kind)
{
	static const char *const names[] = { "uniform", "dars_et", "dars_hw" };
	return names[kind];
}

static double share_right(struct trajectory *const *members, int n_members, int *n)
{
	double sum = 0;

	*n = 0;
	for (int i = 0; i < n_members; i++) {
		if (!members[i]->has_reward) continue;
		sum += members[i]->reward_answer;
		++*n;
	}
	return *n > 0 ? sum / *n : 0;
}

bool allocation_is_standardized(const struct config_advantage *options)
{
	return options->scale == SCALE_STD || (options->scale == SCALE_AUTO && options->estimator == ADVANTAGE_GRPO);
}

static int check_members(struct trajectory *const *members, int n_members, struct err *err)
{
	for (int i = 0; i < n_members; i++)
		if (members[i]->has_reward && !(members[i]->reward_answer >= 0 && members[i]->reward_answer <= 1))
			return err_set(err, ERR_INVALID, "sample %d of prompt %s: allocation.kind needs how right an answer is from 0 to 1, found "
			               "reward_answer %g: have the verifier say so, or set allocation.kind to uniform", members[i]->sample,
			               members[i]->prompt_id, members[i]->reward_answer);
	return 0;
}

int allocation_decide(const struct config *config, struct trajectory *const *members, int n_members,
                      struct allocation *allocation, struct err *err)
{
	const struct config_allocation *options = &config->allocation;

	*allocation = (struct allocation){ 0 };
	if (options->kind == ALLOCATION_UNIFORM) return 0;
	int rc = check_members(members, n_members, err);
	if (rc) return rc;
	allocation->accuracy = share_right(members, n_members, &allocation->n);
	/* What has no verdict takes room, too. */
	allocation->wanted = allocation_dars(options->kind, allocation_is_standardized(&config->advantage), allocation->n,
	                                     allocation->accuracy, (int)options->n_max - (n_members - allocation->n));
	return 0;
}

bool allocation_is_too_easy(const struct config *config, struct trajectory *const *members, int n_members)
{
	int n;

	return config->allocation.kind != ALLOCATION_UNIFORM &&
	       share_right(members, n_members, &n) >= config->allocation.upper && n > 0;
}

int allocation_check(const struct config *c, struct err *err)
{
	const struct config_allocation *o = &c->allocation;

	if (o->kind == ALLOCATION_UNIFORM) return 0;
	if (c->advantage.estimator == ADVANTAGE_MC_GRPO)
		return err_set(err, ERR_CONFIG, "allocation.kind balances sums of |r - mean|, but advantage.estimator mc_grpo compares with the "
		               "median, to which most samples of a hard prompt are equal: set the estimator to grpo, dr_grpo or rloo, or "
		               "allocation.kind to uniform");
	if (c->advantage.scale == SCALE_MAD)
		return err_set(err, ERR_CONFIG, "allocation.kind knows what advantages add up to undivided or divided by the standard "
		               "deviation, but advantage.scale is mad, which is 0 for most binary rewards: set it to auto, std or none");
	if (c->reward.kind == REWARD_NONE)
		return err_set(err, ERR_CONFIG, "allocation.kind needs rewards before a group is complete, but reward.kind is none: choose a "
		               "verifier, or set allocation.kind to uniform");
	if (c->data.source == PROMPTS_FROM_TRAINER)
		return err_set(err, ERR_CONFIG, "allocation.kind says how many samples a prompt gets, but with data.source trainer whoever "
		               "submits a prompt says it: set allocation.kind to uniform, or data.source to file or both");
	if (c->rollout.temperature == 0)
		return err_set(err, ERR_CONFIG, "rollout.temperature is 0: more samples of a prompt would be the same one again: set it above 0, "
		               "or allocation.kind to uniform");
	if (o->n_max <= c->rollout.group_size)
		return err_set(err, ERR_CONFIG, "allocation.n_max is %" PRId64 " and rollout.group_size %" PRId64 ", so that no prompt can get "
		               "more: set n_max above it, or allocation.kind to uniform", o->n_max, c->rollout.group_size);
	if (o->budget > 0 && c->scheduler.asynchrony == ASYNCHRONY_ASYNC)
		return err_set(err, ERR_CONFIG, "allocation.budget is shared out in order of the groups of a step, but with scheduler.asynchrony "
		               "async which groups are of a step is a matter of timing: set the budget to 0, or sync or one_step_off");
	return 0;
}
