/* kernels_tables.h - inside quant only: the tables that kernels_dispatch.c chooses from, and the
 * shape of a reduction that the scalar definition states. */
#ifndef QUANT_KERNELS_TABLES_H
#define QUANT_KERNELS_TABLES_H

#include "quant/kernels.h"

extern const struct kernels kernels_scalar;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avx512;
#endif

/* The tree over LANES partial sums; destroys lane. */
static inline float lanes_sum(float lane[LANES])
{
	for (int h = LANES / 2; h > 0; h /= 2)
		for (int i = 0; i < h; i++) lane[i] += lane[i + h];
	return lane[0];
}

#endif
