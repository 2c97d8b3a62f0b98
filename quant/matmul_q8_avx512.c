/* matmul_q8_avx512.c - quantized weights times INT8 activations without AVX512_VNNI: matmul_q8_avx512.h. */
#include "quant/matmul_q8_avx512.h"

MATMUL_Q8(matmul_q8_avx512)
