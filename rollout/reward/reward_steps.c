/* reward_steps.c - a graded reward for work that is written out: the share of right steps and a right
 * answer.
 *
 *     reward_steps  = |{ i : line_i(response) = steps_i }| / |steps|
 *     reward_answer = [answer(response) = answer]
 *     reward        = answer_weight * reward_answer + (1 - answer_weight) * reward_steps
 *
 * steps is the prompt's JSON field of that name, an array of texts; line i of the response must be
 * step i, white space at both ends aside.  answer(response) is what reward.pattern finds, or else the
 * last line that is not blank, behind its last '=', ':' or '#' if it has one.  A step reward as in Uesato et
 * al. 2022, "Solving math word problems with process- and outcome-based feedback", with the steps
 * known instead of judged.  O(response).
 */
#include <jansson.h>
#include <string.h>

#include "rollout/reward/reward_kinds.h"

/* The line at *rest, which moves behind it; a NULL start when none is left. */
static struct span next_line(const char **rest)
{
	if (!*rest) return (struct span){ 0 };
	const char *start = *rest, *end = strchr(start, '\n');
	*rest = end ? end + 1 : NULL;
	return span_trim((struct span){ start, end ? (size_t)(end - start) : strlen(start) });
}

static int share_of_steps(const json_t *steps, const char *text, double *share, struct err *err)
{
	size_t n = json_array_size(steps), right = 0;
	if (!json_is_array(steps) || n == 0)
		return err_set(err, ERR_MISSING, "reward.kind steps expects a field `steps`, a list of texts");
	for (size_t i = 0; i < n; i++) {
		const char *step = json_string_value(json_array_get(steps, i));
		if (!step) return err_set(err, ERR_INVALID, "field `steps`: expected texts, item %zu is none", i + 1);
		right += span_equal(next_line(&text), span_trim(span_of(step)));
	}
	*share = (double)right / (double)n;
	return 0;
}

static struct span behind_last_sign(struct span line)
{
	for (size_t i = line.length; i-- > 0;) {
		if (line.start[i] == '=' || line.start[i] == ':' || line.start[i] == '#')
			return (struct span){ line.start + i + 1, line.length - i - 1 };
	}
	return line;
}

int reward_score_steps(const struct reward *reward, struct trajectory *trajectory, const char *text,
                       struct err *err)
{
	struct span expected, found;
	if (reward_expected(trajectory, &expected, err)) return err->code;
	json_t *meta = trajectory->meta ? json_loads(trajectory->meta, 0, NULL) : NULL;
	int code = share_of_steps(json_object_get(meta, "steps"), text, &trajectory->reward_steps, err);
	json_decref(meta);
	if (code) return code;
	if (!reward->pattern) found = behind_last_sign(span_last_line(span_of(text)));
	else if (reward_pattern_find(reward->pattern, text, &found, err)) return err->code;
	trajectory->reward_answer = found.start && span_equal(span_trim(found), expected);
	return 0;
}
