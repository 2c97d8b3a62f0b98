/* sampling.c - one row of logits to one token and its log-probability.
 *
 * Passes over the row: its peaks, its mass (row_kernels.h), the draw (gumbel_argmax.h); truncation
 * puts its own in the place of the mass.  Chunks in which nothing can matter are passed over only
 * once.  All scores are relative to the largest logit.
 */
#include "rollout/sampling/sampling.h"

#include <float.h>
#include <stdlib.h>

#include "quant/exact_math.h"
#include "quant/kernels.h"
#include "rollout/sampling/row_kernels.h"
#include "rollout/sampling/truncation.h"

#define LOG2_E 1.44269504f

struct sampler {
	const struct kernels *kernels;
	const struct row_kernels *row_kernels;
	int32_t vocab_size;
	float *peaks;   /* [row_chunks(vocab_size)], of the last row */
	uint64_t *sums; /* the same, of a residual */
	struct truncation *truncation;
};

struct sampler *sampler_open(int vocab_size)
{
	struct sampler *sampler = xcalloc(1, sizeof *sampler);

	sampler->kernels = kernels_best();
	sampler->row_kernels = row_kernels_best();
	sampler->vocab_size = vocab_size;
	sampler->peaks = xmalloc((size_t)row_chunks(vocab_size) * sizeof *sampler->peaks);
	sampler->sums = xmalloc((size_t)row_chunks(vocab_size) * sizeof *sampler->sums);
	sampler->truncation = truncation_open(sampler->row_kernels, vocab_size);
	return sampler;
}

void sampler_close(struct sampler *sampler)
{
	if (!sampler) return;
	free(sampler->peaks);
	free(sampler->sums);
	truncation_close(sampler->truncation);
	free(sampler);
}

static void find_max(struct sampler *sampler, const float *logits, struct distribution *d)
{
	int32_t i = 0, chunk = 0;

	d->max = sampler->row_kernels->peaks(sampler->peaks, logits, sampler->vocab_size);
	d->broken = !(fabsf(d->max) <= FLT_MAX);
	if (d->broken) {
		sampler->kernels->argmax(logits, sampler->vocab_size, &d->max, &d->max_at);
		return;
	}
	while (sampler->peaks[chunk] < d->max) chunk++;
	for (i = chunk * ROW_CHUNK; logits[i] < d->max;) i++;
	d->max_at = i;
}

/* d->mass is only filled in with truncation, or where with_mass asks for it. */
static void distribution_of(struct sampler *sampler, const float *logits,
                            const struct sampling_options *options, bool with_mass, struct distribution *d)
{
	int32_t n = sampler->vocab_size;

	*d = (struct distribution){.cut = CUT_NONE};
	find_max(sampler, logits, d);
	d->greedy = options->temperature < FLT_MIN;
	if (d->greedy || d->broken) return;
	d->inv_t = 1.0f / options->temperature;
	struct row_scale scale = {d->max, d->inv_t * LOG2_E};
	float least = -INFINITY;
	if (options->min_p >= FLT_MIN) least = d->max + options->temperature * exact_log(fminf(options->min_p, 1.0f));
	if ((options->top_k > 0 && options->top_k < n) || options->top_p < 1.0f || least > -INFINITY) {
		struct truncation_row row = {logits, sampler->peaks, n};
		d->cut = truncation_cut(sampler->truncation, &row, &scale, options->top_k, options->top_p, least, &d->mass);
	} else if (with_mass) {
		d->mass = sampler->row_kernels->mass(logits, sampler->peaks, n, scale);
	}
}

void sampler_distribution(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                          struct distribution *d)
{
	distribution_of(sampler, logits, options, true, d);
}

float distribution_logprob(const struct distribution *d, float logit)
{
	if (d->broken) return NAN;
	if (d->greedy) return 0.0f;
	return (logit - d->max) * d->inv_t - exact_log((float)d->mass * (1.0f / (float)MASS_ONE));
}

int32_t sampler_draw_from(struct sampler *sampler, const float *logits, const struct distribution *d, uint64_t key,
                          int32_t position)
{
	if (d->greedy || d->broken) return d->max_at;
	struct gumbel_row row = {
		.logits = logits, .peaks = sampler->peaks, .n = sampler->vocab_size, .max = d->max, .max_at = d->max_at,
		.inv_t = d->inv_t, .cut = d->cut, .key = key, .position = position,
	};
	return sampler->row_kernels->gumbel_argmax(&row);
}

int32_t sampler_draw(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                     uint64_t key, int32_t position, float *logprob)
{
	struct distribution d;

	distribution_of(sampler, logits, options, true, &d);
	int32_t token = sampler_draw_from(sampler, logits, &d, key, position);
	*logprob = distribution_logprob(&d, logits[token]);
	return token;
}

int32_t sampler_draw_token(struct sampler *sampler, const float *logits,
                           const struct sampling_options *options, uint64_t key, int32_t position)
{
	struct distribution d;

	distribution_of(sampler, logits, options, false, &d);
	return sampler_draw_from(sampler, logits, &d, key, position);
}

float sampler_score(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                    int32_t token)
{
	struct distribution d;

	distribution_of(sampler, logits, options, true, &d);
	if (d.broken) return NAN;
	if (d.greedy ? token != d.max_at : !cut_keeps(d.cut, logits[token], token)) return -INFINITY;
	return distribution_logprob(&d, logits[token]);
}

/* ---- one row against another ---- */

static struct row_scale scale_of(const struct distribution *d) { return (struct row_scale){d->max, d->inv_t * LOG2_E}; }

static struct row_shares shares_of(const float *logits, const struct distribution *d)
{
	return (struct row_shares){logits, scale_of(d), d->cut, (double)(UINT64_C(1) << RESIDUAL_BITS) / (double)d->mass};
}

double distribution_probability(const struct distribution *d, const float *logits, int32_t token)
{
	if (!cut_keeps(d->cut, logits[token], token)) return 0.0;
	return (double)mass_of(logits[token], scale_of(d)) / (double)d->mass;
}

/* Where the residual's sum over ids first exceeds `below`; except: an id that has none, or -1. */
static int32_t find_in_residual(const struct sampler *sampler, const struct row_shares *p, const struct row_shares *q,
                                int32_t except, uint64_t below)
{
	int32_t c = 0;

	while (below >= sampler->sums[c]) below -= sampler->sums[c++];
	for (int32_t i = c * ROW_CHUNK;; i++) {
		uint64_t own = i == except ? 0 : residual_of(p, q, i);
		if (below < own) return i;
		below -= own;
	}
}

int32_t sampler_draw_residual(struct sampler *sampler, const float *logits, const struct distribution *p,
                              const struct proposal *q, double u)
{
	struct row_shares of_p = shares_of(logits, p), of_q;
	int32_t except = q->logits ? -1 : q->token;

	if (q->logits) of_q = shares_of(q->logits, q->distribution);
	const struct row_shares *other = q->logits ? &of_q : NULL;
	uint64_t total = sampler->row_kernels->residual(sampler->sums, &of_p, other, sampler->peaks, sampler->vocab_size);
	if (except >= 0) {
		uint64_t own = residual_of(&of_p, NULL, except);
		sampler->sums[except / ROW_CHUNK] -= own;
		total -= own;
	}
	if (total == 0) return -1;
	uint64_t below = (uint64_t)(u * (double)total);
	return find_in_residual(sampler, &of_p, other, except, below < total ? below : total - 1);
}
