/* objective.c - see objective.h. */
#include "trainer_bridge/trainer/objective.h"

#include <math.h>

static float minf(float a, float b)
{
	return a < b ? a : b;
}

struct objective_result objective_evaluate(const struct objective_options *options,
                                           const struct objective_token *token)
{
	struct objective_result out = { 0 };
	float a = token->advantage, ratio = expf(token->logp - token->logp_old);
	out.clipped = a > 0 ? ratio > 1.0f + options->clip_high : a < 0 && ratio < 1.0f - options->clip_low;
	float bounded = out.clipped ? (a > 0 ? 1.0f + options->clip_high : 1.0f - options->clip_low) : ratio;
	out.tis = options->tis_clip > 0 ? minf(expf(token->logp_old - token->logp_behaviour), options->tis_clip)
	                                : 1.0f;
	out.loss = -out.tis * bounded * a;
	if (token->logp_old == -INFINITY) out = (struct objective_result){ .tis = options->tis_clip > 0 ? 0.0f : 1.0f };
	out.gradient = out.clipped ? 0.0f : out.loss;
	if (options->kl_coef > 0) {
		float gap = token->logp_ref - token->logp;
		out.kl = expm1f(gap) - gap;
		out.loss += options->kl_coef * out.kl;
		out.gradient -= options->kl_coef * expm1f(gap);
	}
	out.loss *= token->weight;
	out.gradient *= token->weight;
	return out;
}

float objective_softmax(float *logits, int n, float inv_temperature, int32_t token, float *entropy)
{
	float max = logits[0], chosen = logits[token], sum = 0, dot = 0;
	for (int i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
	for (int i = 0; i < n; i++) {
		float gap = (logits[i] - max) * inv_temperature;
		logits[i] = expf(gap);
		sum += logits[i];
		dot += logits[i] * gap;
	}
	for (int i = 0; i < n; i++) logits[i] /= sum;
	if (entropy) *entropy = logf(sum) - dot / sum;
	return (chosen - max) * inv_temperature - logf(sum);
}

void objective_backward(float *probabilities, int n, float inv_temperature, int32_t token, float gradient)
{
	float scale = gradient * inv_temperature;
	for (int i = 0; i < n; i++) probabilities[i] *= -scale;
	probabilities[token] += scale;
}
