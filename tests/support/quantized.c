/* quantized.c - see quantized.h. */
#include "tests/support/quantized.h"

#include <stdlib.h>
#include <string.h>

struct quantized quantized_make(const struct kernels *kernels, enum format format, enum quantizer quantizer,
                                const float *importance, const uint16_t *rows, int n, int k)
{
	struct quantized made = {.bytes = qmatrix_bytes(format, n, k)};
	made.packed = malloc(packed_bf16_elements(n, k) * sizeof *made.packed);
	pack_bf16(made.packed, rows, n, k, 0, panels(n));
	void *planes = aligned_alloc(64, made.bytes);
	memset(planes, 0xa5, made.bytes);
	qmatrix_place(&made.matrix, format, n, k, planes);
	qmatrix_set_tensor_scale(&made.matrix, made.packed);
	kernels->quantize(&made.matrix, made.packed, quantizer, importance, 0, panels(n));
	return made;
}

void quantized_free(struct quantized *quantized)
{
	free(quantized->packed);
	free(quantized->matrix.q);
}
