/* model_config.c - config.json of the dense decoder families, read strictly, and written.
 *
 * Defaults of absent fields are those of transformers' classes.  A sliding window changes nothing while the
 * context stays within it, so the context ends there.
 */
#include "policy/model_config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/file.h"
#include "policy/model_config_json.h"

enum { REQUIRED = 0 };

static const struct family {
	const char *architecture, *model_type;
	bool qkv_bias, qk_norm;
	bool attention_bias, mlp_bias; /* what of these the file may ask for */
	bool tied;                     /* where the file does not say */
	int window;                    /* sliding_window where the file does not say; 0: none */
	bool window_optional;          /* only with use_sliding_window */
	int n_kv_heads, head_dim;      /* where the file does not say; -1: from the number of heads */
	double rope_theta, rms_eps;
} families[] = {
	{"LlamaForCausalLM", "llama", .attention_bias = true, .mlp_bias = true, .n_kv_heads = -1, .head_dim = -1,
	 .rope_theta = 1e4, .rms_eps = 1e-6},
	{"MistralForCausalLM", "mistral", .window = 4096, .n_kv_heads = 8, .head_dim = -1, .rope_theta = 1e4,
	 .rms_eps = 1e-6},
	{"Qwen2ForCausalLM", "qwen2", .qkv_bias = true, .window = 4096, .window_optional = true, .n_kv_heads = 32,
	 .head_dim = -1, .rope_theta = 1e4, .rms_eps = 1e-6},
	{"Qwen3ForCausalLM", "qwen3", .qk_norm = true, .attention_bias = true, .window = 4096, .window_optional = true,
	 .n_kv_heads = 32, .head_dim = 128, .rope_theta = 1e4, .rms_eps = 1e-6},
	{"MiniMindForCausalLM", "minimind", .tied = true, .n_kv_heads = 2, .head_dim = -1, .rope_theta = 1e6,
	 .rms_eps = 1e-5},
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };
#define FAMILIES_TEXT "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, MiniMindForCausalLM"

/* By `architectures` where it is given, as transformers' loaders do, else by `model_type`. */
static int read_family(const json_t *root, const struct family **family, struct err *err)
{
	char text[64];
	const json_t *architectures = model_field(root, "architectures"), *type = model_field(root, "model_type");
	const json_t *wanted = json_array_size(architectures) > 0 ? json_array_get(architectures, 0) : type;
	const char *name = json_string_value(wanted);
	for (int i = 0; name && i < N_FAMILIES; i++) {
		*family = &families[i];
		if (strcmp(name, wanted == type ? families[i].model_type : families[i].architecture) == 0) return 0;
	}
	return err_set(err, ERR_UNSUPPORTED, "architectures: expected one of " FAMILIES_TEXT ", found %s",
	               model_field_text(wanted ? wanted : architectures, text));
}

static int read_heads(struct model_config *c, const struct family *family, const json_t *root, struct err *err)
{
	int code = 0, kv = family->n_kv_heads, d = family->head_dim;
	if ((code = model_field_int(root, "num_attention_heads", 1, MODEL_HEADS_MAX, REQUIRED, &c->n_heads, err)) ||
	    (code = model_field_int(root, "num_key_value_heads", 1, c->n_heads,
	                      kv < 0 || json_object_get(root, "num_key_value_heads") ? c->n_heads : kv,
	                      &c->n_kv_heads, err)))
		return code;
	if (c->n_kv_heads > c->n_heads || c->n_heads % c->n_kv_heads != 0)
		return err_set(err, ERR_INVALID,
		               "num_attention_heads must be a multiple of num_key_value_heads, found %d and %d",
		               c->n_heads, c->n_kv_heads);
	if (d < 0) d = c->dim % c->n_heads == 0 ? c->dim / c->n_heads : 0;
	if ((code = model_field_int(root, "head_dim", 2, MODEL_HEAD_DIM_MAX, d, &c->head_dim, err))) return code;
	if (c->head_dim % 2 != 0 || c->head_dim > MODEL_HEAD_DIM_MAX)
		return err_set(err, ERR_INVALID,
		               "head_dim (or hidden_size / num_attention_heads) must be even and at most %d, "
		               "found %d",
		               MODEL_HEAD_DIM_MAX, c->head_dim);
	return 0;
}

/* MiniMind's rule where intermediate_size is null: 8/3 of the width, up to a multiple of 64. */
static int ffn_default(const struct model_config *c)
{
	return strcmp(c->model_type, "minimind") == 0 ? (c->dim * 8 / 3 + 63) / 64 * 64 : REQUIRED;
}

static int read_shape(struct model_config *c, const struct family *family, const json_t *root, struct err *err)
{
	int code = 0;
	if ((code = model_field_int(root, "hidden_size", 1, MODEL_DIM_MAX, REQUIRED, &c->dim, err)) ||
	    (code = model_field_int(root, "num_hidden_layers", 1, MODEL_LAYERS_MAX, REQUIRED, &c->n_layers, err)) ||
	    (code = read_heads(c, family, root, err)) ||
	    (code = model_field_int(root, "intermediate_size", 1, MODEL_FFN_MAX, ffn_default(c), &c->ffn_dim, err)) ||
	    (code = model_field_int(root, "vocab_size", 1, MODEL_VOCAB_MAX, REQUIRED, &c->vocab_size, err)) ||
	    (code = model_field_int(root, "max_position_embeddings", 1, MODEL_CONTEXT_MAX, REQUIRED, &c->max_context, err)))
		return code;
	return 0;
}

/* The context ends with the window: within it, every position before is attended to. */
static int read_window(struct model_config *c, const struct family *family, const json_t *root, struct err *err)
{
	bool absent = !json_object_get(root, "sliding_window"), wanted = true;
	int window = 0, code = model_field_bool(root, "use_sliding_window", !family->window_optional, &wanted, err);
	if (!code) code = model_field_int(root, "sliding_window", 0, INT_MAX, absent ? family->window : 0, &window, err);
	if (code || !wanted || window == 0 || window >= c->max_context) return code;
	snprintf(c->context_note, sizeof c->context_note,
	         "attention slides over the last %d of %d positions, which is not done beyond the first %d", window,
	         c->max_context, window);
	c->max_context = window;
	return 0;
}

static int read_biases(struct model_config *c, const struct family *family, const json_t *root, struct err *err)
{
	bool attention = false, mlp = false;
	int code = model_field_bool(root, "attention_bias", false, &attention, err);
	if (!code) code = model_field_bool(root, "mlp_bias", false, &mlp, err);
	c->o_bias = family->attention_bias && attention;
	c->qkv_bias = family->qkv_bias || c->o_bias;
	c->mlp_bias = family->mlp_bias && mlp;
	c->qk_norm = family->qk_norm;
	return code;
}

static int read_token_id(const struct model_config *c, const char *key, const json_t *value, int *out,
                         struct err *err)
{
	char text[64];
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    json_integer_value(value) >= c->vocab_size)
		return err_set(err, ERR_INVALID, "%s: expected a token id below vocab_size (%d), found %s", key,
		               c->vocab_size, model_field_text(value, text));
	*out = (int)json_integer_value(value);
	return 0;
}

/* generation_config.json's end tokens replace config.json's, as in transformers' generate. */
static int read_special_ids(struct model_config *c, const json_t *root, const json_t *generation,
                            struct err *err)
{
	const json_t *bos = model_field(generation, "bos_token_id"), *eos = model_field(generation, "eos_token_id");
	if (!bos) bos = model_field(root, "bos_token_id");
	if (!eos) eos = model_field(root, "eos_token_id");
	c->bos_id = -1;
	if (bos && read_token_id(c, "bos_token_id", bos, &c->bos_id, err)) return err->code;
	size_t n = json_is_array(eos) ? json_array_size(eos) : eos != NULL;
	if (n > MODEL_EOS_MAX)
		return err_set(err, ERR_UNSUPPORTED, "eos_token_id: expected at most %d ids, found %zu",
		               MODEL_EOS_MAX, n);
	for (size_t i = 0; i < n; i++) {
		const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
		if (read_token_id(c, "eos_token_id", id, &c->eos_ids[i], err)) return err->code;
	}
	c->n_eos = (int)n;
	return 0;
}

static int parse_root(struct model_config *c, const json_t *root, const json_t *generation, struct err *err)
{
	const struct family *family = NULL;
	double eps = 0;
	int code = 0;
	if ((code = read_family(root, &family, err))) { /* what can be shown of a stranger */
		struct err ignored;
		const char *type = json_string_value(model_field(root, "model_type"));
		snprintf(c->model_type, sizeof c->model_type, "%s", type ? type : "");
		read_shape(c, &families[0], root, &ignored);
		model_field_bool(root, "tie_word_embeddings", false, &c->tied, &ignored);
		return code;
	}
	snprintf(c->model_type, sizeof c->model_type, "%s", family->model_type);
	if ((code = read_shape(c, family, root, err)) ||
	    (code = model_field_bool(root, "tie_word_embeddings", family->tied, &c->tied, err)) ||
	    (code = model_field_real(root, "rms_norm_eps", 1e-12, 1.0, family->rms_eps, &eps, err)) ||
	    (code = read_biases(c, family, root, err)))
		return code;
	c->rms_eps = (float)eps;
	if ((code = read_special_ids(c, root, generation, err)) || (code = model_config_refuse(root, err)) ||
	    (code = model_config_read_rope(c, root, family->rope_theta, err)) ||
	    (code = read_window(c, family, root, err)))
		return code;
	if (strcmp(c->model_type, "minimind") == 0 && c->rope_scaling != ROPE_PLAIN)
		return err_set(err, ERR_UNSUPPORTED,
		               "rope_scaling: MiniMind scales by a rule of its own; expected null, which runs it within "
		               "its trained context");
	return 0;
}

/* The object in the bytes, or NULL with err set. */
static json_t *parse_object(const char *name, const char *json, unsigned long n_bytes, struct err *err)
{
	json_error_t error;
	json_t *root = json_loadb(json, n_bytes, JSON_REJECT_DUPLICATES, &error);
	if (!root) {
		err_set(err, ERR_INVALID, "%s is not valid JSON: line %d: %s", name, error.line, error.text);
	} else if (!json_is_object(root)) {
		err_set(err, ERR_INVALID, "%s: expected a JSON object, found an array", name);
		json_decref(root);
		root = NULL;
	}
	return root;
}

int model_config_parse(struct model_config *config, const char *json, unsigned long n_bytes,
                       const char *generation_json, unsigned long generation_bytes, struct err *err)
{
	memset(config, 0, sizeof *config);
	json_t *generation = NULL, *root = parse_object("config.json", json, n_bytes, err);
	if (!root) return err->code;
	int code = 0;
	if (generation_json) {
		generation = parse_object("generation_config.json", generation_json, generation_bytes, err);
		if (!generation) code = err->code;
	}
	if (!code) code = parse_root(config, root, generation, err);
	json_decref(root);
	json_decref(generation);
	return code;
}

int model_config_read(struct model_config *config, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	struct file_map json = {0}, generation = {0};
	snprintf(path, sizeof path, "%s/config.json", dir);
	int code = file_map_small(&json, path, FILE_JSON_BYTES_MAX, err);
	if (code) return code;
	snprintf(path, sizeof path, "%s/generation_config.json", dir);
	code = file_map_small(&generation, path, FILE_JSON_BYTES_MAX, err);
	bool missing = code == ERR_MISSING;
	if (!code || missing) {
		code = model_config_parse(config, (const char *)json.bytes, json.n_bytes,
		                          missing ? NULL : (const char *)generation.bytes, generation.n_bytes, err);
		if (code) err_context(err, "model %s", dir);
	}
	file_map_close(&json);
	file_map_close(&generation);
	return code;
}

static bool same_rope(const struct model_config *a, const struct model_config *b)
{
	return a->rope_theta == b->rope_theta && a->rope_scaling == b->rope_scaling &&
	       a->rope_factor == b->rope_factor && a->rope_low_freq_factor == b->rope_low_freq_factor &&
	       a->rope_high_freq_factor == b->rope_high_freq_factor &&
	       a->rope_original_context == b->rope_original_context && a->rope_beta_fast == b->rope_beta_fast &&
	       a->rope_beta_slow == b->rope_beta_slow && a->rope_attention_factor == b->rope_attention_factor &&
	       a->rope_mscale == b->rope_mscale && a->rope_mscale_all_dim == b->rope_mscale_all_dim &&
	       a->rope_exact_ramp == b->rope_exact_ramp;
}

bool model_config_same_shape(const struct model_config *a, const struct model_config *b)
{
	return a->dim == b->dim && a->n_layers == b->n_layers && a->n_heads == b->n_heads &&
	       a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim && a->ffn_dim == b->ffn_dim &&
	       a->vocab_size == b->vocab_size && a->tied == b->tied && a->qkv_bias == b->qkv_bias &&
	       a->o_bias == b->o_bias && a->mlp_bias == b->mlp_bias && a->qk_norm == b->qk_norm &&
	       a->rms_eps == b->rms_eps && same_rope(a, b);
}

/* The shortest decimal that reads back as the same float, so that 1e-5f is written as 1e-05. */
static double shortest(float value)
{
	char text[32];
	for (int digits = 6; digits <= 9; digits++) {
		snprintf(text, sizeof text, "%.*g", digits, (double)value);
		if (strtof(text, NULL) == value) break;
	}
	return strtod(text, NULL);
}

static int write_object(const char *dir, const char *name, json_t *object, struct err *err)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	char *text = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
	json_decref(object);
	struct file_part parts[] = {{text, strlen(text)}, {"\n", 1}};
	int code = file_replace(path, parts, 2, err);
	free(text);
	return code;
}

int model_config_write(const struct model_config *c, const char *dir, struct err *err)
{
	const char *architecture = families[0].architecture;
	for (int i = 0; i < N_FAMILIES; i++)
		if (strcmp(c->model_type, families[i].model_type) == 0) architecture = families[i].architecture;
	json_t *bos = c->bos_id >= 0 ? json_integer(c->bos_id) : json_null();
	json_t *eos = c->n_eos == 1 ? json_integer(c->eos_ids[0]) : json_array();
	for (int i = 0; c->n_eos != 1 && i < c->n_eos; i++)
		json_array_append_new(eos, json_integer(c->eos_ids[i]));
	json_t *generation = json_pack("{s:O, s:O}", "bos_token_id", bos, "eos_token_id", eos);
	json_t *root = json_pack(
		"{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:o, s:n, s:s, s:b, s:b, s:b,"
		" s:o, s:o, s:s}",
		"architectures", architecture,
		"model_type", c->model_type,
		"hidden_size", c->dim,
		"num_hidden_layers", c->n_layers,
		"num_attention_heads", c->n_heads,
		"num_key_value_heads", c->n_kv_heads,
		"head_dim", c->head_dim,
		"intermediate_size", c->ffn_dim,
		"vocab_size", c->vocab_size,
		"max_position_embeddings", c->max_context,
		"rms_norm_eps", shortest(c->rms_eps),
		"rope_theta", c->rope_theta,
		"rope_scaling", model_config_rope_json(c),
		"sliding_window",
		"hidden_act", "silu",
		"tie_word_embeddings", c->tied,
		"attention_bias", c->o_bias,
		"mlp_bias", c->mlp_bias,
		"bos_token_id", bos,
		"eos_token_id", eos,
		"torch_dtype", "bfloat16");
	int code = write_object(dir, "config.json", root, err);
	if (code) json_decref(generation);
	return code ? code : write_object(dir, "generation_config.json", generation, err);
}
