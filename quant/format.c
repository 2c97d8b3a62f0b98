/* format.c - where the bits of each format lie, and what they stand for. */
#include "quant/format.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/bf16.h"
#include "quant/kernels.h"

enum { PLANE_ALIGN = 64, Q_VECTOR = 64, Q_BYTES = 256, E4M3_MAX = 448, E2M1_MAX = 6 };

const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Half way along the range, so that the four bits of plane q alone are the weight rounded. */
#define ZERO(low_bits, min, e2m1) ((min) || (e2m1) ? 0 : (8 << (low_bits)) + ((1 << (low_bits)) >> 1))

static const struct format_info infos[N_FORMATS] = {
#define FORMAT(id, name, group, low_bits, min, scale, e2m1) \
	{name, group, low_bits, min, scale, e2m1, ZERO(low_bits, min, e2m1)},
	FORMATS(FORMAT)
#undef FORMAT
};

const struct format_info *format_info(enum format format)
{
	assert(format < N_FORMATS);
	return &infos[format];
}

enum format format_by_name(const char *name)
{
	for (int i = 0; i < N_FORMATS; i++)
		if (strcmp(infos[i].name, name) == 0) return (enum format)i;
	return strcmp(name, "bf16") == 0 ? FORMAT_BF16 : FORMAT_UNKNOWN;
}

int format_blocks(const struct format_info *info, int k)
{
	int inputs = info->group > Q_BLOCK ? info->group : Q_BLOCK;
	return (k + inputs - 1) / inputs * (inputs / Q_BLOCK);
}

static size_t aligned(size_t bytes) { return (bytes + PLANE_ALIGN - 1) / PLANE_ALIGN * PLANE_ALIGN; }

struct plane_bytes {
	size_t q, low, scale, min;
};

static struct plane_bytes planes_of(const struct format_info *info, int n, int k)
{
	size_t blocks = (size_t)panels(n) * (size_t)format_blocks(info, k);
	size_t scales = blocks * Q_BLOCK / (size_t)info->group * PANEL;
	return (struct plane_bytes){
		.q = aligned(blocks * Q_BYTES),
		.low = aligned(blocks * Q_VECTOR * (size_t)info->low_bits),
		.scale = aligned(scales * (info->scale == SCALE_BF16 ? 2 : 1)),
		.min = info->min ? aligned(scales * 2) : 0,
	};
}

size_t qmatrix_bytes(enum format format, int n, int k)
{
	struct plane_bytes bytes = planes_of(format_info(format), n, k);
	return bytes.q + bytes.low + bytes.scale + bytes.min;
}

double format_bits(enum format format)
{
	if (format == FORMAT_BF16) return 16;
	const struct format_info *info = format_info(format);
	return 4 + info->low_bits + (info->scale == SCALE_BF16 ? 16.0 : 8.0) * (info->min ? 2 : 1) / info->group;
}

void qmatrix_place(struct qmatrix *matrix, enum format format, int n, int k, void *memory)
{
	const struct format_info *info = format_info(format);
	struct plane_bytes bytes = planes_of(info, n, k);
	uint8_t *at = memory;
	*matrix = (struct qmatrix){.format = format, .n = n, .k = k, .tensor_scale = 1.0f};
	matrix->q = at;
	at += bytes.q;
	if (bytes.low) matrix->low = at;
	at += bytes.low;
	matrix->scale = at;
	at += bytes.scale;
	if (bytes.min) matrix->min = (uint16_t *)(void *)at;
}

struct qmatrix qmatrix_int4(const struct qmatrix *matrix)
{
	const struct format_info *info = format_info(matrix->format);
	assert(info->group == Q_BLOCK && !info->min && !info->e2m1);
	struct qmatrix nested = *matrix;
	nested.format = FORMAT_INT4;
	nested.low = NULL;
	return nested;
}

uint16_t qmatrix_largest(const struct qmatrix *matrix, const uint16_t *packed, int panel_begin, int panel_end)
{
	if (format_info(matrix->format)->scale != SCALE_E4M3) return 0;
	int16_t largest = 0;
	size_t end = (size_t)panel_end * packed_panel_elements(matrix->k);
	for (size_t i = (size_t)panel_begin * packed_panel_elements(matrix->k); i < end; i++) {
		int16_t magnitude = (int16_t)(packed[i] & 0x7fff);
		largest = magnitude > largest ? magnitude : largest;
	}
	return (uint16_t)largest;
}

void qmatrix_set_largest(struct qmatrix *matrix, uint16_t largest)
{
	if (format_info(matrix->format)->scale == SCALE_E4M3)
		matrix->tensor_scale = bf16_to_f32(largest) / (E4M3_MAX * E2M1_MAX);
}

void qmatrix_set_tensor_scale(struct qmatrix *matrix, const uint16_t *packed)
{
	qmatrix_set_largest(matrix, qmatrix_largest(matrix, packed, 0, panels(matrix->n)));
}

float e4m3_to_f32(uint8_t e)
{
	int exponent = e >> 3 & 15, mantissa = e & 7;
	return exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
}

size_t format_group_at(const struct qmatrix *matrix, int output, int group)
{
	const struct format_info *info = format_info(matrix->format);
	size_t groups = (size_t)(format_blocks(info, matrix->k) * Q_BLOCK / info->group);
	return ((size_t)(output / PANEL) * groups + (size_t)group) * PANEL + (size_t)(output % PANEL);
}

float format_scale(const struct qmatrix *matrix, int output, int group)
{
	const struct format_info *info = format_info(matrix->format);
	size_t at = format_group_at(matrix, output, group);
	if (info->scale == SCALE_BF16)
		return bf16_to_f32(((const uint16_t *)matrix->scale)[at]) / (float)(1 << info->low_bits);
	uint8_t byte = ((const uint8_t *)matrix->scale)[at];
	if (info->scale == SCALE_E8M0) return ldexpf(0.5f, byte - 127);
	return e4m3_to_f32(byte) * matrix->tensor_scale * 0.5f;
}

float format_min(const struct qmatrix *matrix, int output, int group)
{
	return bf16_to_f32(matrix->min[format_group_at(matrix, output, group)]);
}

/* Index of the block of an output's panel that holds an input. */
static size_t block_at(const struct qmatrix *matrix, int output, int input)
{
	return (size_t)(output / PANEL) * (size_t)format_blocks(format_info(matrix->format), matrix->k) +
	       (size_t)(input / Q_BLOCK);
}

int format_code(const struct qmatrix *matrix, int output, int input)
{
	const struct format_info *info = format_info(matrix->format);
	size_t block = block_at(matrix, output, input);
	int at = 4 * (output % PANEL) + input % 4, step = input % Q_BLOCK / 4;
	int code = matrix->q[block * Q_BYTES + (size_t)(step / 2 * Q_VECTOR + at)] >> 4 * (step % 2) & 15;
	if (!info->low_bits) return code;
	int bits = info->low_bits, fields = 8 / bits;
	uint8_t low = matrix->low[(block * (size_t)bits + (size_t)(step / fields)) * Q_VECTOR + (size_t)at];
	return code << bits | (low >> bits * (step % fields) & ((1 << bits) - 1));
}

void format_set_code(struct qmatrix *matrix, int output, int input, int code)
{
	const struct format_info *info = format_info(matrix->format);
	size_t block = block_at(matrix, output, input);
	int at = 4 * (output % PANEL) + input % 4, step = input % Q_BLOCK / 4, bits = info->low_bits;
	uint8_t *q = &matrix->q[block * Q_BYTES + (size_t)(step / 2 * Q_VECTOR + at)];
	*q = (uint8_t)((*q & 0xf0 >> 4 * (step % 2)) | code >> bits << 4 * (step % 2));
	if (!bits) return;
	int fields = 8 / bits, mask = (1 << bits) - 1, shift = bits * (step % fields);
	uint8_t *low = &matrix->low[(block * (size_t)bits + (size_t)(step / fields)) * Q_VECTOR + (size_t)at];
	*low = (uint8_t)((*low & ~(mask << shift)) | (code & mask) << shift);
}

float format_weight(const struct qmatrix *matrix, int output, int input)
{
	const struct format_info *info = format_info(matrix->format);
	int code = format_code(matrix, output, input), group = input / info->group;
	float scale = format_scale(matrix, output, group);
	if (info->e2m1) return (float)e2m1_doubled[code] * scale;
	if (info->min) return fmaf((float)code, scale, format_min(matrix, output, group));
	return (float)(code - info->zero) * scale;
}
