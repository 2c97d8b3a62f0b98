/* kernels_avx512.c - the AVX-512 table: its own matrix products and attention; what is one pass over a
 * vector stays with AVX2, which every such CPU has. */
#include "quant/avx512.h"

const struct kernels kernels_avx512 = {
	.name = "avx512",
	.matmul_bf16 = matmul_bf16_avx512,
	.matmul_int4 = matmul_int4_avx512,
	.quantize_q8 = quantize_q8_avx2,
	.rmsnorm = rmsnorm_avx2,
	.silu_mul = silu_mul_avx2,
	.add = add_avx2,
	.rope = rope_avx2,
	.attend = attend_avx512,
	.argmax = argmax_avx2,
	.sum_exp = sum_exp_avx2,
	.int4_quantize_block = int4_quantize_block_avx2,
};
