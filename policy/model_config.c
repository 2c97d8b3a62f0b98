/* model_config.c - config.json of the dense decoder families, read strictly.
 *
 * Fields that change the arithmetic in a way that this engine does not follow are refused by name;
 * fields that do not matter to inference are ignored.
 */
#include "policy/model_config.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/file.h"

static const struct family {
	const char *architecture, *model_type;
	bool qkv_bias, qk_norm;
} families[] = {
	{"LlamaForCausalLM", "llama", false, false},
	{"MistralForCausalLM", "mistral", false, false},
	{"Qwen2ForCausalLM", "qwen2", true, false},
	{"Qwen3ForCausalLM", "qwen3", false, true},
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };
#define FAMILIES_TEXT "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"

/* The value as it stands in the file, shortened, for messages. */
static const char *found(const json_t *value, char text[64])
{
	char *dump = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
	snprintf(text, 64, "%.60s", dump ? dump : "nothing");
	free(dump);
	return text;
}

/* Absent or null. */
static const json_t *field(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);
	return json_is_null(value) ? NULL : value;
}

/* fallback < min: the field is required. */
static int read_int(const json_t *object, const char *key, int min, int max, int fallback, int *out,
                    struct err *err)
{
	char text[64];
	const json_t *value = field(object, key);
	if (!value && fallback >= min) {
		*out = fallback;
		return 0;
	}
	if (!value)
		return err_set(err, ERR_MISSING, "%s is missing: expected an integer from %d to %d", key, min, max);
	json_int_t number = json_integer_value(value);
	if (!json_is_integer(value) || number < min || number > max)
		return err_set(err, ERR_INVALID, "%s: expected an integer from %d to %d, found %s", key, min, max,
		               found(value, text));
	*out = (int)number;
	return 0;
}

static int read_real(const json_t *object, const char *key, double min, double max, double fallback,
                     double *out, struct err *err)
{
	char text[64];
	const json_t *value = field(object, key);
	if (!value && fallback >= min) {
		*out = fallback;
		return 0;
	}
	if (!value)
		return err_set(err, ERR_MISSING, "%s is missing: expected a number from %g to %g", key, min, max);
	double number = json_number_value(value);
	if (!json_is_number(value) || !(number >= min && number <= max))
		return err_set(err, ERR_INVALID, "%s: expected a number from %g to %g, found %s", key, min, max,
		               found(value, text));
	*out = number;
	return 0;
}

static int read_bool(const json_t *object, const char *key, bool fallback, bool *out, struct err *err)
{
	char text[64];
	const json_t *value = field(object, key);
	if (value && !json_is_boolean(value))
		return err_set(err, ERR_INVALID, "%s: expected true or false, found %s", key, found(value, text));
	*out = value ? json_is_true(value) : fallback;
	return 0;
}

/* By `architectures` where it is given, as transformers' loaders do, else by `model_type`. */
static int read_family(const json_t *root, const struct family **family, struct err *err)
{
	char text[64];
	const json_t *architectures = field(root, "architectures"), *type = field(root, "model_type");
	const json_t *wanted = json_array_size(architectures) > 0 ? json_array_get(architectures, 0) : type;
	const char *name = json_string_value(wanted);
	for (int i = 0; name && i < N_FAMILIES; i++) {
		*family = &families[i];
		if (strcmp(name, wanted == type ? families[i].model_type : families[i].architecture) == 0) return 0;
	}
	return err_set(err, ERR_UNSUPPORTED, "architectures: expected one of " FAMILIES_TEXT ", found %s",
	               found(wanted ? wanted : architectures, text));
}

static int read_shape(struct model_config *c, const json_t *root, struct err *err)
{
	int code = 0;
	if ((code = read_int(root, "hidden_size", 1, MODEL_DIM_MAX, 0, &c->dim, err)) ||
	    (code = read_int(root, "num_hidden_layers", 1, MODEL_LAYERS_MAX, 0, &c->n_layers, err)) ||
	    (code = read_int(root, "num_attention_heads", 1, MODEL_HEADS_MAX, 0, &c->n_heads, err)) ||
	    (code = read_int(root, "num_key_value_heads", 1, c->n_heads, c->n_heads, &c->n_kv_heads, err)) ||
	    (code = read_int(root, "intermediate_size", 1, MODEL_FFN_MAX, 0, &c->ffn_dim, err)) ||
	    (code = read_int(root, "vocab_size", 1, MODEL_VOCAB_MAX, 0, &c->vocab_size, err)) ||
	    (code = read_int(root, "max_position_embeddings", 1, MODEL_CONTEXT_MAX, 0, &c->max_context, err)))
		return code;
	if (c->n_heads % c->n_kv_heads != 0)
		return err_set(err, ERR_INVALID,
		               "num_attention_heads must be a multiple of num_key_value_heads, found %d and %d",
		               c->n_heads, c->n_kv_heads);
	int fallback = c->dim % c->n_heads == 0 ? c->dim / c->n_heads : 0;
	if ((code = read_int(root, "head_dim", 2, MODEL_HEAD_DIM_MAX, fallback, &c->head_dim, err))) return code;
	if (c->head_dim % 2 != 0 || c->head_dim > MODEL_HEAD_DIM_MAX)
		return err_set(err, ERR_INVALID,
		               "head_dim (or hidden_size / num_attention_heads) must be even and at most %d, "
		               "found %d",
		               MODEL_HEAD_DIM_MAX, c->head_dim);
	return 0;
}

static int read_llama3(struct model_config *c, const json_t *scaling, struct err *err)
{
	int code = 0;
	if ((code = read_real(scaling, "low_freq_factor", 1e-3, 1e6, 0, &c->rope_low_freq_factor, err)) ||
	    (code = read_real(scaling, "high_freq_factor", 1e-3, 1e6, 0, &c->rope_high_freq_factor, err)) ||
	    (code = read_int(scaling, "original_max_position_embeddings", 1, MODEL_CONTEXT_MAX, 0,
	                     &c->rope_original_context, err)))
		return code;
	if (c->rope_high_freq_factor <= c->rope_low_freq_factor)
		return err_set(err, ERR_INVALID, "high_freq_factor must be above low_freq_factor, found %g and %g",
		               c->rope_high_freq_factor, c->rope_low_freq_factor);
	c->rope_scaling = ROPE_LLAMA3;
	return 0;
}

/* rope_theta and rope_scaling; transformers 5 writes both into one object `rope_parameters`. */
static int read_rope(struct model_config *c, const json_t *root, struct err *err)
{
	char text[64];
	int code = 0;
	const char *key = field(root, "rope_parameters") ? "rope_parameters" : "rope_scaling";
	const json_t *scaling = field(root, key);
	if (scaling && !json_is_object(scaling))
		return err_set(err, ERR_INVALID, "%s: expected null or an object, found %s", key,
		               found(scaling, text));
	const json_t *holder = field(scaling, "rope_theta") ? scaling : root;
	if ((code = read_real(holder, "rope_theta", 1.0, 1e12, 10000.0, &c->rope_theta, err))) return code;
	if (!scaling) return 0;

	const json_t *type = field(scaling, "rope_type") ? field(scaling, "rope_type") : field(scaling, "type");
	const char *name = type ? json_string_value(type) : "default";
	if (name && strcmp(name, "default") == 0) return 0;
	if (name && (strcmp(name, "linear") == 0 || strcmp(name, "llama3") == 0)) {
		c->rope_scaling = ROPE_LINEAR;
		code = read_real(scaling, "factor", 1.0, 1e6, 0, &c->rope_factor, err);
		if (!code && strcmp(name, "llama3") == 0) code = read_llama3(c, scaling, err);
		return code ? err_context(err, "%s", key) : 0;
	}
	return err_set(err, ERR_UNSUPPORTED, "%s: expected type default, linear or llama3, found %s", key,
	               found(type, text));
}

/* What would change the arithmetic and is not followed here. */
static int refuse_unsupported(const struct model_config *c, const json_t *root, struct err *err)
{
	static const char *const must_be_false[] = {"attention_bias", "mlp_bias", "use_sliding_window"};
	char text[64];
	const json_t *value = field(root, "hidden_act");
	if (value && (!json_is_string(value) || strcmp(json_string_value(value), "silu") != 0))
		return err_set(err, ERR_UNSUPPORTED, "hidden_act: expected \"silu\", found %s", found(value, text));
	for (int i = 0; i < 3; i++) {
		value = field(root, must_be_false[i]);
		if (value && !json_is_false(value))
			return err_set(err, ERR_UNSUPPORTED, "%s: expected false, found %s", must_be_false[i],
			               found(value, text));
	}
	value = field(root, "sliding_window");
	bool switched_off = json_is_false(json_object_get(root, "use_sliding_window"));
	bool harmless = json_is_integer(value) && json_integer_value(value) >= c->max_context;
	if (value && !switched_off && !harmless)
		return err_set(err, ERR_UNSUPPORTED,
		               "sliding_window: expected null or at least max_position_embeddings (%d), "
		               "found %s; lower max_position_embeddings to the window to run the model within it",
		               c->max_context, found(value, text));
	value = field(root, "partial_rotary_factor");
	if (value && json_number_value(value) != 1.0)
		return err_set(err, ERR_UNSUPPORTED, "partial_rotary_factor: expected 1, found %s",
		               found(value, text));
	if ((value = field(root, "quantization_config")))
		return err_set(err, ERR_UNSUPPORTED,
		               "quantization_config: expected unquantized F32, F16 or BF16 weights, found %s",
		               found(value, text));
	const json_t *types = field(root, "layer_types");
	for (size_t i = 0; i < json_array_size(types); i++) {
		const char *type = json_string_value(json_array_get(types, i));
		if (!type || strcmp(type, "full_attention") != 0)
			return err_set(err, ERR_UNSUPPORTED,
			               "layer_types: expected \"full_attention\" in every layer, found %s",
			               found(json_array_get(types, i), text));
	}
	return 0;
}

static int read_token_id(const struct model_config *c, const char *key, const json_t *value, int *out,
                         struct err *err)
{
	char text[64];
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    json_integer_value(value) >= c->vocab_size)
		return err_set(err, ERR_INVALID, "%s: expected a token id below vocab_size (%d), found %s", key,
		               c->vocab_size, found(value, text));
	*out = (int)json_integer_value(value);
	return 0;
}

/* generation_config.json's end tokens replace config.json's, as in transformers' generate. */
static int read_special_ids(struct model_config *c, const json_t *root, const json_t *generation,
                            struct err *err)
{
	const json_t *bos = field(generation, "bos_token_id"), *eos = field(generation, "eos_token_id");
	if (!bos) bos = field(root, "bos_token_id");
	if (!eos) eos = field(root, "eos_token_id");
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
	if ((code = read_family(root, &family, err))) return code;
	snprintf(c->model_type, sizeof c->model_type, "%s", family->model_type);
	c->qkv_bias = family->qkv_bias;
	c->qk_norm = family->qk_norm;
	if ((code = read_shape(c, root, err)) || (code = read_rope(c, root, err)) ||
	    (code = read_real(root, "rms_norm_eps", 1e-12, 1.0, 1e-6, &eps, err)) ||
	    (code = read_bool(root, "tie_word_embeddings", false, &c->tied, err)) ||
	    (code = refuse_unsupported(c, root, err)))
		return code;
	c->rms_eps = (float)eps;
	return read_special_ids(c, root, generation, err);
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
	int code = file_map_open(&json, path, err);
	if (code) return code;
	snprintf(path, sizeof path, "%s/generation_config.json", dir);
	code = file_map_open(&generation, path, err);
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

bool model_config_same_shape(const struct model_config *a, const struct model_config *b)
{
	return a->dim == b->dim && a->n_layers == b->n_layers && a->n_heads == b->n_heads &&
	       a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim && a->ffn_dim == b->ffn_dim &&
	       a->vocab_size == b->vocab_size && a->tied == b->tied && a->qkv_bias == b->qkv_bias &&
	       a->qk_norm == b->qk_norm && a->rms_eps == b->rms_eps && a->rope_theta == b->rope_theta &&
	       a->rope_scaling == b->rope_scaling && a->rope_factor == b->rope_factor &&
	       a->rope_low_freq_factor == b->rope_low_freq_factor &&
	       a->rope_high_freq_factor == b->rope_high_freq_factor &&
	       a->rope_original_context == b->rope_original_context;
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

static json_t *rope_scaling_json(const struct model_config *c)
{
	if (c->rope_scaling == ROPE_PLAIN) return json_null();
	if (c->rope_scaling == ROPE_LINEAR)
		return json_pack("{s:s, s:f}", "rope_type", "linear", "factor", c->rope_factor);
	return json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", c->rope_factor,
	                 "low_freq_factor", c->rope_low_freq_factor, "high_freq_factor", c->rope_high_freq_factor,
	                 "original_max_position_embeddings", c->rope_original_context);
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
		"{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:o, s:s, s:b, s:b, s:b,"
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
		"rope_scaling", rope_scaling_json(c),
		"hidden_act", "silu",
		"tie_word_embeddings", c->tied,
		"attention_bias", 0,
		"mlp_bias", 0,
		"bos_token_id", bos,
		"eos_token_id", eos,
		"torch_dtype", "bfloat16");
	int code = write_object(dir, "config.json", root, err);
	if (code) json_decref(generation);
	return code ? code : write_object(dir, "generation_config.json", generation, err);
}
