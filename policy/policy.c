/* policy.c - one version of the policy from its weights: pack the linear layers, quantize them for
 * the drafter.
 *
 * A thread takes 16 rows of a matrix at a time from where they are, the flat buffer or a mapped file,
 * looks for NaN, and writes them as a panel; so nothing of the model is held twice.
 * Cost: one pass over the weights to pack and a few to quantize; both are split over threads by panels.
 */
#include "policy/policy.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/pages.h"
#include "policy/rope.h"
#include "policy/team.h"
#include "quant/bf16.h"

enum { PARTS_MAX = 3, COPY_ROWS = 64, RELEASE_ELEMENTS = 2 << 20 /* read by a thread between two hints */ };

/* A policy in the making, unit by unit: the embedding, each layer, the last norm, the head. */
struct policy_maker {
	struct policy *policy;
	const struct weights *weights;
	struct draft_options draft;
	int n_threads;
	int bad; /* a tensor that holds NaN or infinity, or -1 */
	int *lacks; /* [n_layers + 3] tensors that a unit still waits for */
};

/* The outputs of a linear layer: the rows of tensors one after the other, each from an output on. */
struct parts {
	const struct weights *weights;
	int n_parts, tensor[PARTS_MAX], at[PARTS_MAX];
};

static int tensor_index(const struct policy_maker *maker, int layer, const char *name)
{
	char full[96];
	if (layer < 0) snprintf(full, sizeof full, "%s", name);
	else snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
	int i = weights_find(maker->weights, full);
	assert(i >= 0);
	return i;
}

/* xaligned, counted. */
static void *take(struct policy *policy, size_t n_bytes)
{
	void *memory = xaligned(n_bytes);
	policy->bytes += n_bytes;
	pages_prefer_huge(memory, n_bytes);
	return memory;
}

/* ---- vectors and the embedding ---- */

static const uint16_t *vector(struct policy_maker *maker, int tensor, uint16_t *scratch)
{
	const struct weight_tensor *t = &maker->weights->tensors[tensor];
	const uint16_t *values = weights_rows(maker->weights, tensor, 0, 1, scratch);
	if (!weights_finite(values, (size_t)t->cols)) maker->bad = tensor;
	return values;
}

static uint16_t *take_norm(struct policy_maker *maker, int layer, const char *name)
{
	int tensor = tensor_index(maker, layer, name);
	size_t n = (size_t)maker->weights->tensors[tensor].cols;
	uint16_t *norm = take(maker->policy, n * sizeof *norm);
	const uint16_t *values = vector(maker, tensor, norm);
	if (values != norm) memcpy(norm, values, n * sizeof *norm);
	return norm;
}

/* bias[at ...] from a vector of the layer; bias [n] is made where it is not there yet. */
static void take_bias(struct policy_maker *maker, struct linear *linear, int layer, const char *name, int at)
{
	int tensor = tensor_index(maker, layer, name), n = maker->weights->tensors[tensor].cols;
	if (!linear->bias) {
		linear->bias = take(maker->policy, (size_t)linear->n * sizeof *linear->bias);
		memset(linear->bias, 0, (size_t)linear->n * sizeof *linear->bias);
	}
	assert(at + n <= linear->n);
	uint16_t *scratch = xmalloc((size_t)n * sizeof *scratch);
	const uint16_t *values = vector(maker, tensor, scratch);
	for (int i = 0; i < n; i++) linear->bias[at + i] = bf16_to_f32(values[i]);
	free(scratch);
}

struct copying {
	const struct weights *weights;
	int tensor;
	uint16_t *to;
	atomic_bool bad;
};

static void copy_share(const struct team *team, void *arg)
{
	struct copying *copying = arg;
	const struct weight_tensor *t = &copying->weights->tensors[copying->tensor];
	struct range part = team_share(team, t->rows, COPY_ROWS);
	int kept = part.begin;
	for (int row = part.begin; row < part.end; row += COPY_ROWS) {
		int n_rows = part.end - row < COPY_ROWS ? part.end - row : COPY_ROWS;
		size_t n = (size_t)n_rows * (size_t)t->cols;
		uint16_t *to = copying->to + (size_t)row * (size_t)t->cols;
		const uint16_t *rows = weights_rows(copying->weights, copying->tensor, row, n_rows, to);
		if (rows != to) memcpy(to, rows, n * sizeof *to);
		if (!weights_finite(to, n)) atomic_store(&copying->bad, true);
		if ((size_t)(row + n_rows - kept) * (size_t)t->cols < RELEASE_ELEMENTS) continue;
		weights_release(copying->weights, copying->tensor, kept, row + n_rows - kept);
		kept = row + n_rows;
	}
}

static uint16_t *take_matrix(struct policy_maker *maker, int tensor)
{
	const struct weight_tensor *t = &maker->weights->tensors[tensor];
	size_t n_bytes = (size_t)t->rows * (size_t)t->cols * sizeof(uint16_t);
	struct copying copying = {.weights = maker->weights, .tensor = tensor, .to = take(maker->policy, n_bytes)};
	team_run(maker->n_threads, copy_share, &copying);
	if (copying.bad) maker->bad = tensor;
	weights_release(maker->weights, tensor, 0, t->rows);
	return copying.to;
}

/* ---- linear layers ---- */

struct packing {
	struct linear *linear;
	const struct parts *parts;
	enum quantizer quantizer;
	atomic_bool bad;
	atomic_uint largest; /* magnitude, bf16 bits */
};

/* The part of an output, or -1 in a gap. */
static int part_of(const struct parts *parts, int output)
{
	for (int i = parts->n_parts - 1; i >= 0; i--)
		if (output >= parts->at[i])
			return output - parts->at[i] < parts->weights->tensors[parts->tensor[i]].rows ? i : -1;
	return -1;
}

/* Rows of outputs first .. first + *n - 1 [*n][k]: in place where one part has them all, else gathered in
 * scratch [PANEL][k], with zeros for gaps. */
static const uint16_t *panel_rows(const struct parts *parts, int first, int *n, int k, uint16_t *scratch)
{
	int part = part_of(parts, first), last = part < 0 ? 0 : parts->at[part] + parts->weights->tensors[parts->tensor[part]].rows;
	bool whole = part >= 0 && (last >= first + *n || part == parts->n_parts - 1);
	if (whole) {
		if (last < first + *n) *n = last - first;
		return weights_rows(parts->weights, parts->tensor[part], first - parts->at[part], *n, scratch);
	}
	for (int i = 0; i < *n; i++) {
		uint16_t *to = scratch + (size_t)i * (size_t)k;
		part = part_of(parts, first + i);
		if (part < 0) {
			memset(to, 0, (size_t)k * sizeof *to);
			continue;
		}
		const uint16_t *row = weights_rows(parts->weights, parts->tensor[part], first + i - parts->at[part], 1, to);
		if (row != to) memcpy(to, row, (size_t)k * sizeof *to);
	}
	return scratch;
}

/* Outputs [begin, end) have been packed. */
static void release_outputs(const struct parts *parts, int begin, int end)
{
	for (int i = 0; i < parts->n_parts; i++) {
		int rows = parts->weights->tensors[parts->tensor[i]].rows, at = parts->at[i];
		int first = begin > at ? begin - at : 0, last = end - at < rows ? end - at : rows;
		if (first < last) weights_release(parts->weights, parts->tensor[i], first, last - first);
	}
}

static void pack_panels(const struct team *team, void *arg)
{
	struct packing *packing = arg;
	struct linear *linear = packing->linear;
	struct range part = team_share(team, panels(linear->n), 1);
	size_t k = (size_t)linear->k;
	int kept = part.begin;
	uint16_t *scratch = xaligned(PANEL * k * sizeof *scratch);
	bool whole = linear->draft.q && linear->draft.format == FORMAT_NVFP4; /* its scale is the whole matrix's */
	unsigned own = 0;
	for (int p = part.begin; p < part.end; p++) {
		int n = PANEL;
		const uint16_t *rows = panel_rows(packing->parts, p * PANEL, &n, linear->k, scratch);
		if (!weights_finite(rows, (size_t)n * k)) atomic_store(&packing->bad, true);
		pack_bf16(linear->target + (size_t)p * packed_panel_elements(linear->k), rows, n, linear->k, 0, 1);
		unsigned largest = whole ? qmatrix_largest(&linear->draft, linear->target, p, p + 1) : 0;
		if (largest > own) own = largest;
		if ((size_t)(p + 1 - kept) * PANEL * k < RELEASE_ELEMENTS) continue;
		release_outputs(packing->parts, kept * PANEL, (p + 1) * PANEL);
		kept = p + 1;
	}
	free(scratch);
	if (!linear->draft.q) return;
	if (whole) {
		unsigned most = atomic_load(&packing->largest);
		while (own > most && !atomic_compare_exchange_weak(&packing->largest, &most, own)) continue;
		team_wait(team);
		if (team->thread == 0) qmatrix_set_largest(&linear->draft, (uint16_t)atomic_load(&packing->largest));
		team_wait(team);
	}
	if (atomic_load(&packing->bad)) return; /* what is quantized is finite */
	kernels_best()->quantize(&linear->draft, linear->target, packing->quantizer, NULL, part.begin, part.end);
}

/* The first of the parts that holds NaN or infinity. */
static int find_bad(const struct parts *parts)
{
	for (int i = 0; i < parts->n_parts; i++) {
		const struct weight_tensor *t = &parts->weights->tensors[parts->tensor[i]];
		uint16_t *scratch = xmalloc((size_t)t->cols * sizeof *scratch);
		bool finite = true;
		for (int row = 0; row < t->rows && finite; row++)
			finite = weights_finite(weights_rows(parts->weights, parts->tensor[i], row, 1, scratch), (size_t)t->cols);
		free(scratch);
		if (!finite) return parts->tensor[i];
	}
	assert(!"the panels held some");
	return 0;
}

/* n, k, target and drafter of a linear layer whose n outputs are the parts'. */
static void take_linear(struct policy_maker *maker, struct linear *linear, const struct parts *parts, int n,
                        enum format format)
{
	int k = maker->weights->tensors[parts->tensor[0]].cols;
	linear->n = n;
	linear->k = k;
	linear->target = take(maker->policy, packed_bf16_elements(n, k) * sizeof *linear->target);
	if (format != FORMAT_BF16)
		qmatrix_place(&linear->draft, format, n, k, take(maker->policy, qmatrix_bytes(format, n, k)));
	struct packing packing = {.linear = linear, .parts = parts, .quantizer = maker->draft.quantizer};
	team_run(maker->n_threads, pack_panels, &packing);
	if (packing.bad) maker->bad = find_bad(parts);
	release_outputs(parts, 0, n);
}

/* ---- one layer ---- */

static void take_qkv(struct policy_maker *maker, struct linear *qkv, int i)
{
	const struct model_config *c = &maker->policy->config;
	int q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
	struct parts parts = {
		.weights = maker->weights, .n_parts = 3, .at = {0, q_dim, q_dim + kv_dim},
		.tensor = {tensor_index(maker, i, "self_attn.q_proj.weight"), tensor_index(maker, i, "self_attn.k_proj.weight"),
		           tensor_index(maker, i, "self_attn.v_proj.weight")},
	};
	take_linear(maker, qkv, &parts, q_dim + 2 * kv_dim, maker->draft.format);
	if (!c->qkv_bias) return;
	take_bias(maker, qkv, i, "self_attn.q_proj.bias", 0);
	take_bias(maker, qkv, i, "self_attn.k_proj.bias", q_dim);
	take_bias(maker, qkv, i, "self_attn.v_proj.bias", q_dim + kv_dim);
}

/* Up begins with a panel of its own. */
static void take_gate_up(struct policy_maker *maker, struct linear *gate_up, int i)
{
	int padded = policy_ffn_padded(&maker->policy->config);
	struct parts parts = {
		.weights = maker->weights, .n_parts = 2, .at = {0, padded},
		.tensor = {tensor_index(maker, i, "mlp.gate_proj.weight"), tensor_index(maker, i, "mlp.up_proj.weight")},
	};
	take_linear(maker, gate_up, &parts, 2 * padded, maker->draft.format);
	if (!maker->policy->config.mlp_bias) return;
	take_bias(maker, gate_up, i, "mlp.gate_proj.bias", 0);
	take_bias(maker, gate_up, i, "mlp.up_proj.bias", padded);
}

/* A layer of one tensor. */
static void take_plain(struct policy_maker *maker, struct linear *linear, int tensor, enum format format)
{
	struct parts parts = {.weights = maker->weights, .n_parts = 1, .tensor = {tensor}};
	take_linear(maker, linear, &parts, maker->weights->tensors[tensor].rows, format);
}

static void take_layer(struct policy_maker *maker, int i)
{
	const struct model_config *c = &maker->policy->config;
	struct layer *layer = &maker->policy->layers[i];
	layer->attention_norm = take_norm(maker, i, "input_layernorm.weight");
	layer->ffn_norm = take_norm(maker, i, "post_attention_layernorm.weight");
	if (c->qk_norm) {
		layer->q_norm = take_norm(maker, i, "self_attn.q_norm.weight");
		layer->k_norm = take_norm(maker, i, "self_attn.k_norm.weight");
	}
	take_qkv(maker, &layer->qkv, i);
	take_plain(maker, &layer->o, tensor_index(maker, i, "self_attn.o_proj.weight"), maker->draft.format);
	if (c->o_bias) take_bias(maker, &layer->o, i, "self_attn.o_proj.bias", 0);
	take_gate_up(maker, &layer->gate_up, i);
	take_plain(maker, &layer->down, tensor_index(maker, i, "mlp.down_proj.weight"), maker->draft.format);
	if (c->mlp_bias) take_bias(maker, &layer->down, i, "mlp.down_proj.bias", 0);
}

_Static_assert((int)DRAFT_FORMAT_AUTO == (int)N_FORMATS, "follows the formats");

struct draft_options draft_options_of(const struct config_speculation *config, int mode)
{
	int head = config->head_format;
	bool automatic = config->format == DRAFT_FORMAT_AUTO, choose = automatic && mode == ROLLOUT_SPECULATIVE;
	enum format format = choose ? FORMAT_INT8 : automatic ? FORMAT_INT4 : (enum format)config->format;
	return (struct draft_options){
		.format = format,
		.choose = choose,
		.head_format = head == DRAFT_HEAD_SAME   ? format
		               : head == DRAFT_HEAD_BF16 ? FORMAT_BF16
		                                         : (enum format)(head - DRAFT_HEAD_FORMATS),
		.quantizer = config->quantizer == DRAFT_RTN ? QUANTIZE_RTN : QUANTIZE_SEARCH,
		.fp32_activations = config->activations == DRAFT_FP32,
	};
}

static void take_embedding(struct policy_maker *maker)
{
	int embedding = tensor_index(maker, -1, "model.embed_tokens.weight");
	if (!maker->policy->config.tied) maker->policy->embedding = take_matrix(maker, embedding);
}

static void take_head(struct policy_maker *maker)
{
	const char *head = maker->policy->config.tied ? "model.embed_tokens.weight" : "lm_head.weight";
	take_plain(maker, &maker->policy->head, tensor_index(maker, -1, head), maker->draft.head_format);
}

static int n_units(const struct policy_maker *maker) { return maker->policy->config.n_layers + 3; }

static void take_unit(struct policy_maker *maker, int unit)
{
	int n_layers = maker->policy->config.n_layers;
	if (maker->bad >= 0) return;
	if (unit == 0) take_embedding(maker);
	else if (unit <= n_layers) take_layer(maker, unit - 1);
	else if (unit == n_layers + 1) maker->policy->final_norm = take_norm(maker, -1, "model.norm.weight");
	else take_head(maker);
}

/* The order of weights.h: embedding, layers of as many tensors each, the norm, the head if it is one of its own. */
static int unit_of(const struct policy_maker *maker, int tensor)
{
	const struct model_config *c = &maker->policy->config;
	int n_layered = maker->weights->n_tensors - (c->tied ? 2 : 3);
	if (tensor == 0) return 0;
	return tensor > n_layered ? c->n_layers + tensor - n_layered : 1 + (tensor - 1) / (n_layered / c->n_layers);
}

struct policy_maker *policy_maker_open(const struct weights *weights, int64_t version, const struct draft_options *draft,
                                       int n_threads)
{
	static const struct draft_options none = {.format = FORMAT_BF16, .head_format = FORMAT_BF16};
	assert((weights->data || weights->files) && n_threads >= 1);
	struct policy *policy = xcalloc(1, sizeof *policy);
	const struct model_config *c = &policy->config;
	policy->config = weights->config;
	policy->version = version;
	policy->drafts = draft != NULL;
	policy->draft_fp32 = draft && draft->fp32_activations;
	policy->draft_choose = draft && draft->choose;
	policy->bytes = sizeof *policy + (size_t)c->n_layers * sizeof *policy->layers;
	policy->layers = xcalloc((unsigned long)c->n_layers, sizeof *policy->layers);
	policy->rope_frequency = take(policy, (size_t)c->head_dim / 2 * sizeof *policy->rope_frequency);
	policy->rope_scale = rope_frequencies(policy->rope_frequency, c);
	struct policy_maker *maker = xcalloc(1, sizeof *maker);
	*maker = (struct policy_maker){policy, weights, draft ? *draft : none, n_threads, .bad = -1};
	maker->lacks = xcalloc((unsigned long)n_units(maker), sizeof *maker->lacks);
	for (int i = 0; i < weights->n_tensors; i++) maker->lacks[unit_of(maker, i)]++;
	maker->lacks[n_units(maker) - 1] += c->tied; /* the head is the embedding */
	return maker;
}

void policy_maker_tensor(struct policy_maker *maker, int tensor)
{
	int unit = unit_of(maker, tensor), head = n_units(maker) - 1;
	assert(maker->lacks[unit] > 0);
	if (--maker->lacks[unit] == 0) take_unit(maker, unit);
	if (unit == 0 && maker->policy->config.tied && --maker->lacks[head] == 0) take_unit(maker, head);
}

int policy_maker_finish(struct policy_maker *maker, struct policy **out, struct err *err)
{
	if (maker->bad >= 0)
		return err_set(err, ERR_INVALID, "version %lld: tensor %s: expected finite numbers, found NaN or infinity",
		               (long long)maker->policy->version, maker->weights->tensors[maker->bad].name);
	for (int unit = 0; unit < n_units(maker); unit++)
		if (maker->lacks[unit])
			return err_set(err, ERR_INCOMPLETE, "version %lld: %d tensors are missing in part %d of the model",
			               (long long)maker->policy->version, maker->lacks[unit], unit);
	*out = maker->policy;
	maker->policy = NULL;
	return 0;
}

void policy_maker_close(struct policy_maker *maker)
{
	if (!maker) return;
	policy_free(maker->policy);
	free(maker->lacks);
	free(maker);
}

int policy_create(struct policy **out, const struct weights *weights, int64_t version,
                  const struct draft_options *draft, int n_threads, struct err *err)
{
	struct policy_maker *maker = policy_maker_open(weights, version, draft, n_threads);
	for (int i = 0; i < weights->n_tensors && maker->bad < 0; i++) policy_maker_tensor(maker, i);
	int code = policy_maker_finish(maker, out, err);
	policy_maker_close(maker);
	return code;
}

int policy_load(struct policy **policy, const char *dir, const struct draft_options *draft, int n_threads,
                struct err *err)
{
	struct weights weights;
	int code = weights_open(&weights, dir, err);
	if (code) return code;
	code = policy_create(policy, &weights, 0, draft, n_threads, err);
	if (code) err_context(err, "model %s", dir);
	weights_free(&weights);
	return code;
}

void policy_embed(const struct policy *policy, int32_t token, float *out)
{
	int dim = policy->config.dim;
	const uint16_t *row = policy->embedding ? policy->embedding + (size_t)token * (size_t)dim : NULL;
	for (int i = 0; i < dim; i++)
		out[i] = bf16_to_f32(row ? row[i] : policy->head.target[packed_bf16_at(dim, token, i)]);
}

static void linear_free(struct linear *linear)
{
	free(linear->target);
	free(linear->draft.q);
	free(linear->bias);
}

void policy_free(struct policy *policy)
{
	if (!policy) return;
	for (int i = 0; i < policy->config.n_layers; i++) {
		struct layer *layer = &policy->layers[i];
		free(layer->attention_norm);
		free(layer->ffn_norm);
		free(layer->q_norm);
		free(layer->k_norm);
		linear_free(&layer->qkv);
		linear_free(&layer->o);
		linear_free(&layer->gate_up);
		linear_free(&layer->down);
	}
	linear_free(&policy->head);
	free(policy->layers);
	free(policy->embedding);
	free(policy->final_norm);
	free(policy->rope_frequency);
	free(policy);
}
