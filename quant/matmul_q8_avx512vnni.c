/* matmul_q8_avx512vnni.c - quantized weights times INT8 activations with AVX512_VNNI: matmul_q8_avx512.h. */
#include "quant/matmul_q8_avx512.h"

MATMUL_Q8(matmul_q8_avx512vnni)
