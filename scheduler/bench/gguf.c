/* gguf.c - keys, table and padding of a GGUF file.  Only little-endian machines are built for. */
#include "scheduler/bench/gguf.h"

#include <assert.h>
#include <string.h>

enum { VERSION = 3, KEY_U32 = 4, KEY_F32 = 6, KEY_TEXT = 8, Q4_0_WEIGHTS = 32 };

static void put_u32(FILE *out, uint32_t value) { fwrite(&value, sizeof value, 1, out); }
static void put_u64(FILE *out, uint64_t value) { fwrite(&value, sizeof value, 1, out); }

static void put_text(FILE *out, const char *text)
{
	put_u64(out, strlen(text));
	fputs(text, out);
}

size_t gguf_tensor_bytes(const struct gguf_tensor *tensor)
{
	size_t n = (size_t)tensor->rows * (size_t)tensor->cols;
	switch (tensor->type) {
	case GGUF_F32: return 4 * n;
	case GGUF_BF16: return 2 * n;
	case GGUF_Q4_0:
		assert(tensor->cols % Q4_0_WEIGHTS == 0);
		return n / Q4_0_WEIGHTS * sizeof(struct gguf_q4_0);
	}
	assert(!"a type without a size");
	return 0;
}

static size_t padded(size_t n_bytes)
{
	return (n_bytes + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

void gguf_begin(FILE *out, size_t n_tensors, size_t n_keys)
{
	fwrite("GGUF", 4, 1, out);
	put_u32(out, VERSION);
	put_u64(out, n_tensors);
	put_u64(out, n_keys);
}

void gguf_key_u32(FILE *out, const char *name, uint32_t value)
{
	put_text(out, name);
	put_u32(out, KEY_U32);
	put_u32(out, value);
}

void gguf_key_f32(FILE *out, const char *name, float value)
{
	put_text(out, name);
	put_u32(out, KEY_F32);
	fwrite(&value, sizeof value, 1, out);
}

void gguf_key_text(FILE *out, const char *name, const char *value)
{
	put_text(out, name);
	put_u32(out, KEY_TEXT);
	put_text(out, value);
}

void gguf_table(FILE *out, const struct gguf_tensor *tensors, size_t n)
{
	uint64_t offset = 0;
	for (size_t i = 0; i < n; i++) {
		const struct gguf_tensor *tensor = &tensors[i];
		put_text(out, tensor->name);
		put_u32(out, (uint32_t)tensor->n_dims);
		put_u64(out, (uint64_t)tensor->cols);
		if (tensor->n_dims == 2) put_u64(out, (uint64_t)tensor->rows);
		put_u32(out, tensor->type);
		put_u64(out, offset);
		offset += padded(gguf_tensor_bytes(tensor));
	}
	gguf_pad(out, (size_t)ftell(out));
}

void gguf_pad(FILE *out, size_t n_bytes)
{
	static const char zeros[GGUF_ALIGNMENT];
	fwrite(zeros, 1, padded(n_bytes) - n_bytes, out);
}

uint16_t f16_from_f32(float f)
{
	uint32_t u, sign;
	memcpy(&u, &f, sizeof u);
	sign = u >> 16 & 0x8000u;
	u &= 0x7fffffffu;
	if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
	if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more */
	if (u >= 0x38800000u) { /* normal: 13 bits fewer, the exponent's bias 112 less */
		u += 0xfffu + (u >> 13 & 1u);
		return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
	}
	if (u < 0x33000000u) return (uint16_t)sign; /* below half of the smallest */
	uint32_t mantissa = (u & 0x7fffffu) | 0x800000u, shift = 126u - (u >> 23);
	uint32_t half = 1u << (shift - 1), rest = mantissa & ((1u << shift) - 1), q = mantissa >> shift;
	return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1u)))));
}
