/* kernels.h - the arithmetic of the engine: one table of function pointers per instruction set.
 *
 * The scalar table is the definition (kernels_scalar.c); every other table equals it bit for
 * bit on the target path (all but matmul_int4, whose tables also agree bit for bit here since
 * its inner sums are integers).  Only kernels_dispatch.c knows CPU features.  Kernels never
 * start threads: they take a range, and the caller splits ranges over threads.
 *
 * Legend:  M rows of activations, N outputs, K inputs, D head_dim, P positions.
 *
 * Exact numerics (DESIGN section 2).  An output of a linear layer is
 *     y = sum over blocks b of K_BLOCK inputs, ascending, of ( chain_b )
 *     chain_b = fma(x[k], w[k], ... fma(x[k0], w[k0], 0)), k ascending within the block
 * where the sum starts from chain_0 (not from 0 + chain_0, which would lose the sign of a zero),
 * in FP32 with BF16 weights.  SIMD lanes run over outputs.  Weights are packed
 *     [N/PANEL][K][PANEL] bf16, N padded with zero rows.
 * Reductions over a vector (rmsnorm, log-sum-exp) use LANES partial accumulators, element i in
 * lane i % LANES, ascending, then the tree ((l0+l8)+(l4+l12))..: halve by adding lane i+h to
 * lane i for h = 8, 4, 2, 1.
 */
#ifndef QUANT_KERNELS_H
#define QUANT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PANEL = 16,     /* outputs per packed panel */
	K_BLOCK = 256,  /* inputs per FP32 chain */
	LANES = 16,     /* partial accumulators of a reduction */
	KV_TILE = 16,   /* positions per KV page */
	INT4_GROUP = 32 /* inputs that share one INT4 scale, and one INT8 activation scale */
};

static inline int panels(int n) { return (n + PANEL - 1) / PANEL; }

/* INT8 activations for matmul_int4: per INT4_GROUP inputs one scale, the sum of the values (which
 * corrects for weights stored with an offset) and 32 values. */
struct q8_block {
	float scale;
	int32_t sum;
	int8_t q[INT4_GROUP];
};

/* Activations this small quantize to zero: the inverse of the scale would overflow. */
#define Q8_TINY 1e-30f

/* INT4 weights, symmetric, 16 outputs by 32 inputs.  See format_int4.h for the picture. */
struct int4_block;

struct kernels {
	const char *name; /* "scalar", "avx2", "avx512" */

	/* y[m][n] (+)= sum_k x[m][k] w[n][k] for outputs of panels [panel_begin, panel_end).
	 * x [M][x_stride], y [M][y_stride] with y_stride >= PANEL * panels(N) so that padded
	 * outputs may be written; w packed bf16. */
	void (*matmul_bf16)(float *y, size_t y_stride, const float *x, size_t x_stride, int m,
	                    const uint16_t *w, int k, int panel_begin, int panel_end);

	/* The same with INT4 weights and INT8 activations; x [M][x_stride blocks].
	 * y = one chain over groups g ascending, from 0, of fma(dot_g, x_scale * w_scale, y). */
	void (*matmul_int4)(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
	                    const struct int4_block *w, int k, int panel_begin, int panel_end);

	/* Quantize one row of k activations to ceil(k/32) blocks (amax/127, round half to even). */
	void (*quantize_q8)(struct q8_block *out, const float *x, int k);

	/* y = x / sqrt(mean(x^2) + eps) * weight; weight [n] bf16.  y may be x. */
	void (*rmsnorm)(float *y, const float *x, const uint16_t *weight, int n, float eps);

	/* y = silu(gate) * up; y may be gate. */
	void (*silu_mul)(float *y, const float *gate, const float *up, int n);

	/* y += x */
	void (*add)(float *y, const float *x, int n);

	/* Rotate one head in place, Hugging Face order (i pairs with i + D/2);
	 * cos, sin [D/2] of this position. */
	void (*rope)(float *x, const float *cos, const float *sin, int head_dim);

	/* Attention of n_q query heads that share one KV head, for one row at one position.
	 * q, out [n_q][D] f32.  pages[p] is the base of page p (KV_TILE positions); at k_offset
	 * (in bf16 elements) it holds K as [D][KV_TILE], at v_offset V as [KV_TILE][D].
	 * Positions 0 .. n_positions-1 are attended.  scores: scratch [n_q][n_positions rounded up
	 * to KV_TILE].  score = (chain over d of q*k) * scale; softmax as max, exp, lane sum;
	 * out[d] = (chain over positions, ascending, of p*v) / sum. */
	void (*attend)(float *out, const float *q, int n_q, int head_dim, const uint16_t *const *pages,
	               size_t k_offset, size_t v_offset, int n_positions, float scale, float *scores);

	/* Largest value and its lowest index; n >= 1.  NaN is never chosen; -inf and 0 if nothing is. */
	void (*argmax)(const float *x, int n, float *max, int *index);

	/* sum_i exp((x[i] - max) * inv_t), LANES reduction. */
	float (*sum_exp)(const float *x, int n, float max, float inv_t);

	/* Quantize 16 outputs by 32 inputs of weights, w [input][output]; see format_int4.h. */
	void (*int4_quantize_block)(struct int4_block *block, const float w[INT4_GROUP][PANEL]);
};

/* The best table of this CPU; DRUMROLL_CPU=scalar|avx2|avx512 in the environment picks another, and
 * ends the program with a sentence if there is none of that name or the CPU cannot run it. */
const struct kernels *kernels_best(void);

/* By name; NULL if not compiled in or not supported by this CPU. */
const struct kernels *kernels_named(const char *name);

/* Pack rows [N][K] (row-major bf16) into panels [panel_begin, panel_end). */
void pack_bf16(uint16_t *packed, const uint16_t *rows, int n, int k, int panel_begin, int panel_end);

/* elements of a packed matrix */
static inline size_t packed_bf16_elements(int n, int k) { return (size_t)panels(n) * PANEL * (size_t)k; }

#endif
