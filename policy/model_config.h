/* model_config.h - the shape of a dense decoder model, from a Hugging Face config.json. */
#ifndef POLICY_MODEL_CONFIG_H
#define POLICY_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "configs/err.h"

enum {
	MODEL_EOS_MAX = 8,
	/* Bounds of what is taken; products of any few of them fit size_t, sums of widths fit int. */
	MODEL_DIM_MAX = 65536,
	MODEL_LAYERS_MAX = 1024,
	MODEL_HEADS_MAX = 1024,
	MODEL_HEAD_DIM_MAX = 1024,
	MODEL_FFN_MAX = 1 << 20,
	MODEL_VOCAB_MAX = 1 << 22,
	MODEL_CONTEXT_MAX = 1 << 20 /* rope.c's range reduction is exact up to here */
};

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct model_config {
	char model_type[32];      /* "llama", "mistral", "qwen2", "qwen3", "minimind" */
	int dim;                  /* hidden_size */
	int n_layers, n_heads, n_kv_heads, head_dim;
	int ffn_dim;              /* intermediate_size */
	int vocab_size;
	int max_context;          /* max_position_embeddings, or less where attention or rotation change beyond */
	char context_note[160];   /* why it is not max_position_embeddings; empty: it is */
	float rms_eps;
	double rope_theta;
	enum rope_scaling rope_scaling;
	double rope_factor;       /* linear, llama3, yarn */
	double rope_low_freq_factor, rope_high_freq_factor; /* llama3 */
	int rope_original_context;                          /* llama3, yarn */
	double rope_beta_fast, rope_beta_slow;              /* yarn: rotations at the ends of the ramp */
	double rope_attention_factor;                       /* yarn: of cos and sin; 0: by the paper's rule */
	double rope_mscale, rope_mscale_all_dim;            /* yarn: the rule's constants; 0: not given */
	bool rope_exact_ramp;                               /* yarn: `truncate` is false */
	bool tied;                /* head shares the embedding */
	bool qkv_bias, o_bias, mlp_bias; /* Qwen2: the first; `attention_bias`: the first two; `mlp_bias` */
	bool qk_norm;             /* Qwen3 */
	int bos_id;               /* -1: none */
	int eos_ids[MODEL_EOS_MAX], n_eos;
};

/* From the bytes of config.json, and of generation_config.json (may be NULL, 0).  On error config holds
 * what was read until then, for showing to people; zeros stand for what was not. */
int model_config_parse(struct model_config *config, const char *json, unsigned long n_bytes,
                       const char *generation_json, unsigned long generation_bytes, struct err *err);

/* From a model directory; on error as above. */
int model_config_read(struct model_config *config, const char *dir, struct err *err);

/* Write config.json and generation_config.json that model_config_read and transformers take. */
int model_config_write(const struct model_config *config, const char *dir, struct err *err);

/* True if every shape and every number that enters the arithmetic is equal (versions of one policy
 * must agree); token ids and max_context may differ. */
bool model_config_same_shape(const struct model_config *a, const struct model_config *b);

#endif
