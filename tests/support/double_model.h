/* double_model.h - the Llama forward pass in double precision over double parameters, so that finite
 * differences of it are good to nine digits.  Shares nothing with the trainer but the weights' names. */
#ifndef TESTS_SUPPORT_DOUBLE_MODEL_H
#define TESTS_SUPPORT_DOUBLE_MODEL_H

#include "policy/weights.h"

/* Sum over i in [first, n_tokens) of coefficient[i] * log p(tokens[i] | tokens before it).
 * params [n_elements] in the order of layout. */
double double_model_loss(const struct weights *layout, const double *params, const int32_t *tokens,
                         int n_tokens, int first, const double *coefficient);

#endif
