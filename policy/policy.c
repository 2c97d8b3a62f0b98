/* policy.c - one version of the policy from its weights: pack the linear layers, quantize them for
 * the drafter.
 *
 * Cost: one pass over the weights to pack and about N_LEVELS (format_int4.c) to quantize; both are
 * split over threads by panels.
 */
#include "policy/policy.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/rope.h"
#include "policy/team.h"
#include "quant/bf16.h"

/* Where a tensor's rows lie; layer < 0: the name has no layer in it. */
static const uint16_t *tensor_data(const struct weights *weights, int layer, const char *name)
{
	char full[96];
	if (layer < 0) snprintf(full, sizeof full, "%s", name);
	else snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
	int i = weights_find(weights, full);
	assert(i >= 0);
	return weights->data + weights->tensors[i].offset;
}

/* xaligned, counted. */
static void *take(struct policy *policy, size_t n_bytes)
{
	policy->bytes += n_bytes;
	return xaligned(n_bytes);
}

static uint16_t *copy_bf16(struct policy *policy, const uint16_t *from, size_t n)
{
	uint16_t *copy = take(policy, n * sizeof *copy);
	memcpy(copy, from, n * sizeof *copy);
	return copy;
}

struct packing {
	struct linear *linear;
	const uint16_t *rows; /* [n][k], borrowed */
};

static void pack_panels(const struct team *team, void *arg)
{
	const struct packing *packing = arg;
	struct linear *linear = packing->linear;
	struct range part = team_share(team, panels(linear->n), 1);
	pack_bf16(linear->target, packing->rows, linear->n, linear->k, part.begin, part.end);
	if (linear->draft)
		int4_quantize(linear->draft, packing->rows, linear->n, linear->k, part.begin, part.end);
}

static void linear_pack(struct policy *policy, struct linear *linear, const uint16_t *rows, int n, int k,
                        bool with_draft, int n_threads)
{
	linear->n = n;
	linear->k = k;
	linear->target = take(policy, packed_bf16_elements(n, k) * sizeof *linear->target);
	if (with_draft) linear->draft = take(policy, int4_bytes(n, k));
	team_run(n_threads, pack_panels, &(struct packing){linear, rows});
}

/* Gate and up lie one after the other; where ffn_dim is no multiple of PANEL they are moved apart so
 * that up begins with a panel of its own. */
static void gate_up_pack(struct policy *policy, struct linear *linear, const uint16_t *gate, bool with_draft,
                         int n_threads)
{
	size_t ffn = (size_t)policy->config.ffn_dim, dim = (size_t)policy->config.dim;
	size_t padded = (size_t)policy_ffn_padded(&policy->config);
	uint16_t *apart = NULL;
	if (padded != ffn) {
		apart = xcalloc(2 * padded * dim, sizeof *apart);
		memcpy(apart, gate, ffn * dim * sizeof *apart);
		memcpy(apart + padded * dim, gate + ffn * dim, ffn * dim * sizeof *apart);
	}
	linear_pack(policy, linear, apart ? apart : gate, (int)(2 * padded), (int)dim, with_draft, n_threads);
	free(apart);
}

static float *copy_bias(struct policy *policy, const uint16_t *from, int n)
{
	float *bias = take(policy, (size_t)n * sizeof *bias);
	for (int i = 0; i < n; i++) bias[i] = bf16_to_f32(from[i]);
	return bias;
}

static void layer_pack(struct policy *policy, int i, const struct weights *weights, bool with_draft,
                       int n_threads)
{
	const struct model_config *c = &policy->config;
	struct layer *layer = &policy->layers[i];
	int q_dim = c->n_heads * c->head_dim, qkv_dim = q_dim + 2 * c->n_kv_heads * c->head_dim;
	size_t dim = (size_t)c->dim, head_dim = (size_t)c->head_dim;
	layer->attention_norm = copy_bf16(policy, tensor_data(weights, i, "input_layernorm.weight"), dim);
	layer->ffn_norm = copy_bf16(policy, tensor_data(weights, i, "post_attention_layernorm.weight"), dim);
	if (c->qk_norm) {
		layer->q_norm = copy_bf16(policy, tensor_data(weights, i, "self_attn.q_norm.weight"), head_dim);
		layer->k_norm = copy_bf16(policy, tensor_data(weights, i, "self_attn.k_norm.weight"), head_dim);
	}
	linear_pack(policy, &layer->qkv, tensor_data(weights, i, "self_attn.q_proj.weight"), qkv_dim, c->dim,
	            with_draft, n_threads);
	if (c->qkv_bias)
		layer->qkv.bias = copy_bias(policy, tensor_data(weights, i, "self_attn.q_proj.bias"), qkv_dim);
	linear_pack(policy, &layer->o, tensor_data(weights, i, "self_attn.o_proj.weight"), c->dim, q_dim,
	            with_draft, n_threads);
	gate_up_pack(policy, &layer->gate_up, tensor_data(weights, i, "mlp.gate_proj.weight"), with_draft,
	             n_threads);
	linear_pack(policy, &layer->down, tensor_data(weights, i, "mlp.down_proj.weight"), c->dim, c->ffn_dim,
	            with_draft, n_threads);
}

int policy_create(struct policy **out, const struct weights *weights, int64_t version, bool with_draft,
                  int n_threads, struct err *err)
{
	assert(weights->data && n_threads >= 1);
	int bad = weights_find_nonfinite(weights);
	if (bad >= 0)
		return err_set(err, ERR_INVALID,
		               "version %lld: tensor %s: expected finite numbers, found NaN or infinity",
		               (long long)version, weights->tensors[bad].name);
	struct policy *policy = xcalloc(1, sizeof *policy);
	const struct model_config *c = &policy->config;
	policy->config = weights->config;
	policy->version = version;
	policy->bytes = sizeof *policy + (size_t)c->n_layers * sizeof *policy->layers;
	policy->layers = xcalloc((unsigned long)c->n_layers, sizeof *policy->layers);
	policy->rope_frequency = take(policy, (size_t)c->head_dim / 2 * sizeof *policy->rope_frequency);
	rope_frequencies(policy->rope_frequency, c);
	for (int i = 0; i < c->n_layers; i++) layer_pack(policy, i, weights, with_draft, n_threads);
	const uint16_t *embedding = tensor_data(weights, -1, "model.embed_tokens.weight");
	policy->embedding = copy_bf16(policy, embedding, (size_t)c->vocab_size * (size_t)c->dim);
	policy->final_norm = copy_bf16(policy, tensor_data(weights, -1, "model.norm.weight"), (size_t)c->dim);
	const uint16_t *head = c->tied ? embedding : tensor_data(weights, -1, "lm_head.weight");
	linear_pack(policy, &policy->head, head, c->vocab_size, c->dim, with_draft, n_threads);
	*out = policy;
	return 0;
}

static void linear_free(struct linear *linear)
{
	free(linear->target);
	free(linear->draft);
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
