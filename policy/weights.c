/* weights.c - the canonical order of a model's tensors, and the flat BF16 buffer that holds them. */
#include "policy/weights.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/weights_files.h"

static void append(struct weights *weights, int rows, int cols, int n_dims, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

static void append(struct weights *weights, int rows, int cols, int n_dims, const char *format, ...)
{
	struct weight_tensor *tensor = &weights->tensors[weights->n_tensors++];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(tensor->name, sizeof tensor->name, format, arguments);
	va_end(arguments);
	tensor->rows = rows;
	tensor->cols = cols;
	tensor->n_dims = n_dims;
	tensor->offset = weights->n_elements;
	weights->n_elements += (size_t)rows * (size_t)cols;
}

static void append_layer(struct weights *weights, int layer)
{
	const struct model_config *c = &weights->config;
	int q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
	append(weights, 1, c->dim, 1, "model.layers.%d.input_layernorm.weight", layer);
	append(weights, q_dim, c->dim, 2, "model.layers.%d.self_attn.q_proj.weight", layer);
	append(weights, kv_dim, c->dim, 2, "model.layers.%d.self_attn.k_proj.weight", layer);
	append(weights, kv_dim, c->dim, 2, "model.layers.%d.self_attn.v_proj.weight", layer);
	if (c->qkv_bias) {
		append(weights, 1, q_dim, 1, "model.layers.%d.self_attn.q_proj.bias", layer);
		append(weights, 1, kv_dim, 1, "model.layers.%d.self_attn.k_proj.bias", layer);
		append(weights, 1, kv_dim, 1, "model.layers.%d.self_attn.v_proj.bias", layer);
	}
	if (c->qk_norm) {
		append(weights, 1, c->head_dim, 1, "model.layers.%d.self_attn.q_norm.weight", layer);
		append(weights, 1, c->head_dim, 1, "model.layers.%d.self_attn.k_norm.weight", layer);
	}
	append(weights, c->dim, q_dim, 2, "model.layers.%d.self_attn.o_proj.weight", layer);
	if (c->o_bias) append(weights, 1, c->dim, 1, "model.layers.%d.self_attn.o_proj.bias", layer);
	append(weights, 1, c->dim, 1, "model.layers.%d.post_attention_layernorm.weight", layer);
	append(weights, c->ffn_dim, c->dim, 2, "model.layers.%d.mlp.gate_proj.weight", layer);
	append(weights, c->ffn_dim, c->dim, 2, "model.layers.%d.mlp.up_proj.weight", layer);
	append(weights, c->dim, c->ffn_dim, 2, "model.layers.%d.mlp.down_proj.weight", layer);
	if (!c->mlp_bias) return;
	append(weights, 1, c->ffn_dim, 1, "model.layers.%d.mlp.gate_proj.bias", layer);
	append(weights, 1, c->ffn_dim, 1, "model.layers.%d.mlp.up_proj.bias", layer);
	append(weights, 1, c->dim, 1, "model.layers.%d.mlp.down_proj.bias", layer);
}

void weights_layout(struct weights *weights, const struct model_config *config)
{
	int per_layer = 9 + (config->qkv_bias ? 3 : 0) + (config->qk_norm ? 2 : 0) + (config->o_bias ? 1 : 0) +
	                (config->mlp_bias ? 3 : 0);
	int expected = 2 + (config->tied ? 0 : 1) + config->n_layers * per_layer;
	memset(weights, 0, sizeof *weights);
	weights->config = *config;
	weights->tensors = xcalloc((unsigned long)expected, sizeof *weights->tensors);
	append(weights, config->vocab_size, config->dim, 2, "model.embed_tokens.weight");
	for (int layer = 0; layer < config->n_layers; layer++) append_layer(weights, layer);
	append(weights, 1, config->dim, 1, "model.norm.weight");
	if (!config->tied) append(weights, config->vocab_size, config->dim, 2, "lm_head.weight");
	assert(weights->n_tensors == expected);
}

void weights_alloc(struct weights *weights, const struct model_config *config)
{
	weights_layout(weights, config);
	weights->data = xaligned(weights->n_elements * sizeof *weights->data);
	memset(weights->data, 0, weights->n_elements * sizeof *weights->data);
}

int weights_find(const struct weights *weights, const char *name)
{
	for (int i = 0; i < weights->n_tensors; i++)
		if (strcmp(weights->tensors[i].name, name) == 0) return i;
	return -1;
}

bool weights_finite(const uint16_t *bf16, size_t n)
{
	uint16_t n_bad = 0; /* as wide as what is looked at: the loop is one of vectors */
	for (size_t i = 0; i < n; i++) n_bad |= (uint16_t)((bf16[i] & 0x7f80u) == 0x7f80u);
	return n_bad == 0;
}

int weights_find_nonfinite(const struct weights *weights)
{
	assert(weights->data);
	for (int i = 0; i < weights->n_tensors; i++) {
		const struct weight_tensor *tensor = &weights->tensors[i];
		if (!weights_finite(weights->data + tensor->offset, (size_t)tensor->rows * (size_t)tensor->cols)) return i;
	}
	return -1;
}

const uint16_t *weights_rows(const struct weights *weights, int tensor, int row, int n_rows, uint16_t *scratch)
{
	const struct weight_tensor *t = &weights->tensors[tensor];
	assert(row >= 0 && n_rows >= 0 && row + n_rows <= t->rows);
	if (weights->data) return weights->data + t->offset + (size_t)row * (size_t)t->cols;
	return weights_files_read(weights->files, tensor, (size_t)row * (size_t)t->cols,
	                          (size_t)n_rows * (size_t)t->cols, scratch);
}

const char *weights_dtype(const struct weights *weights, int tensor)
{
	return weights->files ? weights_files_dtype(weights->files, tensor) : "BF16";
}

void weights_release(const struct weights *weights, int tensor, int row, int n_rows)
{
	size_t cols = (size_t)weights->tensors[tensor].cols;
	if (weights->files) weights_files_release(weights->files, tensor, (size_t)row * cols, (size_t)n_rows * cols);
}

void weights_free(struct weights *weights)
{
	weights_files_close(weights->files);
	free(weights->tensors);
	free(weights->data);
	memset(weights, 0, sizeof *weights);
}
