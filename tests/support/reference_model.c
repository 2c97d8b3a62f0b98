/* reference_model.c - a decoder of the Llama, Qwen2 and Qwen3 layouts, from the published equations:
 * RMSNorm, rotary embedding (pairs i, i + d/2), grouped-query attention, SwiGLU.
 *
 * Written for reading, not speed: O(n^2) in the sequence, one multiplication at a time.
 */
#include "tests/support/reference_model.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double from_bf16(uint16_t half)
{
	union { uint32_t bits; float value; } word = {.bits = (uint32_t)half << 16};
	return word.value;
}

/* Nearest value with 8 significant bits, ties to even. */
static double round_to_bf16(double value)
{
	int exponent;
	if (value == 0.0) return value;
	frexp(value, &exponent);
	return ldexp(nearbyint(ldexp(value, 8 - exponent)), exponent - 8);
}

/* layer < 0: the name is whole. */
static const uint16_t *find(const struct weights *weights, int layer, const char *name)
{
	char whole[128];
	if (layer < 0) snprintf(whole, sizeof whole, "%s", name);
	else snprintf(whole, sizeof whole, "model.layers.%d.%s", layer, name);
	for (int i = 0; i < weights->n_tensors; i++)
		if (strcmp(weights->tensors[i].name, whole) == 0) return weights->data + weights->tensors[i].offset;
	return NULL;
}

static void rms_norm(double *y, const double *x, const uint16_t *weight, int n, double eps)
{
	double squares = 0.0;
	for (int i = 0; i < n; i++) squares += x[i] * x[i];
	for (int i = 0; i < n; i++) y[i] = x[i] / sqrt(squares / n + eps) * from_bf16(weight[i]);
}

/* y [n] = w [n][k] x (+ bias) */
static void multiply(double *y, const double *x, const uint16_t *w, const uint16_t *bias, int n, int k)
{
	for (int i = 0; i < n; i++) {
		y[i] = bias ? from_bf16(bias[i]) : 0.0;
		for (int j = 0; j < k; j++) y[i] += from_bf16(w[(size_t)i * (size_t)k + (size_t)j]) * x[j];
	}
}

/* The pair that turns so often within the original context (YaRN's defaults for all else). */
static double yarn_pair(const struct model_config *c, double turns)
{
	return c->head_dim * log(c->rope_original_context / (turns * 8.0 * atan(1.0))) / (2.0 * log(c->rope_theta));
}

static double rotation(const struct model_config *c, int pair, int position)
{
	const double two_pi = 8.0 * atan(1.0);
	double frequency = pow(c->rope_theta, -2.0 * pair / c->head_dim);
	if (c->rope_scaling == ROPE_LINEAR) return position * frequency / c->rope_factor;
	if (c->rope_scaling == ROPE_LLAMA3) {
		double wavelength = two_pi / frequency, context = c->rope_original_context;
		double low = context / c->rope_low_freq_factor, high = context / c->rope_high_freq_factor;
		if (wavelength > low) return position * frequency / c->rope_factor;
		if (wavelength >= high) {
			double blend = (context / wavelength - c->rope_low_freq_factor) /
			               (c->rope_high_freq_factor - c->rope_low_freq_factor);
			return position * ((1.0 - blend) * frequency / c->rope_factor + blend * frequency);
		}
	}
	if (c->rope_scaling == ROPE_YARN) {
		double fast = yarn_pair(c, c->rope_beta_fast), slow = yarn_pair(c, c->rope_beta_slow);
		double low = fmax(floor(fast), 0), high = fmin(ceil(slow), c->head_dim - 1);
		double stretched = fmin(fmax((pair - low) / (high - low), 0), 1);
		return position * frequency * (stretched / c->rope_factor + 1 - stretched);
	}
	return position * frequency;
}

static void rotate(double *x, const struct model_config *c, int position)
{
	int half = c->head_dim / 2;
	double grown = c->rope_scaling == ROPE_YARN ? 0.1 * log(c->rope_factor) + 1 : 1;
	for (int i = 0; i < half; i++) {
		double angle = rotation(c, i, position), a = grown * x[i], b = grown * x[i + half];
		x[i] = a * cos(angle) - b * sin(angle);
		x[i + half] = b * cos(angle) + a * sin(angle);
	}
}

struct activations { /* [n_tokens][...] */
	double *x, *q, *k, *v;
};

static void attention(double *out, const struct model_config *c, const struct activations *a, int position)
{
	int d = c->head_dim, q_dim = c->n_heads * d, kv_dim = c->n_kv_heads * d;
	double *weight = calloc((size_t)position + 1, sizeof *weight);
	for (int h = 0; h < c->n_heads; h++) {
		const double *q = a->q + position * q_dim + h * d;
		int kv_at = h / (c->n_heads / c->n_kv_heads) * d;
		double largest = -INFINITY, sum = 0.0;
		for (int p = 0; p <= position; p++) {
			for (int i = 0; i < d; i++) weight[p] += q[i] * a->k[p * kv_dim + kv_at + i];
			weight[p] /= sqrt(d);
			largest = fmax(largest, weight[p]);
		}
		for (int p = 0; p <= position; p++) sum += exp(weight[p] - largest);
		for (int i = 0; i < d; i++) {
			out[h * d + i] = 0.0;
			for (int p = 0; p <= position; p++)
				out[h * d + i] += exp(weight[p] - largest) / sum * a->v[p * kv_dim + kv_at + i];
		}
		memset(weight, 0, ((size_t)position + 1) * sizeof *weight);
	}
	free(weight);
}

static void attend_layer(const struct weights *w, struct activations *a, int layer, int n_tokens,
                         bool round_kv)
{
	const struct model_config *c = &w->config;
	int d = c->head_dim, q_dim = c->n_heads * d, kv_dim = c->n_kv_heads * d;
	const uint16_t *q_norm = find(w, layer, "self_attn.q_norm.weight");
	const uint16_t *k_norm = find(w, layer, "self_attn.k_norm.weight");
	double *normed = calloc((size_t)c->dim, sizeof *normed), *mixed = calloc((size_t)q_dim, sizeof *mixed);
	double *added = calloc((size_t)c->dim, sizeof *added);
	for (int t = 0; t < n_tokens; t++) {
		double *q = a->q + t * q_dim, *k = a->k + t * kv_dim, *v = a->v + t * kv_dim;
		rms_norm(normed, a->x + t * c->dim, find(w, layer, "input_layernorm.weight"), c->dim, c->rms_eps);
		multiply(q, normed, find(w, layer, "self_attn.q_proj.weight"),
		         find(w, layer, "self_attn.q_proj.bias"), q_dim, c->dim);
		multiply(k, normed, find(w, layer, "self_attn.k_proj.weight"),
		         find(w, layer, "self_attn.k_proj.bias"), kv_dim, c->dim);
		multiply(v, normed, find(w, layer, "self_attn.v_proj.weight"),
		         find(w, layer, "self_attn.v_proj.bias"), kv_dim, c->dim);
		for (int h = 0; h < c->n_heads; h++) {
			if (q_norm) rms_norm(q + h * d, q + h * d, q_norm, d, c->rms_eps);
			rotate(q + h * d, c, t);
		}
		for (int h = 0; h < c->n_kv_heads; h++) {
			if (k_norm) rms_norm(k + h * d, k + h * d, k_norm, d, c->rms_eps);
			rotate(k + h * d, c, t);
		}
		for (int i = 0; round_kv && i < kv_dim; i++) {
			k[i] = round_to_bf16(k[i]);
			v[i] = round_to_bf16(v[i]);
		}
	}
	for (int t = 0; t < n_tokens; t++) {
		attention(mixed, c, a, t);
		multiply(added, mixed, find(w, layer, "self_attn.o_proj.weight"), find(w, layer, "self_attn.o_proj.bias"),
		         c->dim, q_dim);
		for (int i = 0; i < c->dim; i++) a->x[t * c->dim + i] += added[i];
	}
	free(normed);
	free(mixed);
	free(added);
}

static void feed_forward_layer(const struct weights *w, struct activations *a, int layer, int n_tokens)
{
	const struct model_config *c = &w->config;
	double *normed = calloc((size_t)c->dim, sizeof *normed), *added = calloc((size_t)c->dim, sizeof *added);
	double *gate = calloc((size_t)c->ffn_dim, sizeof *gate), *up = calloc((size_t)c->ffn_dim, sizeof *up);
	for (int t = 0; t < n_tokens; t++) {
		double *x = a->x + t * c->dim;
		rms_norm(normed, x, find(w, layer, "post_attention_layernorm.weight"), c->dim, c->rms_eps);
		multiply(gate, normed, find(w, layer, "mlp.gate_proj.weight"), find(w, layer, "mlp.gate_proj.bias"),
		         c->ffn_dim, c->dim);
		multiply(up, normed, find(w, layer, "mlp.up_proj.weight"), find(w, layer, "mlp.up_proj.bias"), c->ffn_dim,
		         c->dim);
		for (int i = 0; i < c->ffn_dim; i++) gate[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
		multiply(added, gate, find(w, layer, "mlp.down_proj.weight"), find(w, layer, "mlp.down_proj.bias"), c->dim,
		         c->ffn_dim);
		for (int i = 0; i < c->dim; i++) x[i] += added[i];
	}
	free(normed);
	free(added);
	free(gate);
	free(up);
}

void reference_logits(double *out, const struct weights *w, const int *tokens, int n_tokens, bool round_kv)
{
	const struct model_config *c = &w->config;
	const uint16_t *embedding = find(w, -1, "model.embed_tokens.weight");
	const uint16_t *head = c->tied ? embedding : find(w, -1, "lm_head.weight");
	size_t n = (size_t)n_tokens, d = (size_t)c->head_dim;
	struct activations a = {
		.x = calloc(n * (size_t)c->dim, sizeof(double)),
		.q = calloc(n * (size_t)c->n_heads * d, sizeof(double)),
		.k = calloc(n * (size_t)c->n_kv_heads * d, sizeof(double)),
		.v = calloc(n * (size_t)c->n_kv_heads * d, sizeof(double)),
	};
	for (int t = 0; t < n_tokens; t++)
		for (int i = 0; i < c->dim; i++)
			a.x[t * c->dim + i] = from_bf16(embedding[(size_t)tokens[t] * (size_t)c->dim + (size_t)i]);
	for (int layer = 0; layer < c->n_layers; layer++) {
		attend_layer(w, &a, layer, n_tokens, round_kv);
		feed_forward_layer(w, &a, layer, n_tokens);
	}
	for (int t = 0; t < n_tokens; t++) {
		double *x = a.x + t * c->dim;
		rms_norm(x, x, find(w, -1, "model.norm.weight"), c->dim, c->rms_eps);
		multiply(out + (size_t)t * (size_t)c->vocab_size, x, head, NULL, c->vocab_size, c->dim);
	}
	free(a.x);
	free(a.q);
	free(a.k);
	free(a.v);
}

double reference_log_probability(const double *logits, int n, int token)
{
	double largest = -INFINITY, sum = 0.0;
	for (int i = 0; i < n; i++) largest = fmax(largest, logits[i]);
	for (int i = 0; i < n; i++) sum += exp(logits[i] - largest);
	assert(token >= 0 && token < n);
	return logits[token] - largest - log(sum);
}
