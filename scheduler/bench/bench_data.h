/* bench_data.h - the buffers of bench_subjects.h: weights of every format, keys and values, logits. */
#ifndef SCHEDULER_BENCH_BENCH_DATA_H
#define SCHEDULER_BENCH_BENCH_DATA_H

#include "quant/kernels.h"
#include "rollout/sampling/sampling.h"

enum {
	STACK_N = 4096, STACK_K = 2048,   /* a layer of a model of some billion parameters */
	CACHED_N = 1024, CACHED_K = 1024, /* 2 MiB of BF16 */
	HEAD_K = 896,                     /* Qwen2.5-0.5B's width */
	CHUNK_N = 4096,                   /* outputs of the head that are quantized as one matrix */
	MATMUL_ROWS = 64,
	ATTEND_POSITIONS = 1024, QUERY_HEADS_MAX = 8,
	Q8_ROWS = 2048,
	STACKS = N_FORMATS + 1            /* by format, BF16 last */
};

/* Layers of one shape and format, one behind the other, as in a model. */
struct stack {
	int n, k, layers;
	uint16_t *packed;          /* FORMAT_BF16: all layers; owned */
	struct qmatrix *quantized; /* else: [layers], planes in one allocation, that of the first; owned */
};

struct bench_data {
	const struct kernels *kernels;
	int n_threads, vocabulary, head_cursor;
	struct stack stacks[STACKS], cached[STACKS];
	uint16_t *head;                  /* [vocabulary][HEAD_K] packed */
	struct qmatrix chunk[N_FORMATS]; /* [CHUNK_N][HEAD_K], what quantizing the head writes */
	uint16_t *rows, *repacked;       /* [STACK_N][STACK_K] as in a checkpoint, and packed */
	size_t kv_bytes;                 /* of each of kv, a power of two */
	char *kv[N_KV_TYPES];
	float *x;                        /* [MATMUL_ROWS][STACK_K] */
	struct q8_block *q8;             /* the same */
	float *q8_rows;                  /* [Q8_ROWS][STACK_K], what is quantized to INT8 */
	float *logits;                   /* [n_threads][vocabulary] */
	struct bench_own {               /* a thread's */
		float *y;                    /* [MATMUL_ROWS][STACK_N]; of the head [vocabulary padded] */
		float *scores;               /* [QUERY_HEADS_MAX][ATTEND_POSITIONS] */
		struct q8_block *q8;         /* [STACK_K] */
		struct sampler *sampler;
	} *own;                          /* [n_threads] */
};

/* Filled with fixed pseudo-random numbers.  stack_bytes: of each format's stack at least. */
struct bench_data *bench_data_open(const struct kernels *kernels, const struct kernels *fill, int n_threads,
                                   int vocabulary, size_t stack_bytes, size_t kv_bytes);
void bench_data_close(struct bench_data *data);

/* Bytes of a layer. */
size_t stack_layer_bytes(enum format format, int n, int k);

#endif
