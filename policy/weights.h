/* weights.h - all tensors of one model as BF16 in one flat buffer, in a canonical order.
 *
 * The order is fixed by the config: model.embed_tokens.weight, then per layer
 * input_layernorm, q_proj, k_proj, v_proj (and biases/norms where the family has them), o_proj,
 * post_attention_layernorm, gate_proj, up_proj, down_proj, then model.norm.weight, and
 * lm_head.weight if not tied.  Names are those of Hugging Face checkpoints.  A loader, the
 * socket's weight intake, the broadcast over ranks and the trainer all read and write this
 * buffer; struct policy (policy.h) is packed from it.
 */
#ifndef POLICY_WEIGHTS_H
#define POLICY_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "policy/model_config.h"

struct weight_tensor {
	char name[96];
	int rows, cols;  /* row-major; a vector has rows = 1 */
	int n_dims;      /* 1 or 2, as in the checkpoint */
	size_t offset;   /* in elements from data */
};

struct weights {
	struct model_config config;
	struct weight_tensor *tensors; /* owned */
	int n_tensors;
	size_t n_elements;             /* of all tensors; bytes = 2 * n_elements */
	uint16_t *data;                /* [n_elements] bf16, owned; NULL after weights_layout */
};

/* Names, shapes and offsets only. */
void weights_layout(struct weights *weights, const struct model_config *config);

/* Layout plus zeroed memory. */
void weights_alloc(struct weights *weights, const struct model_config *config);

/* From a directory: config.json plus model.safetensors, or the sharded index.  F32, F16 and BF16
 * tensors are taken; NaN and infinity are refused; a missing, extra-shaped or truncated tensor is
 * an error naming the tensor, expected and found. */
int weights_load(struct weights *weights, const char *dir, struct err *err);

/* dir/model.safetensors (BF16) and dir/config.json; written beside and renamed. */
int weights_save(const struct weights *weights, const char *dir, struct err *err);

/* Index of a tensor by name, or -1. */
int weights_find(const struct weights *weights, const char *name);

/* Index of the first tensor that holds NaN or infinity, or -1. */
int weights_find_nonfinite(const struct weights *weights);

void weights_free(struct weights *weights);

#endif
