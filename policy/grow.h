/* grow.h - a larger model that computes the same function, to measure speed at a size that is not at hand.
 *
 * Layers are added whose o_proj and down_proj are zero, so each adds +0 to the residual stream, and the
 * feed-forward may be widened by inputs of down_proj whose columns are zero.  Everything else of them
 * repeats the model's own layers and rows, so their memory traffic and arithmetic are real.
 *
 * Logits are the same bits: x + 0 = x, and a chain of fused multiply-adds that goes on with zero
 * weights does not change (a -0 would become +0, which no weight can tell apart).  The drafter's are too:
 * widening begins on a new group of every format, and groups of zeros quantize to zeros.
 */
#ifndef POLICY_GROW_H
#define POLICY_GROW_H

#include "policy/weights.h"

enum { GROW_LAYERS = 32 }; /* what weights_grow_shape adds layers up to by default */

/* The shape with at least `parameters` weights: more layers, at most layers_max (or as many as there are),
 * then a wider feed-forward.  ERR_USAGE if the model is larger already, ERR_TOO_BIG beyond what is taken. */
int weights_grow_shape(struct model_config *to, const struct model_config *from, double parameters,
                       int layers_max, struct err *err);

/* grown (free with weights_free) has the shape `to`, which differs from that of weights in n_layers and
 * ffn_dim only, neither smaller. */
void weights_grow(struct weights *grown, const struct model_config *to, const struct weights *weights);

#endif
