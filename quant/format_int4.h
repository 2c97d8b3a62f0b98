/* format_int4.h - INT4, symmetric, one scale per INT4_GROUP (32) inputs of one output.
 *
 * The layout is the quant folder's own business: callers see bytes.
 *
 *     matrix   [panels(N)][ceil(K / 32)] blocks, padded outputs and inputs quantize to 0
 *     block    16 outputs by 32 inputs, 288 bytes = 4.5 bits per weight:
 *
 *              scale  16 x bf16, one per output
 *              q      8 steps of 32 bytes; step s covers inputs 4s .. 4s+3:
 *
 *              byte of a step    0    1    2    3    4        ...        31
 *              input            4s  4s+1 4s+2 4s+3  4s        ...      4s+3
 *              low nibble        output 0            output 1  ...  output 7
 *              high nibble       output 8            output 9  ...  output 15
 *
 * A nibble u stands for the weight (u - 8) * scale; scale may be negative, so that the value of
 * largest magnitude may be the one at -8.  One 32-byte load and two masks give the operands of two
 * u8 x s8 multiply-adds over 4 inputs of 8 outputs each.
 *
 * Scale search, for each output of a block: the weight of largest magnitude is put at each of
 * INT4_LEVELS in turn (short of -8 wastes range, beyond it clips), the scale rounded to BF16 with the
 * least squared error is kept, and once refined by least squares, sum(w q) / sum(q q), if that is
 * better still.  Within 0.2 % of the error of a search over 21 levels.
 */
#ifndef QUANT_FORMAT_INT4_H
#define QUANT_FORMAT_INT4_H

#include "quant/kernels.h"

enum { INT4_STEP = 4, INT4_STEPS = INT4_GROUP / INT4_STEP, INT4_ZERO = 8, INT4_MIN = -8, INT4_MAX = 7 };

enum { INT4_N_LEVELS = 5 };
#define INT4_LEVELS -8.0f, -8.4f, -7.6f, -8.8f, -7.2f

struct int4_block {
	uint16_t scale[PANEL];
	uint8_t q[INT4_STEPS][INT4_STEP * PANEL / 2];
};

_Static_assert(sizeof(struct int4_block) == 288, "INT4 blocks are read as bytes");

static inline int int4_blocks(int k) { return (k + INT4_GROUP - 1) / INT4_GROUP; }

/* The weight of one output (0..15) and input (0..31) of a block, without its scale: -8..7. */
static inline int int4_get(const struct int4_block *block, int output, int input)
{
	uint8_t byte = block->q[input / INT4_STEP][output % 8 * INT4_STEP + input % INT4_STEP];
	return (output < 8 ? byte & 15 : byte >> 4) - INT4_ZERO;
}

/* Bytes of an [N][K] matrix. */
size_t int4_bytes(int n, int k);

/* Quantize panels [panel_begin, panel_end) of rows [N][K] (row-major bf16): round to nearest with
 * a searched scale.  dst 64-byte aligned, int4_bytes(n, k) long. */
void int4_quantize(struct int4_block *dst, const uint16_t *rows, int n, int k, int panel_begin,
                   int panel_end);

/* Row-major float copy of the quantized matrix, for tests and error tables: out [N][K]. */
void int4_dequantize(float *out, const struct int4_block *src, int n, int k);

#endif
