/* random_model.h - small random models for tests: lively logits (standard deviation about 2), norms
 * near 1, the same bits for the same seed on every machine. */
#ifndef TESTS_SUPPORT_RANDOM_MODEL_H
#define TESTS_SUPPORT_RANDOM_MODEL_H

#include "policy/weights.h"

/* A Llama shape: head_dim = dim / n_heads, tied, eps 1e-5, theta 10000, BOS 1, EOS 2.  Change what
 * the test wants changed before random_model. */
struct model_config random_model_config(int dim, int n_layers, int n_heads, int n_kv_heads, int ffn_dim,
                                        int vocab_size, int max_context);

/* The one to use when the shape does not matter: dim 64, 2 layers, 4 heads, 2 KV heads, ffn 160,
 * vocabulary 96, context 256. */
struct model_config random_model_small(void);

/* Allocates; free with weights_free. */
void random_model(struct weights *weights, const struct model_config *config, uint64_t seed);

/* Save a random model as a Hugging Face directory (made if absent; without a tokenizer). */
int random_model_save(const char *dir, const struct model_config *config, uint64_t seed, struct err *err);

/* splitmix64: the next 64 random bits of *state. */
uint64_t random_bits(uint64_t *state);

#endif
