/* format.h - the quantized weights of drafters: one layout for all formats.
 *
 * A weight is a small integer times the scale of its group, a run of inputs of one output:
 *
 *     integers (int4 .. int8)   u = q << low_bits | low,  v = u - zero,  weight = v * scale / 2^low_bits
 *     with minimums (int4m*)    weight = fma(u, scale, minimum),  u in 0 .. 15
 *     mxfp4, nvfp4              q is an E2M1 code; v = 2 * its value, in -12 .. 12;  weight = v * scale / 2
 *
 * Every format is made of planes; each begins on a 64-byte line and runs over panels of 16 outputs,
 * then over blocks of Q_BLOCK inputs (or groups), K padded to whole groups:
 *
 *     q      [panels][blocks][4][64]   4 bits per weight.  Byte 4 o + i of vector p (0..3):
 *                                      low nibble   output o, input 8 p + i
 *                                      high nibble  output o, input 8 p + 4 + i      (i in 0..3)
 *     low    [panels][blocks][low_bits][64]   the bits below.  A byte holds 8 / low_bits fields;
 *                                      field t of byte 4 o + i of vector p, from the low end:
 *                                      output o, input 4 (8 / low_bits * p + t) + i
 *     scale  [panels][groups][16]      bf16; E8M0 bytes (mxfp4); E4M3 bytes (nvfp4, times tensor_scale)
 *     min    [panels][groups][16]      bf16 (int4m* only)
 *
 * One 64-byte load, a shift and two masks give the operands of two u8 x s8 multiply-adds over 4 inputs
 * of 16 outputs.  int5, int6 and int8 are *nested*: their planes q and scale are those of an int4 matrix
 * (qmatrix_int4), the low bits refine it, so one buffer serves as a fast and as a faithful drafter.
 *
 * MXFP4: OCP Microscaling Formats v1.0.  NVFP4: E4M3 scales per 16, FP32 scale per tensor.
 */
#ifndef QUANT_FORMAT_H
#define QUANT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* FORMAT(id, name, group, low_bits, has minimums, scale type, E2M1 codes) */
#define FORMATS(FORMAT) \
	FORMAT(INT4, "int4", 32, 0, false, SCALE_BF16, false) \
	FORMAT(INT4_G64, "int4_g64", 64, 0, false, SCALE_BF16, false) \
	FORMAT(INT4_G128, "int4_g128", 128, 0, false, SCALE_BF16, false) \
	FORMAT(INT4M, "int4m", 32, 0, true, SCALE_BF16, false) \
	FORMAT(INT4M_G64, "int4m_g64", 64, 0, true, SCALE_BF16, false) \
	FORMAT(INT4M_G128, "int4m_g128", 128, 0, true, SCALE_BF16, false) \
	FORMAT(INT5, "int5", 32, 1, false, SCALE_BF16, false) \
	FORMAT(INT6, "int6", 32, 2, false, SCALE_BF16, false) \
	FORMAT(INT8, "int8", 32, 4, false, SCALE_BF16, false) \
	FORMAT(MXFP4, "mxfp4", 32, 0, false, SCALE_E8M0, true) \
	FORMAT(NVFP4, "nvfp4", 16, 0, false, SCALE_E4M3, true)

enum scale_type { SCALE_BF16, SCALE_E8M0, SCALE_E4M3 };

enum format {
#define FORMAT(id, name, group, low_bits, min, scale, e2m1) FORMAT_##id,
	FORMATS(FORMAT)
#undef FORMAT
	N_FORMATS,
	FORMAT_BF16 = N_FORMATS, /* not quantized: the target's own weights */
	FORMAT_UNKNOWN
};

struct format_info {
	const char *name;
	int group;     /* inputs per scale */
	int low_bits;  /* bits below the four of plane q */
	bool min;      /* groups have a minimum */
	enum scale_type scale;
	bool e2m1;     /* q is a 4-bit float */
	int zero;      /* u of the weight 0; 0 for those with minimums and for codes */
};

/* QUANTIZE_RTN: round to nearest under the scale that just holds the group.
 * QUANTIZE_SEARCH: the scale of least squared error among a few, refined by least squares.
 * Both take weights of magnitude up to 1e37; quantize_weights.h has the rules. */
enum quantizer { QUANTIZE_RTN, QUANTIZE_SEARCH };

/* An [N][K] matrix in a format.  The planes lie in one allocation that belongs to whoever called
 * qmatrix_place. */
struct qmatrix {
	enum format format;
	int n, k;
	uint8_t *q;         /* 64-byte aligned, as are the others */
	uint8_t *low;       /* NULL without low bits */
	void *scale;        /* uint16_t or uint8_t */
	uint16_t *min;      /* NULL without minimums */
	float tensor_scale; /* nvfp4: qmatrix_set_tensor_scale; else 1 */
};

const struct format_info *format_info(enum format format); /* FORMAT_BF16 has none: an assert */
enum format format_by_name(const char *name);              /* "bf16" too; FORMAT_UNKNOWN */

/* Bytes of the planes of an [N][K] matrix, and per weight of a large one in bits. */
size_t qmatrix_bytes(enum format format, int n, int k);
double format_bits(enum format format);

/* Lay the planes of an [N][K] matrix into memory (64-byte aligned, qmatrix_bytes long). */
void qmatrix_place(struct qmatrix *matrix, enum format format, int n, int k, void *memory);

/* The int4 matrix inside one of int5, int6 or int8; borrows the planes. */
struct qmatrix qmatrix_int4(const struct qmatrix *matrix);

/* Before nvfp4 panels are quantized: the FP32 scale, largest / (6 * 448), from the largest magnitude of the
 * whole packed matrix (kernels.h).  Other formats: nothing.  Threads may share the work: each takes the
 * largest of its panels, bf16 bits that compare as integers, and one sets the largest of these. */
void qmatrix_set_tensor_scale(struct qmatrix *matrix, const uint16_t *packed);
uint16_t qmatrix_largest(const struct qmatrix *matrix, const uint16_t *packed, int panel_begin, int panel_end);
void qmatrix_set_largest(struct qmatrix *matrix, uint16_t largest);

/* FP32 scale of the integer v, and the weight itself (exact but for minimums, one rounding). */
float format_scale(const struct qmatrix *matrix, int output, int group);
float format_min(const struct qmatrix *matrix, int output, int group);
float format_weight(const struct qmatrix *matrix, int output, int input);

/* The integer u (or the E2M1 code) of a weight. */
int format_code(const struct qmatrix *matrix, int output, int input);
void format_set_code(struct qmatrix *matrix, int output, int input, int code);

/* Index of a group's scale, and minimum, in its plane. */
size_t format_group_at(const struct qmatrix *matrix, int output, int group);

/* A scale of nvfp4, never NaN. */
float e4m3_to_f32(uint8_t e4m3);

static inline int format_groups(const struct format_info *info, int k) { return (k + info->group - 1) / info->group; }

/* Blocks of Q_BLOCK inputs per panel: whole groups. */
int format_blocks(const struct format_info *info, int k);

/* E2M1 codes 0..15, twice their value. */
extern const int8_t e2m1_doubled[16];

#endif
