/* model_train.c - see model_train.h.  Cost: 2 multiply-adds per parameter and token forward, 4 backward.
 *
 * Legend: T tokens of all sequences, D dim, Q n_heads * head_dim, V n_kv_heads * head_dim, F ffn_dim,
 * C vocab_size, R rows with logits.
 */
#include "trainer_bridge/trainer/model_train.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/rope.h"
#include "quant/bf16.h"
#include "quant/kernels.h"
#include "trainer_bridge/trainer/attention_train.h"
#include "trainer_bridge/trainer/blas.h"

/* What forward keeps of a layer for backward. */
struct layer_memory {
	float *input;     /* [T][D] residual stream on entry */
	float *normed1;   /* [T][D] after the attention norm */
	float *q;         /* [T][Q] rotated */
	float *k, *v;     /* [T][V] k rotated */
	float *attended;  /* [T][Q] */
	float *middle;    /* [T][D] residual stream after attention */
	float *normed2;   /* [T][D] after the ffn norm */
	float *gate, *up; /* [T][F] */
	float *act;       /* [T][F] silu(gate) * up */
	float *inv1, *inv2; /* [T] 1 / rms of input, middle */
};

/* Offsets of a layer's tensors in the flat buffer. */
struct layer_offsets {
	size_t norm1, q, k, v, o, norm2, gate, up, down;
};

struct model_train {
	const struct weights *layout; /* borrowed */
	struct model_config config;
	bool round_kv;
	const struct kernels *kernels; /* of the engine: SiLU */
	float *ones;                   /* [F] */
	struct layer_offsets *offsets; /* [n_layers] */
	size_t embedding, final_norm, head;

	int tokens_capacity, rows_capacity, length_capacity;
	struct layer_memory *layers; /* [n_layers]; pointers into one arena */
	float *arena;
	float *output, *output_inv;    /* [T][D], [T] residual stream after the last layer */
	float *d_stream, *d_dim;       /* [T][D] */
	float *d_q, *d_attended;       /* [T][Q] */
	float *d_k, *d_v;              /* [T][V] */
	float *d_gate, *d_up;          /* [T][F] */
	float *rows_normed, *d_rows;   /* [R][D] */
	float *logits;                 /* [R][C] */
	int *row_token;                /* [R] index into the T tokens */
	float *scratch;                /* attention */
	float *frequency, rope_scale;  /* [head_dim / 2] rotation per position; of cos and sin */
	float *cos, *sin;              /* [length_capacity][head_dim / 2] */

	const struct train_sequence *sequences; /* of the last forward */
	int n_sequences, n_tokens, n_rows;
};

int model_train_check(const struct model_config *config, struct err *err)
{
	if (config->qkv_bias || config->mlp_bias || config->qk_norm)
		return err_set(
			err, ERR_UNSUPPORTED,
			"the reference trainer knows the Llama layout; model type `%s` has %s; use trainer.kind: "
			"external with a trainer that knows it",
			config->model_type, config->qk_norm ? "normed queries and keys" : "biases");
	return 0;
}

static int q_width(const struct model_config *c)
{
	return c->n_heads * c->head_dim;
}

static int kv_width(const struct model_config *c)
{
	return c->n_kv_heads * c->head_dim;
}

static size_t tensor_offset(const struct weights *layout, const char *name)
{
	int i = weights_find(layout, name);
	assert(i >= 0);
	return layout->tensors[i].offset;
}

static size_t layer_offset(const struct weights *layout, int layer, const char *part)
{
	char name[96];
	snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, part);
	return tensor_offset(layout, name);
}

struct model_train *model_train_open(const struct weights *layout, bool round_kv)
{
	struct model_train *m = xcalloc(1, sizeof *m);
	const struct model_config *c = &layout->config;
	m->layout = layout;
	m->config = *c;
	m->round_kv = round_kv;
	m->offsets = xcalloc((size_t)c->n_layers, sizeof *m->offsets);
	m->layers = xcalloc((size_t)c->n_layers, sizeof *m->layers);
	for (int l = 0; l < c->n_layers; l++) {
		struct layer_offsets *o = &m->offsets[l];
		o->norm1 = layer_offset(layout, l, "input_layernorm");
		o->q = layer_offset(layout, l, "self_attn.q_proj");
		o->k = layer_offset(layout, l, "self_attn.k_proj");
		o->v = layer_offset(layout, l, "self_attn.v_proj");
		o->o = layer_offset(layout, l, "self_attn.o_proj");
		o->norm2 = layer_offset(layout, l, "post_attention_layernorm");
		o->gate = layer_offset(layout, l, "mlp.gate_proj");
		o->up = layer_offset(layout, l, "mlp.up_proj");
		o->down = layer_offset(layout, l, "mlp.down_proj");
	}
	m->embedding = tensor_offset(layout, "model.embed_tokens.weight");
	m->final_norm = tensor_offset(layout, "model.norm.weight");
	m->head = c->tied ? m->embedding : tensor_offset(layout, "lm_head.weight");
	m->frequency = xmalloc((size_t)(c->head_dim / 2) * sizeof *m->frequency);
	m->rope_scale = rope_frequencies(m->frequency, c);
	m->kernels = kernels_best();
	m->ones = xaligned((size_t)c->ffn_dim * sizeof *m->ones);
	for (int i = 0; i < c->ffn_dim; i++) m->ones[i] = 1.0f;
	blas_init();
	return m;
}

void model_train_close(struct model_train *m)
{
	if (!m) return;
	free(m->offsets);
	free(m->layers);
	free(m->arena);
	free(m->rows_normed);
	free(m->d_rows);
	free(m->logits);
	free(m->row_token);
	free(m->scratch);
	free(m->ones);
	free(m->frequency);
	free(m->cos);
	free(m->sin);
	free(m);
}

static float *take(float **next, size_t t, int width)
{
	float *p = *next;
	*next += t * (size_t)width;
	return p;
}

static void reserve_tokens(struct model_train *m, int n)
{
	if (n <= m->tokens_capacity) return;
	const struct model_config *c = &m->config;
	size_t t = (size_t)n, d = (size_t)c->dim, f = (size_t)c->ffn_dim;
	size_t q = (size_t)q_width(c), v = (size_t)kv_width(c);
	size_t per_layer = 4 * d + 2 * q + 2 * v + 3 * f + 2, shared = 3 * d + 1 + 2 * q + 2 * v + 2 * f;
	free(m->arena);
	m->arena = xaligned(t * ((size_t)c->n_layers * per_layer + shared) * sizeof *m->arena);
	m->tokens_capacity = n;
	float *next = m->arena;
	for (int l = 0; l < c->n_layers; l++) {
		struct layer_memory *y = &m->layers[l];
		float **dims[] = { &y->input, &y->normed1, &y->middle, &y->normed2 };
		for (int i = 0; i < 4; i++) *dims[i] = take(&next, t, c->dim);
		y->q = take(&next, t, (int)q), y->attended = take(&next, t, (int)q);
		y->k = take(&next, t, (int)v), y->v = take(&next, t, (int)v);
		y->gate = take(&next, t, c->ffn_dim), y->up = take(&next, t, c->ffn_dim);
		y->act = take(&next, t, c->ffn_dim);
		y->inv1 = take(&next, t, 1), y->inv2 = take(&next, t, 1);
	}
	m->output = take(&next, t, c->dim), m->output_inv = take(&next, t, 1);
	m->d_stream = take(&next, t, c->dim), m->d_dim = take(&next, t, c->dim);
	m->d_q = take(&next, t, (int)q), m->d_attended = take(&next, t, (int)q);
	m->d_k = take(&next, t, (int)v), m->d_v = take(&next, t, (int)v);
	m->d_gate = take(&next, t, c->ffn_dim), m->d_up = take(&next, t, c->ffn_dim);
	assert(next == m->arena + t * ((size_t)c->n_layers * per_layer + shared));
}

static void reserve_rows(struct model_train *m, int n)
{
	if (n <= m->rows_capacity) return;
	size_t d = (size_t)m->config.dim, c = (size_t)m->config.vocab_size, r = (size_t)n;
	m->rows_normed = xrealloc(m->rows_normed, r * d * sizeof(float));
	m->d_rows = xrealloc(m->d_rows, r * d * sizeof(float));
	m->logits = xrealloc(m->logits, r * c * sizeof(float));
	m->row_token = xrealloc(m->row_token, r * sizeof(int));
	m->rows_capacity = n;
}

/* Rotation tables and score matrices for sequences of n tokens. */
static void reserve_length(struct model_train *m, int n)
{
	if (n <= m->length_capacity) return;
	int half = m->config.head_dim / 2;
	m->scratch = xrealloc(m->scratch, attention_train_scratch(n) * sizeof(float));
	m->cos = xrealloc(m->cos, (size_t)n * (size_t)half * sizeof(float));
	m->sin = xrealloc(m->sin, (size_t)n * (size_t)half * sizeof(float));
	for (int p = 0; p < n; p++)
		rope_angles(m->cos + p * half, m->sin + p * half, m->frequency, m->rope_scale, half, p);
	m->length_capacity = n;
}

/* y = x * inv * w, inv = 1 / sqrt(mean(x^2) + eps) */
static void norm_forward(float *y, float *inv, const float *x, const float *w, int t, int dim, float eps)
{
	for (int i = 0; i < t; i++, x += dim, y += dim) {
		float sum = 0;
		for (int j = 0; j < dim; j++) sum += x[j] * x[j];
		inv[i] = 1.0f / sqrtf(sum / (float)dim + eps);
		for (int j = 0; j < dim; j++) y[j] = x[j] * inv[i] * w[j];
	}
}

/* dx += w inv dy - x inv^3 (sum w dy x) / dim;  dw += sum dy x inv */
static void norm_backward(float *dx, float *dw, const float *dy, const float *x, const float *w,
                          const float *inv, int t, int dim)
{
	for (int i = 0; i < t; i++, x += dim, dx += dim, dy += dim) {
		float dot = 0;
		for (int j = 0; j < dim; j++) {
			dot += w[j] * dy[j] * x[j];
			dw[j] += dy[j] * x[j] * inv[i];
		}
		float pull = dot * inv[i] * inv[i] * inv[i] / (float)dim;
		for (int j = 0; j < dim; j++) dx[j] += w[j] * inv[i] * dy[j] - x[j] * pull;
	}
}

/* Rotate the heads of n consecutive positions (Hugging Face order: i pairs with i + head_dim / 2);
 * direction -1 is the inverse, and the gradient. */
static void rope(const struct model_train *m, float *x, int n, int n_heads, float direction)
{
	int d = m->config.head_dim, half = d / 2;
	for (int p = 0; p < n; p++) {
		const float *cosine = m->cos + p * half, *sine = m->sin + p * half;
		for (int h = 0; h < n_heads; h++, x += d)
			for (int i = 0; i < half; i++) {
				float a = x[i], b = x[i + half], s = direction * sine[i];
				x[i] = a * cosine[i] - b * s;
				x[i + half] = b * cosine[i] + a * s;
			}
	}
}

static void round_bf16(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++) x[i] = bf16_to_f32(bf16_from_f32(x[i]));
}

static struct attention_shape shape_of(const struct model_train *m, int n)
{
	const struct model_config *c = &m->config;
	return (struct attention_shape){ n, c->n_heads, c->n_kv_heads, c->head_dim };
}

static void attention_forward(struct model_train *m, struct layer_memory *y)
{
	const struct model_config *c = &m->config;
	size_t q_dim = (size_t)q_width(c), kv_dim = (size_t)kv_width(c), at = 0;
	for (int s = 0; s < m->n_sequences; s++) {
		int n = m->sequences[s].n_tokens;
		float *q = y->q + at * q_dim, *k = y->k + at * kv_dim, *v = y->v + at * kv_dim;
		rope(m, q, n, c->n_heads, 1);
		rope(m, k, n, c->n_kv_heads, 1);
		if (m->round_kv) {
			round_bf16(k, (size_t)n * kv_dim);
			round_bf16(v, (size_t)n * kv_dim);
		}
		struct attention_shape shape = shape_of(m, n);
		attention_train_forward(y->attended + at * q_dim, q, k, v, &shape, m->scratch);
		at += (size_t)n;
	}
}

static void attention_backward(struct model_train *m, const struct layer_memory *y)
{
	const struct model_config *c = &m->config;
	size_t q_dim = (size_t)q_width(c), kv_dim = (size_t)kv_width(c), at = 0;
	for (int s = 0; s < m->n_sequences; s++) {
		int n = m->sequences[s].n_tokens;
		size_t qo = at * q_dim, vo = at * kv_dim;
		struct attention_shape shape = shape_of(m, n);
		attention_train_backward(m->d_q + qo, m->d_k + vo, m->d_v + vo, m->d_attended + qo, y->q + qo,
		                         y->k + vo, y->v + vo, &shape, m->scratch);
		rope(m, m->d_q + qo, n, c->n_heads, -1);
		rope(m, m->d_k + vo, n, c->n_kv_heads, -1);
		at += (size_t)n;
	}
}

/* out [T][D]: the next layer's input. */
static void layer_forward(struct model_train *m, int l, const float *w, float *out)
{
	const struct model_config *c = &m->config;
	const struct layer_offsets *o = &m->offsets[l];
	struct layer_memory *y = &m->layers[l];
	int t = m->n_tokens, d = c->dim, f = c->ffn_dim, q = q_width(c), v = kv_width(c);
	size_t td = (size_t)t * (size_t)d, tf = (size_t)t * (size_t)f;

	norm_forward(y->normed1, y->inv1, y->input, w + o->norm1, t, d, c->rms_eps);
	blas_linear(y->q, y->normed1, w + o->q, t, q, d);
	blas_linear(y->k, y->normed1, w + o->k, t, v, d);
	blas_linear(y->v, y->normed1, w + o->v, t, v, d);
	attention_forward(m, y);
	blas_linear(y->middle, y->attended, w + o->o, t, d, q);
	for (size_t i = 0; i < td; i++) y->middle[i] += y->input[i];

	norm_forward(y->normed2, y->inv2, y->middle, w + o->norm2, t, d, c->rms_eps);
	blas_linear(y->gate, y->normed2, w + o->gate, t, f, d);
	blas_linear(y->up, y->normed2, w + o->up, t, f, d);
	for (size_t i = 0; i < tf; i += (size_t)f) m->kernels->silu_mul(y->act + i, y->gate + i, y->up + i, f);
	blas_linear(out, y->act, w + o->down, t, d, f);
	for (size_t i = 0; i < td; i++) out[i] += y->middle[i];
}

/* d_gate, on entry the gradient of act = silu(gate) * up, and d_up. */
static void silu_backward(struct model_train *m, const struct layer_memory *y, size_t tf)
{
	size_t f = (size_t)m->config.ffn_dim;
	for (size_t i = 0; i < tf; i += f) m->kernels->silu_mul(m->d_up + i, y->gate + i, m->ones, (int)f);
	for (size_t i = 0; i < tf; i++) {
		float gate = y->gate[i], silu = m->d_up[i], d_act = m->d_gate[i];
		float sigmoid = gate != 0.0f ? silu / gate : 0.5f;
		m->d_up[i] = d_act * silu;
		m->d_gate[i] = d_act * y->up[i] * (sigmoid + silu * (1.0f - sigmoid));
	}
}

/* m->d_stream holds the gradient of the layer's output and then of its input. */
static void layer_backward(struct model_train *m, int l, const float *w, float *g)
{
	const struct model_config *c = &m->config;
	const struct layer_offsets *o = &m->offsets[l];
	const struct layer_memory *y = &m->layers[l];
	int t = m->n_tokens, d = c->dim, f = c->ffn_dim, q = q_width(c), v = kv_width(c);
	size_t tf = (size_t)t * (size_t)f;

	blas_linear_weight(g + o->down, m->d_stream, y->act, t, d, f);
	blas_linear_input(m->d_gate, m->d_stream, w + o->down, t, d, f, 0);
	silu_backward(m, y, tf);
	blas_linear_weight(g + o->gate, m->d_gate, y->normed2, t, f, d);
	blas_linear_weight(g + o->up, m->d_up, y->normed2, t, f, d);
	blas_linear_input(m->d_dim, m->d_gate, w + o->gate, t, f, d, 0);
	blas_linear_input(m->d_dim, m->d_up, w + o->up, t, f, d, 1);
	norm_backward(m->d_stream, g + o->norm2, m->d_dim, y->middle, w + o->norm2, y->inv2, t, d);

	blas_linear_weight(g + o->o, m->d_stream, y->attended, t, d, q);
	blas_linear_input(m->d_attended, m->d_stream, w + o->o, t, d, q, 0);
	attention_backward(m, y);
	blas_linear_weight(g + o->q, m->d_q, y->normed1, t, q, d);
	blas_linear_weight(g + o->k, m->d_k, y->normed1, t, v, d);
	blas_linear_weight(g + o->v, m->d_v, y->normed1, t, v, d);
	blas_linear_input(m->d_dim, m->d_q, w + o->q, t, q, d, 0);
	blas_linear_input(m->d_dim, m->d_k, w + o->k, t, v, d, 1);
	blas_linear_input(m->d_dim, m->d_v, w + o->v, t, v, d, 1);
	norm_backward(m->d_stream, g + o->norm1, m->d_dim, y->input, w + o->norm1, y->inv1, t, d);
}

/* Sizes of the pass, and the rows that get logits. */
static void plan(struct model_train *m, const struct train_sequence *sequences, int n_sequences)
{
	int n_tokens = 0, n_rows = 0, longest = 0;
	for (int s = 0; s < n_sequences; s++) {
		const struct train_sequence *q = &sequences[s];
		assert(q->first >= 1 && q->first < q->n_tokens);
		n_tokens += q->n_tokens;
		n_rows += q->n_tokens - q->first;
		longest = q->n_tokens > longest ? q->n_tokens : longest;
	}
	reserve_tokens(m, n_tokens);
	reserve_rows(m, n_rows);
	reserve_length(m, longest);
	m->sequences = sequences;
	m->n_sequences = n_sequences;
	m->n_tokens = n_tokens;
	m->n_rows = n_rows;
	for (int s = 0, at = 0, r = 0; s < n_sequences; at += sequences[s++].n_tokens)
		for (int i = sequences[s].first - 1; i < sequences[s].n_tokens - 1; i++) m->row_token[r++] = at + i;
}

float *model_train_forward(struct model_train *m, const float *params,
                           const struct train_sequence *sequences, int n_sequences, int *n_rows)
{
	int d = m->config.dim, n_layers = m->config.n_layers;
	size_t row_bytes = (size_t)d * sizeof(float);
	plan(m, sequences, n_sequences);
	float *x = m->layers[0].input;
	for (int s = 0; s < n_sequences; s++)
		for (int i = 0; i < sequences[s].n_tokens; i++, x += d)
			memcpy(x, params + m->embedding + (size_t)sequences[s].tokens[i] * (size_t)d, row_bytes);
	for (int l = 0; l < n_layers; l++)
		layer_forward(m, l, params, l + 1 < n_layers ? m->layers[l + 1].input : m->output);
	for (int r = 0; r < m->n_rows; r++)
		norm_forward(m->rows_normed + (size_t)r * (size_t)d, m->output_inv + r,
		             m->output + (size_t)m->row_token[r] * (size_t)d, params + m->final_norm, 1, d,
		             m->config.rms_eps);
	blas_linear(m->logits, m->rows_normed, params + m->head, m->n_rows, m->config.vocab_size, d);
	*n_rows = m->n_rows;
	return m->logits;
}

void model_train_backward(struct model_train *m, const float *params, float *grads, const float *dlogits)
{
	int d = m->config.dim, vocab = m->config.vocab_size;
	blas_linear_weight(grads + m->head, dlogits, m->rows_normed, m->n_rows, vocab, d);
	blas_linear_input(m->d_rows, dlogits, params + m->head, m->n_rows, vocab, d, 0);
	memset(m->d_stream, 0, (size_t)m->n_tokens * (size_t)d * sizeof(float));
	for (int r = 0; r < m->n_rows; r++) {
		size_t at = (size_t)m->row_token[r] * (size_t)d;
		norm_backward(m->d_stream + at, grads + m->final_norm, m->d_rows + (size_t)r * (size_t)d,
		              m->output + at, params + m->final_norm, m->output_inv + r, 1, d);
	}
	for (int l = m->config.n_layers - 1; l >= 0; l--) layer_backward(m, l, params, grads);
	const float *dx = m->d_stream;
	for (int s = 0; s < m->n_sequences; s++)
		for (int i = 0; i < m->sequences[s].n_tokens; i++, dx += d) {
			float *g = grads + m->embedding + (size_t)m->sequences[s].tokens[i] * (size_t)d;
			for (int j = 0; j < d; j++) g[j] += dx[j];
		}
}
