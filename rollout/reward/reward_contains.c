/* reward_contains.c - reward 1 iff the expected answer stands somewhere in the response.
 *
 *     reward = [answer is a substring of the response]
 *
 * Byte for byte; where reward.pattern is given, in what it finds.  For format and safety checks rather than for
 * numbers: 18 is in 180.  O(response).
 */
#define _GNU_SOURCE /* memmem */
#include <string.h>

#include "rollout/reward/reward_kinds.h"

int reward_score_contains(const struct reward *reward, struct trajectory *trajectory, const char *text,
                          struct err *err)
{
	struct span expected, found = span_of(text);
	if (reward_expected(trajectory, &expected, err)) return err->code;
	if (reward->pattern && reward_pattern_find(reward->pattern, text, &found, err)) return err->code;
	trajectory->reward_answer = found.start && memmem(found.start, found.length, expected.start, expected.length);
	return 0;
}
