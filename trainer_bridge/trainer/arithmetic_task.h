/* arithmetic_task.h - the quickstart task: chains of + and - worked out from left to right, one step per
 * line.
 *
 *     prompt    34+57-12=\n
 *     response  34+57=91\n91-12=79\n#79
 *
 * Every total on the way is between 0 and 99.  A demonstration either works the problem out or states the
 * answer at once, which a small model gets right for short chains only.
 *
 * A problem is a pure function of (seed, index); no state.
 */
#ifndef TRAINER_BRIDGE_TRAINER_ARITHMETIC_TASK_H
#define TRAINER_BRIDGE_TRAINER_ARITHMETIC_TASK_H

#include <stdbool.h>
#include <stdint.h>

enum {
	ARITHMETIC_OPERANDS_MIN = 2,
	ARITHMETIC_OPERANDS_MAX = 12,
	ARITHMETIC_TOTAL_MAX = 99, /* of operands and totals */
	ARITHMETIC_HELD_OUT_SHARE = 16,
	ARITHMETIC_TEXT_MAX = 256,
	ARITHMETIC_STEP_MAX = 48
};

struct arithmetic_problem {
	int n_operands;
	int operands[ARITHMETIC_OPERANDS_MAX]; /* signed: negative is subtracted; the first is positive */
	int answer;
	int habit;                             /* 0 .. 99: which demonstration it gets */
	char prompt[ARITHMETIC_TEXT_MAX];
	char response[ARITHMETIC_TEXT_MAX];    /* worked out, without the end token */
};

/* Problem `index` of the stream `seed`. */
void arithmetic_generate(struct arithmetic_problem *problem, uint64_t seed, uint64_t index);

/* Step i (0 .. n_operands - 2) as it stands in the response, such as "34+57=91". */
void arithmetic_step(const struct arithmetic_problem *problem, int i, char text[ARITHMETIC_STEP_MAX]);

/* The response, or only its last line for at_once_percent of all problems; borrowed. */
const char *arithmetic_demonstration(const struct arithmetic_problem *problem, int at_once_percent);

/* Which of two disjoint sets the prompt belongs to, by its text alone: one in ARITHMETIC_HELD_OUT_SHARE
 * prompts is held out. */
bool arithmetic_is_held_out(const struct arithmetic_problem *problem);

#endif
