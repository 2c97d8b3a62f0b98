/* reward_kinds.h - what the verifiers share.  Private to rollout/reward/.
 *
 * A verifier reads the response and the expected answer and says what share of the reward it is
 * worth.  A wrong or missing answer in the response is a 0; a prompt that cannot be verified is an
 * error.  Spans borrow from the text they were cut from.
 */
#ifndef ROLLOUT_REWARD_REWARD_KINDS_H
#define ROLLOUT_REWARD_REWARD_KINDS_H

#include "rollout/reward/reward.h"

struct reward_pattern; /* a compiled regular expression, immutable */

struct reward {
	int kind; /* enum reward_kind */
	double tolerance, answer_weight;
	int64_t length_target, length_slack; /* tokens */
	struct reward_pattern *pattern; /* owned; NULL: none was given */
};

/* A piece of a text; start is NULL where nothing was found. */
struct span {
	const char *start;
	size_t length;
};

struct span span_of(const char *text);
struct span span_trim(struct span span);         /* without white space at both ends */
struct span span_after_marker(struct span span); /* what follows the last "####" (GSM8K), or all of it */
struct span span_last_line(struct span span);    /* the last line that is not blank, trimmed */
bool span_equal(struct span a, struct span b);   /* both found, and the same bytes */

/* The expected answer: after "####" if that is there, trimmed; ERR_MISSING where it is blank. */
int reward_expected(const struct trajectory *trajectory, struct span *expected, struct err *err);

/* reward_regex.c */
int reward_pattern_open(struct reward_pattern **pattern, const char *text, struct err *err);
void reward_pattern_close(struct reward_pattern *pattern);
/* The first group of the last match, or the whole match where there is no group. */
int reward_pattern_find(const struct reward_pattern *pattern, const char *text, struct span *found,
                        struct err *err);

/* The number that a text states; false if it states none (reward_numeric.c). */
bool reward_number(struct span text, double *number);

/* One verifier per file: set trajectory->reward_answer (and reward_steps). */
int reward_score_exact(const struct reward *reward, struct trajectory *trajectory, const char *text,
                       struct err *err);
int reward_score_numeric(const struct reward *reward, struct trajectory *trajectory, const char *text,
                         struct err *err);
int reward_score_math(const struct reward *reward, struct trajectory *trajectory, const char *text,
                      struct err *err);
int reward_score_countdown(const struct reward *reward, struct trajectory *trajectory, const char *text,
                           struct err *err);
int reward_score_contains(const struct reward *reward, struct trajectory *trajectory, const char *text,
                          struct err *err);
int reward_score_length(const struct reward *reward, struct trajectory *trajectory, const char *text,
                        struct err *err);
int reward_score_regex(const struct reward *reward, struct trajectory *trajectory, const char *text,
                       struct err *err);
int reward_score_steps(const struct reward *reward, struct trajectory *trajectory, const char *text,
                       struct err *err);

#endif
