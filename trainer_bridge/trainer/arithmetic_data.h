/* arithmetic_data.h - the task's prompt files and supervised examples. */
#ifndef TRAINER_BRIDGE_TRAINER_ARITHMETIC_DATA_H
#define TRAINER_BRIDGE_TRAINER_ARITHMETIC_DATA_H

#include "policy/tokenizer/tokenizer.h"
#include "trainer_bridge/trainer/arithmetic_task.h"
#include "trainer_bridge/trainer/model_train.h"

/* The first n distinct problems of stream `seed` that are held out, or that are not; [n], owned by the
 * caller. */
struct arithmetic_problem *arithmetic_collect(uint64_t seed, bool held_out, int n);

/* JSON lines with id (PREFIX-00000), prompt, answer and steps. */
int arithmetic_write(const char *path, const char *prefix, const struct arithmetic_problem *problems, int n,
                     struct err *err);

/* n supervised examples from *index on in stream `seed`, none of them held out; *index moves on.
 * at_once_percent: see arithmetic_demonstration. */
struct arithmetic_batch {
	struct train_sequence *sequences; /* [n] prompt, response, end token; loss from the response on */
	int n, n_predicted;
};
int arithmetic_batch_open(struct arithmetic_batch *batch, int n, uint64_t seed, uint64_t *index,
                          int at_once_percent, const struct tokenizer *tokenizer, int32_t end_token,
                          struct err *err);
void arithmetic_batch_close(struct arithmetic_batch *batch);

#endif
