/* quantized.h - matrices in a format, for tests. */
#ifndef TESTS_SUPPORT_QUANTIZED_H
#define TESTS_SUPPORT_QUANTIZED_H

#include "quant/kernels.h"

struct quantized {
	struct qmatrix matrix;
	uint16_t *packed; /* what it was made of */
	size_t bytes;     /* of the planes, which begin at matrix.q */
};

/* rows [N][K] bf16, borrowed for the call.  Every byte of the planes is 0xa5 before. */
struct quantized quantized_make(const struct kernels *kernels, enum format format, enum quantizer quantizer,
                                const float *importance, const uint16_t *rows, int n, int k);
void quantized_free(struct quantized *quantized);

#endif
