/* advantage.c - group advantages: gather, estimate, divide, clamp, write.
 *
 *     A_i = clamp((r_i - b_i) / max(s, advantage.scale_floor), +-advantage.clamp)
 *
 * b by the estimator's own file; s = MAD, standard deviation, or nothing (no division, no floor).  A
 * group whose rewards are all equal has no signal: every advantage is 0 exactly.  O(G log G).
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "rollout/advantage/advantage.h"
#include "rollout/advantage/advantage_estimators.h"

static int by_sample(const void *a, const void *b)
{
	int32_t x = (*(struct trajectory *const *)a)->sample, y = (*(struct trajectory *const *)b)->sample;
	return (x > y) - (x < y);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Sorts values.  The lower middle for even n, as torch.median. */
static double median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof *values, by_value);
	return values[(n - 1) / 2];
}

/* scratch: [n], overwritten. */
static struct group_rewards describe(const double *rewards, int n, double *scratch)
{
	struct group_rewards group = { .rewards = rewards, .n = n };
	double sum = 0, squares = 0;
	for (int i = 0; i < n; i++) sum += rewards[i];
	group.mean = sum / n;
	for (int i = 0; i < n; i++) squares += (rewards[i] - group.mean) * (rewards[i] - group.mean);
	group.std = n > 1 ? sqrt(squares / (n - 1)) : 0;
	for (int i = 0; i < n; i++) scratch[i] = rewards[i];
	group.median = median(scratch, n);
	for (int i = 0; i < n; i++) scratch[i] = fabs(rewards[i] - group.median);
	group.mad = median(scratch, n);
	return group;
}

static void estimate_by(int estimator, const struct group_rewards *group, struct estimate *estimate)
{
	switch (estimator) {
	case ADVANTAGE_GRPO: advantage_grpo(group, estimate); break;
	case ADVANTAGE_DR_GRPO: advantage_dr_grpo(group, estimate); break;
	case ADVANTAGE_RLOO: advantage_rloo(group, estimate); break;
	default: advantage_mc_grpo(group, estimate); break;
	}
}

static double divisor(const struct group_rewards *group, int scale, double floor)
{
	double deviation = scale == SCALE_MAD ? group->mad : group->std;
	return scale == SCALE_NONE ? 1 : fmax(deviation, floor);
}

static void report(const struct group_rewards *group, struct group_advantage *out)
{
	double low = group->rewards[0], high = low;
	int at_median = 0, at_ends = 0;
	for (int i = 0; i < group->n; i++) {
		low = fmin(low, group->rewards[i]);
		high = fmax(high, group->rewards[i]);
	}
	for (int i = 0; i < group->n; i++) {
		at_median += group->rewards[i] == group->median;
		at_ends += group->rewards[i] == low || group->rewards[i] == high;
	}
	out->degenerate = low == high;
	out->mad_zero = !out->degenerate && group->mad == 0;
	out->median_tie = at_median > 1;
	out->binary = !out->degenerate && at_ends == group->n;
}

static void leave_out(struct trajectory *member)
{
	member->has_advantage = member->pivot = false;
	member->advantage = member->baseline = member->scale = member->loss_weight = 0;
}

static void write_member(struct trajectory *member, double advantage, double baseline, double scale,
                         bool pivot)
{
	member->has_advantage = true;
	member->advantage = (float)advantage;
	member->baseline = (float)baseline;
	member->scale = (float)scale;
	member->pivot = pivot;
	member->loss_weight = pivot ? 0 : 1;
}

/* scored: [n], by sample. */
static void compute(struct trajectory **scored, int n, const struct config_advantage *options,
                    struct group_advantage *out)
{
	double *rewards = xmalloc(3 * (size_t)n * sizeof *rewards), *scratch = rewards + n;
	for (int i = 0; i < n; i++) {
		rewards[i] = scored[i]->reward;
		assert(isfinite(rewards[i]));
	}
	struct group_rewards group = describe(rewards, n, scratch);
	struct estimate estimate = { .baselines = scratch + n };
	estimate_by(options->estimator, &group, &estimate);
	report(&group, out);
	out->baseline = estimate.baseline;
	int scale = options->scale == SCALE_AUTO ? (int)estimate.scale : options->scale;
	out->scale = divisor(&group, scale, options->scale_floor);
	for (int i = 0; i < n; i++) {
		double advantage = 0, distance = rewards[i] - estimate.baselines[i];
		if (!out->degenerate && distance != 0)
			advantage = fmax(-options->clamp, fmin(options->clamp, distance / out->scale));
		write_member(scored[i], advantage, estimate.baselines[i], out->scale, i == estimate.pivot);
	}
	free(rewards);
}

void advantage_compute(struct trajectory *const *members, int n, const struct config_advantage *options,
                       struct group_advantage *out)
{
	struct trajectory **scored = xmalloc((size_t)n * sizeof *scored);
	int n_scored = 0;
	*out = (struct group_advantage){ .degenerate = true };
	for (int i = 0; i < n; i++) {
		if (members[i]->has_reward) scored[n_scored++] = members[i];
		else leave_out(members[i]);
	}
	qsort(scored, (size_t)n_scored, sizeof *scored, by_sample);
	if (n_scored) compute(scored, n_scored, options, out);
	free(scored);
}

int advantage_samples_to_draw(const struct config_advantage *options, int group_size)
{
	return options->estimator == ADVANTAGE_MC_GRPO ? group_size + 1 : group_size;
}
