/* format_error.h - how far a quantized matrix is from the weights that it was made of. */
#ifndef QUANT_FORMAT_ERROR_H
#define QUANT_FORMAT_ERROR_H

#include <stdint.h>

#include "quant/format.h"

struct format_error {
	double relative; /* root of (squared error / squared weights); 0 where both are 0 */
	double largest;  /* largest error of a weight / root mean square of the weights */
};

/* Over the whole matrix, in double precision, about 10 ns a weight.  packed: kernels.h, of the same
 * shape. */
struct format_error format_error(const struct qmatrix *matrix, const uint16_t *packed);

/* The same with the squared error and the squared weights of input k weighed by importance[k]
 * (NULL: 1); the relative one alone. */
double format_relative_error_weighed(const struct qmatrix *matrix, const uint16_t *packed, const float *importance);
double format_relative_error(const struct qmatrix *matrix, const uint16_t *packed);

#endif
