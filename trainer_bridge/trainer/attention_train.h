/* attention_train.h - causal grouped-query attention of one whole sequence, forward and backward.
 *
 * Legend: n positions, H query heads, G key/value heads (H a multiple of G), D head_dim.  Query head h
 * reads key/value head h / (H / G).  Rotary embedding has been applied to q and k.
 */
#ifndef TRAINER_BRIDGE_TRAINER_ATTENTION_TRAIN_H
#define TRAINER_BRIDGE_TRAINER_ATTENTION_TRAIN_H

#include <stddef.h>

struct attention_shape {
	int n, n_heads, n_kv_heads, head_dim;
};

/* Floats of scratch memory that either direction needs. */
size_t attention_train_scratch(int n);

/* q, out [n][H * D]; k, v [n][G * D]. */
void attention_train_forward(float *out, const float *q, const float *k, const float *v,
                             const struct attention_shape *shape, float *scratch);

/* Writes dq [n][H * D] and dk, dv [n][G * D].  The probabilities are computed again, which is cheaper
 * than keeping n * n of them for every head and layer. */
void attention_train_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                              const float *k, const float *v, const struct attention_shape *shape,
                              float *scratch);

#endif
