/* reference_model.h - the forward pass written a second time, as plainly as possible: double
 * precision, no cache, no batching, no code shared with the engine but the weights' names. */
#ifndef TESTS_SUPPORT_REFERENCE_MODEL_H
#define TESTS_SUPPORT_REFERENCE_MODEL_H

#include "policy/weights.h"

/* Logits of every position of one sequence: out [n_tokens][vocab_size].  round_kv: keys and values
 * are rounded to BF16 before they are used, as the engine's cache does. */
void reference_logits(double *out, const struct weights *weights, const int *tokens, int n_tokens,
                      bool round_kv);

/* log softmax(logits [n])[token] */
double reference_log_probability(const double *logits, int n, int token);

#endif
