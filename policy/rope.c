/* rope.c - rotary position angles (RoFormer, Su et al. 2021).
 *
 * Frequencies and angles are rounded to float where Hugging Face's modules, and so the trainers,
 * round them: angle = float(position) * float(theta^(-2i/d)).  Powers, cosines and sines are our own
 * double-precision polynomials rather than libm's, whose last bit may differ between C libraries:
 * only +, -, *, / and exact integer steps, each correctly rounded by IEEE 754.  Their error is below
 * 1e-14, invisible after rounding to float but for one case in about 10^6, and never different
 * between two machines.
 *
 * A row's angles cost head_dim/2 polynomials, well under a microsecond: cheaper than a table of
 * max_context rows, which for a long-context model is some 100 MB per policy version.
 */
#include "policy/rope.h"

#include <math.h>

static const double LN2 = 0.693147180559945309417232121458, TWO_PI = 6.28318530717958647692;

/* x > 0; x = m * 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m-1)/(m+1)). */
static double exact_ln(double x)
{
	int e;
	double m = frexp(x, &e);
	if (m < 0.70710678118654752440) {
		m *= 2.0;
		e--;
	}
	double z = (m - 1.0) / (m + 1.0), z2 = z * z, sum = 0.0;
	for (int k = 25; k >= 1; k -= 2) sum = sum * z2 + 1.0 / k;
	return 2.0 * z * sum + e * LN2;
}

/* |x| < 500; x = n ln 2 + r, Taylor series of e^r for |r| <= ln(2)/2. */
static double exact_pow_e(double x)
{
	double n = floor(x / LN2 + 0.5), r = x - n * LN2, sum = 1.0;
	for (int k = 18; k >= 1; k--) sum = sum * r / k + 1.0;
	return ldexp(sum, (int)n);
}

/* 0 <= x < 2^20: x = n pi/2 + r.  The first part of pi/2 has 33 bits and n at most 20, so n times it
 * is exact (fdlibm's split); then Taylor series for |r| <= pi/4 and the quadrant. */
static void exact_cos_sin(double x, double *cos, double *sin)
{
	static const double HALF_PI_HIGH = 1.57079632673412561417e+00, HALF_PI_LOW = 6.07710050650619224932e-11;
	static const double COS[] = {1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800,
	                             1.0 / 479001600, -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
	static const double SIN[] = {1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800,
	                             1.0 / 6227020800.0, -1.0 / 1307674368000.0, 1.0 / 355687428096000.0};
	unsigned n = (unsigned)(x * 0.63661977236758134308 + 0.5);
	double r = (x - n * HALF_PI_HIGH) - n * HALF_PI_LOW, r2 = r * r, c = 0.0, s = 0.0;
	for (int k = 8; k >= 0; k--) {
		c = c * r2 + COS[k];
		s = s * r2 + SIN[k];
	}
	s *= r;
	*cos = n % 2 == 0 ? c : s;
	*sin = n % 2 == 0 ? s : c;
	if (n % 4 == 1 || n % 4 == 2) *cos = -*cos;
	if (n % 4 >= 2) *sin = -*sin;
}

/* Llama 3.1: wavelengths longer than the original context are stretched by the factor, short ones
 * kept, those between blended. */
static double scale_llama3(double frequency, const struct model_config *config)
{
	double wavelengths = config->rope_original_context * frequency / TWO_PI;
	if (wavelengths < config->rope_low_freq_factor) return frequency / config->rope_factor;
	if (wavelengths > config->rope_high_freq_factor) return frequency;
	double smooth = (wavelengths - config->rope_low_freq_factor) /
	                (config->rope_high_freq_factor - config->rope_low_freq_factor);
	return (1.0 - smooth) * frequency / config->rope_factor + smooth * frequency;
}

/* YaRN (Peng et al. 2023, as transformers computes it): the pair, not necessarily a whole one, that turns
 * so many times within the original context. */
static double yarn_pair(double rotations, const struct model_config *c)
{
	double ratio = c->rope_original_context / (rotations * TWO_PI);
	return c->head_dim * exact_ln(ratio) / (2.0 * exact_ln(c->rope_theta));
}

struct yarn_ramp { double low, high; };

static struct yarn_ramp yarn_ramp_of(const struct model_config *c)
{
	struct yarn_ramp ramp = {yarn_pair(c->rope_beta_fast, c), yarn_pair(c->rope_beta_slow, c)};
	if (!c->rope_exact_ramp) ramp = (struct yarn_ramp){floor(ramp.low), ceil(ramp.high)};
	if (ramp.low < 0) ramp.low = 0;
	if (ramp.high > c->head_dim - 1) ramp.high = c->head_dim - 1;
	if (ramp.low == ramp.high) ramp.high += 0.001;
	return ramp;
}

/* Pairs before the ramp are kept, those behind it divided by the factor, those on it blended. */
static double scale_yarn(double frequency, int pair, struct yarn_ramp ramp, const struct model_config *c)
{
	double part = (pair - ramp.low) / (ramp.high - ramp.low);
	part = part < 0 ? 0 : part > 1 ? 1 : part;
	return frequency / c->rope_factor * part + frequency * (1.0 - part);
}

static double yarn_mscale(double factor, double mscale)
{
	return factor <= 1.0 ? 1.0 : 0.1 * mscale * exact_ln(factor) + 1.0;
}

/* Attention grows with the factor: both of q and k are multiplied, so that the scores are by its square. */
static float attention_scale(const struct model_config *c)
{
	if (c->rope_scaling != ROPE_YARN) return 1.0f;
	if (c->rope_attention_factor > 0) return (float)c->rope_attention_factor;
	if (c->rope_mscale > 0 && c->rope_mscale_all_dim > 0)
		return (float)(yarn_mscale(c->rope_factor, c->rope_mscale) /
		               yarn_mscale(c->rope_factor, c->rope_mscale_all_dim));
	return (float)yarn_mscale(c->rope_factor, 1.0);
}

float rope_frequencies(float *out, const struct model_config *config)
{
	double ln_theta = exact_ln(config->rope_theta);
	struct yarn_ramp ramp = {0};
	if (config->rope_scaling == ROPE_YARN) ramp = yarn_ramp_of(config);
	for (int i = 0; i < config->head_dim / 2; i++) {
		double frequency = exact_pow_e(-2.0 * i / config->head_dim * ln_theta);
		if (config->rope_scaling == ROPE_LINEAR) frequency /= config->rope_factor;
		if (config->rope_scaling == ROPE_LLAMA3) frequency = scale_llama3(frequency, config);
		if (config->rope_scaling == ROPE_YARN) frequency = scale_yarn(frequency, i, ramp, config);
		out[i] = (float)frequency;
	}
	return attention_scale(config);
}

void rope_angles(float *cos, float *sin, const float *frequency, float scale, int n, int position)
{
	for (int i = 0; i < n; i++) {
		double c, s;
		exact_cos_sin((float)position * frequency[i], &c, &s);
		cos[i] = (float)c * scale;
		sin[i] = (float)s * scale;
	}
}
