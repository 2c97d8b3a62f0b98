/* kernels_tables.h - inside quant only: the tables that kernels_dispatch.c chooses from, and the
 * shape of a reduction that the scalar definition states. */
#ifndef QUANT_KERNELS_TABLES_H
#define QUANT_KERNELS_TABLES_H

#include "quant/kernels.h"

extern const struct kernels kernels_scalar;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avx512;
extern const struct kernels kernels_avx512vnni;
#endif

#define ATTEND_FUNCTION(name) \
	void name(float *out, const float *q, int n_q, int head_dim, const void *const *pages, size_t k_offset, \
	          size_t v_offset, int n_positions, float scale, float *scores)
ATTEND_FUNCTION(attend_bf16_scalar);
ATTEND_FUNCTION(attend_f32_scalar);

enum { ATTEND_QUERIES = 32 }; /* that vector versions take together, at most */

/* The members of kernels_scalar that lie in formats_scalar.c and quantize_scalar.c. */
void matmul_q8_scalar(float *y, size_t y_stride, const struct q8_block *x, size_t x_stride, int m,
                      const struct qmatrix *w, int panel_begin, int panel_end);
void matmul_q32_scalar(float *y, size_t y_stride, const float *x, size_t x_stride, int m,
                       const struct qmatrix *w, int panel_begin, int panel_end);
void quantize_scalar(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer,
                     const float *importance, int panel_begin, int panel_end);

/* Groups of at most max that so many rows are shared out to evenly, and the next of them. */
static inline int row_groups(int left, int max) { return (left + max - 1) / max; }
static inline int group_rows(int left, int max) { return (left + row_groups(left, max) - 1) / row_groups(left, max); }

/* The tree over LANES partial sums; destroys lane. */
static inline float lanes_sum(float lane[LANES])
{
	for (int h = LANES / 2; h > 0; h /= 2)
		for (int i = 0; i < h; i++) lane[i] += lane[i + h];
	return lane[0];
}

#endif
