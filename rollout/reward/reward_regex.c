/* reward_regex.c - reward 1 iff what a regular expression (PCRE2) finds is the expected answer.
 *
 *     reward = [last match of reward.pattern in the response = answer]
 *
 * The last match, since a response may correct itself; its first group if the pattern has one, else
 * all of it.  Responses may hold broken UTF-8, which then matches nothing.  Matching is bounded: a
 * search that exceeds MATCH_LIMIT backtracks or HEAP_LIMIT_KIB of memory is an error on the sample, so
 * no response can stall the run.  O(matches) searches.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "rollout/reward/reward_kinds.h"

enum { MATCH_LIMIT = 1000000, HEAP_LIMIT_KIB = 16384 };

struct reward_pattern {
	pcre2_code *code;
	pcre2_match_context *limits; /* only read by matching */
};

int reward_pattern_open(struct reward_pattern **pattern, const char *text, struct err *err)
{
	int number;
	PCRE2_SIZE at;
	uint32_t options = PCRE2_UTF | PCRE2_MATCH_INVALID_UTF;
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, &number, &at, NULL);
	if (!code) {
		PCRE2_UCHAR message[256];
		pcre2_get_error_message(number, message, sizeof message);
		return err_set(err, ERR_CONFIG, "reward.pattern \"%.200s\" does not compile: %s (at byte %zu)", text,
		               (const char *)message, at);
	}
	*pattern = xmalloc(sizeof **pattern);
	(*pattern)->code = code;
	(*pattern)->limits = pcre2_match_context_create(NULL);
	pcre2_set_match_limit((*pattern)->limits, MATCH_LIMIT);
	pcre2_set_heap_limit((*pattern)->limits, HEAP_LIMIT_KIB);
	return 0;
}

void reward_pattern_close(struct reward_pattern *pattern)
{
	if (!pattern) return;
	pcre2_match_context_free(pattern->limits);
	pcre2_code_free(pattern->code);
	free(pattern);
}

static bool is_continuation(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* Where to look on behind a match that ends at `end`: always further than `offset`. */
static size_t search_on(const char *text, size_t length, size_t offset, size_t end)
{
	if (end > offset) return end;
	do offset++;
	while (offset < length && is_continuation(text[offset]));
	return offset;
}

int reward_pattern_find(const struct reward_pattern *pattern, const char *text, struct span *found,
                        struct err *err)
{
	pcre2_match_data *match = pcre2_match_data_create_from_pattern(pattern->code, NULL);
	const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
	size_t length = strlen(text), offset = 0;
	int groups;
	*found = (struct span){ 0 };
	while (offset <= length) {
		groups = pcre2_match(pattern->code, (PCRE2_SPTR)text, length, offset, 0, match, pattern->limits);
		if (groups < 0) break;
		bool grouped = groups > 1 && range[2] != PCRE2_UNSET;
		PCRE2_SIZE from = range[grouped ? 2 : 0], to = range[grouped ? 3 : 1];
		*found = (struct span){ text + from, to - from };
		offset = search_on(text, length, offset, range[1]);
	}
	pcre2_match_data_free(match);
	if (offset > length || groups == PCRE2_ERROR_NOMATCH) return 0;
	PCRE2_UCHAR message[256];
	pcre2_get_error_message(groups, message, sizeof message);
	return err_set(err, ERR_TOO_BIG, "reward.pattern needs too much work on a response (%s); make it simpler",
	               (const char *)message);
}

int reward_score_regex(const struct reward *reward, struct trajectory *trajectory, const char *text,
                       struct err *err)
{
	struct span expected, found;
	if (reward_expected(trajectory, &expected, err)) return err->code;
	if (reward_pattern_find(reward->pattern, text, &found, err)) return err->code;
	trajectory->reward_answer = found.start && span_equal(span_trim(found), expected);
	return 0;
}
