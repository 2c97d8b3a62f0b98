/* weights.h - all tensors of one model as BF16 in a canonical order: in one flat buffer, or still in the
 * files of a model directory.
 *
 * The order is fixed by the config: model.embed_tokens.weight, then per layer
 * input_layernorm, q_proj, k_proj, v_proj (and biases/norms where the family has them), o_proj,
 * post_attention_layernorm, gate_proj, up_proj, down_proj, then model.norm.weight, and
 * lm_head.weight if not tied.  Names are those of Hugging Face checkpoints.  The socket's weight
 * intake, the broadcast over ranks and the trainer all read and write the flat buffer; struct policy
 * (policy.h) is packed from it, or straight from the files.
 */
#ifndef POLICY_WEIGHTS_H
#define POLICY_WEIGHTS_H

#include <stdbool.h>
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
	uint16_t *data;                /* [n_elements] bf16, owned; NULL after weights_layout and weights_open */
	struct weights_files *files;   /* owned, weights_files.h; NULL but after weights_open */
};

/* Names, shapes and offsets only. */
void weights_layout(struct weights *weights, const struct model_config *config);

/* Layout plus zeroed memory. */
void weights_alloc(struct weights *weights, const struct model_config *config);

/* A directory: config.json plus model.safetensors, or the sharded index.  F32, F16 and BF16 tensors are
 * taken; a missing, extra-shaped or truncated tensor is an error naming the tensor, expected and found.
 * The tensors stay in the mapped files, which must not change until weights_free. */
int weights_open(struct weights *weights, const char *dir, struct err *err);

/* The same into the flat buffer; NaN and infinity are refused. */
int weights_load(struct weights *weights, const char *dir, struct err *err);

/* Rows [row, row + n_rows) of a tensor as BF16: where they lie, or converted into scratch (room for them). */
const uint16_t *weights_rows(const struct weights *weights, int tensor, int row, int n_rows, uint16_t *scratch);

/* "BF16", "F16" or "F32" as a tensor is stored. */
const char *weights_dtype(const struct weights *weights, int tensor);

/* Rows [row, row + n_rows) of a tensor have been read: pages of the file within them need not stay in memory. */
void weights_release(const struct weights *weights, int tensor, int row, int n_rows);

/* dir/model.safetensors (BF16) and dir/config.json; written beside and renamed. */
int weights_save(const struct weights *weights, const char *dir, struct err *err);

/* Index of a tensor by name, or -1. */
int weights_find(const struct weights *weights, const char *name);

/* Index of the first tensor that holds NaN or infinity, or -1. */
int weights_find_nonfinite(const struct weights *weights);

/* No NaN or infinity among n numbers. */
bool weights_finite(const uint16_t *bf16, size_t n);

void weights_free(struct weights *weights);

#endif
