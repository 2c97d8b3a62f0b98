/* learner.h - a model being trained: BF16 weights with FP32 master copy, gradients and passes.
 *
 * Sequences are cut into micro-batches of about LEARNER_TOKENS tokens; micro-batch i belongs to thread
 * i mod n_threads, each thread has its own gradient, and gradients are added in thread order.  So the
 * result depends on the number of threads (and on the BLAS kernel of the machine), not on timing.
 */
#ifndef TRAINER_BRIDGE_TRAINER_LEARNER_H
#define TRAINER_BRIDGE_TRAINER_LEARNER_H

#include "policy/weights.h"
#include "trainer_bridge/trainer/adamw.h"
#include "trainer_bridge/trainer/model_train.h"

enum { LEARNER_TOKENS = 768 };

struct learner;

/* Called for every row with logits: token `token` of sequence `sequence` is predicted by logits
 * [vocab_size], which the callback may overwrite; in a backward pass it must leave the gradient of the
 * loss there.  Runs on several threads, each sequence on one of them. */
typedef void learner_row(void *context, int sequence, int token, float *logits);

/* weights: borrowed until close; its data is updated in place by learner_update. */
struct learner *learner_open(struct weights *weights, int n_threads);
void learner_close(struct learner *learner);

/* BF16-rounded values as f32 [n_elements], what the next pass runs; borrowed. */
const float *learner_params(const struct learner *learner);

/* Forward of all sequences with params (NULL: the learner's own); backward: gradients are added up. */
void learner_pass(struct learner *learner, const float *params, const struct train_sequence *sequences, int n,
                  bool backward, learner_row *row, void *context);

/* Clip the gradient to grad_clip, one AdamW step, gradients zero again; returns the norm before clipping.
 * A norm that is not finite changes nothing but zeroes the gradient. */
double learner_update(struct learner *learner, const struct adamw_options *options, double grad_clip);

/* The optimizer's state, borrowed; after its master values were set from outside, learner_take_master rounds them into
 * weights and parameters. */
struct adamw *learner_adamw(struct learner *learner);
void learner_take_master(struct learner *learner);

#endif
