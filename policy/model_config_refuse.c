/* model_config_refuse.c - fields of a config.json that would change what the model computes in a way that
 * is not done here.  Fields that nobody is known to compute with are let be. */
#include <stdio.h>
#include <string.h>

#include "policy/model_config_json.h"

/* What the arithmetic is without the field: null and false always are; a number if it is `neutral`. */
static const struct {
	const char *key;
	double neutral;
	const char *what;
} keys[] = {
	{"quantization_config", -1, "take the unquantized checkpoint, in F32, F16 or BF16"},
	{"compression_config", -1, "take the unquantized checkpoint, in F32, F16 or BF16"},
	{"num_experts", 0, "mixtures of experts are not done"},
	{"num_local_experts", 0, "mixtures of experts are not done"},
	{"n_routed_experts", 0, "mixtures of experts are not done"},
	{"use_moe", -1, "mixtures of experts are not done"},
	{"kv_lora_rank", -1, "latent attention is not done"},
	{"partial_rotary_factor", 1, "rotating a part of a head is not done"},
	{"rotary_pct", 1, "rotating a part of a head is not done"},
	{"rope_interleaved", -1, "rotating neighbours instead of halves is not done"},
	{"rope_interleave", -1, "rotating neighbours instead of halves is not done"},
	{"no_rope_layers", -1, "layers without rotation are not done"},
	{"no_rope_layer_interval", 0, "layers without rotation are not done"},
	{"inference_rope_scaling", -1, "set it to false to run the model within its trained context"},
	{"dual_chunk_attention_config", -1, "remove it to run the model within its trained context"},
	{"attention_chunk_size", 0, "attention in chunks is not done"},
	{"attn_temperature_tuning", -1, "scaled attention is not done"},
	{"alibi", -1, "position biases are not done"},
	{"clip_qkv", -1, "clipped projections are not done"},
	{"use_qk_norm", -1, "normed queries and keys are done for Qwen3 only"},
	{"qk_layernorm", -1, "normed queries and keys are done for Qwen3 only"},
	{"use_parallel_residual", -1, "parallel layers are not done"},
	{"parallel_attn", -1, "parallel layers are not done"},
	{"logit_scale", 1, "scaled logits are not done"},
	{"logits_scaling", 1, "scaled logits are not done"},
	{"final_logit_softcapping", 0, "capped logits are not done"},
	{"attn_logit_softcapping", 0, "capped logits are not done"},
	{"query_pre_attn_scalar", -1, "scaled attention is not done"},
	{"attention_multiplier", -1, "scaled attention is not done"},
	{"embedding_multiplier", 1, "scaled embeddings are not done"},
	{"scale_emb", 1, "scaled embeddings are not done"},
	{"residual_multiplier", 1, "scaled residuals are not done"},
	{"scale_depth", -1, "scaled residuals are not done"},
	{"text_config", -1, "models of more than text are not done"},
	{"vision_config", -1, "models of more than text are not done"},
	{"is_encoder_decoder", -1, "decoders alone are done"},
	{"add_cross_attention", -1, "decoders alone are done"},
};

static bool harmless(const json_t *root, const char *key, double neutral)
{
	const json_t *value = model_field(root, key);
	if (!value || json_is_false(value) || (json_is_number(value) && json_number_value(value) == neutral)) return true;
	if (json_is_array(value) && json_array_size(value) == 0) return true;
	/* MiniMind's config names its experts and then does not use them. */
	return strstr(key, "_experts") && json_is_false(model_field(root, "use_moe"));
}

/* "; key: what, found value" behind what is there. */
static void append(char *text, size_t size, const char *key, const char *what, const json_t *value)
{
	char shown[64];
	size_t used = strlen(text);
	snprintf(text + used, size - used, "%s%s: %s, found %s", used > 0 ? "; " : "", key, what,
	         model_field_text(value, shown));
}

int model_config_refuse(const json_t *root, struct err *err)
{
	char text[ERR_TEXT_MAX - 200] = "";
	const json_t *act = model_field(root, "hidden_act"), *types = model_field(root, "layer_types");
	if (act && (!json_is_string(act) || strcmp(json_string_value(act), "silu") != 0))
		append(text, sizeof text, "hidden_act", "expected \"silu\"", act);
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!harmless(root, keys[i].key, keys[i].neutral))
			append(text, sizeof text, keys[i].key, keys[i].what, model_field(root, keys[i].key));
	for (size_t i = 0; i < json_array_size(types); i++) {
		const char *type = json_string_value(json_array_get(types, i));
		if (type && (strcmp(type, "full_attention") == 0 || strcmp(type, "sliding_attention") == 0)) continue;
		append(text, sizeof text, "layer_types", "expected full_attention or sliding_attention",
		       json_array_get(types, i));
		break;
	}
	return text[0] ? err_set(err, ERR_UNSUPPORTED, "%s", text) : 0;
}
