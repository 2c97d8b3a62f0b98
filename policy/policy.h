/* policy.h - one immutable published version of the policy: packed BF16 target and its
 * quantized drafter.
 *
 * Embedding and norms are shared between the two.  Nothing here changes after policy_create,
 * so any number of threads may read it.
 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include "policy/weights.h"
#include "quant/format_int4.h"

/* One linear layer: N outputs, K inputs. */
struct linear {
	int n, k;
	uint16_t *target;         /* packed bf16, see quant/kernels.h; owned by the policy */
	struct int4_block *draft; /* owned; NULL without a drafter */
	float *bias;              /* [N] f32 or NULL */
};

struct layer {
	uint16_t *attention_norm, *ffn_norm;  /* [dim] bf16 */
	uint16_t *q_norm, *k_norm;            /* [head_dim] bf16 or NULL */
	struct linear qkv;      /* rows: q heads, k heads, v heads */
	struct linear o;
	struct linear gate_up;  /* rows: gate [ffn_dim padded to PANEL], up [ffn_dim padded] */
	struct linear down;
};

struct policy {
	struct model_config config;
	int64_t version;
	uint16_t *embedding;    /* [vocab][dim] bf16, row-major */
	uint16_t *final_norm;   /* [dim] bf16 */
	struct layer *layers;   /* [n_layers] */
	struct linear head;     /* packed from lm_head, or from the embedding if tied */
	float *rope_frequency;  /* [head_dim/2] rotation per position, see rope.h */
	size_t bytes;           /* memory held */
};

/* Rows of gate_up before the first row of up: ffn_dim padded to PANEL. */
static inline int policy_ffn_padded(const struct model_config *config)
{
	return PANEL * panels(config->ffn_dim);
}

/* Pack (and quantize if with_draft) on n_threads threads.  weights is borrowed for the call.
 * Refuses weights that hold NaN or infinity. */
int policy_create(struct policy **policy, const struct weights *weights, int64_t version, bool with_draft,
                  int n_threads, struct err *err);
void policy_free(struct policy *policy); /* NULL is allowed */

#endif
