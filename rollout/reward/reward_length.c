/* reward_length.c - a reward for the length of the response alone.
 *
 *     reward = max(0, 1 - |n - target| / slack)
 *
 * n: tokens of the response; target: reward.length_target, or the prompt's answer where that is 0; slack:
 * reward.length_slack.  The length term of LCPO (Aggarwal and Welleck 2025, "L1: Controlling How Long A Reasoning Model
 * Thinks With Reinforcement Learning", equation 1), scaled to end at 0.  reward_answer is the same number, so that the
 * pass rate counts what is exactly as long as wanted.  O(1).
 */
#include <math.h>

#include "rollout/reward/reward_kinds.h"

int reward_score_length(const struct reward *reward, struct trajectory *trajectory, const char *text,
                        struct err *err)
{
	double target = (double)reward->length_target;
	struct span expected;

	(void)text;
	if (target == 0) {
		if (reward_expected(trajectory, &expected, err)) return err->code;
		if (!reward_number(expected, &target) || !(target >= 0))
			return err_set(err, ERR_INVALID, "reward.kind length expects a number of tokens as answer, found \"%.*s\"",
			               expected.length < 100 ? (int)expected.length : 100, expected.start);
	}
	trajectory->reward_answer = fmax(0, 1 - fabs(trajectory_response_length(trajectory) - target) / reward->length_slack);
	return 0;
}
