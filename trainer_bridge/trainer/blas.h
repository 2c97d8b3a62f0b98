/* blas.h - FP32 matrix products of the trainer; the only file pair that knows <cblas.h>.
 *
 * Row-major throughout.  Every call runs on the calling thread: the trainer is parallel over
 * micro-batches (train_step.h), which costs one synchronisation per step instead of one per product.
 */
#ifndef TRAINER_BRIDGE_TRAINER_BLAS_H
#define TRAINER_BRIDGE_TRAINER_BLAS_H

#include <stddef.h>

/* A matrix operand: element (i, j) at data[i * stride + j], or of its transpose. */
enum blas_form { BLAS_PLAIN, BLAS_TRANSPOSED };

/* Once per process, before the first product: keep the library from starting threads of its own. */
void blas_init(void);

/* c [m][n] = alpha * a [m][k] * b [k][n] + beta * c, a and b taken in the given form. */
void blas_matmul(float *c, int c_stride, const float *a, int a_stride, enum blas_form a_form, const float *b,
                 int b_stride, enum blas_form b_form, int m, int n, int k, float alpha, float beta);

/* The three products of a linear layer y [t][n] = x [t][k] w [n][k]^T. */
void blas_linear(float *y, const float *x, const float *w, int t, int n, int k);
/* dx (+)= dy w */
void blas_linear_input(float *dx, const float *dy, const float *w, int t, int n, int k, int accumulate);
/* dw += dy^T x */
void blas_linear_weight(float *dw, const float *dy, const float *x, int t, int n, int k);

#endif
