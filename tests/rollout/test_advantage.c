/* test_advantage.c - every estimator against values computed by hand; order, ties, failures. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "rollout/advantage/advantage.h"

enum { MEMBERS_MAX = 16 };

static const double failed = NAN; /* in a list of rewards: a member without one */

/* A group in memory: members by sample index, and what was computed. */
struct group {
	struct trajectory members[MEMBERS_MAX];
	struct trajectory *order[MEMBERS_MAX];
	int n;
	struct group_advantage out;
};

static struct config_advantage options_of(int estimator, int scale)
{
	return (struct config_advantage){ .estimator = estimator, .scale = scale, .scale_floor = 0.001,
	                                  .clamp = 1000 };
}

static void fill(struct group *group, const double *rewards, int n)
{
	memset(group, 0, sizeof *group);
	group->n = n;
	for (int i = 0; i < n; i++) {
		struct trajectory *member = &group->members[i];
		member->sample = i;
		member->has_reward = !isnan(rewards[i]);
		member->reward = member->has_reward ? rewards[i] : 0;
		member->finish = member->has_reward ? FINISH_STOP : FINISH_ERROR;
		member->advantage = member->baseline = member->scale = member->loss_weight = 77; /* to be replaced */
		member->pivot = !member->has_reward;
		member->has_advantage = !member->has_reward;
		group->order[i] = member;
	}
}

static void compute(struct group *group, const struct config_advantage *options, const double *rewards, int n)
{
	fill(group, rewards, n);
	advantage_compute(group->order, n, options, &group->out);
}

static void assert_advantages(const struct group *group, const double *expected)
{
	for (int i = 0; i < group->n; i++) {
		double found = group->members[i].advantage;
		if (fabs(found - expected[i]) > 1e-6 * (1 + fabs(expected[i])))
			fail_msg("sample %d: advantage %g, expected %g", i, found, expected[i]);
	}
}

/* pivot: its sample index, or -1.  Every other scored member trains with weight 1. */
static void assert_pivot(const struct group *group, int pivot)
{
	for (int i = 0; i < group->n; i++) {
		const struct trajectory *member = &group->members[i];
		assert_int_equal(member->pivot, i == pivot);
		assert_true(member->loss_weight == (member->has_reward && i != pivot ? 1 : 0));
		assert_int_equal(member->has_advantage, member->has_reward);
	}
}

static void test_mc_grpo_odd(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_MC_GRPO, SCALE_AUTO);
	compute(&group, &options, (const double[]){ 1.0, 0.2, 0.5, 0.9, 0.0 }, 5);
	/* median 0.5; deviations 0.5 0.3 0 0.4 0.5: MAD 0.4 */
	assert_advantages(&group, (const double[]){ 1.25, -0.75, 0, 1.0, -1.25 });
	assert_pivot(&group, 2);
	assert_true(fabs(group.out.baseline - 0.5) < 1e-12 && fabs(group.out.scale - 0.4) < 1e-12);
	assert_false(group.out.degenerate || group.out.mad_zero || group.out.median_tie || group.out.binary);
	assert_true(group.members[0].baseline == 0.5f && group.members[0].scale == 0.4f);
}

static void test_mc_grpo_even_takes_the_lower_middle(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_MC_GRPO, SCALE_AUTO);
	compute(&group, &options, (const double[]){ 3, 0, 2, 1 }, 4);
	/* median 1 (lower of 1, 2); deviations 2 1 1 0: MAD 1 */
	assert_advantages(&group, (const double[]){ 2, -1, 1, 0 });
	assert_pivot(&group, 3);
}

static void test_mc_grpo_binary_falls_back_to_std(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_MC_GRPO, SCALE_AUTO);
	compute(&group, &options, (const double[]){ 0, 1, 0, 1, 0 }, 5);
	/* median 0, MAD 0; mean 0.4, std sqrt(1.2 / 4) */
	double std = sqrt(0.3);
	assert_advantages(&group, (const double[]){ 0, 1 / std, 0, 1 / std, 0 });
	assert_pivot(&group, 0);
	assert_true(group.out.binary && group.out.mad_zero && group.out.median_tie && !group.out.degenerate);
	assert_true(fabs(group.out.scale - std) < 1e-12);
}

static void test_mc_grpo_mad_alone_has_floor_and_clamp(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_MC_GRPO, SCALE_MAD);
	options.scale_floor = 0.1;
	options.clamp = 5;
	compute(&group, &options, (const double[]){ 0.5, 0.5, 0.5, 0.9, -1 }, 5);
	/* MAD 0, divisor 0.1: 4 and -15, the latter clamped */
	assert_advantages(&group, (const double[]){ 0, 0, 0, 4, -5 });
	assert_pivot(&group, 0);
	assert_true(group.out.mad_zero && group.out.median_tie && !group.out.binary);
}

static void test_ties_give_the_pivot_to_the_lowest_sample(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_MC_GRPO, SCALE_AUTO);
	compute(&group, &options, (const double[]){ 1, 0.5, 0, 0.5, 0.25 }, 5);
	assert_pivot(&group, 1);
	assert_true(group.out.median_tie);
	assert_true(group.members[3].advantage == 0 && group.members[3].loss_weight == 1);
}

static void test_grpo(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_GRPO, SCALE_AUTO);
	compute(&group, &options, (const double[]){ 1, 2, 3, 6 }, 4);
	double std = sqrt((4 + 1 + 0 + 9) / 3.0); /* mean 3; divisor n - 1 */
	assert_advantages(&group, (const double[]){ -2 / std, -1 / std, 0, 3 / std });
	assert_pivot(&group, -1);
	options.scale = SCALE_NONE;
	compute(&group, &options, (const double[]){ 1, 2, 3, 6 }, 4);
	assert_advantages(&group, (const double[]){ -2, -1, 0, 3 });
}

static void test_dr_grpo(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_DR_GRPO, SCALE_AUTO);
	compute(&group, &options, (const double[]){ 1, 0, 0, 0 }, 4);
	assert_advantages(&group, (const double[]){ 0.75, -0.25, -0.25, -0.25 });
	assert_pivot(&group, -1);
	assert_true(group.out.scale == 1 && group.out.baseline == 0.25 && group.out.binary);
}

static void test_rloo(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_RLOO, SCALE_AUTO);
	compute(&group, &options, (const double[]){ 1, 0, 0, 0.5 }, 4);
	/* means of the others: 1/6, 1/2, 1/2, 1/3 */
	assert_advantages(&group, (const double[]){ 5 / 6.0, -0.5, -0.5, 1 / 6.0 });
	assert_pivot(&group, -1);
	assert_true(fabs(group.members[0].baseline - 1 / 6.0) < 1e-6);
	assert_true(fabs(group.members[3].baseline - 1 / 3.0) < 1e-6);
	assert_true(group.out.baseline == 0.375 && group.out.scale == 1);
}

static void test_equal_rewards_are_degenerate(void **state)
{
	(void)state;
	static const double equal[] = { 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1 }; /* their mean is not exactly 0.1 */
	for (int estimator = ADVANTAGE_MC_GRPO; estimator <= ADVANTAGE_RLOO; estimator++) {
		for (int scale = SCALE_AUTO; scale <= SCALE_NONE; scale++) {
			struct group group;
			struct config_advantage options = options_of(estimator, scale);
			options.scale_floor = 0;
			compute(&group, &options, equal, 7);
			for (int i = 0; i < 7; i++) assert_true(group.members[i].advantage == 0);
			assert_pivot(&group, estimator == ADVANTAGE_MC_GRPO ? 0 : -1);
			assert_true(group.out.degenerate && !group.out.mad_zero && !group.out.binary);
			assert_true(isfinite(group.out.scale));
		}
	}
}

static void test_failed_members_are_left_out(void **state)
{
	(void)state;
	struct group group;
	struct config_advantage options = options_of(ADVANTAGE_MC_GRPO, SCALE_AUTO);
	compute(&group, &options, (const double[]){ failed, 3, 0, failed, 2, 1 }, 6);
	assert_advantages(&group, (const double[]){ 0, 2, -1, 0, 1, 0 });
	assert_pivot(&group, 5);
	assert_true(group.members[0].baseline == 0 && group.members[0].scale == 0);
	compute(&group, &options, (const double[]){ failed, 0.5, failed }, 3); /* one survivor */
	assert_advantages(&group, (const double[]){ 0, 0, 0 });
	assert_pivot(&group, 1);
	assert_true(group.out.degenerate);
	options = options_of(ADVANTAGE_RLOO, SCALE_STD);
	compute(&group, &options, (const double[]){ failed, 0.5, failed }, 3);
	assert_advantages(&group, (const double[]){ 0, 0, 0 });
	compute(&group, &options, (const double[]){ failed, failed }, 2);
	assert_advantages(&group, (const double[]){ 0, 0 });
	assert_true(group.out.degenerate);
}

/* A member without a reward has no part in anything: the others get what they would get without it. */
static void test_failed_members_change_nothing_for_the_others(void **state)
{
	(void)state;
	uint32_t random = 11;
	for (int round = 0; round < 640; round++) {
		struct group with, without;
		double all[9], valid[9];
		int n_valid = 0;
		for (int i = 0; i < 9; i++) {
			random = random * 1664525u + 1013904223u;
			bool lost = random >> 30 == 0;
			all[i] = lost ? failed : round % 2 ? (random >> 8) / 1e6 : (double)(random >> 24 & 1);
			if (!lost) valid[n_valid++] = all[i];
		}
		if (n_valid < 2) continue;
		struct config_advantage options = options_of(round % 4, round / 4 % 4);
		compute(&with, &options, all, 9);
		compute(&without, &options, valid, n_valid);
		for (int i = 0, k = 0; i < 9; i++) {
			const struct trajectory *member = &with.members[i], *same = &without.members[k];
			if (isnan(all[i])) {
				assert_true(!member->has_advantage && !member->pivot && member->advantage == 0 && member->loss_weight == 0);
				continue;
			}
			k++;
			assert_memory_equal(&member->advantage, &same->advantage, sizeof(float));
			assert_memory_equal(&member->baseline, &same->baseline, sizeof(float));
			assert_true(member->pivot == same->pivot && member->loss_weight == same->loss_weight);
			assert_true(member->scale == same->scale);
		}
		assert_true(with.out.baseline == without.out.baseline && with.out.degenerate == without.out.degenerate);
	}
}

/* Any order of arrival gives the same bits; so does any numbering with gaps. */
static void test_order_of_arrival_changes_no_bit(void **state)
{
	(void)state;
	uint32_t random = 3;
	for (int round = 0; round < 200; round++) {
		struct group group, shuffled;
		double rewards[9];
		for (int i = 0; i < 9; i++) {
			random = random * 1664525u + 1013904223u;
			rewards[i] = round % 2 ? (random >> 8) / 1e6 : (random >> 29) / 3.0;
		}
		struct config_advantage options = options_of(round % 4, round / 4 % 4);
		compute(&group, &options, rewards, 9);
		fill(&shuffled, rewards, 9);
		for (int i = 8; i > 0; i--) {
			random = random * 1664525u + 1013904223u;
			int j = (int)((random >> 8) % (uint32_t)(i + 1));
			struct trajectory *kept = shuffled.order[i];
			shuffled.order[i] = shuffled.order[j];
			shuffled.order[j] = kept;
		}
		for (int i = 0; i < 9; i++) shuffled.members[i].sample = 10 * i + 3;
		advantage_compute(shuffled.order, 9, &options, &shuffled.out);
		for (int i = 0; i < 9; i++) {
			assert_memory_equal(&group.members[i].advantage, &shuffled.members[i].advantage, sizeof(float));
			assert_memory_equal(&group.members[i].baseline, &shuffled.members[i].baseline, sizeof(float));
			assert_int_equal(group.members[i].pivot, shuffled.members[i].pivot);
		}
		assert_true(group.out.baseline == shuffled.out.baseline && group.out.scale == shuffled.out.scale);
	}
}

static void test_samples_to_draw(void **state)
{
	(void)state;
	for (int estimator = ADVANTAGE_MC_GRPO; estimator <= ADVANTAGE_RLOO; estimator++) {
		struct config_advantage options = options_of(estimator, SCALE_AUTO);
		assert_int_equal(advantage_samples_to_draw(&options, 8), estimator == ADVANTAGE_MC_GRPO ? 9 : 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mc_grpo_odd),
		cmocka_unit_test(test_mc_grpo_even_takes_the_lower_middle),
		cmocka_unit_test(test_mc_grpo_binary_falls_back_to_std),
		cmocka_unit_test(test_mc_grpo_mad_alone_has_floor_and_clamp),
		cmocka_unit_test(test_ties_give_the_pivot_to_the_lowest_sample),
		cmocka_unit_test(test_grpo),
		cmocka_unit_test(test_dr_grpo),
		cmocka_unit_test(test_rloo),
		cmocka_unit_test(test_equal_rewards_are_degenerate),
		cmocka_unit_test(test_failed_members_are_left_out),
		cmocka_unit_test(test_failed_members_change_nothing_for_the_others),
		cmocka_unit_test(test_order_of_arrival_changes_no_bit),
		cmocka_unit_test(test_samples_to_draw),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
