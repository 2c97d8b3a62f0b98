/* test_weights.c - a model directory saved, loaded, sharded, converted and damaged. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "policy/file.h"
#include "policy/policy.h"
#include "policy/weights.h"
#include "quant/bf16.h"
#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"

/* Small enough that every damage can be tried. */
static struct model_config tiny(void) { return random_model_config(4, 1, 2, 1, 6, 5, 16); }

static void assert_same_weights(const struct weights *a, const struct weights *b)
{
	assert_true(model_config_same_shape(&a->config, &b->config));
	assert_int_equal(a->n_tensors, b->n_tensors);
	assert_int_equal(a->n_elements, b->n_elements);
	assert_memory_equal(a->data, b->data, a->n_elements * sizeof *a->data);
}

static void test_layout(void **state)
{
	(void)state;
	struct model_config c = random_model_small();
	struct weights weights;
	c.tied = false;
	c.qkv_bias = true;
	c.qk_norm = true;
	c.o_bias = c.mlp_bias = true;
	weights_layout(&weights, &c);
	assert_null(weights.data);
	assert_int_equal(weights.n_tensors, 3 + 2 * 18);
	assert_string_equal(weights.tensors[0].name, "model.embed_tokens.weight");
	assert_string_equal(weights.tensors[1].name, "model.layers.0.input_layernorm.weight");
	assert_string_equal(weights.tensors[weights.n_tensors - 2].name, "model.norm.weight");
	assert_string_equal(weights.tensors[weights.n_tensors - 1].name, "lm_head.weight");
	size_t expected = 0;
	for (int i = 0; i < weights.n_tensors; i++) {
		assert_int_equal(weights.tensors[i].offset, expected);
		assert_int_equal(weights_find(&weights, weights.tensors[i].name), i);
		expected += (size_t)weights.tensors[i].rows * (size_t)weights.tensors[i].cols;
	}
	assert_int_equal(weights.n_elements, expected);
	assert_int_equal(weights_find(&weights, "model.layers.2.input_layernorm.weight"), -1);
	int q = weights_find(&weights, "model.layers.1.self_attn.q_proj.weight");
	assert_string_equal(weights.tensors[q + 1].name, "model.layers.1.self_attn.k_proj.weight");
	assert_string_equal(weights.tensors[q + 2].name, "model.layers.1.self_attn.v_proj.weight");
	weights_free(&weights);
}

static void test_save_load(void **state)
{
	(void)state;
	struct model_config shapes[3] = {random_model_small(), random_model_small(), tiny()};
	shapes[1].tied = false;
	shapes[1].qkv_bias = true;
	strcpy(shapes[1].model_type, "qwen2");
	for (int i = 0; i < 3; i++) {
		struct weights saved, loaded;
		struct err err = {0};
		char dir[MODEL_DIR_PATH_MAX];
		model_dir_make(dir);
		random_model(&saved, &shapes[i], 5);
		if (weights_save(&saved, dir, &err) || weights_load(&loaded, dir, &err)) fail_msg("%s", err.text);
		assert_same_weights(&saved, &loaded);
		assert_int_equal(model_dir_count(dir), 3); /* weights and two configs: nothing left beside them */
		weights_free(&saved);
		weights_free(&loaded);
		model_dir_remove(dir);
	}
}

/* ---- packed from the files ---- */

static void assert_same_linear(const struct linear *a, const struct linear *b)
{
	assert_true(a->n == b->n && a->k == b->k && !a->bias == !b->bias && !a->draft.q == !b->draft.q);
	assert_memory_equal(a->target, b->target, packed_bf16_elements(a->n, a->k) * sizeof *a->target);
	if (a->bias) assert_memory_equal(a->bias, b->bias, (size_t)a->n * sizeof *a->bias);
	for (int o = 0; o < a->n && a->draft.q; o++)
		for (int i = 0; i < a->k; i++)
			assert_true(format_weight(&a->draft, o, i) == format_weight(&b->draft, o, i));
}

static void assert_same_norm(const uint16_t *a, const uint16_t *b, int n)
{
	assert_true(!a == !b);
	if (a) assert_memory_equal(a, b, (size_t)n * sizeof *a);
}

static void assert_same_policy(const struct policy *a, const struct policy *b)
{
	const struct model_config *c = &a->config;
	assert_true(model_config_same_shape(c, &b->config));
	assert_int_equal(a->bytes, b->bytes);
	assert_true(!a->embedding == (bool)c->tied && !b->embedding == (bool)c->tied);
	if (a->embedding)
		assert_memory_equal(a->embedding, b->embedding, (size_t)c->vocab_size * (size_t)c->dim * sizeof *a->embedding);
	assert_same_norm(a->final_norm, b->final_norm, c->dim);
	assert_same_linear(&a->head, &b->head);
	for (int i = 0; i < c->n_layers; i++) {
		const struct layer *x = &a->layers[i], *y = &b->layers[i];
		assert_same_norm(x->attention_norm, y->attention_norm, c->dim);
		assert_same_norm(x->ffn_norm, y->ffn_norm, c->dim);
		assert_same_norm(x->q_norm, y->q_norm, c->head_dim);
		assert_same_norm(x->k_norm, y->k_norm, c->head_dim);
		assert_same_linear(&x->qkv, &y->qkv);
		assert_same_linear(&x->o, &y->o);
		assert_same_linear(&x->gate_up, &y->gate_up);
		assert_same_linear(&x->down, &y->down);
	}
}

/* Families with everything, widths that cut panels apart: the same bytes as by way of the flat buffer, and
 * as many as foretold. */
static void test_pack_from_files(void **state)
{
	(void)state;
	static const struct draft_options drafts[] = {
		{.format = FORMAT_INT4, .head_format = FORMAT_INT4},
		{.format = FORMAT_NVFP4, .head_format = FORMAT_BF16},
		{.format = FORMAT_INT4M_G64, .head_format = FORMAT_INT8},
	};
	for (int shape = 0; shape < 4; shape++) {
		struct model_config c = random_model_config(72, 2, 9, 3, 150, 97, 64);
		char dir[MODEL_DIR_PATH_MAX];
		struct err err = {0};
		c.tied = shape % 2 == 0;
		if (shape == 1) c.qkv_bias = c.o_bias = c.mlp_bias = true;
		if (shape == 2) strcpy(c.model_type, "qwen3"), c.qk_norm = true, c.head_dim = 6;
		if (shape == 3) strcpy(c.model_type, "qwen2"), c.qkv_bias = true;
		model_dir_make(dir);
		if (random_model_save(dir, &c, 40 + (uint64_t)shape, &err)) fail_msg("%s", err.text);
		for (int d = 0; d < 4; d++) {
			const struct draft_options *draft = d < 3 ? &drafts[d] : NULL;
			struct policy *flat, *straight;
			struct weights weights;
			if (weights_load(&weights, dir, &err) || policy_create(&flat, &weights, 0, draft, 1, &err) ||
			    policy_load(&straight, dir, draft, 1 + d, &err))
				fail_msg("%s", err.text);
			assert_same_policy(flat, straight);
			assert_true((double)straight->bytes == policy_bytes(&c, draft));
			policy_free(flat);
			policy_free(straight);
			weights_free(&weights);
		}
		model_dir_remove(dir);
	}
}

/* A tied model's embedding is read out of its head. */
static void test_embed(void **state)
{
	(void)state;
	for (int tied = 0; tied <= 1; tied++) {
		struct model_config c = random_model_config(36, 1, 2, 1, 20, 41, 16);
		struct weights weights;
		struct policy *policy;
		struct err err;
		float row[36];
		c.tied = tied;
		random_model(&weights, &c, 3);
		assert_int_equal(policy_create(&policy, &weights, 0, NULL, 1, &err), 0);
		for (int token = 0; token < c.vocab_size; token++) {
			policy_embed(policy, token, row);
			for (int i = 0; i < c.dim; i++) assert_true(row[i] == bf16_to_f32(weights.data[token * c.dim + i]));
		}
		policy_free(policy);
		weights_free(&weights);
	}
}

static void test_save_refused(void **state)
{
	(void)state;
	struct model_config c = tiny();
	struct err err = {0};
	assert_int_equal(random_model_save("no/such/folder", &c, 1, &err), ERR_IO);
	assert_non_null(strstr(err.text, "no/such/folder"));
}

/* A safetensors file written by hand: the tensors of a layout in one dtype, from float values. */
struct hand {
	char header[16384];
	unsigned char data[65536];
	size_t header_bytes, data_bytes;
};

static uint16_t f16_from_f32(float value) /* exact for the values used here */
{
	uint32_t u;
	memcpy(&u, &value, sizeof u);
	if (value == 0.0f) return (uint16_t)(u >> 16 & 0x8000u);
	if (fabsf(value) < 0x1p-14f) return (uint16_t)((u >> 16 & 0x8000u) | (uint32_t)(fabsf(value) * 0x1p24f));
	return (uint16_t)((u >> 16 & 0x8000u) | (((u >> 23 & 0xffu) - 112u) << 10) | (u >> 13 & 0x3ffu));
}

static void hand_add(struct hand *hand, const struct weight_tensor *tensor, const char *dtype,
                     const float *values)
{
	size_t n = (size_t)tensor->rows * (size_t)tensor->cols, size = strcmp(dtype, "F32") == 0 ? 4 : 2;
	char shape[64];
	if (tensor->n_dims == 2) snprintf(shape, sizeof shape, "[%d,%d]", tensor->rows, tensor->cols);
	else snprintf(shape, sizeof shape, "[%d]", tensor->cols);
	hand->header_bytes +=
		(size_t)snprintf(hand->header + hand->header_bytes, sizeof hand->header - hand->header_bytes,
	                     "%c\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
	                     hand->header_bytes == 0 ? '{' : ',', tensor->name, dtype, shape, hand->data_bytes,
	                     hand->data_bytes + n * size);
	for (size_t i = 0; i < n; i++, hand->data_bytes += size) {
		uint16_t half = strcmp(dtype, "F16") == 0 ? f16_from_f32(values[i]) : bf16_from_f32(values[i]);
		if (size == 4) memcpy(hand->data + hand->data_bytes, &values[i], 4);
		else memcpy(hand->data + hand->data_bytes, &half, 2);
	}
}

static void hand_put(struct hand *hand, const char *dir, const char *name)
{
	hand->header[hand->header_bytes++] = '}';
	size_t n = 8 + hand->header_bytes + hand->data_bytes;
	unsigned char *bytes = calloc(n, 1);
	memcpy(bytes, &hand->header_bytes, 8);
	memcpy(bytes + 8, hand->header, hand->header_bytes);
	memcpy(bytes + 8 + hand->header_bytes, hand->data, hand->data_bytes);
	model_dir_put(dir, name, bytes, n);
	free(bytes);
}

/* Values with ten significant bits: exact in F32 and F16, rounded by BF16; with F16 subnormals. */
static void tiny_values(float *values, size_t n)
{
	uint64_t random = 11;
	for (size_t i = 0; i < n; i++) {
		float mantissa = (float)((int)(random_bits(&random) % 2047) - 1023);
		values[i] = mantissa * (i % 7 == 0 ? 0x1p-24f : 0x1p-9f);
	}
}

static void load_dtype(const char *dtype)
{
	struct model_config c = tiny();
	struct weights loaded, layout;
	struct err err = {0};
	char dir[MODEL_DIR_PATH_MAX];
	static struct hand hand;
	memset(&hand, 0, sizeof hand);
	model_dir_make(dir);
	weights_layout(&layout, &c);
	float *values = calloc(layout.n_elements, sizeof *values);
	tiny_values(values, layout.n_elements);
	for (int i = layout.n_tensors - 1; i >= 0; i--) /* another order than ours */
		hand_add(&hand, &layout.tensors[i], dtype, values + layout.tensors[i].offset);
	hand_put(&hand, dir, "model.safetensors");
	if (model_config_write(&c, dir, &err) || weights_load(&loaded, dir, &err)) fail_msg("%s", err.text);
	for (size_t i = 0; i < layout.n_elements; i++) assert_int_equal(loaded.data[i], bf16_from_f32(values[i]));
	struct policy *flat, *straight;
	if (policy_create(&flat, &loaded, 0, NULL, 1, &err) || policy_load(&straight, dir, NULL, 2, &err))
		fail_msg("%s", err.text);
	assert_same_policy(flat, straight);
	policy_free(flat);
	policy_free(straight);
	weights_free(&loaded);
	weights_free(&layout);
	free(values);
	model_dir_remove(dir);
}

static void test_dtypes(void **state)
{
	(void)state;
	load_dtype("F32");
	load_dtype("F16");
	load_dtype("BF16");
}

/* The tensors spread over three files by an index. */
static void shards_put(const char *dir, const struct weights *layout, const float *values)
{
	static struct hand hands[3];
	char index[16384], name[64];
	int used = snprintf(index, sizeof index, "{\"metadata\":{},\"weight_map\":");
	memset(hands, 0, sizeof hands);
	for (int i = 0; i < layout->n_tensors; i++) {
		hand_add(&hands[i % 3], &layout->tensors[i], "F32", values + layout->tensors[i].offset);
		used += snprintf(index + used, sizeof index - (size_t)used, "%c\"%s\":\"part-%d.safetensors\"",
		                 i == 0 ? '{' : ',', layout->tensors[i].name, i % 3);
	}
	for (int s = 0; s < 3; s++) {
		snprintf(name, sizeof name, "part-%d.safetensors", s);
		hand_put(&hands[s], dir, name);
	}
	snprintf(index + used, sizeof index - (size_t)used, "}}");
	model_dir_put(dir, "model.safetensors.index.json", index, strlen(index));
}

static void test_shards(void **state)
{
	(void)state;
	struct model_config c = tiny();
	struct weights loaded, layout;
	struct err err = {0};
	char dir[MODEL_DIR_PATH_MAX], path[2 * MODEL_DIR_PATH_MAX];
	model_dir_make(dir);
	weights_layout(&layout, &c);
	float *values = calloc(layout.n_elements, sizeof *values);
	tiny_values(values, layout.n_elements);
	shards_put(dir, &layout, values);
	if (model_config_write(&c, dir, &err) || weights_load(&loaded, dir, &err)) fail_msg("%s", err.text);
	for (size_t i = 0; i < layout.n_elements; i++) assert_int_equal(loaded.data[i], bf16_from_f32(values[i]));
	weights_free(&loaded);

	/* A file with a second copy of a tensor: which one is meant cannot be told. */
	static struct hand twice;
	memset(&twice, 0, sizeof twice);
	for (int i = 0; i < 2; i++) hand_add(&twice, &layout.tensors[i], "F32", values + layout.tensors[i].offset);
	hand_put(&twice, dir, "part-0.safetensors");
	assert_int_equal(weights_load(&loaded, dir, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, layout.tensors[1].name));
	assert_non_null(strstr(err.text, "in part-"));

	snprintf(path, sizeof path, "%s/part-1.safetensors", dir);
	assert_int_equal(remove(path), 0);
	assert_int_equal(weights_load(&loaded, dir, &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "part-1.safetensors"));
	weights_free(&layout);
	free(values);
	model_dir_remove(dir);
}

static void test_hostile_index(void **state)
{
	(void)state;
	static const struct {
		const char *index;
		const char *says;
	} cases[] = {
		{"", "weight_map"},
		{"{}", "weight_map"},
		{"{\"weight_map\":[]}", "weight_map"},
		{"{\"weight_map\":{\"a\":1}}", "weight_map of a"},
		{"{\"weight_map\":{\"a\":\"../model.safetensors\"}}", "beside it"},
		{"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "beside it"},
		{"{\"weight_map\":{\"a\":\"..\"}}", "beside it"},
		{"{\"weight_map\":{\"a\":\"\"}}", "beside it"},
	};
	struct model_config c = tiny();
	char dir[MODEL_DIR_PATH_MAX];
	struct err err = {0};
	model_dir_make(dir);
	assert_int_equal(model_config_write(&c, dir, &err), 0);
	struct weights weights;
	assert_int_equal(weights_load(&weights, dir, &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "model.safetensors.index.json"));
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		model_dir_put(dir, "model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
		assert_int_equal(weights_load(&weights, dir, &err), ERR_INVALID);
		if (!strstr(err.text, cases[i].says)) fail_msg("case %zu says \"%s\"", i, err.text);
	}
	model_dir_remove(dir);
}

/* JSON files of a size that no model has are not parsed: the holes of a sparse one would take gigabytes. */
static void test_huge_json(void **state)
{
	(void)state;
	static const char *const names[] = {"model.safetensors.index.json", "generation_config.json", "config.json"};
	struct model_config c = tiny();
	char dir[MODEL_DIR_PATH_MAX], path[2 * MODEL_DIR_PATH_MAX];
	struct err err = {0};
	model_dir_make(dir);
	assert_int_equal(model_config_write(&c, dir, &err), 0);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct weights weights;
		model_dir_put(dir, names[i], "{}", 2);
		snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		assert_int_equal(truncate(path, FILE_JSON_BYTES_MAX + 1), 0);
		assert_int_equal(weights_load(&weights, dir, &err), ERR_TOO_BIG);
		assert_non_null(strstr(err.text, names[i]));
	}
	model_dir_remove(dir);
}

/* Save with one config, load with another: the message names the tensor, expected and found. */
static int load_as(const struct model_config *saved, const struct model_config *claimed, struct err *err)
{
	char dir[MODEL_DIR_PATH_MAX];
	struct weights weights;
	model_dir_make(dir);
	assert_int_equal(random_model_save(dir, saved, 1, err), 0);
	assert_int_equal(model_config_write(claimed, dir, err), 0);
	int code = weights_load(&weights, dir, err);
	if (code == 0) weights_free(&weights);
	else assert_true(weights.data == NULL && weights.tensors == NULL);
	model_dir_remove(dir);
	return code;
}

static void test_other_config(void **state)
{
	(void)state;
	struct err err = {0};
	struct model_config c = tiny(), other = c;
	other.ffn_dim = 7;
	assert_int_equal(load_as(&c, &other, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "model.layers.0.mlp.gate_proj.weight: expected shape [7, 4]"));
	assert_non_null(strstr(err.text, "found [6, 4]"));
	other = c;
	other.n_layers = 2;
	assert_int_equal(load_as(&c, &other, &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "model.layers.1.input_layernorm.weight"));
	assert_int_equal(load_as(&other, &c, &err), ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "model.layers.1."));
	other = c;
	other.tied = false;
	assert_int_equal(load_as(&c, &other, &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "tie_word_embeddings"));
	assert_int_equal(load_as(&other, &c, &err), 0); /* a tied model may carry its head twice */
	other = c;
	other.qkv_bias = true;
	strcpy(other.model_type, "qwen2");
	assert_int_equal(load_as(&other, &c, &err), ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "q_proj.bias"));
	other = c;
	other.n_layers = MODEL_LAYERS_MAX; /* what the config promises is not allocated before it is found */
	other.dim = MODEL_DIM_MAX;
	other.vocab_size = MODEL_VOCAB_MAX;
	other.head_dim = 2;
	assert_int_equal(load_as(&c, &other, &err), ERR_INVALID);
}

static void test_nonfinite(void **state)
{
	(void)state;
	static const uint16_t bad[] = {0x7f80, 0xff80, 0x7fc0, 0x7f81, 0xffff};
	struct model_config c = tiny();
	struct weights weights, loaded;
	struct err err = {0};
	char dir[MODEL_DIR_PATH_MAX];
	model_dir_make(dir);
	random_model(&weights, &c, 1);
	assert_int_equal(weights_find_nonfinite(&weights), -1);
	for (int i = 0; i < 15; i++) { /* every tensor, and its last number */
		int t = i % weights.n_tensors;
		uint16_t *last = &weights.data[weights.tensors[t].offset +
		                               (size_t)weights.tensors[t].rows * (size_t)weights.tensors[t].cols - 1];
		uint16_t kept = *last;
		*last = bad[i % 5];
		assert_int_equal(weights_find_nonfinite(&weights), t);
		assert_int_equal(weights_save(&weights, dir, &err), 0);
		assert_int_equal(weights_load(&loaded, dir, &err), ERR_INVALID);
		assert_non_null(strstr(err.text, weights.tensors[t].name));
		assert_non_null(strstr(err.text, "NaN"));
		struct policy *policy = NULL;
		const struct draft_options draft = {.format = i % 2 ? FORMAT_NVFP4 : FORMAT_INT4, .head_format = FORMAT_INT4};
		assert_int_equal(policy_load(&policy, dir, &draft, 2, &err), ERR_INVALID);
		assert_null(policy);
		assert_non_null(strstr(err.text, weights.tensors[t].name));
		assert_non_null(strstr(err.text, "NaN"));
		*last = kept;
	}
	weights_free(&weights);
	model_dir_remove(dir);
}

/* A truncated file at every length, and every bit of the header flipped: an error or a model. */
static void test_damaged_file(void **state)
{
	(void)state;
	struct model_config c = tiny();
	struct err err = {0};
	struct weights weights;
	char dir[MODEL_DIR_PATH_MAX];
	size_t n = 0;
	model_dir_make(dir);
	assert_int_equal(random_model_save(dir, &c, 1, &err), 0);
	unsigned char *bytes = model_dir_get(dir, "model.safetensors", &n);
	size_t step = n / 400 + 1;
	for (size_t cut = 0; cut < n; cut += cut < 64 || cut + 64 > n ? 1 : step) {
		model_dir_put(dir, "model.safetensors", bytes, cut);
		assert_int_equal(weights_load(&weights, dir, &err), ERR_INCOMPLETE);
		assert_non_null(strstr(err.text, "model.safetensors"));
	}
	for (size_t at = 0; at < 400; at++) {
		bytes[at] = (unsigned char)(bytes[at] ^ 1 << at % 8);
		model_dir_put(dir, "model.safetensors", bytes, n);
		err.text[0] = '\0';
		if (weights_load(&weights, dir, &err) == 0) weights_free(&weights);
		else assert_true(err.text[0] != '\0');
		bytes[at] = (unsigned char)(bytes[at] ^ 1 << at % 8);
	}
	free(bytes);
	model_dir_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_save_load),
		cmocka_unit_test(test_pack_from_files),
		cmocka_unit_test(test_embed),
		cmocka_unit_test(test_save_refused),
		cmocka_unit_test(test_dtypes),
		cmocka_unit_test(test_shards),
		cmocka_unit_test(test_hostile_index),
		cmocka_unit_test(test_huge_json),
		cmocka_unit_test(test_other_config),
		cmocka_unit_test(test_nonfinite),
		cmocka_unit_test(test_damaged_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
