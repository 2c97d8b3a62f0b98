/* policy_rig.c - a random policy with all that a forward pass needs. */
#include "tests/support/policy_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/random_model.h"

static void must(int code)
{
	if (code == 0) return;
	fprintf(stderr, "policy_rig: a call that cannot fail here returned %d\n", code);
	abort();
}

struct model_config rig_shape(int i)
{
	struct model_config c = random_model_small();
	switch (i) {
	case 1: c = random_model_config(64, 2, 8, 4, 172, 50, 128); break; /* stories260K's */
	case 2: c = random_model_config(96, 2, 2, 2, 80, 97, 128); c.tied = false; break; /* head_dim 48, MHA */
	case 3: c = random_model_config(288, 2, 6, 6, 330, 64, 128); break; /* stories15M's widths */
	case 4: c.qkv_bias = true; c.tied = false; c.rope_theta = 1e6; break;
	case 5: c.qk_norm = true; c.head_dim = 24; break; /* q_dim 96 differs from dim 64 */
	case 6:
		c.rope_scaling = ROPE_LLAMA3;
		c.rope_factor = 8;
		c.rope_low_freq_factor = 1;
		c.rope_high_freq_factor = 4;
		c.rope_original_context = 32;
		break;
	case 7: c.qkv_bias = c.o_bias = c.mlp_bias = true; c.ffn_dim = 150; break;
	case 8:
		c.rope_scaling = ROPE_YARN;
		c.rope_factor = 4;
		c.rope_beta_fast = 32;
		c.rope_beta_slow = 1;
		c.rope_original_context = 32;
		break;
	}
	return c;
}

void rig_open(struct policy_rig *rig, const struct model_config *config, uint64_t seed, int n_threads)
{
	rig_open_kv(rig, config, KV_BF16, seed, n_threads);
}

void rig_open_kv(struct policy_rig *rig, const struct model_config *config, enum kv_type type, uint64_t seed,
                 int n_threads)
{
	struct err err;
	uint64_t state = seed;
	random_model(&rig->weights, config, seed);
	must(policy_create(&rig->policy, &rig->weights, 1, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, 1, &err));
	must(kv_cache_open(&rig->cache, config, type, 64u << 20, &err));
	rig->forward = forward_open(config, RIG_ROWS_MAX, n_threads);
	for (int i = 0; i < RIG_TOKENS; i++)
		rig->tokens[i] = (int)(random_bits(&state) % (uint64_t)config->vocab_size);
}

void rig_close(struct policy_rig *rig)
{
	forward_close(rig->forward);
	kv_cache_close(rig->cache);
	policy_free(rig->policy);
	weights_free(&rig->weights);
}

float *rig_logits(const struct policy_rig *rig, int n_rows)
{
	size_t n = (size_t)n_rows * forward_logits_stride(&rig->policy->config);
	float *logits = xaligned(n * sizeof *logits);
	memset(logits, 0xff, n * sizeof *logits);
	return logits;
}

float *rig_row(const struct policy_rig *rig, float *logits, int row)
{
	return logits + (size_t)row * forward_logits_stride(&rig->policy->config);
}

void rig_run_piece(const struct policy_rig *rig, struct kv_seq *seq, const int *tokens, int begin, int end,
                   enum policy_part part, float *logits)
{
	struct forward_row rows[RIG_ROWS_MAX];
	if (begin == end) return;
	must(kv_seq_reserve(seq, begin, end));
	for (int i = begin; i < end; i++) rows[i - begin] = (struct forward_row){seq, i, tokens[i], i - begin};
	forward_run(rig->forward, rig->policy, part, rows, end - begin, rig_row(rig, logits, begin),
	            forward_logits_stride(&rig->policy->config));
}

float *rig_run(const struct policy_rig *rig, const int *tokens, int n, enum policy_part part)
{
	struct kv_seq seq;
	float *logits = rig_logits(rig, n);
	kv_seq_open(&seq, rig->cache);
	rig_run_piece(rig, &seq, tokens, 0, n, part, logits);
	kv_seq_close(&seq);
	return logits;
}
