/* format_int4.h - INT4, symmetric, one scale per INT4_GROUP (32) inputs of one output.
 *
 * The layout is the quant folder's own business: callers see bytes. */
#ifndef QUANT_FORMAT_INT4_H
#define QUANT_FORMAT_INT4_H

#include "quant/kernels.h"

/* Bytes of an [N][K] matrix. */
size_t int4_bytes(int n, int k);

/* Quantize panels [panel_begin, panel_end) of rows [N][K] (row-major bf16): round to nearest with
 * a searched scale.  dst 64-byte aligned, int4_bytes(n, k) long. */
void int4_quantize(struct int4_block *dst, const uint16_t *rows, int n, int k, int panel_begin, int panel_end);

/* Row-major float copy of the quantized matrix, for tests and error tables: out [N][K]. */
void int4_dequantize(float *out, const struct int4_block *src, int n, int k);

#endif
