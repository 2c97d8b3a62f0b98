/* policy_bytes.c - what a policy is going to take, from shapes alone. */
#include "policy/policy.h"

static double linear_bytes(int n, int k, enum format format, bool bias)
{
	double target = (double)packed_bf16_elements(n, k) * sizeof(uint16_t);
	double draft = format == FORMAT_BF16 ? 0 : (double)qmatrix_bytes(format, n, k);
	return target + draft + (bias ? 4.0 * n : 0);
}

static double layer_bytes(const struct model_config *c, enum format format)
{
	int q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
	double norms = 2.0 * (2.0 * c->dim + (c->qk_norm ? 2.0 * c->head_dim : 0));
	return sizeof(struct layer) + norms + linear_bytes(q_dim + 2 * kv_dim, c->dim, format, c->qkv_bias) +
	       linear_bytes(c->dim, q_dim, format, c->o_bias) +
	       linear_bytes(2 * policy_ffn_padded(c), c->dim, format, c->mlp_bias) +
	       linear_bytes(c->dim, c->ffn_dim, format, c->mlp_bias);
}

double policy_bytes(const struct model_config *c, const struct draft_options *draft)
{
	enum format format = draft ? draft->format : FORMAT_BF16, head = draft ? draft->head_format : FORMAT_BF16;
	double embedding = c->tied ? 0 : 2.0 * c->vocab_size * c->dim;
	double rest = sizeof(struct policy) + 4.0 * (c->head_dim / 2) + 2.0 * c->dim;
	return rest + embedding + c->n_layers * layer_bytes(c, format) + linear_bytes(c->vocab_size, c->dim, head, false);
}
