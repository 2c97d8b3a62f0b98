/* length_estimate.h - how long a sample will get, from what has ended before: its siblings, its prompt in
 * earlier epochs, and everything.  Bounded memory; prompts that share a slot forget each other.
 *
 * The first three functions know of lengths only (drumroll simulate has no trajectories), the others ask them. */
#ifndef SCHEDULER_CONTROLLER_LENGTH_ESTIMATE_H
#define SCHEDULER_CONTROLLER_LENGTH_ESTIMATE_H

#include "scheduler/controller/group_table.h"

enum { LENGTH_ESTIMATE_PROMPTS = 65536 };

struct length_estimate;

struct length_estimate *length_estimate_open(void);
void length_estimate_close(struct length_estimate *estimate); /* NULL is allowed */

/* A sample of this prompt (any number that is its own, not 0) has ended with so many tokens. */
void length_estimate_add(struct length_estimate *estimate, uint64_t prompt, int length);
/* Expected of one of the prompt's samples, n siblings having ended with `sum` tokens together. */
double length_estimate_expected(const struct length_estimate *estimate, uint64_t prompt, int n, double sum);
/* What is left of it at `length`, where max_tokens is the most. */
int length_estimate_left(double expected, int length, int max_tokens);

/* A sample has ended. */
void length_estimate_learn(struct length_estimate *estimate, const struct trajectory *t);

/* Response tokens expected of a fresh sample of the group. */
int length_estimate_group(const struct length_estimate *estimate, const struct live_group *group);
/* Response tokens that sample i, which has not ended, is expected to make from here on. */
int length_estimate_rest(const struct length_estimate *estimate, const struct live_group *group, int i);

#endif
