/* policy.h - one immutable published version of the policy: packed BF16 target and its
 * quantized drafter.
 *
 * Embedding and norms are shared between the two.  Nothing here changes after policy_create,
 * so any number of threads may read it.
 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include "configs/config.h"
#include "policy/weights.h"
#include "quant/kernels.h"

/* One linear layer: N outputs, K inputs. */
struct linear {
	int n, k;
	uint16_t *target;         /* packed bf16, see quant/kernels.h; owned by the policy */
	struct qmatrix draft;     /* planes owned (draft.q is their memory); q NULL: the target's own weights */
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

/* How the drafter's copy is made. */
struct draft_options {
	enum format format, head_format; /* FORMAT_BF16: the target's own weights */
	enum quantizer quantizer;
	bool fp32_activations; /* else INT8 */
	bool choose;           /* its int4 part is a drafter of its own: the engine chooses (format int8) */
};

/* As the config says; mode: enum rollout_mode. */
struct draft_options draft_options_of(const struct config_speculation *config, int mode);

struct policy {
	struct model_config config;
	int64_t version;
	uint16_t *embedding;    /* [vocab][dim] bf16, row-major; NULL if tied: it is the head's */
	uint16_t *final_norm;   /* [dim] bf16 */
	struct layer *layers;   /* [n_layers] */
	struct linear head;     /* packed from lm_head, or from the embedding if tied */
	float *rope_frequency, rope_scale; /* [head_dim/2] rotation per position; of cos and sin, see rope.h */
	bool drafts, draft_fp32; /* has a drafter; which takes FP32 activations */
	bool draft_choose;      /* as draft_options.choose */
	size_t bytes;           /* memory held */
};

/* Whose weights a forward pass multiplies by. */
enum policy_part {
	PART_TARGET,
	PART_DRAFT,      /* the quantized copy */
	PART_DRAFT_INT4  /* the four high bits of its nested formats (format.h); other layers as PART_DRAFT */
};

/* Rows of gate_up before the first row of up: ffn_dim padded to PANEL. */
static inline int policy_ffn_padded(const struct model_config *config)
{
	return PANEL * panels(config->ffn_dim);
}

/* Pack, and quantize where draft is not NULL, on n_threads threads.  weights is borrowed for the call: the
 * flat buffer, or files (weights_open), which are packed without a copy between.
 * Refuses weights that hold NaN or infinity, naming the tensor. */
int policy_create(struct policy **policy, const struct weights *weights, int64_t version,
                  const struct draft_options *draft, int n_threads, struct err *err);

/* The same while the weights arrive: a layer is packed and quantized as soon as all its tensors are there, in
 * whatever order.  weights is borrowed until policy_maker_close; of its data only what was announced is read. */
struct policy_maker;
struct policy_maker *policy_maker_open(const struct weights *weights, int64_t version, const struct draft_options *draft,
                                       int n_threads);
void policy_maker_tensor(struct policy_maker *maker, int tensor); /* is there now; each once */
/* ERR_INVALID: NaN or infinity; ERR_INCOMPLETE: not every tensor was there. */
int policy_maker_finish(struct policy_maker *maker, struct policy **policy, struct err *err);
void policy_maker_close(struct policy_maker *maker); /* also of one that was given up; NULL is allowed */

/* Version 0 from a model directory. */
int policy_load(struct policy **policy, const char *dir, const struct draft_options *draft, int n_threads,
                struct err *err);
void policy_free(struct policy *policy); /* NULL is allowed */

/* What policy->bytes is going to be; draft may be NULL. */
double policy_bytes(const struct model_config *config, const struct draft_options *draft);

/* A token's embedding, [dim] f32. */
void policy_embed(const struct policy *policy, int32_t token, float *out);

#endif
