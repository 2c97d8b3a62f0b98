/* blas.c - see blas.h. */
#include "trainer_bridge/trainer/blas.h"

#include <cblas.h>

void blas_init(void)
{
	openblas_set_num_threads(1);
}

void blas_matmul(float *c, int c_stride, const float *a, int a_stride, enum blas_form a_form, const float *b,
                 int b_stride, enum blas_form b_form, int m, int n, int k, float alpha, float beta)
{
	cblas_sgemm(CblasRowMajor, a_form == BLAS_PLAIN ? CblasNoTrans : CblasTrans,
	            b_form == BLAS_PLAIN ? CblasNoTrans : CblasTrans, m, n, k, alpha, a, a_stride, b, b_stride,
	            beta, c, c_stride);
}

void blas_linear(float *y, const float *x, const float *w, int t, int n, int k)
{
	blas_matmul(y, n, x, k, BLAS_PLAIN, w, k, BLAS_TRANSPOSED, t, n, k, 1.0f, 0.0f);
}

void blas_linear_input(float *dx, const float *dy, const float *w, int t, int n, int k, int accumulate)
{
	blas_matmul(dx, k, dy, n, BLAS_PLAIN, w, k, BLAS_PLAIN, t, k, n, 1.0f, accumulate ? 1.0f : 0.0f);
}

void blas_linear_weight(float *dw, const float *dy, const float *x, int t, int n, int k)
{
	blas_matmul(dw, k, dy, n, BLAS_TRANSPOSED, x, k, BLAS_PLAIN, n, k, t, 1.0f, 1.0f);
}
