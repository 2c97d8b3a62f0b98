/* gguf.h - writes the model container of llama.cpp, version 3, little-endian.
 *
 *     "GGUF" | u32 version | u64 tensors | u64 keys | keys | tensor table | zeros to 32 | data
 *     key      text name | u32 type | value            text: u64 bytes | the bytes
 *     tensor   text name | u32 dims | u64 dim, the fastest first | u32 type | u64 offset within data, of 32
 *
 * Source: docs/gguf.md of ggml-org/ggml.  A file is written in one pass: keys, then the table, then the data
 * in the table's order.  Errors of the disk are the stream's (output_file_commit).
 */
#ifndef SCHEDULER_BENCH_GGUF_H
#define SCHEDULER_BENCH_GGUF_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { GGUF_ALIGNMENT = 32, GGUF_NAME_MAX = 64 };

enum gguf_type { GGUF_F32 = 0, GGUF_Q4_0 = 2, GGUF_BF16 = 30 };

/* 32 weights of one output: w[i] = d * (nibble - 8); the low nibbles are the first 16. */
struct gguf_q4_0 {
	uint16_t d; /* F16 */
	uint8_t q[16];
};
_Static_assert(sizeof(struct gguf_q4_0) == 18, "as in the file");

struct gguf_tensor {
	char name[GGUF_NAME_MAX];
	enum gguf_type type;
	int rows, cols, n_dims; /* cols are contiguous; a vector has rows 1 */
};

/* Bytes of a tensor's data without padding; cols of GGUF_Q4_0 are a multiple of 32. */
size_t gguf_tensor_bytes(const struct gguf_tensor *tensor);

void gguf_begin(FILE *out, size_t n_tensors, size_t n_keys);
void gguf_key_u32(FILE *out, const char *name, uint32_t value);
void gguf_key_f32(FILE *out, const char *name, float value);
void gguf_key_text(FILE *out, const char *name, const char *value);
void gguf_table(FILE *out, const struct gguf_tensor *tensors, size_t n);

/* After a tensor's data. */
void gguf_pad(FILE *out, size_t n_bytes);

/* Nearest F16, ties to even; overflow is infinity. */
uint16_t f16_from_f32(float f);

#endif
