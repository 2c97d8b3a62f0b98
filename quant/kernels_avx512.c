/* kernels_avx512.c - the AVX-512 table: its own matrix products, attention and SiLU.  Of the other passes over a
 * vector none takes a percent of a forward pass, and those stay with AVX2, which every such CPU has. */
#include "quant/avx512.h"

static void silu_mul_avx512(float *y, const float *gate, const float *up, int n)
{
	int i = 0;
	for (; i + 16 <= n; i += 16)
		_mm512_storeu_ps(y + i, _mm512_mul_ps(silu16(_mm512_loadu_ps(gate + i)), _mm512_loadu_ps(up + i)));
	silu_mul_avx2(y + i, gate + i, up + i, n - i);
}

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
		.silu_mul = silu_mul_avx512, \
		.add = add_avx2, \
		.rope = rope_avx2, \
		.attend = {attend_bf16_avx512, attend_f32_avx512}, \
		.argmax = argmax_avx2, \
		.sum_exp = sum_exp_avx2, \
	}

TABLE(avx512, matmul_q8_avx512);
TABLE(avx512vnni, matmul_q8_avx512vnni);
