/* random_model.c - small random models for tests. */
#include "tests/support/random_model.h"

#include <math.h>
#include <string.h>

#include "quant/bf16.h"

uint64_t random_bits(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Sum of four uniform 16-bit numbers, centred, standard deviation 1: close to normal, no libm. */
static float random_normal(uint64_t *state)
{
	uint64_t bits = random_bits(state);
	int32_t sum = 0;
	for (int i = 0; i < 4; i++) sum += (int32_t)(bits >> (16 * i) & 0xffffu);
	return ((float)sum - 131070.0f) * (1.0f / 37837.2f);
}

struct model_config random_model_config(int dim, int n_layers, int n_heads, int n_kv_heads, int ffn_dim,
                                        int vocab_size, int max_context)
{
	return (struct model_config){
		.model_type = "llama", .dim = dim, .n_layers = n_layers, .n_heads = n_heads, .n_kv_heads = n_kv_heads,
		.head_dim = dim / n_heads, .ffn_dim = ffn_dim, .vocab_size = vocab_size, .max_context = max_context,
		.rms_eps = 1e-5f, .rope_theta = 10000.0, .tied = true, .bos_id = 1, .eos_ids = {2}, .n_eos = 1,
	};
}

struct model_config random_model_small(void)
{
	return random_model_config(64, 2, 4, 2, 160, 96, 256);
}

void random_model(struct weights *weights, const struct model_config *config, uint64_t seed)
{
	weights_alloc(weights, config);
	uint64_t state = seed;
	for (int i = 0; i < weights->n_tensors; i++) {
		const struct weight_tensor *tensor = &weights->tensors[i];
		bool norm = strstr(tensor->name, "norm") != NULL;
		bool bias = strstr(tensor->name, ".bias") != NULL;
		bool vocabulary = tensor->rows == config->vocab_size && strstr(tensor->name, "layers") == NULL;
		float deviation = (vocabulary ? 2.0f : 1.0f) / sqrtf((float)tensor->cols);
		if (norm) deviation = 0.1f;
		if (bias) deviation = 0.2f;
		size_t n = (size_t)tensor->rows * (size_t)tensor->cols;
		for (size_t k = 0; k < n; k++)
			weights->data[tensor->offset + k] =
				bf16_from_f32((norm ? 1.0f : 0.0f) + deviation * random_normal(&state));
	}
}

int random_model_save(const char *dir, const struct model_config *config, uint64_t seed, struct err *err)
{
	struct weights weights;
	random_model(&weights, config, seed);
	int code = weights_save(&weights, dir, err);
	weights_free(&weights);
	return code;
}
