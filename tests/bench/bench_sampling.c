/* bench_sampling.c - microseconds of one draw by vocabulary size and options, beside the bytes of
 * BF16 head (dim 896) that one row has to read at 17 GB/s: what sampling must be small against. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "quant/kernels.h"
#include "rollout/sampling.h"
#include "tests/support/random_model.h"

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A spread of logits like a language model's: most entries 8 to 20 nat below the best few. */
static void model_like_row(float *logits, int n, uint64_t *rng)
{
	for (int i = 0; i < n; i++) {
		float sum = 0.0f;
		for (int k = 0; k < 4; k++) sum += (float)(random_bits(rng) >> 40) * 0x1p-24f;
		logits[i] = 6.0f * (sum - 2.0f) + (random_bits(rng) % 3000 == 0 ? 9.0f : 0.0f);
	}
}

static double best_microseconds(struct sampler *sampler, const float *logits,
                                const struct sampling_options *options, bool with_logprob)
{
	double best = 1e9;
	float logprob;

	for (int run = 0; run < 7; run++) {
		double start = seconds();
		for (int32_t position = 0; position < 20; position++) {
			if (with_logprob) sampler_draw(sampler, logits, options, 1, position, &logprob);
			else sampler_draw_token(sampler, logits, options, 1, position);
		}
		double one = (seconds() - start) / 20 * 1e6;
		best = one < best ? one : best;
	}
	return best;
}

int main(void)
{
	static const int sizes[] = {300, 32000, 151936};
	static const struct {
		const char *name;
		struct sampling_options options;
	} cases[] = {
		{"temperature 1", {1.0f, 1.0f, 0}}, {"top_p 0.95", {1.0f, 0.95f, 0}},
		{"top_k 50", {1.0f, 1.0f, 50}},     {"greedy", {0.0f, 1.0f, 0}},
	};
	printf("kernels: %s\n%-14s %10s %10s %10s %16s\n", kernels_best()->name, "options", "vocabulary",
	       "draw us", "token us", "head at 17 GB/s");
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		int n = sizes[s];
		uint64_t rng = 3;
		float *logits = xmalloc((size_t)n * sizeof *logits);
		struct sampler *sampler = sampler_open(n);
		model_like_row(logits, n, &rng);
		for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
			printf("%-14s %10d %10.1f %10.1f %16.1f\n", cases[c].name, n,
			       best_microseconds(sampler, logits, &cases[c].options, true),
			       best_microseconds(sampler, logits, &cases[c].options, false), n * 896.0 * 2 / 17e9 * 1e6);
		sampler_close(sampler);
		free(logits);
	}
	return 0;
}
