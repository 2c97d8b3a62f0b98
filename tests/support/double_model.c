/* double_model.c - see double_model.h. */
#include "tests/support/double_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

struct model {
	const struct weights *layout;
	const double *params;
};

static const double *tensor(const struct model *m, int layer, const char *part)
{
	char name[96];
	if (layer < 0) snprintf(name, sizeof name, "%s", part);
	else snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, part);
	return m->params + m->layout->tensors[weights_find(m->layout, name)].offset;
}

static void product(double *y, const double *x, const double *w, int n, int k)
{
	for (int i = 0; i < n; i++) {
		y[i] = 0;
		for (int j = 0; j < k; j++) y[i] += w[i * k + j] * x[j];
	}
}

static void norm(double *y, const double *x, const double *w, int n, double eps)
{
	double sum = 0;
	for (int i = 0; i < n; i++) sum += x[i] * x[i];
	for (int i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / n + eps) * w[i];
}

static void rotate(double *x, const struct model_config *c, int position)
{
	int half = c->head_dim / 2;
	for (int i = 0; i < half; i++) {
		double angle = position * pow(c->rope_theta, -2.0 * i / c->head_dim), a = x[i], b = x[i + half];
		x[i] = a * cos(angle) - b * sin(angle);
		x[i + half] = b * cos(angle) + a * sin(angle);
	}
}

static void attend(double *out, const double *q, const double *k, const double *v, int n,
                   const struct model_config *c)
{
	int d = c->head_dim, kv_dim = c->n_kv_heads * d;
	double *p = xmalloc((size_t)n * sizeof *p);
	for (int h = 0; h < c->n_heads; h++) {
		const double *kh = k + h * c->n_kv_heads / c->n_heads * d,
					 *vh = v + h * c->n_kv_heads / c->n_heads * d;
		double sum = 0;
		for (int t = 0; t < n; t++) {
			double score = 0;
			for (int i = 0; i < d; i++) score += q[h * d + i] * kh[t * kv_dim + i];
			sum += p[t] = exp(score / sqrt(d));
		}
		for (int i = 0; i < d; i++) {
			out[h * d + i] = 0;
			for (int t = 0; t < n; t++) out[h * d + i] += p[t] / sum * vh[t * kv_dim + i];
		}
	}
	free(p);
}

static void layer_forward(const struct model *m, int l, double *x, int n)
{
	const struct model_config *c = &m->layout->config;
	int dim = c->dim, q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim, f = c->ffn_dim;
	double *y = xmalloc((size_t)(dim + 2 * q_dim + 2 * f) * sizeof *y), *q = y + dim, *a = q + q_dim,
		   *gate = a + q_dim;
	double *up = gate + f, *k = xmalloc((size_t)(2 * n * kv_dim) * sizeof *k), *v = k + n * kv_dim;
	for (int t = 0; t < n; t++) { /* position t attends to keys and values made so far: itself and before */
		double *row = x + t * dim;
		norm(y, row, tensor(m, l, "input_layernorm"), dim, c->rms_eps);
		product(q, y, tensor(m, l, "self_attn.q_proj"), q_dim, dim);
		product(k + t * kv_dim, y, tensor(m, l, "self_attn.k_proj"), kv_dim, dim);
		product(v + t * kv_dim, y, tensor(m, l, "self_attn.v_proj"), kv_dim, dim);
		for (int h = 0; h < c->n_heads; h++) rotate(q + h * c->head_dim, c, t);
		for (int h = 0; h < c->n_kv_heads; h++) rotate(k + t * kv_dim + h * c->head_dim, c, t);
		attend(a, q, k, v, t + 1, c);
		product(y, a, tensor(m, l, "self_attn.o_proj"), dim, q_dim);
		for (int i = 0; i < dim; i++) row[i] += y[i];
		norm(y, row, tensor(m, l, "post_attention_layernorm"), dim, c->rms_eps);
		product(gate, y, tensor(m, l, "mlp.gate_proj"), f, dim);
		product(up, y, tensor(m, l, "mlp.up_proj"), f, dim);
		for (int i = 0; i < f; i++) up[i] *= gate[i] / (1 + exp(-gate[i]));
		product(y, up, tensor(m, l, "mlp.down_proj"), dim, f);
		for (int i = 0; i < dim; i++) row[i] += y[i];
	}
	free(y);
	free(k);
}

double double_model_loss(const struct weights *layout, const double *params, const int32_t *tokens,
                         int n_tokens, int first, const double *coefficient)
{
	struct model m = { layout, params };
	const struct model_config *c = &layout->config;
	int dim = c->dim, vocab = c->vocab_size;
	const double *embedding = tensor(&m, -1, "model.embed_tokens.weight");
	const double *head = c->tied ? embedding : tensor(&m, -1, "lm_head.weight");
	double *x = xmalloc((size_t)(n_tokens * dim + dim + vocab) * sizeof *x), *y = x + n_tokens * dim,
		   *logits = y + dim;
	for (int t = 0; t < n_tokens; t++)
		memcpy(x + t * dim, embedding + tokens[t] * dim, (size_t)dim * sizeof *x);
	for (int l = 0; l < c->n_layers; l++) layer_forward(&m, l, x, n_tokens);
	double loss = 0;
	for (int t = first; t < n_tokens; t++) {
		double sum = 0;
		norm(y, x + (t - 1) * dim, tensor(&m, -1, "model.norm.weight"), dim, c->rms_eps);
		product(logits, y, head, vocab, dim);
		for (int i = 0; i < vocab; i++) sum += exp(logits[i]);
		loss += coefficient[t] * (logits[tokens[t]] - log(sum));
	}
	free(x);
	return loss;
}
