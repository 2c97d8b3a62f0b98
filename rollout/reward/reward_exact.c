/* reward_exact.c - reward 1 iff the response's answer is the expected one, byte for byte.
 *
 *     reward = [answer(response) = answer]
 *
 * answer(response): what reward.pattern finds, or the last line that is not blank, after "####" where
 * the line has it (GSM8K; Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems").
 * White space at both ends does not count.  O(response).
 */
#include "rollout/reward/reward_kinds.h"

int reward_score_exact(const struct reward *reward, struct trajectory *trajectory, const char *text,
                       struct err *err)
{
	struct span expected, found;
	if (reward_expected(trajectory, &expected, err)) return err->code;
	if (reward->pattern) {
		if (reward_pattern_find(reward->pattern, text, &found, err)) return err->code;
	} else {
		found = span_after_marker(span_last_line(span_of(text)));
	}
	trajectory->reward_answer = found.start && span_equal(span_trim(found), expected);
	return 0;
}
