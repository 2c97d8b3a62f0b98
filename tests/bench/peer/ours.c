/* ours.c - drumroll's side of `make bench-peer`: a model of ours that obeys the commands of turns.h.
 *
 *     ours serve MODEL_DIR bf16|4bit THREADS
 *     ours random DIR         a model of Qwen2.5-0.5B's shape with random weights
 *
 * bf16 is the exact target.  4bit is the quantized mode: the int4 copy (groups of 32, searched scales, INT8
 * activations, its head too) draws; in `generate` the target's log-probabilities are added, as in a run, and the time
 * of that is given separately, since the peer does nothing like it.
 */
#include <stdio.h>
#include <string.h>

#include "configs/config.h"
#include "rollout/engine.h"
#include "rollout/sampling/noise.h"
#include "scheduler/bench/bench_model.h"
#include "tests/bench/peer/turns.h"
#include "tests/support/random_model.h"

enum { PREFILL_ROWS = 512 };
#define PEAK_SECONDS 0.1

struct side {
	struct policy *policy;
	int n_threads;
	enum policy_part part;
};

static void die(const char *text)
{
	fprintf(stderr, "ours: %s\n", text);
	exit(EXIT_FAILURE);
}

static void open_sequences(struct bench_sequences *s, const struct side *side, int n, int n_positions)
{
	struct err err;
	if (bench_sequences_open(s, side->policy, KV_F32, n, n_positions, side->n_threads, &err)) die(err.text);
}

/* Positions [from, to) of the first sequence; the last one's logits are s->logits.  Returns the seconds. */
static double extend(struct bench_sequences *s, const struct side *side, const int32_t *tokens, int from, int to)
{
	for (int p = from; p < to; p++)
		s->rows[p - from] = (struct forward_row){&s->seqs[0], p, tokens[p], p == to - 1 ? 0 : -1};
	double start = turn_seconds();
	forward_run(s->forward, side->policy, side->part, s->rows, to - from, s->logits, s->stride);
	return turn_seconds() - start;
}

static void greedy(const struct side *side, int prompt, int steps)
{
	struct bench_sequences s;
	int vocabulary = side->policy->config.vocab_size;
	int32_t *tokens = xcalloc((unsigned long)(prompt + steps), sizeof *tokens);

	open_sequences(&s, side, 1, prompt + steps);
	for (int i = 0; i < prompt; i++) tokens[i] = turn_token(vocabulary, 0, i);
	for (int n = prompt; n < prompt + steps; n++) {
		float most;
		int best;
		extend(&s, side, tokens, n == prompt ? 0 : n - 1, n);
		kernels_best()->argmax(s.logits + TOKENS_SKIPPED, vocabulary - TOKENS_SKIPPED, &most, &best);
		tokens[n] = best + TOKENS_SKIPPED;
		printf("%d ", tokens[n]);
	}
	free(tokens);
	bench_sequences_close(&s);
}

static void prefill(const struct side *side, int n)
{
	struct bench_sequences s;
	int32_t *tokens = xcalloc((unsigned long)n, sizeof *tokens);

	open_sequences(&s, side, 1, n);
	for (int i = 0; i < n; i++) tokens[i] = turn_token(side->policy->config.vocab_size, 0, i);
	extend(&s, side, tokens, 0, n);
	printf("%.9f", extend(&s, side, tokens, 0, n));
	free(tokens);
	bench_sequences_close(&s);
}

static void decode(const struct side *side, int batch, int context, int steps)
{
	struct bench_sequences s;
	double samples[STEPS_MAX];

	open_sequences(&s, side, batch, context + steps + 1);
	bench_sequences_prefill(&s, context);
	bench_sequences_step(&s, batch, context, side->part);
	for (int i = 0; i < steps; i++) samples[i] = bench_sequences_step(&s, batch, context + 1 + i, side->part);
	bench_sequences_close(&s);
	printf("%.9f", turn_median(samples, steps));
}

static void generate(const struct side *side, int batch, int context, int steps)
{
	const struct model_config *c = &side->policy->config;
	int32_t *prompt = xcalloc((unsigned long)context, sizeof *prompt); /* of all: a group */
	struct engine *engine;
	struct engine_stats before, after;
	struct err err;
	struct engine_options options = {
		.mode = side->part == PART_TARGET ? ROLLOUT_EXACT : ROLLOUT_QUANTIZED, .max_active = batch,
		.prefill_chunk = PREFILL_ROWS, .n_threads = side->n_threads, .kv_type = KV_F32,
		.kv_bytes = (size_t)(batch + 1) * kv_bytes(c, KV_F32, context + steps + 2 * KV_TILE), .stop_token = -1,
		.ignore_end = true, .clock = turn_seconds,
	};

	if (engine_open(&engine, side->policy, &options, context + steps, &err)) die(err.text);
	for (int p = 0; p < context; p++) prompt[p] = turn_token(c->vocab_size, 0, p);
	for (int i = 0; i < batch; i++) {
		struct trajectory *t = trajectory_new(prompt, context, steps);
		t->group_id = 1;
		t->sample = i;
		t->id = trajectory_id(t->group_id, i);
		t->seed = noise_key(1, "peer", 0, i);
		t->sampling = (struct sampling_options){.temperature = 1, .top_p = 1};
		engine_add(engine, t);
	}
	do { /* until all have begun */
		engine_round(engine);
		engine_stats_read(engine, &before);
	} while (before.active < batch || before.tokens < (uint64_t)batch);
	double start = turn_seconds();
	while (engine_pending(engine)) engine_round(engine);
	double seconds = turn_seconds() - start;
	engine_stats_read(engine, &after);
	double rescore = after.rescore_seconds - before.rescore_seconds;
	printf("%d %.9f %.9f", (int)(after.tokens - before.tokens), seconds - rescore, rescore);
	engine_close(engine);
	free(prompt);
}

static void work(const struct side *side, const char *phase, int batch, int context)
{
	bool is_prefill = strcmp(phase, "prefill") == 0;
	double attended = is_prefill ? 0.5 * context * (context + 1.0) : (double)batch * context;
	struct bench_work w = bench_call_work(&(struct bench_call){
		.policy = side->policy, .draft = side->part != PART_TARGET, .kv_type = KV_F32,
		.rows = is_prefill ? context : batch, .logits_rows = is_prefill ? 1 : batch,
		.positions_read = is_prefill ? context : attended, .positions_attended = attended});
	printf("%.0f %.0f %.0f", w.bytes, w.fma_ops, w.int8_ops);
}

static void peaks(const struct side *side)
{
	struct bench_call call = {.policy = side->policy, .draft = side->part != PART_TARGET, .rows = 1, .logits_rows = 1};
	double bytes = bench_call_work(&call).bytes, least = 16 << 20;
	struct bench_peaks p = {.kernels = kernels_best(), .n_threads = side->n_threads, .seconds_each = PEAK_SECONDS,
	                        .buffer_bytes = (size_t)(bytes > least ? bytes : least)};
	struct err err;
	if (bench_peaks_measure(&p, &err)) die(err.text);
	struct machine_peaks m = bench_peaks_median(&p);
	printf("%.3f %.3f %.3f", m.read_gbps, m.fma_gflops, m.int8_gops);
}

static void obey(const struct side *side)
{
	char line[LINE_MAX_BYTES], word[16], phase[16];
	int a, b, c;

	while (fgets(line, sizeof line, stdin)) {
		int n = sscanf(line, "%15s %d %d %d", word, &a, &b, &c);
		if (n == 3 && strcmp(word, "greedy") == 0) greedy(side, a, b);
		else if (n == 2 && strcmp(word, "prefill") == 0) prefill(side, a);
		else if (n == 4 && strcmp(word, "decode") == 0 && b > 0 && c > 0 && c <= STEPS_MAX) decode(side, a, b, c);
		else if (n == 4 && strcmp(word, "generate") == 0) generate(side, a, b, c);
		else if (sscanf(line, "work %15s %d %d", phase, &a, &b) == 3) work(side, phase, a, b);
		else if (strcmp(word, "peaks") == 0) peaks(side);
		else die(line);
		printf("\n");
		fflush(stdout);
	}
}

static int make_random(const char *dir)
{
	struct model_config config = random_model_config(896, 24, 14, 2, 4864, 151936, 4096);
	struct err err;
	snprintf(config.model_type, sizeof config.model_type, "qwen2");
	config.qkv_bias = true;
	config.rms_eps = 1e-6f;
	config.rope_theta = 1e6;
	config.bos_id = -1;
	config.eos_ids[0] = 151645;
	if (random_model_save(dir, &config, 1, &err)) die(err.text);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct weights weights;
	struct side side = {.part = PART_TARGET};
	struct draft_options draft = {.format = FORMAT_INT4, .head_format = FORMAT_INT4, .quantizer = QUANTIZE_SEARCH};
	struct err err;

	if (argc == 3 && strcmp(argv[1], "random") == 0) return make_random(argv[2]);
	if (argc != 5 || strcmp(argv[1], "serve") != 0) die("ours serve MODEL_DIR bf16|4bit THREADS | ours random DIR");
	side.n_threads = atoi(argv[4]);
	if (strcmp(argv[3], "4bit") == 0) side.part = PART_DRAFT;
	if (weights_open(&weights, argv[2], &err)) die(err.text);
	if (policy_create(&side.policy, &weights, 0, side.part == PART_DRAFT ? &draft : NULL, side.n_threads, &err))
		die(err.text);
	weights_free(&weights);
	printf("ready %s, %d threads\n", kernels_best()->name, side.n_threads);
	fflush(stdout);
	obey(&side);
	policy_free(side.policy);
	return EXIT_SUCCESS;
}
