/* model_train.h - forward and backward of the Llama-layout model in FP32.
 *
 * A struct model_train is the scratch memory of one thread: it owns activations, never parameters.
 * Parameters and gradients are flat float arrays in the order of struct weights (policy/weights.h), so
 * any number of passes may share one set of parameters.  The parameters of a pass are meant to hold
 * BF16-rounded values, what the engine runs; the FP32 master copy is the optimizer's (adamw.h).
 *
 * The sequences of a pass are concatenated: linear layers see one matrix of all T tokens, without
 * padding; only attention looks at one sequence at a time.
 */
#ifndef TRAINER_BRIDGE_TRAINER_MODEL_TRAIN_H
#define TRAINER_BRIDGE_TRAINER_MODEL_TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/weights.h"

struct model_train;

/* One sequence; logits are computed for the rows that predict tokens[first .. n_tokens - 1], that is
 * n_tokens - first of them.  1 <= first < n_tokens. */
struct train_sequence {
	const int32_t *tokens; /* [n_tokens] borrowed for forward and the backward that follows */
	int n_tokens, first;
};

/* ERR_UNSUPPORTED for families that the trainer does not know (biases, QK norm). */
int model_train_check(const struct model_config *config, struct err *err);

/* layout: names, shapes and offsets, borrowed until close.  round_kv: keys and values are rounded to
 * BF16 after the rotary embedding, as the engine's cache holds them; the gradient passes straight
 * through. */
struct model_train *model_train_open(const struct weights *layout, bool round_kv);
void model_train_close(struct model_train *model);

/* Returns logits [rows][vocab_size], rows in the order of the sequences, owned by the model until the
 * next forward; the caller may write to it (and pass it back as dlogits).  *n_rows gets their number. */
float *model_train_forward(struct model_train *model, const float *params,
                           const struct train_sequence *sequences, int n_sequences, int *n_rows);

/* grads [n_elements] += gradient of sum(dlogits * logits) at the last forward's point; params unchanged
 * since then.  Once per forward. */
void model_train_backward(struct model_train *model, const float *params, float *grads, const float *dlogits);

#endif
