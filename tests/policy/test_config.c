/* test_config.c - config.json of the families, and every way in which it can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/model_config.h"
#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"

#define SHAPE \
	"\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2," \
	"\"intermediate_size\":160,\"vocab_size\":96,\"max_position_embeddings\":256"
#define LLAMA "{\"architectures\":[\"LlamaForCausalLM\"]," SHAPE

static int parse(struct model_config *config, const char *json, const char *generation, struct err *err)
{
	/* Exactly as many bytes as there are, so that the sanitizers see a read past them. */
	size_t n = strlen(json);
	char *copy = malloc(n > 0 ? n : 1);
	memcpy(copy, json, n);
	memset(err, 0, sizeof *err);
	int code = model_config_parse(config, copy, n, generation, generation ? strlen(generation) : 0, err);
	free(copy);
	return code;
}

static void test_llama(void **state)
{
	(void)state;
	struct model_config c;
	struct err err;
	assert_int_equal(
		parse(&c,
	          LLAMA ",\"rope_theta\":500000,\"rms_norm_eps\":1e-05,\"bos_token_id\":1,\"eos_token_id\":[2,3],"
	                "\"tie_word_embeddings\":true}",
	          NULL, &err),
		0);
	assert_string_equal(c.model_type, "llama");
	assert_int_equal(c.dim, 64);
	assert_int_equal(c.n_layers, 2);
	assert_int_equal(c.n_heads, 4);
	assert_int_equal(c.n_kv_heads, 2);
	assert_int_equal(c.head_dim, 16);
	assert_int_equal(c.ffn_dim, 160);
	assert_int_equal(c.vocab_size, 96);
	assert_int_equal(c.max_context, 256);
	assert_true(c.rope_theta == 500000.0 && c.rms_eps == 1e-5f && c.tied);
	assert_int_equal(c.bos_id, 1);
	assert_int_equal(c.n_eos, 2);
	assert_int_equal(c.eos_ids[1], 3);
	assert_false(c.qkv_bias || c.qk_norm);
}

static void test_defaults(void **state)
{
	(void)state;
	struct model_config c;
	struct err err;
	assert_int_equal(
		parse(
			&c,
			"{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
			"\"intermediate_size\":8,\"vocab_size\":9,\"max_position_embeddings\":10,\"head_dim\":null}",
			NULL, &err),
		0);
	assert_int_equal(c.n_kv_heads, 2);
	assert_int_equal(c.head_dim, 32);
	assert_true(c.rope_theta == 10000.0 && c.rms_eps == 1e-6f && !c.tied);
	assert_int_equal(c.bos_id, -1);
	assert_int_equal(c.n_eos, 0);
}

static void test_families(void **state)
{
	(void)state;
	struct model_config c;
	struct err err;
	assert_int_equal(parse(&c,
	                       "{\"architectures\":[\"Qwen2ForCausalLM\"],\"use_sliding_window\":false,\"sliding_"
	                       "window\":131," SHAPE "}",
	                       NULL, &err),
	                 0);
	assert_true(c.qkv_bias && !c.qk_norm);
	assert_int_equal(parse(&c,
	                       "{\"architectures\":[\"Qwen3ForCausalLM\"],\"head_dim\":32,\"layer_types\":["
	                       "\"full_attention\"]," SHAPE "}",
	                       NULL, &err),
	                 0);
	assert_true(!c.qkv_bias && c.qk_norm);
	assert_int_equal(c.head_dim, 32);
	assert_int_equal(parse(&c,
	                       "{\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":null," SHAPE "}",
	                       NULL, &err),
	                 0);
	assert_string_equal(c.model_type, "mistral");
}

/* Fields as published, in the order in which they matter here; what transformers write besides is left. */
static void test_published(void **state)
{
	(void)state;
	static const struct {
		const char *name, *json, *generation;
		int kv_heads, head_dim, context, n_eos;
		bool tied;
		enum rope_scaling scaling;
	} models[] = {
		{"Llama-2-7b",
		 "{\"architectures\":[\"LlamaForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_act\":\"silu\","
		 "\"hidden_size\":4096,\"intermediate_size\":11008,\"max_position_embeddings\":4096,\"model_type\":\"llama\","
		 "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":32,\"pretraining_tp\":1,"
		 "\"rms_norm_eps\":1e-05,\"rope_scaling\":null,\"tie_word_embeddings\":false,\"torch_dtype\":\"float16\","
		 "\"vocab_size\":32000}", NULL, 32, 128, 4096, 1, false, ROPE_PLAIN},
		{"Llama-3.2-1B-Instruct",
		 "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":128000,"
		 "\"eos_token_id\":[128001,128008,128009],\"head_dim\":64,\"hidden_act\":\"silu\",\"hidden_size\":2048,"
		 "\"intermediate_size\":8192,\"max_position_embeddings\":131072,\"mlp_bias\":false,\"model_type\":\"llama\","
		 "\"num_attention_heads\":32,\"num_hidden_layers\":16,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-05,"
		 "\"rope_scaling\":{\"factor\":32.0,\"high_freq_factor\":4.0,\"low_freq_factor\":1.0,"
		 "\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"},\"rope_theta\":500000.0,"
		 "\"tie_word_embeddings\":true,\"vocab_size\":128256}", "{\"eos_token_id\":[128001,128008,128009]}",
		 8, 64, 131072, 3, true, ROPE_LLAMA3},
		{"SmolLM2-135M",
		 "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":0,\"eos_token_id\":0,"
		 "\"hidden_size\":576,\"intermediate_size\":1536,\"is_llama_config\":true,\"max_position_embeddings\":8192,"
		 "\"model_type\":\"llama\",\"num_attention_heads\":9,\"num_hidden_layers\":30,\"num_key_value_heads\":3,"
		 "\"rms_norm_eps\":1e-05,\"rope_interleaved\":false,\"rope_scaling\":null,\"rope_theta\":100000,"
		 "\"tie_word_embeddings\":true,\"vocab_size\":49152}", NULL, 3, 64, 8192, 1, true, ROPE_PLAIN},
		{"Mistral-7B-v0.1: the context ends with the window",
		 "{\"architectures\":[\"MistralForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_size\":4096,"
		 "\"intermediate_size\":14336,\"max_position_embeddings\":32768,\"model_type\":\"mistral\","
		 "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-05,"
		 "\"rope_theta\":10000.0,\"sliding_window\":4096,\"tie_word_embeddings\":false,\"vocab_size\":32000}",
		 NULL, 8, 128, 4096, 1, false, ROPE_PLAIN},
		{"Mistral-7B-v0.3",
		 "{\"architectures\":[\"MistralForCausalLM\"],\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_size\":4096,"
		 "\"intermediate_size\":14336,\"max_position_embeddings\":32768,\"model_type\":\"mistral\","
		 "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,\"rope_theta\":1000000.0,"
		 "\"sliding_window\":null,\"tie_word_embeddings\":false,\"vocab_size\":32768}",
		 NULL, 8, 128, 32768, 1, false, ROPE_PLAIN},
		{"Qwen2.5-0.5B-Instruct",
		 "{\"architectures\":[\"Qwen2ForCausalLM\"],\"bos_token_id\":151643,\"eos_token_id\":151645,\"hidden_size\":896,"
		 "\"intermediate_size\":4864,\"max_position_embeddings\":32768,\"max_window_layers\":21,\"model_type\":\"qwen2\","
		 "\"num_attention_heads\":14,\"num_hidden_layers\":24,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-06,"
		 "\"rope_theta\":1000000.0,\"sliding_window\":32768,\"tie_word_embeddings\":true,\"use_sliding_window\":false,"
		 "\"vocab_size\":151936}", "{\"bos_token_id\":151643,\"eos_token_id\":[151645,151643],\"top_k\":20}",
		 2, 64, 32768, 2, true, ROPE_PLAIN},
		{"Qwen2.5 with YaRN, as its card says",
		 "{\"architectures\":[\"Qwen2ForCausalLM\"],\"eos_token_id\":151645,\"hidden_size\":3584,"
		 "\"intermediate_size\":18944,\"max_position_embeddings\":32768,\"model_type\":\"qwen2\","
		 "\"num_attention_heads\":28,\"num_hidden_layers\":28,\"num_key_value_heads\":4,\"rope_theta\":1000000.0,"
		 "\"rope_scaling\":{\"factor\":4.0,\"original_max_position_embeddings\":32768,\"type\":\"yarn\"},"
		 "\"tie_word_embeddings\":false,\"vocab_size\":152064}", NULL, 4, 128, 131072, 1, false, ROPE_YARN},
		{"Qwen3-0.6B",
		 "{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":false,\"bos_token_id\":151643,"
		 "\"eos_token_id\":151645,\"head_dim\":128,\"hidden_size\":1024,\"intermediate_size\":3072,"
		 "\"max_position_embeddings\":40960,\"max_window_layers\":28,\"model_type\":\"qwen3\","
		 "\"num_attention_heads\":16,\"num_hidden_layers\":28,\"num_key_value_heads\":8,\"rope_scaling\":null,"
		 "\"rope_theta\":1000000,\"sliding_window\":null,\"tie_word_embeddings\":true,\"use_sliding_window\":false,"
		 "\"vocab_size\":151936}", "{\"eos_token_id\":[151645,151643]}", 8, 128, 40960, 2, true, ROPE_PLAIN},
		{"MiniMind2 by its own class",
		 "{\"architectures\":[\"MiniMindForCausalLM\"],\"bos_token_id\":1,\"dropout\":0.0,\"eos_token_id\":2,"
		 "\"flash_attn\":true,\"hidden_size\":768,\"intermediate_size\":2048,\"max_position_embeddings\":32768,"
		 "\"model_type\":\"minimind\",\"n_routed_experts\":4,\"n_shared_experts\":1,\"num_attention_heads\":8,"
		 "\"num_experts_per_tok\":2,\"num_hidden_layers\":16,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-05,"
		 "\"rope_theta\":1000000.0,\"use_moe\":false,\"vocab_size\":6400}", NULL, 2, 96, 32768, 1, true, ROPE_PLAIN},
	};
	for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
		struct model_config c;
		struct err err;
		if (parse(&c, models[i].json, models[i].generation, &err)) fail_msg("%s: %s", models[i].name, err.text);
		if (c.n_kv_heads != models[i].kv_heads || c.head_dim != models[i].head_dim ||
		    c.max_context != models[i].context || c.n_eos != models[i].n_eos || c.tied != models[i].tied ||
		    c.rope_scaling != models[i].scaling)
			fail_msg("%s: read as %d KV heads of %d, context %d, %d end tokens, tied %d, scaling %d", models[i].name,
			         c.n_kv_heads, c.head_dim, c.max_context, c.n_eos, c.tied, (int)c.rope_scaling);
	}
}

static void test_biases(void **state)
{
	(void)state;
	struct model_config c;
	struct err err;
	assert_int_equal(parse(&c, LLAMA ",\"attention_bias\":true,\"mlp_bias\":true}", NULL, &err), 0);
	assert_true(c.qkv_bias && c.o_bias && c.mlp_bias);
	assert_int_equal(parse(&c, "{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":true," SHAPE "}", NULL, &err), 0);
	assert_true(c.qkv_bias && c.o_bias && !c.mlp_bias && c.qk_norm);
	assert_int_equal(c.head_dim, 128); /* the class's default, not hidden_size / heads */
	assert_int_equal(parse(&c, "{\"architectures\":[\"Qwen2ForCausalLM\"],\"attention_bias\":true," SHAPE "}", NULL, &err), 0);
	assert_true(c.qkv_bias && !c.o_bias); /* the class knows no such field */
}

/* The context ends where attention would begin to slide, and a note says why. */
static void test_window(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		int context;
	} cases[] = {
		{LLAMA ",\"sliding_window\":128}", 128},
		{LLAMA ",\"sliding_window\":256}", 256},
		{LLAMA ",\"layer_types\":[\"sliding_attention\",\"full_attention\"],\"sliding_window\":100}", 100},
		{"{\"architectures\":[\"MistralForCausalLM\"]," SHAPE "}", 256},
		{"{\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":32," SHAPE "}", 32},
		{"{\"architectures\":[\"Qwen2ForCausalLM\"],\"sliding_window\":32," SHAPE "}", 256},
		{"{\"architectures\":[\"Qwen2ForCausalLM\"],\"sliding_window\":32,\"use_sliding_window\":true," SHAPE "}", 32},
		{LLAMA ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}}", 256},
		{LLAMA ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4,\"original_max_position_embeddings\":64}}", 64},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct model_config c;
		struct err err;
		if (parse(&c, cases[i].json, NULL, &err)) fail_msg("case %zu: %s", i, err.text);
		assert_int_equal(c.max_context, cases[i].context);
		if (c.max_context < 256) assert_true(c.context_note[0] != '\0');
	}
}

static void test_generation_config_wins(void **state)
{
	(void)state;
	struct model_config c;
	struct err err;
	assert_int_equal(
		parse(&c, LLAMA ",\"bos_token_id\":1,\"eos_token_id\":2}", "{\"eos_token_id\":[7,8]}", &err), 0);
	assert_int_equal(c.bos_id, 1);
	assert_int_equal(c.n_eos, 2);
	assert_int_equal(c.eos_ids[0], 7);
}

static void test_rope(void **state)
{
	(void)state;
	struct model_config c;
	struct err err;
	assert_int_equal(parse(&c, LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}", NULL, &err), 0);
	assert_true(c.rope_scaling == ROPE_LINEAR && c.rope_factor == 4.0);
	assert_int_equal(
		parse(&c,
	          LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
	                "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}",
	          NULL, &err),
		0);
	assert_true(c.rope_scaling == ROPE_LLAMA3 && c.rope_high_freq_factor == 4.0 &&
	            c.rope_original_context == 8192);
	assert_int_equal(
		parse(&c, LLAMA ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e6}}", NULL, &err),
		0);
	assert_true(c.rope_scaling == ROPE_PLAIN && c.rope_theta == 1e6);
	assert_int_equal(parse(&c, LLAMA ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}}", NULL, &err), 0);
	assert_true(c.rope_scaling == ROPE_YARN && c.rope_factor == 2.0 && c.rope_original_context == 256);
	assert_true(c.rope_beta_fast == 32 && c.rope_beta_slow == 1 && c.rope_attention_factor == 0 && !c.rope_exact_ramp);
	assert_int_equal(c.max_context, 512);
	assert_int_equal(
		parse(&c,
	          LLAMA ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":null,\"rope_theta\":5000,\"truncate\":false,"
	                "\"original_max_position_embeddings\":64,\"beta_fast\":0,\"attention_factor\":1.5}}",
	          NULL, &err),
		0);
	assert_true(c.rope_factor == 4.0 && c.rope_theta == 5000 && c.rope_beta_fast == 32 && c.rope_exact_ramp &&
	            c.rope_attention_factor == 1.5);
	assert_int_equal(c.max_context, 256);
}

/* The message names what was found, and what is expected. */
static void test_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		int code;
		const char *says;
	} cases[] = {
		{"", ERR_INVALID, "not valid JSON"},
		{"[]", ERR_INVALID, "array"},
		{"{\"a\":1,\"a\":2}", ERR_INVALID, "duplicate"},
		{"{}", ERR_UNSUPPORTED, "LlamaForCausalLM"},
		{"{\"architectures\":[\"GPT2LMHeadModel\"]}", ERR_UNSUPPORTED, "GPT2LMHeadModel"},
		{"{\"architectures\":[3]}", ERR_UNSUPPORTED, "3"},
		{"{\"model_type\":\"gemma\"}", ERR_UNSUPPORTED, "gemma"},
		{"{\"model_type\":\"llama\"}", ERR_MISSING, "hidden_size"},
		{LLAMA ",\"head_dim\":3}", ERR_INVALID, "even"},
		{LLAMA ",\"head_dim\":\"x\"}", ERR_INVALID, "\"x\""},
		{LLAMA ",\"hidden_act\":\"gelu\"}", ERR_UNSUPPORTED, "gelu"},
		{LLAMA ",\"attention_bias\":\"yes\"}", ERR_INVALID, "attention_bias: expected true or false, found \"yes\""},
		{LLAMA ",\"mlp_bias\":1}", ERR_INVALID, "mlp_bias"},
		{LLAMA ",\"sliding_window\":-1}", ERR_INVALID, "sliding_window"},
		{LLAMA ",\"use_sliding_window\":3}", ERR_INVALID, "use_sliding_window"},
		{LLAMA ",\"logit_scale\":0.0625}", ERR_UNSUPPORTED, "logit_scale: scaled logits are not done, found 0.0625"},
		{LLAMA ",\"attention_multiplier\":0.1}", ERR_UNSUPPORTED, "attention_multiplier"},
		{LLAMA ",\"final_logit_softcapping\":30.0}", ERR_UNSUPPORTED, "final_logit_softcapping"},
		{LLAMA ",\"rope_interleaved\":true}", ERR_UNSUPPORTED, "rope_interleaved"},
		{LLAMA ",\"num_local_experts\":8}", ERR_UNSUPPORTED, "mixtures of experts"},
		{LLAMA ",\"no_rope_layers\":[1,1,0]}", ERR_UNSUPPORTED, "no_rope_layers"},
		{LLAMA ",\"logit_scale\":2,\"quantization_config\":{\"bits\":4},\"clip_qkv\":8}", ERR_UNSUPPORTED, "clip_qkv"},
		{"{\"architectures\":[\"MiniMindForCausalLM\"],\"use_moe\":true,\"n_routed_experts\":4," SHAPE "}", ERR_UNSUPPORTED,
		 "n_routed_experts"},
		{"{\"architectures\":[\"MiniMindForCausalLM\"],\"inference_rope_scaling\":true," SHAPE "}", ERR_UNSUPPORTED,
		 "inference_rope_scaling"},
		{"{\"architectures\":[\"MiniMindForCausalLM\"],\"rope_scaling\":{\"type\":\"yarn\",\"factor\":16}," SHAPE "}",
		 ERR_UNSUPPORTED, "rule of its own"},
		{LLAMA ",\"partial_rotary_factor\":0.5}", ERR_UNSUPPORTED, "partial_rotary_factor"},
		{LLAMA ",\"quantization_config\":{\"bits\":4}}", ERR_UNSUPPORTED, "bits"},
		{LLAMA ",\"layer_types\":[\"linear_attention\"]}", ERR_UNSUPPORTED, "linear_attention"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"longrope\",\"factor\":4}}", ERR_UNSUPPORTED, "longrope"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0.5}}", ERR_INVALID, "rope_scaling: factor"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"beta_fast\":1,\"beta_slow\":2}}", ERR_INVALID, "beta_fast"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"truncate\":1}}", ERR_INVALID, "truncate"},
		{LLAMA ",\"rope_parameters\":{\"partial_rotary_factor\":0.5}}", ERR_UNSUPPORTED, "rope_parameters: partial_rotary_factor"},
		{LLAMA ",\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e6}}}", ERR_UNSUPPORTED, "per type of layer"},
		{LLAMA ",\"rope_scaling\":{\"type\":7}}", ERR_UNSUPPORTED, "7"},
		{LLAMA ",\"rope_scaling\":7}", ERR_INVALID, "7"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"linear\"}}", ERR_MISSING, "factor"},
		{LLAMA
	     ",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
	     "\"original_max_position_embeddings\":8192}}",
	     ERR_INVALID, "high_freq_factor"},
		{LLAMA ",\"rope_theta\":0}", ERR_INVALID, "rope_theta"},
		{LLAMA ",\"rms_norm_eps\":-1}", ERR_INVALID, "rms_norm_eps"},
		{LLAMA ",\"tie_word_embeddings\":1}", ERR_INVALID, "tie_word_embeddings"},
		{LLAMA ",\"eos_token_id\":96}", ERR_INVALID, "96"},
		{LLAMA ",\"eos_token_id\":\"</s>\"}", ERR_INVALID, "eos_token_id"},
		{LLAMA ",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", ERR_UNSUPPORTED, "9"},
		{LLAMA ",\"bos_token_id\":-1}", ERR_INVALID, "bos_token_id"},
		{LLAMA ",\"hidden_size\":64}", ERR_INVALID, "duplicate"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct model_config c;
		struct err err;
		int code = parse(&c, cases[i].json, NULL, &err);
		if (code != cases[i].code || !strstr(err.text, cases[i].says))
			fail_msg("case %zu: code %d (expected %d), text \"%s\" (expected \"%s\")", i, code, cases[i].code,
			         err.text, cases[i].says);
	}
}

static int parse_sizes(const char *odd_key, const char *value, struct err *err)
{
	static const char *const keys[] = {
		"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
		"head_dim",    "intermediate_size", "vocab_size",          "max_position_embeddings"};
	struct model_config c;
	char json[1024];
	int used = snprintf(json, sizeof json, "{\"model_type\":\"llama\"");
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		used += snprintf(json + used, sizeof json - (size_t)used, ",\"%s\":%s", keys[i],
		                 strcmp(keys[i], odd_key) == 0 ? value : "8");
	snprintf(json + used, sizeof json - (size_t)used, "}");
	return parse(&c, json, NULL, err);
}

/* Every size out of its bounds: refused by name, never an overflow. */
static void test_size_bounds(void **state)
{
	(void)state;
	static const char *const keys[] = {
		"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
		"head_dim",    "intermediate_size", "vocab_size",          "max_position_embeddings"};
	static const char *const values[] = {
		"0", "-1", "2147483648", "1e30", "1.5", "4294967304", "9223372036854775807", "\"8\"", "[]", "true"};
	struct err err;
	assert_int_equal(parse_sizes("none", "", &err), 0);
	for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
		for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
			assert_int_equal(parse_sizes(keys[k], values[v], &err), ERR_INVALID);
			assert_non_null(strstr(err.text, keys[k]));
		}
		assert_int_equal(parse_sizes(keys[k], "92233720368547758080", &err), ERR_INVALID);
	}
	assert_int_equal(parse_sizes("num_key_value_heads", "3", &err), ERR_INVALID);
	assert_int_equal(parse_sizes("num_key_value_heads", "16", &err), ERR_INVALID);
}

/* Bytes cut or changed anywhere are refused or read as another valid config: no crash (sanitizers). */
static void test_damaged_bytes(void **state)
{
	(void)state;
	const char *whole =
		LLAMA ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5},\"eos_token_id\":[1,2]}";
	size_t n = strlen(whole);
	struct model_config c;
	struct err err;
	char *copy = malloc(n + 1);
	for (size_t cut = 0; cut < n; cut++) {
		memcpy(copy, whole, n + 1);
		copy[cut] = '\0';
		assert_int_equal(parse(&c, copy, NULL, &err), ERR_INVALID);
	}
	for (size_t at = 0; at < n; at++) {
		for (int bit = 0; bit < 8; bit++) {
			memcpy(copy, whole, n + 1);
			copy[at] = (char)(copy[at] ^ 1 << bit);
			int code = parse(&c, copy, "{\"eos_token_id\":3}", &err);
			assert_true(code == 0 || err.text[0] != '\0');
			assert_true(code != 0 ||
			            (c.dim > 0 && c.dim <= MODEL_DIM_MAX && c.vocab_size <= MODEL_VOCAB_MAX));
		}
	}
	free(copy);
}

static void test_write_reads_back(void **state)
{
	(void)state;
	struct model_config shapes[6] = {random_model_small(), random_model_small(), random_model_small(),
	                                 random_model_small(), random_model_small(), random_model_small()};
	shapes[1].tied = false;
	shapes[1].qkv_bias = true;
	strcpy(shapes[1].model_type, "qwen2");
	shapes[1].rope_theta = 1e6;
	shapes[1].rms_eps = 1e-6f;
	shapes[1].n_eos = 2;
	shapes[1].eos_ids[1] = 5;
	shapes[2].qk_norm = true;
	strcpy(shapes[2].model_type, "qwen3");
	shapes[2].head_dim = 32;
	shapes[2].bos_id = -1;
	shapes[2].n_eos = 0;
	shapes[2].eos_ids[0] = 0;
	shapes[2].rope_scaling = ROPE_LINEAR;
	shapes[2].rope_factor = 2.5;
	shapes[3].rope_scaling = ROPE_LLAMA3;
	shapes[3].rope_factor = 8;
	shapes[3].rope_low_freq_factor = 1;
	shapes[3].rope_high_freq_factor = 4;
	shapes[3].rope_original_context = 8192;
	shapes[4].qkv_bias = shapes[4].o_bias = shapes[4].mlp_bias = true;
	strcpy(shapes[5].model_type, "mistral"); /* whose window is 4096 where the file does not say */
	shapes[5].max_context = 16384;
	shapes[5].rope_scaling = ROPE_YARN;
	shapes[5].rope_factor = 4;
	shapes[5].rope_original_context = 4096;
	shapes[5].rope_beta_fast = 16;
	shapes[5].rope_beta_slow = 2;
	shapes[5].rope_mscale = 0.7;
	shapes[5].rope_mscale_all_dim = 1.25;
	shapes[5].rope_exact_ramp = true;
	for (int i = 0; i < 6; i++) {
		struct model_config back;
		struct err err = {0};
		char dir[MODEL_DIR_PATH_MAX];
		model_dir_make(dir);
		if (model_config_write(&shapes[i], dir, &err) || model_config_read(&back, dir, &err))
			fail_msg("%s", err.text);
		assert_true(model_config_same_shape(&shapes[i], &back));
		assert_string_equal(back.model_type, shapes[i].model_type);
		assert_int_equal(back.max_context, shapes[i].max_context);
		assert_int_equal(back.bos_id, shapes[i].bos_id);
		assert_int_equal(back.n_eos, shapes[i].n_eos);
		assert_memory_equal(back.eos_ids, shapes[i].eos_ids, sizeof back.eos_ids);
		model_dir_remove(dir);
	}
}

static void test_read_missing(void **state)
{
	(void)state;
	struct model_config c;
	struct err err;
	assert_int_equal(model_config_read(&c, "no/such/folder", &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "no/such/folder/config.json"));
}

static void test_same_shape(void **state)
{
	(void)state;
	struct model_config a = random_model_small(), b = a;
	b.max_context *= 2;
	b.n_eos = 0;
	assert_true(model_config_same_shape(&a, &b));
	b.ffn_dim++;
	assert_false(model_config_same_shape(&a, &b));
	b = a;
	b.rope_theta = 5;
	assert_false(model_config_same_shape(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_llama),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_families),
		cmocka_unit_test(test_published),
		cmocka_unit_test(test_biases),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_generation_config_wins),
		cmocka_unit_test(test_rope),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_size_bounds),
		cmocka_unit_test(test_damaged_bytes),
		cmocka_unit_test(test_write_reads_back),
		cmocka_unit_test(test_read_missing),
		cmocka_unit_test(test_same_shape),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
