/* row_kernels.c - the scalar table, which is the definition, and the choice of a table.
 *
 * Never optimised: the vector tables (row_kernels_avx2.c, row_kernels_avx512.c) must equal it bit for
 * bit.  A table stands or falls with the one of the same name in quant/, which knows the CPU.
 */
#include "rollout/sampling/row_kernels.h"

#include <stddef.h>

#include "quant/kernels.h"

static float row_peaks(float *peaks, const float *logits, int32_t n)
{
	float max = -INFINITY;

	for (int32_t c = 0; c < row_chunks(n); c++) peaks[c] = -INFINITY;
	for (int32_t i = 0; i < n; i++) {
		if (isnan(logits[i])) return NAN;
		if (logits[i] > peaks[i / ROW_CHUNK]) peaks[i / ROW_CHUNK] = logits[i];
		if (logits[i] > max) max = logits[i];
	}
	return max;
}

static uint64_t row_mass(const float *x, const float *peaks, int32_t n, struct row_scale scale)
{
	uint64_t mass = 0;

	(void)peaks;
	for (int32_t i = 0; i < n; i++) mass += mass_of(x[i], scale);
	return mass;
}

static int32_t row_split(float *band, uint64_t *above, uint64_t *total, const float *x, const float *peaks,
                         int32_t n, struct row_scale scale, float low, float high)
{
	int32_t n_band = 0;

	*above = 0;
	for (int32_t i = 0; i < n; i++) {
		if (x[i] >= high) *above += mass_of(x[i], scale);
		else if (x[i] >= low) band[n_band++] = x[i];
	}
	if (total) *total = row_mass(x, peaks, n, scale);
	return n_band;
}

static uint64_t row_residual(uint64_t *sums, const struct row_shares *p, const struct row_shares *q, const float *peaks,
                             int32_t n)
{
	uint64_t total = 0;

	(void)peaks;
	for (int32_t c = 0; c < row_chunks(n); c++) sums[c] = 0;
	for (int32_t i = 0; i < n; i++) {
		uint64_t over = residual_of(p, q, i);
		sums[i / ROW_CHUNK] += over;
		total += over;
	}
	return total;
}

const struct row_kernels row_kernels_scalar = {
	.name = "scalar",
	.peaks = row_peaks,
	.mass = row_mass,
	.split = row_split,
	.residual = row_residual,
	.gumbel_argmax = gumbel_argmax_scalar,
};

static const struct row_kernels *const tables[] = {
#if defined(__x86_64__)
	&row_kernels_avx512, &row_kernels_avx2,
#endif
	&row_kernels_scalar,
};

enum { N_TABLES = sizeof tables / sizeof *tables };

const struct row_kernels *row_kernels_named(const char *name)
{
	for (int i = 0; i < N_TABLES; i++)
		if (strcmp(tables[i]->name, name) == 0) return kernels_named(name) ? tables[i] : NULL;
	return NULL;
}

/* The longest name that begins the name of quant's best, so that its variants of a table need no
 * counterpart here; below all others, the scalar one. */
const struct row_kernels *row_kernels_best(void)
{
	const char *best = kernels_best()->name;

	for (int i = 0; i < N_TABLES; i++)
		if (strncmp(best, tables[i]->name, strlen(tables[i]->name)) == 0) return tables[i];
	return &row_kernels_scalar;
}
