/* format_error.c - see format_error.h. */
#include "quant/format_error.h"

#include <math.h>
#include <stddef.h>

#include "quant/bf16.h"
#include "quant/kernels.h"

struct sums {
	double error, power; /* squared, weighed */
	double largest;
};

static void output_add(struct sums *sums, const struct qmatrix *matrix, const uint16_t *packed, const float *importance,
                       int output)
{
	for (int k = 0; k < matrix->k; k++) {
		double w = (double)bf16_to_f32(packed[packed_bf16_at(matrix->k, output, k)]);
		double d = fabs(w - (double)format_weight(matrix, output, k));
		double weight = importance ? (double)importance[k] : 1.0;
		sums->error += weight * d * d;
		sums->power += weight * w * w;
		sums->largest = d > sums->largest ? d : sums->largest;
	}
}

static struct sums matrix_sums(const struct qmatrix *matrix, const uint16_t *packed, const float *importance)
{
	struct sums all = {0};
	for (int o = 0; o < matrix->n; o++) {
		struct sums output = {0};
		output_add(&output, matrix, packed, importance, o);
		all.error += output.error;
		all.power += output.power;
		all.largest = output.largest > all.largest ? output.largest : all.largest;
	}
	return all;
}

/* a / b; an error on weights that are all 0 is infinite. */
static double ratio(double a, double b) { return b > 0.0 ? a / b : a > 0.0 ? (double)INFINITY : 0.0; }

struct format_error format_error(const struct qmatrix *matrix, const uint16_t *packed)
{
	struct sums sums = matrix_sums(matrix, packed, NULL);
	double rms = sqrt(sums.power / ((double)matrix->n * (double)matrix->k));
	return (struct format_error){sqrt(ratio(sums.error, sums.power)), ratio(sums.largest, rms)};
}

double format_relative_error_weighed(const struct qmatrix *matrix, const uint16_t *packed, const float *importance)
{
	struct sums sums = matrix_sums(matrix, packed, importance);
	return sqrt(ratio(sums.error, sums.power));
}

double format_relative_error(const struct qmatrix *matrix, const uint16_t *packed)
{
	return format_relative_error_weighed(matrix, packed, NULL);
}
