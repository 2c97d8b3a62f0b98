/* bench_data.c - the buffers of the kernels' measurements.  Threads fill the part that they will read, so
 * that the system puts it near them. */
#include "scheduler/bench/bench_data.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "policy/team.h"
#include "quant/bf16.h"

/* splitmix64 */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Four uniform numbers added, deviation 1: close to normal. */
static float random_normal(uint64_t *state)
{
	uint64_t bits = random_next(state);
	int32_t sum = 0;
	for (int i = 0; i < 4; i++) sum += (int32_t)(bits >> (16 * i) & 0xffffu);
	return ((float)sum - 131070.0f) * (1.0f / 37837.2f);
}

static void fill_bf16(uint16_t *to, size_t n, float deviation)
{
	uint64_t state = n;
	for (size_t i = 0; i < n; i++) to[i] = bf16_from_f32(deviation * random_normal(&state));
}

static float *floats_random(size_t n, float deviation)
{
	uint64_t state = n;
	float *x = xaligned(n * sizeof *x);
	for (size_t i = 0; i < n; i++) x[i] = deviation * random_normal(&state);
	return x;
}

/* Most entries some 10 nat below the best few, like a language model's. */
static float *logits_random(int n)
{
	uint64_t state = 3;
	float *logits = xaligned((size_t)n * sizeof *logits);
	for (int i = 0; i < n; i++)
		logits[i] = 2.0f * random_normal(&state) + (random_next(&state) % 3000 == 0 ? 9.0f : 0.0f);
	return logits;
}

/* ---- stacks ---- */

size_t stack_layer_bytes(enum format format, int n, int k)
{
	if (format == FORMAT_BF16) return packed_bf16_elements(n, k) * sizeof(uint16_t);
	return (qmatrix_bytes(format, n, k) + 63) / 64 * 64;
}

struct filling {
	struct stack *stack;
	const uint16_t *source; /* packed, one layer */
	const struct kernels *fill;
};

static void fill_share(const struct team *team, void *arg)
{
	const struct filling *f = arg;
	const struct stack *stack = f->stack;
	size_t panel = packed_panel_elements(stack->k), layer = packed_bf16_elements(stack->n, stack->k);
	struct range own = team_share(team, panels(stack->n), 1);
	for (int i = 0; i < stack->layers; i++) {
		if (stack->packed)
			memcpy(stack->packed + (size_t)i * layer + (size_t)own.begin * panel,
			       f->source + (size_t)own.begin * panel, (size_t)(own.end - own.begin) * panel * sizeof(uint16_t));
		else
			f->fill->quantize(&stack->quantized[i], f->source, QUANTIZE_RTN, NULL, own.begin, own.end);
	}
}

static void stack_open(struct stack *stack, enum format format, int n, int k, size_t bytes, const uint16_t *source,
                       const struct kernels *fill, int n_threads)
{
	size_t layer = stack_layer_bytes(format, n, k);
	int layers = bytes > layer ? (int)((bytes + layer - 1) / layer) : 1;
	char *memory = xaligned((size_t)layers * layer);
	*stack = (struct stack){.n = n, .k = k, .layers = layers};
	if (format == FORMAT_BF16) stack->packed = (uint16_t *)(void *)memory;
	else stack->quantized = xcalloc((size_t)layers, sizeof *stack->quantized);
	for (int i = 0; stack->quantized && i < layers; i++) {
		qmatrix_place(&stack->quantized[i], format, n, k, memory + (size_t)i * layer);
		if (i == 0) qmatrix_set_tensor_scale(&stack->quantized[0], source);
		stack->quantized[i].tensor_scale = stack->quantized[0].tensor_scale;
	}
	team_run(n_threads, fill_share, &(struct filling){stack, source, fill});
}

static void stack_close(struct stack *stack)
{
	free(stack->packed);
	if (stack->quantized) free(stack->quantized[0].q);
	free(stack->quantized);
}

/* ---- all of it ---- */

/* The head repeats CHUNK_N random outputs, whose order in memory does not matter. */
static void head_open(struct bench_data *d)
{
	size_t n = packed_bf16_elements(d->vocabulary, HEAD_K), chunk = packed_bf16_elements(CHUNK_N, HEAD_K);
	d->head = xaligned(n * sizeof *d->head);
	fill_bf16(d->head, chunk, 0.02f);
	for (size_t at = chunk; at < n; at += chunk)
		memcpy(d->head + at, d->head, (at + chunk < n ? chunk : n - at) * sizeof *d->head);
	for (enum format format = 0; format < N_FORMATS; format++) {
		qmatrix_place(&d->chunk[format], format, CHUNK_N, HEAD_K, xaligned(qmatrix_bytes(format, CHUNK_N, HEAD_K)));
		qmatrix_set_tensor_scale(&d->chunk[format], d->head);
	}
}

static void kv_open(struct bench_data *d)
{
	uint16_t *bf16 = xaligned(d->kv_bytes);
	fill_bf16(bf16, d->kv_bytes / sizeof *bf16, 1.0f);
	d->kv[KV_BF16] = (char *)bf16;
	d->kv[KV_F32] = (char *)floats_random(d->kv_bytes / sizeof(float), 1.0f);
}

static void own_open(struct bench_data *d, struct bench_own *own)
{
	size_t y = (size_t)MATMUL_ROWS * STACK_N, head = (size_t)panels(d->vocabulary) * PANEL;
	own->y = xaligned((y > head ? y : head) * sizeof *own->y);
	own->scores = xaligned(sizeof *own->scores * QUERY_HEADS_MAX * ATTEND_POSITIONS);
	own->q8 = xaligned(sizeof *own->q8 * STACK_K / Q_BLOCK);
	own->sampler = sampler_open(d->vocabulary);
}

struct bench_data *bench_data_open(const struct kernels *kernels, const struct kernels *fill, int n_threads,
                                   int vocabulary, size_t stack_bytes, size_t kv_bytes)
{
	struct bench_data *d = xcalloc(1, sizeof *d);
	size_t n = (size_t)STACK_N * STACK_K;
	assert(vocabulary >= CHUNK_N && (kv_bytes & (kv_bytes - 1)) == 0);
	d->kernels = kernels;
	d->n_threads = n_threads;
	d->vocabulary = vocabulary;
	d->kv_bytes = kv_bytes;
	d->rows = xaligned(n * sizeof *d->rows);
	d->repacked = xaligned(packed_bf16_elements(STACK_N, STACK_K) * sizeof *d->repacked);
	fill_bf16(d->rows, n, 0.02f);
	pack_bf16(d->repacked, d->rows, STACK_N, STACK_K, 0, panels(STACK_N));
	for (enum format format = 0; format <= FORMAT_BF16; format++) {
		stack_open(&d->stacks[format], format, STACK_N, STACK_K, stack_bytes, d->repacked, fill, n_threads);
		stack_open(&d->cached[format], format, CACHED_N, CACHED_K, 0, d->repacked, fill, n_threads);
	}
	head_open(d);
	kv_open(d);
	d->x = floats_random((size_t)MATMUL_ROWS * STACK_K, 1.0f);
	d->q8 = xaligned(sizeof *d->q8 * MATMUL_ROWS * STACK_K / Q_BLOCK);
	fill->quantize_q8(d->q8, d->x, MATMUL_ROWS * STACK_K);
	d->q8_rows = floats_random((size_t)Q8_ROWS * STACK_K, 1.0f);
	d->logits = logits_random(n_threads * vocabulary);
	d->own = xcalloc((size_t)n_threads, sizeof *d->own);
	for (int t = 0; t < n_threads; t++) own_open(d, &d->own[t]);
	return d;
}

void bench_data_close(struct bench_data *d)
{
	for (int i = 0; i < STACKS; i++) {
		stack_close(&d->stacks[i]);
		stack_close(&d->cached[i]);
	}
	for (int t = 0; t < d->n_threads; t++) {
		free(d->own[t].y);
		free(d->own[t].scores);
		free(d->own[t].q8);
		sampler_close(d->own[t].sampler);
	}
	for (int i = 0; i < N_FORMATS; i++) free(d->chunk[i].q);
	free(d->kv[KV_BF16]);
	free(d->kv[KV_F32]);
	free(d->head);
	free(d->rows);
	free(d->repacked);
	free(d->x);
	free(d->q8);
	free(d->q8_rows);
	free(d->logits);
	free(d->own);
	free(d);
}
