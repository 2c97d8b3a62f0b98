/* kernels.h - the arithmetic of the engine: one table of function pointers per instruction set.
 *
 * The scalar table is the definition (kernels_scalar.c, formats_scalar.c); every other table equals
 * it bit for bit, quantized weights included, since their inner sums are integers.  Only kernels_dispatch.c knows CPU features.  Kernels never
 * start threads: they take a range, and the caller splits ranges over threads.
 *
 * Legend:  M rows of activations, N outputs, K inputs, D head_dim, P positions.
 *
 * Exact numerics.  An output of a linear layer is
 *     y = sum over blocks b of K_BLOCK inputs, ascending, of ( chain_b )
 *     chain_b = fma(x[k], w[k], ... fma(x[k0], w[k0], 0)), k ascending within the block
 * where the sum starts from chain_0 (not from 0 + chain_0, which would lose the sign of a zero),
 * in FP32 with BF16 weights.  SIMD lanes run over outputs.  Weights are packed
 *     [N/PANEL][K/2][PANEL][2] bf16, N and K padded with zeros,
 * so that one 32-bit lane holds two inputs of an output: a shift widens the first, a mask the second.
 * Reductions over a vector (rmsnorm, log-sum-exp) use LANES partial accumulators, element i in
 * lane i % LANES, ascending, then the tree ((l0+l8)+(l4+l12))..: halve by adding lane i+h to
 * lane i for h = 8, 4, 2, 1.
 */
#ifndef QUANT_KERNELS_H
#define QUANT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/format.h"

enum {
	PANEL = 16,     /* outputs per packed panel */
	K_BLOCK = 256,  /* inputs per FP32 chain */
	LANES = 16,     /* partial accumulators of a reduction */
	KV_TILE = 16,   /* positions per KV page */
	Q_BLOCK = 32    /* inputs that share one INT8 activation scale; the unit of quantized weights */
};

static inline int panels(int n) { return (n + PANEL - 1) / PANEL; }

/* INT8 activations for matmul_q8: per Q_BLOCK inputs one scale, 32 values, and the sum of each half of
 * them (which corrects for weights stored with an offset). */
struct q8_block {
	float scale;
	int16_t sum[2];
	int8_t q[Q_BLOCK];
};

/* Activations this small quantize to zero: the inverse of the scale would overflow. */
#define Q8_TINY 1e-30f

/* Element type of KV pages. */
enum kv_type { KV_BF16, KV_F32, N_KV_TYPES };

static inline size_t kv_element_bytes(enum kv_type type) { return type == KV_F32 ? 4 : 2; }

struct kernels {
	const char *name; /* "scalar", "avx2", "avx512", "avx512vnni" */

	/* y[m][n] (+)= sum_k x[m][k] w[n][k] for outputs of panels [panel_begin, panel_end).
	 * x [M][x_stride], y [M][y_stride] with y_stride >= PANEL * panels(N) so that padded
	 * outputs may be written; w packed bf16. */
	void (*matmul_bf16)(float *y, size_t y_stride, const float *x, size_t x_stride, int m,
	                    const uint16_t *w, int k, int panel_begin, int panel_end);

	/* The same with quantized weights (any format but FORMAT_BF16) and INT8 activations;
	 * x [M][x_stride blocks].  y = one chain from 0 over blocks of Q_BLOCK inputs ascending, and over
	 * their groups where those are smaller, of fma(dot, x_scale * w_scale, y), dot an exact integer;
	 * with minimums each is followed by fma(sum of x, x_scale * w_min, y). */
	void (*matmul_q8)(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
	                  const struct qmatrix *w, int panel_begin, int panel_end);

	/* Quantized weights, FP32 activations: matmul_bf16 with the weights of format_weight(). */
	void (*matmul_q32)(float *y, size_t y_stride, const float *x, size_t x_stride, int m,
	                   const struct qmatrix *w, int panel_begin, int panel_end);

	/* Quantize panels of a packed bf16 matrix of dst's shape; see format.h for the rules.
	 * importance [K] weighs the squared error of each input, or NULL (QUANTIZE_SEARCH only). */
	void (*quantize)(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer,
	                 const float *importance, int panel_begin, int panel_end);

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
	 * q, out [n_q][D] f32.  pages[p] is the base of page p (KV_TILE positions of the given type); at
	 * k_offset (in elements) it holds K as [D][KV_TILE], at v_offset V as [KV_TILE][D].
	 * Positions 0 .. n_positions-1 are attended.  scores: scratch [n_q][n_positions rounded up
	 * to KV_TILE].  score = (chain over d of q*k) * scale; softmax as max, exp, lane sum;
	 * out[d] = (chain over positions, ascending, of p*v) / sum. */
	void (*attend[N_KV_TYPES])(float *out, const float *q, int n_q, int head_dim, const void *const *pages,
	                           size_t k_offset, size_t v_offset, int n_positions, float scale,
	                           float *scores);

	/* Largest value and its lowest index; n >= 1.  NaN is never chosen; -inf and 0 if nothing is. */
	void (*argmax)(const float *x, int n, float *max, int *index);

	/* sum_i exp((x[i] - max) * inv_t), LANES reduction. */
	float (*sum_exp)(const float *x, int n, float max, float inv_t);
};

/* The best table of this CPU; DRUMROLL_CPU=scalar|avx2|avx512|avx512vnni in the environment picks another, and
 * ends the program with a sentence if there is none of that name or the CPU cannot run it. */
const struct kernels *kernels_best(void);

/* By name; NULL if not compiled in or not supported by this CPU. */
const struct kernels *kernels_named(const char *name);

/* Pack rows [N][K] (row-major bf16) into panels [panel_begin, panel_end). */
void pack_bf16(uint16_t *packed, const uint16_t *rows, int n, int k, int panel_begin, int panel_end);

/* Elements of one panel, and of a packed matrix. */
static inline size_t packed_panel_elements(int k) { return (size_t)PANEL * (size_t)(k + k % 2); }
static inline size_t packed_bf16_elements(int n, int k) { return (size_t)panels(n) * packed_panel_elements(k); }

/* Where the weight of an output and an input lies in a packed matrix of K inputs. */
static inline size_t packed_bf16_at(int k, int output, int input)
{
	return (size_t)(output / PANEL) * packed_panel_elements(k) +
	       (size_t)((input / 2 * PANEL + output % PANEL) * 2 + input % 2);
}

#endif
