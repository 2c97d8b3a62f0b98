/* bench_engine.c - tokens per second of the engine by samples in flight, exact, speculative and quantized.
 *
 *     bench_engine [model directory] [threads] [tokens per sample]
 *
 * Without a directory: a random model of the quickstart's kind (dim 192, 4 layers, vocabulary 300),
 * whose rounds are so short that everything around the matrix products shows.  Columns: tokens/s,
 * shares of the time in draft, verify (prefill included), sampling and the target's rescoring (quantized mode),
 * the rest being the engine itself; acceptance.  Random weights accept badly; read their speculative rows as a cost only.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "configs/config.h"
#include "rollout/engine.h"
#include "rollout/sampling/noise.h"
#include "tests/support/random_model.h"

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct policy *open_policy(const char *dir, int n_threads)
{
	struct weights weights;
	struct policy *policy;
	struct err err;

	if (dir) {
		if (weights_load(&weights, dir, &err)) {
			fprintf(stderr, "%s\n", err.text);
			exit(EXIT_FAILURE);
		}
	} else {
		struct model_config config = random_model_config(192, 4, 6, 3, 512, 300, 512);
		random_model(&weights, &config, 1);
	}
	weights.config.n_eos = 0; /* all samples run to the same length */
	if (policy_create(&policy, &weights, 0, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, n_threads, &err)) {
		fprintf(stderr, "%s\n", err.text);
		exit(EXIT_FAILURE);
	}
	weights_free(&weights);
	return policy;
}

static void add_sample(struct engine *engine, int index, int n_tokens)
{
	static const int32_t prompt[] = {1, 9, 8, 7, 6, 5, 4, 3};
	struct trajectory *t = trajectory_new(prompt, sizeof prompt / sizeof *prompt, n_tokens);

	t->group_id = (uint64_t)index / 8 + 1;
	t->sample = index % 8;
	t->id = trajectory_id(t->group_id, t->sample);
	t->seed = noise_key(1, "bench", 0, index);
	engine_add(engine, t);
}

static void measure(const struct policy *policy, int mode, int n_active, int n_threads, int n_tokens)
{
	struct engine_options options = {
		.mode = mode,
		.drafter = DRAFTER_KIND_COMBINED,
		.draft_length_max = 16,
		.suffix_tokens = 1 << 20,
		.max_active = n_active,
		.prefill_chunk = 64,
		.n_threads = n_threads,
		.kv_bytes = (size_t)4 << 30,
		.stop_token = -1,
		.clock = seconds,
	};
	struct engine_stats s;
	struct engine *engine;
	struct err err;

	if (engine_open(&engine, policy, &options, n_tokens + 8, &err)) {
		fprintf(stderr, "%s\n", err.text);
		exit(EXIT_FAILURE);
	}
	for (int i = 0; i < n_active; i++) add_sample(engine, i, n_tokens);
	double start = seconds();
	while (engine_pending(engine)) engine_round(engine);
	double wall = seconds() - start;
	engine_stats_read(engine, &s);
	static const char *const modes[] = {"exact", "speculative", "quantized"};
	double rest = wall - s.draft_seconds - s.verify_seconds - s.prefill_seconds - s.sample_seconds - s.rescore_seconds;
	printf("%-12s %6d %10.0f %9.1f%% %9.1f%% %9.1f%% %9.1f%% %9.1f%% %10.3f\n", modes[mode],
	       n_active, (double)s.tokens / wall, 100 * s.draft_seconds / wall,
	       100 * (s.verify_seconds + s.prefill_seconds) / wall, 100 * s.sample_seconds / wall,
	       100 * s.rescore_seconds / wall, 100 * rest / wall, s.drafted ? (double)s.accepted / (double)s.drafted : 0.0);
	engine_close(engine);
}

int main(int argc, char **argv)
{
	const char *dir = argc > 1 && argv[1][0] ? argv[1] : NULL;
	int n_threads = argc > 2 ? atoi(argv[2]) : 1, n_tokens = argc > 3 ? atoi(argv[3]) : 64;
	struct policy *policy = open_policy(dir, n_threads);

	printf("%s, %d thread(s), %d tokens per sample, kernels %s\n", dir ? dir : "random model", n_threads,
	       n_tokens, kernels_best()->name);
	printf("%-12s %6s %10s %10s %10s %10s %10s %10s %10s\n", "mode", "active", "tokens/s", "draft", "verify",
	       "sample", "rescore", "engine", "acceptance");
	for (int mode = ROLLOUT_EXACT; mode <= ROLLOUT_QUANTIZED; mode++) {
		static const int actives[] = {1, 8, 32, 128};
		for (size_t i = 0; i < sizeof actives / sizeof *actives; i++)
			measure(policy, mode, actives[i], n_threads, n_tokens);
	}
	policy_free(policy);
	return 0;
}
