/* kernels_avx512.c - the AVX-512 table: its own matrix products and attention; what is one pass over a
 * vector stays with AVX2, which every such CPU has. */
#include "quant/avx512.h"

/* The tables differ in the products with INT8 activations. */
#define TABLE(level, q8) \
	const struct kernels kernels_##level = { \
		.name = #level, \
		.matmul_bf16 = matmul_bf16_avx512, \
		.matmul_q8 = q8, \
		.matmul_q32 = matmul_q32_avx512, \
		.quantize = quantize_avx512, \
		.quantize_q8 = quantize_q8_avx2, \
		.rmsnorm = rmsnorm_avx2, \
		.silu_mul = silu_mul_avx2, \
		.add = add_avx2, \
		.rope = rope_avx2, \
		.attend = {attend_bf16_avx512, attend_f32_avx512}, \
		.argmax = argmax_avx2, \
		.sum_exp = sum_exp_avx2, \
	}

TABLE(avx512, matmul_q8_avx512);
TABLE(avx512vnni, matmul_q8_avx512vnni);
