/* adamw.h - AdamW (Loshchilov, Hutter 2019, "Decoupled Weight Decay Regularization") on a flat array of
 * FP32 master parameters, whose BF16 rounding is what the model runs.
 *
 *     m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
 *     x = x - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay x)
 */
#ifndef TRAINER_BRIDGE_TRAINER_ADAMW_H
#define TRAINER_BRIDGE_TRAINER_ADAMW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADAMW_EPS 1e-8f

struct adamw {
	size_t n;
	float *master; /* [n] f32, owned */
	float *m, *v;  /* [n] first and second moments, owned */
	int64_t step;  /* updates made */
};

struct adamw_options {
	float learning_rate, beta1, beta2, weight_decay;
};

/* Master values from n BF16 parameters; moments zero. */
void adamw_open(struct adamw *adamw, const uint16_t *initial, size_t n);
void adamw_close(struct adamw *adamw);

/* One update counts for all elements: begin, then each range once (any order, any thread). */
void adamw_begin(struct adamw *adamw);

/* Elements [begin, end) with gradient grads[i] * grad_scale; decay: apply weight_decay (matrices, not
 * norms).  rounded [n] bf16 and params [n] f32 get the new values, both BF16-rounded. */
void adamw_update(struct adamw *adamw, const struct adamw_options *options, const float *grads,
                  float grad_scale, size_t begin, size_t end, bool decay, uint16_t *rounded, float *params);

#endif
