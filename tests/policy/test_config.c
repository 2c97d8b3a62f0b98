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
		{LLAMA ",\"attention_bias\":true}", ERR_UNSUPPORTED, "attention_bias"},
		{LLAMA ",\"mlp_bias\":true}", ERR_UNSUPPORTED, "mlp_bias"},
		{LLAMA ",\"sliding_window\":128}", ERR_UNSUPPORTED, "sliding_window"},
		{LLAMA ",\"use_sliding_window\":true}", ERR_UNSUPPORTED, "use_sliding_window"},
		{LLAMA ",\"partial_rotary_factor\":0.5}", ERR_UNSUPPORTED, "partial_rotary_factor"},
		{LLAMA ",\"quantization_config\":{\"bits\":4}}", ERR_UNSUPPORTED, "bits"},
		{LLAMA ",\"layer_types\":[\"sliding_attention\"]}", ERR_UNSUPPORTED, "sliding_attention"},
		{LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}", ERR_UNSUPPORTED, "yarn"},
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
	struct model_config shapes[4] = {random_model_small(), random_model_small(), random_model_small(),
	                                 random_model_small()};
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
	for (int i = 0; i < 4; i++) {
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
