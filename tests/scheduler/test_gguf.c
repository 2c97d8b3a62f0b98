/* test_gguf.c - `drumroll bench gguf`: the file is what llama.cpp's loader expects, byte for byte as gguf.md says, and
 * holds the model's weights: BF16 as they are, Q4_0 as the int4 drafter has them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "policy/policy.h"
#include "policy/rope.h"
#include "quant/bf16.h"
#include "scheduler/bench/bench.h"
#include "scheduler/bench/gguf.h"
#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"

enum { KEYS_MAX = 64, TENSORS_MAX = 64, NAME = 80 };

struct key {
	char name[NAME], text[NAME];
	uint32_t type, number;
	float real;
};

struct tensor {
	char name[NAME];
	uint32_t n_dims, type;
	uint64_t dims[2], offset;
};

struct file {
	char dir[MODEL_DIR_PATH_MAX];
	unsigned char *bytes, *data;
	size_t n_bytes, at;
	struct key keys[KEYS_MAX];
	struct tensor tensors[TENSORS_MAX];
	uint64_t n_keys, n_tensors;
};

/* ---- a reader of its own ---- */

static void take(struct file *f, void *to, size_t n)
{
	assert_true(f->at + n <= f->n_bytes);
	memcpy(to, f->bytes + f->at, n);
	f->at += n;
}

static void take_text(struct file *f, char to[NAME])
{
	uint64_t n;
	take(f, &n, sizeof n);
	assert_true(n < NAME);
	take(f, to, n);
	to[n] = '\0';
}

static void parse(struct file *f)
{
	uint32_t version;
	assert_memory_equal(f->bytes, "GGUF", 4);
	f->at = 4;
	take(f, &version, sizeof version);
	assert_int_equal(version, 3);
	take(f, &f->n_tensors, sizeof f->n_tensors);
	take(f, &f->n_keys, sizeof f->n_keys);
	assert_true(f->n_keys <= KEYS_MAX && f->n_tensors <= TENSORS_MAX);
	for (uint64_t i = 0; i < f->n_keys; i++) {
		struct key *k = &f->keys[i];
		take_text(f, k->name);
		take(f, &k->type, sizeof k->type);
		if (k->type == 4) take(f, &k->number, 4);
		else if (k->type == 6) take(f, &k->real, 4);
		else if (k->type == 8) take_text(f, k->text);
		else fail_msg("key %s has type %u", k->name, k->type);
	}
	for (uint64_t i = 0; i < f->n_tensors; i++) {
		struct tensor *t = &f->tensors[i];
		take_text(f, t->name);
		take(f, &t->n_dims, sizeof t->n_dims);
		assert_true(t->n_dims == 1 || t->n_dims == 2);
		t->dims[1] = 1;
		take(f, t->dims, 8 * t->n_dims);
		take(f, &t->type, sizeof t->type);
		take(f, &t->offset, sizeof t->offset);
	}
	f->data = f->bytes + (f->at + 31) / 32 * 32;
}

static size_t tensor_bytes(const struct tensor *t)
{
	size_t n = t->dims[0] * t->dims[1];
	return t->type == GGUF_F32 ? 4 * n : t->type == GGUF_BF16 ? 2 * n : n / 32 * 18;
}

/* One after the other on lines of 32 bytes, to the end of the file. */
static void assert_laid_out(const struct file *f)
{
	uint64_t at = 0;
	for (uint64_t i = 0; i < f->n_tensors; i++) {
		assert_int_equal(f->tensors[i].offset, at);
		at += (tensor_bytes(&f->tensors[i]) + 31) / 32 * 32;
	}
	assert_int_equal((size_t)(f->data - f->bytes) + at, f->n_bytes);
}

static const struct tensor *find(const struct file *f, const char *name)
{
	for (uint64_t i = 0; i < f->n_tensors; i++)
		if (strcmp(f->tensors[i].name, name) == 0) return &f->tensors[i];
	fail_msg("no tensor %s", name);
	return NULL;
}

static const struct key *find_key(const struct file *f, const char *name)
{
	for (uint64_t i = 0; i < f->n_keys; i++)
		if (strcmp(f->keys[i].name, name) == 0) return &f->keys[i];
	fail_msg("no key %s", name);
	return NULL;
}

/* ---- models ---- */

/* Returns what the command does; f->bytes only after 0. */
static int export(struct file *f, const struct model_config *config, const char *format, struct err *err)
{
	char out[MODEL_DIR_PATH_MAX + 16];
	*f = (struct file){0};
	model_dir_make(f->dir);
	assert_int_equal(random_model_save(f->dir, config, 5, err), 0);
	snprintf(out, sizeof out, "%s/out.gguf", f->dir);
	char *argv[] = {"gguf", "--model", f->dir, "--format", (char *)(uintptr_t)format, "--out", out};
	int rc = bench_gguf(sizeof argv / sizeof *argv, argv, err);
	if (rc) return rc;
	f->bytes = model_dir_get(f->dir, "out.gguf", &f->n_bytes);
	parse(f);
	assert_laid_out(f);
	return 0;
}

static void must_export(struct file *f, const struct model_config *config, const char *format)
{
	struct err err;
	if (export(f, config, format, &err)) fail_msg("%s", err.text);
}

static void file_close(struct file *f)
{
	model_dir_remove(f->dir);
	free(f->bytes);
}

static float bf16_at(const struct file *f, const struct tensor *t, size_t index)
{
	uint16_t h;
	memcpy(&h, f->data + t->offset + 2 * index, 2);
	return bf16_to_f32(h);
}

/* F16 by its definition. */
static float f16_value(uint16_t h)
{
	int exponent = h >> 10 & 31, mantissa = h & 1023;
	float value = exponent ? ldexpf((float)(1024 + mantissa), exponent - 25) : ldexpf((float)mantissa, -24);
	return h & 0x8000 ? -value : value;
}

/* Q4_0 by its definition. */
static float q4_0_at(const struct file *f, const struct tensor *t, size_t index)
{
	struct gguf_q4_0 block;
	size_t i = index % 32;
	memcpy(&block, f->data + t->offset + index / 32 * sizeof block, sizeof block);
	int nibble = i < 16 ? block.q[i] & 15 : block.q[i - 16] >> 4;
	return f16_value(block.d) * (float)(nibble - 8);
}

/* Interleaved pairs as in llama.cpp: row 2 i + h of a head is row i + h D/2 of ours. */
static size_t rotated_row(size_t row, size_t head_dim)
{
	size_t within = row % head_dim;
	return row - within + within / 2 + within % 2 * (head_dim / 2);
}

static void bf16_llama(void **state)
{
	(void)state;
	struct file f;
	struct weights w;
	struct model_config config = random_model_small();
	must_export(&f, &config, "bf16");
	random_model(&w, &config, 5);
	assert_string_equal(find_key(&f, "general.architecture")->text, "llama");
	assert_int_equal(find_key(&f, "llama.vocab_size")->number, config.vocab_size);
	assert_int_equal(find_key(&f, "llama.attention.head_count_kv")->number, config.n_kv_heads);
	assert_int_equal(find_key(&f, "llama.feed_forward_length")->number, config.ffn_dim);
	assert_true(find_key(&f, "llama.attention.layer_norm_rms_epsilon")->real == config.rms_eps);
	assert_true(find_key(&f, "llama.rope.freq_base")->real == 10000.0f);
	assert_int_equal(f.n_tensors, w.n_tensors); /* tied: no output.weight */

	static const char *const pairs[][2] = {
		{"token_embd.weight", "model.embed_tokens.weight"}, {"blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"},
		{"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"},
		{"blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight"},
		{"blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"},
		{"blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight"},
	};
	for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
		const struct tensor *t = find(&f, pairs[p][0]);
		const struct weight_tensor *own = &w.tensors[weights_find(&w, pairs[p][1])];
		bool rotated = strstr(pairs[p][0], "attn_q.") || strstr(pairs[p][0], "attn_k.");
		assert_int_equal(t->type, GGUF_BF16);
		assert_int_equal(t->dims[0], own->cols);
		assert_int_equal(t->dims[1], own->rows);
		for (size_t row = 0; row < (size_t)own->rows; row++) {
			size_t from = rotated ? rotated_row(row, (size_t)config.head_dim) : row, cols = (size_t)own->cols;
			for (size_t c = 0; c < cols; c++)
				if (bf16_at(&f, t, row * cols + c) != bf16_to_f32(w.data[own->offset + from * cols + c]))
					fail_msg("%s: weight %zu of row %zu differs", pairs[p][0], c, row);
		}
	}
	const struct tensor *norm = find(&f, "blk.1.ffn_norm.weight");
	const struct weight_tensor *own = &w.tensors[weights_find(&w, "model.layers.1.post_attention_layernorm.weight")];
	assert_int_equal(norm->type, GGUF_F32);
	for (size_t i = 0; i < (size_t)config.dim; i++) {
		float value;
		memcpy(&value, f.data + norm->offset + 4 * i, 4);
		assert_true(value == bf16_to_f32(w.data[own->offset + i]));
	}
	weights_free(&w);
	file_close(&f);
}

/* Every weight of some matrices is the drafter's, and close to the target's. */
static void q4_0_is_the_drafter(void **state)
{
	(void)state;
	struct file f;
	struct weights w;
	struct policy *policy;
	struct err err;
	struct model_config config = random_model_small();
	struct draft_options draft = {.format = FORMAT_INT4, .head_format = FORMAT_INT4, .quantizer = QUANTIZE_SEARCH};

	must_export(&f, &config, "q4_0");
	random_model(&w, &config, 5);
	assert_int_equal(policy_create(&policy, &w, 0, &draft, 1, &err), 0);
	assert_int_equal(f.n_tensors, w.n_tensors + 1); /* the tied head beside the embedding */
	assert_int_equal(find(&f, "token_embd.weight")->type, GGUF_BF16);
	const struct { const char *name; const struct linear *linear; int rows, source; } of[] = {
		{"output.weight", &policy->head, config.vocab_size, weights_find(&w, "model.embed_tokens.weight")},
		{"blk.1.ffn_down.weight", &policy->layers[1].down, config.dim, weights_find(&w, "model.layers.1.mlp.down_proj.weight")},
		{"blk.0.ffn_gate.weight", &policy->layers[0].gate_up, config.ffn_dim, weights_find(&w, "model.layers.0.mlp.gate_proj.weight")},
	};
	for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
		const struct tensor *t = find(&f, of[i].name);
		const uint16_t *target = w.data + w.tensors[of[i].source].offset;
		double error = 0, power = 0;
		int k = of[i].linear->k;
		assert_int_equal(t->type, GGUF_Q4_0);
		assert_int_equal(t->dims[1], of[i].rows);
		for (int row = 0; row < of[i].rows; row++) {
			for (int c = 0; c < k; c++) {
				float got = q4_0_at(&f, t, (size_t)row * (size_t)k + (size_t)c);
				double exact = (double)bf16_to_f32(target[(size_t)row * (size_t)k + (size_t)c]);
				if (got != format_weight(&of[i].linear->draft, row, c)) fail_msg("%s: %d, %d differs", of[i].name, row, c);
				error += (exact - (double)got) * (exact - (double)got);
				power += exact * exact;
			}
		}
		assert_true(sqrt(error / power) < 0.12); /* of normal weights; wrong nibbles are 1 and more */
	}
	policy_free(policy);
	weights_free(&w);
	file_close(&f);
}

static void qwen2_has_biases_and_plain_rows(void **state)
{
	(void)state;
	struct file f;
	struct weights w;
	struct model_config config = random_model_small();
	snprintf(config.model_type, sizeof config.model_type, "qwen2");
	config.qkv_bias = true;
	must_export(&f, &config, "bf16");
	random_model(&w, &config, 5);
	assert_string_equal(find_key(&f, "general.architecture")->text, "qwen2");
	const struct tensor *q = find(&f, "blk.0.attn_q.weight"), *bias = find(&f, "blk.0.attn_q.bias");
	const struct weight_tensor *own = &w.tensors[weights_find(&w, "model.layers.0.self_attn.q_proj.weight")];
	assert_memory_equal(f.data + q->offset, w.data + own->offset, tensor_bytes(q));
	assert_int_equal(bias->type, GGUF_F32);
	assert_int_equal(bias->dims[0], config.n_heads * config.head_dim);
	weights_free(&w);
	file_close(&f);
}

/* llama.cpp divides the plain frequencies by these. */
static void llama3_rotation(void **state)
{
	(void)state;
	struct file f;
	float plain[64], scaled[64], factor;
	struct model_config config = random_model_small();
	rope_frequencies(plain, &config);
	config.rope_scaling = ROPE_LLAMA3;
	config.rope_factor = 8;
	config.rope_low_freq_factor = 1;
	config.rope_high_freq_factor = 4;
	config.rope_original_context = 64;
	must_export(&f, &config, "bf16");
	rope_frequencies(scaled, &config);
	const struct tensor *t = find(&f, "rope_freqs.weight");
	assert_int_equal(t->dims[0], config.head_dim / 2);
	for (size_t i = 0; i < (size_t)config.head_dim / 2; i++) {
		memcpy(&factor, f.data + t->offset + 4 * i, 4);
		assert_true(fabsf(plain[i] / factor - scaled[i]) <= 1e-6f * scaled[i]);
	}
	assert_true(factor > 7.99f); /* the slowest pair is stretched in full */
	file_close(&f);
}

static void refuses_what_would_not_load(void **state)
{
	(void)state;
	struct file f;
	struct err err;
	struct model_config config = random_model_config(48, 1, 4, 2, 100, 96, 256);
	assert_int_equal(export(&f, &config, "q4_0", &err), ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "multiples of 32"));
	assert_int_equal(model_dir_count(f.dir), 3); /* config, generation config, weights: nothing half written */
	file_close(&f);
	config = random_model_small();
	snprintf(config.model_type, sizeof config.model_type, "qwen2");
	config.o_bias = config.qkv_bias = true;
	assert_int_equal(export(&f, &config, "bf16", &err), ERR_UNSUPPORTED);
	file_close(&f);
}

/* All F16 numbers come back; between two of them the nearer, or the even one. */
static void f16_rounds(void **state)
{
	(void)state;
	for (uint32_t h = 0; h < 0x7c00; h++) {
		float value = f16_value((uint16_t)h), next = f16_value((uint16_t)(h + 1));
		assert_int_equal(f16_from_f32(value), h);
		assert_int_equal(f16_from_f32(-value), h | 0x8000);
		if (h + 1 == 0x7c00) break;
		float middle = 0.5f * (value + next);
		assert_int_equal(f16_from_f32(middle), h + (h & 1));
		assert_int_equal(f16_from_f32(nextafterf(middle, 0)), h);
		assert_int_equal(f16_from_f32(nextafterf(middle, 1e9f)), h + 1);
	}
	assert_int_equal(f16_from_f32(65519.0f), 0x7bff);
	assert_int_equal(f16_from_f32(65520.0f), 0x7c00);
	assert_int_equal(f16_from_f32(1e-30f), 0);
	assert_true((f16_from_f32(NAN) & 0x7fff) > 0x7c00);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bf16_llama),
		cmocka_unit_test(q4_0_is_the_drafter),
		cmocka_unit_test(qwen2_has_biases_and_plain_rows),
		cmocka_unit_test(llama3_rotation),
		cmocka_unit_test(refuses_what_would_not_load),
		cmocka_unit_test(f16_rounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
