/* test_allocation.c - DARS against values computed by hand; caps; what has no verdict; refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "rollout/allocation.h"

enum { N = 8, ET = ALLOCATION_DARS_ET, HW = ALLOCATION_DARS_HW };

/* n = 8.  Divided by the standard deviation S = 2 sqrt(a (1 - a)) and the aim is 8 (ET) or 16 (1 - a) (HW); else
 * S = 2 a (1 - a) and 4 or 8 (1 - a).  For instance a = 1/8, not divided, HW: 7 / 0.21875 - 8 = 24. */
static const struct {
	int right;
	int standardized[3], plain[3]; /* by kind; without a cap */
} by_hand[] = {
	{ 0, { 0, 9, 23 }, { 0, 27, 56 } }, /* a = 1/16 */
	{ 1, { 0, 5, 14 }, { 0, 11, 24 } },
	{ 2, { 0, 2, 6 }, { 0, 3, 8 } },
	{ 3, { 0, 1, 3 }, { 0, 1, 3 } },
	{ 4, { 0, 0, 0 }, { 0, 0, 0 } },
	{ 5, { 0, 0, 0 }, { 0, 0, 0 } },
	{ 8, { 0, 0, 0 }, { 0, 0, 0 } },
};

static void test_both_schedules(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof by_hand / sizeof *by_hand; i++)
		for (int kind = ET; kind <= HW; kind++) {
			double a = by_hand[i].right / (double)N;
			assert_int_equal(allocation_dars(kind, true, N, a, 1000), by_hand[i].standardized[kind]);
			assert_int_equal(allocation_dars(kind, false, N, a, 1000), by_hand[i].plain[kind]);
			for (int cap = 2; cap < 70; cap++) { /* in all */
				int free = by_hand[i].plain[kind], most = cap > N ? cap - N : 0;
				assert_int_equal(allocation_dars(kind, false, N, a, cap), free < most ? free : most);
			}
		}
	assert_int_equal(allocation_dars(ET, true, 0, 0, 32), 0);
	assert_int_equal(allocation_dars(HW, true, 8, 0.49, 32), 1); /* 0.16, rounded up */
}

/* What it is for: with the second stage the sums of |advantage| reach the aim, and one sample fewer does not. */
static void test_sums_are_balanced(void **state)
{
	(void)state;
	for (int n = 2; n <= 64; n++)
		for (int right = 1; 2 * right < n; right++)
			for (int kind = ET; kind <= HW; kind++) {
				double a = right / (double)n, s = 2 * a * (1 - a), aim = (kind == HW ? 2 * (1 - a) : 1) * n / 2.0;
				int more = allocation_dars(kind, false, n, a, 100000);
				assert_true((n + more) * s >= aim - 1e-6);
				assert_true((n + more - 1) * s < aim);
			}
}

static struct trajectory members[16], *group[16];

static void fill(const double *answers, int n)
{
	memset(members, 0, sizeof members);
	for (int i = 0; i < n; i++) {
		members[i].sample = i;
		members[i].prompt_id = "p";
		members[i].has_reward = !isnan(answers[i]);
		members[i].reward_answer = members[i].has_reward ? answers[i] : 0;
		members[i].reward = 0.5; /* of which nothing depends */
		group[i] = &members[i];
	}
}

static struct config options(int kind, int estimator)
{
	struct config config;
	config_defaults(&config);
	config.allocation.kind = kind;
	config.advantage.estimator = estimator;
	return config;
}

static void test_decision(void **state)
{
	(void)state;
	struct err err;
	struct allocation found;
	struct config config = options(ET, ADVANTAGE_GRPO);
	fill((const double[]){ 0, 1, 0, 0, 0, 1, 0, 0 }, 8);
	assert_int_equal(allocation_decide(&config, group, 8, &found, &err), 0);
	assert_int_equal(found.n, 8);
	assert_true(found.accuracy == 0.25);
	assert_int_equal(found.wanted, 2);
	config.advantage.estimator = ADVANTAGE_RLOO; /* not divided */
	allocation_decide(&config, group, 8, &found, &err);
	assert_int_equal(found.wanted, 3);
	config.allocation.kind = ALLOCATION_UNIFORM;
	allocation_decide(&config, group, 8, &found, &err);
	assert_int_equal(found.wanted, 0);
	/* One of four: 2 sqrt(3)/4, 4 / 0.866 - 4 = 0.62.  What failed counts for the cap. */
	config_free(&config);
	config = options(HW, ADVANTAGE_GRPO);
	fill((const double[]){ NAN, 1, 0, 0, 0, NAN }, 6);
	allocation_decide(&config, group, 6, &found, &err);
	assert_int_equal(found.n, 4);
	assert_int_equal(found.wanted, 3); /* 2 (3/4) 4 / 0.866 - 4 = 2.93 */
	config.allocation.n_max = 7;
	allocation_decide(&config, group, 6, &found, &err);
	assert_int_equal(found.wanted, 1);
	fill((const double[]){ NAN, NAN }, 2);
	allocation_decide(&config, group, 2, &found, &err);
	assert_int_equal(found.wanted, 0);
	config_free(&config);
}

static void test_rewards_out_of_range(void **state)
{
	(void)state;
	struct err err;
	struct allocation found;
	struct config config = options(ET, ADVANTAGE_GRPO);
	fill((const double[]){ 0, 2 }, 2);
	assert_int_equal(allocation_decide(&config, group, 2, &found, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "sample 1 of prompt p"));
	fill((const double[]){ -1, 0 }, 2);
	assert_int_equal(allocation_decide(&config, group, 2, &found, &err), ERR_INVALID);
	config_free(&config);
}

static void test_too_easy(void **state)
{
	(void)state;
	struct config config = options(ET, ADVANTAGE_GRPO);
	fill((const double[]){ 1, 1, 1, 0 }, 4);
	assert_false(allocation_is_too_easy(&config, group, 4));
	config.allocation.upper = 0.75;
	assert_true(allocation_is_too_easy(&config, group, 4));
	config.allocation.kind = ALLOCATION_UNIFORM;
	assert_false(allocation_is_too_easy(&config, group, 4));
	config_free(&config);
}

static void refused(struct config *config, const char *text)
{
	struct err err = { 0 };
	if (allocation_check(config, &err) != ERR_CONFIG || !strstr(err.text, text))
		fail_msg("expected a refusal with \"%s\", found \"%s\"", text, err.text);
}

static void test_refusals(void **state)
{
	(void)state;
	struct err err;
	struct config good = options(ET, ADVANTAGE_GRPO), config = good;
	assert_int_equal(allocation_check(&good, &err), 0);
	config.advantage.estimator = ADVANTAGE_MC_GRPO;
	refused(&config, "median");
	config.allocation.kind = ALLOCATION_UNIFORM; /* then anything goes */
	assert_int_equal(allocation_check(&config, &err), 0);
	config = good;
	config.advantage.scale = SCALE_MAD;
	refused(&config, "advantage.scale is mad");
	config = good;
	config.reward.kind = REWARD_NONE;
	refused(&config, "reward.kind is none");
	config = good;
	config.data.source = PROMPTS_FROM_TRAINER;
	refused(&config, "data.source trainer");
	config = good;
	config.rollout.temperature = 0;
	refused(&config, "temperature is 0");
	config = good;
	config.allocation.n_max = config.rollout.group_size;
	refused(&config, "allocation.n_max is 8");
	config = good;
	config.allocation.budget = 100;
	config.scheduler.asynchrony = ASYNCHRONY_ASYNC;
	refused(&config, "allocation.budget");
	config.scheduler.asynchrony = ASYNCHRONY_ONE_STEP_OFF;
	assert_int_equal(allocation_check(&config, &err), 0);
	config_free(&good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_schedules),     cmocka_unit_test(test_sums_are_balanced),
		cmocka_unit_test(test_decision),           cmocka_unit_test(test_rewards_out_of_range),
		cmocka_unit_test(test_too_easy),           cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
