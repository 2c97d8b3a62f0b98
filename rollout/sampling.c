/* sampling.c - one row of logits to one token and its log-probability.
 *
 * Passes over the row: the largest logit, the sum of exponentials (both by the kernels' fixed
 * reductions), the draw (gumbel_argmax.h); truncation adds its selection and a gather of what is
 * kept, in ascending id, whose sum of exponentials is again the kernels' reduction.  All scores are
 * relative to the largest logit.
 */
#include "rollout/sampling.h"

#include <float.h>
#include <stdlib.h>

#include "quant/exact_math.h"
#include "quant/kernels.h"
#include "rollout/gumbel_argmax.h"
#include "rollout/truncation.h"

struct sampler {
	const struct kernels *kernels;
	gumbel_argmax_fn *gumbel_argmax;
	int32_t vocab_size;
	struct ranked *entries; /* [vocab_size], for truncation */
	float *kept;            /* [vocab_size], logits of the kept set */
};

/* What a row's distribution is once the options are applied. */
struct distribution {
	float max;
	int32_t max_at;
	bool greedy;
	float inv_t;
	float sum;         /* of exp((logit - max) * inv_t) over the kept set */
	struct ranked cut;
};

struct sampler *sampler_open(int vocab_size)
{
	struct sampler *sampler = xcalloc(1, sizeof *sampler);
	sampler->kernels = kernels_best();
	sampler->gumbel_argmax = gumbel_argmax_best();
	sampler->vocab_size = vocab_size;
	sampler->entries = xmalloc((size_t)vocab_size * sizeof *sampler->entries);
	sampler->kept = xmalloc((size_t)vocab_size * sizeof *sampler->kept);
	return sampler;
}

void sampler_close(struct sampler *sampler)
{
	if (!sampler) return;
	free(sampler->entries);
	free(sampler->kept);
	free(sampler);
}

static float kept_sum(struct sampler *sampler, const float *logits, const struct distribution *d)
{
	int32_t n = 0;

	for (int32_t i = 0; i < sampler->vocab_size; i++)
		if (cut_keeps(d->cut, logits[i], i)) sampler->kept[n++] = logits[i];
	return sampler->kernels->sum_exp(sampler->kept, n, d->max, d->inv_t);
}

/* d->sum is only filled in with truncation by mass, or where with_sum asks for it. */
static void distribution_of(struct sampler *sampler, const float *logits,
                            const struct sampling_options *options, bool with_sum, struct distribution *d)
{
	int32_t n = sampler->vocab_size, k = options->top_k;
	bool top_k = k > 0 && k < n, top_p = options->top_p < 1.0f;

	*d = (struct distribution){.cut = CUT_NONE};
	sampler->kernels->argmax(logits, n, &d->max, &d->max_at);
	d->greedy = options->temperature < FLT_MIN;
	if (d->greedy) return;
	d->inv_t = 1.0f / options->temperature;
	if (top_k) d->cut = truncate_top_k(sampler->entries, logits, n, k);
	if (!top_p && !with_sum) return;
	d->sum = top_k ? kept_sum(sampler, logits, d) : sampler->kernels->sum_exp(logits, n, d->max, d->inv_t);
	if (!top_p) return;
	d->cut = truncate_top_p(sampler->entries, logits, n, d->cut, d->max, d->inv_t, d->sum, options->top_p);
	if (with_sum) d->sum = kept_sum(sampler, logits, d);
}

/* NaN where the row holds no distribution (an infinite or NaN logit). */
static float log_probability(const struct distribution *d, float logit)
{
	if (d->greedy) return 0.0f;
	if (!(d->sum >= 1.0f && d->sum <= FLT_MAX)) return NAN;
	return (logit - d->max) * d->inv_t - exact_log(d->sum);
}

static int32_t draw(const struct sampler *sampler, const float *logits, const struct distribution *d,
                    uint64_t key, int32_t position)
{
	if (d->greedy) return d->max_at;
	struct gumbel_row row = {
		.logits = logits, .n = sampler->vocab_size, .max = d->max, .max_at = d->max_at,
		.inv_t = d->inv_t, .cut = d->cut, .key = key, .position = position,
	};
	return sampler->gumbel_argmax(&row);
}

int32_t sampler_draw(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                     uint64_t key, int32_t position, float *logprob)
{
	struct distribution d;

	distribution_of(sampler, logits, options, true, &d);
	int32_t token = draw(sampler, logits, &d, key, position);
	*logprob = log_probability(&d, logits[token]);
	return token;
}

int32_t sampler_draw_token(struct sampler *sampler, const float *logits,
                           const struct sampling_options *options, uint64_t key, int32_t position)
{
	struct distribution d;

	distribution_of(sampler, logits, options, false, &d);
	return draw(sampler, logits, &d, key, position);
}

float sampler_score(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                    int32_t token)
{
	struct distribution d;

	distribution_of(sampler, logits, options, true, &d);
	if (d.greedy ? token != d.max_at : !cut_keeps(d.cut, logits[token], token)) return -INFINITY;
	return log_probability(&d, logits[token]);
}
