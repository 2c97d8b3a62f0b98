/* objective.h - the token-level clipped objective, and the log-probabilities that it is made of.
 *
 * For a token with advantage A and weight w (its share of the batch):
 *
 *     r    = exp(logp - logp_old)                      PPO ratio (Schulman et al. 2017, eq. 7)
 *     c    = min(exp(logp_old - logp_behaviour), tis_clip)   truncated importance sampling, a constant
 *     k    = exp(logp_ref - logp) - (logp_ref - logp) - 1    k3 estimator of KL (Schulman 2020)
 *     loss = w ( -c min(r A, clamp(r, 1 - clip_low, 1 + clip_high) A) + kl_coef k )
 *
 * logp_old belongs to the weights at the start of the batch (decoupled from those that generated, "Batch
 * size-invariance for policy optimization", Hilton et al. 2022), logp_behaviour is what the engine
 * recorded under whichever version drew the token.  clip_high > clip_low is the clip-higher of DAPO (Yu
 * et al. 2025), as is the mean over tokens instead of over samples.
 */
#ifndef TRAINER_BRIDGE_OBJECTIVE_H
#define TRAINER_BRIDGE_OBJECTIVE_H

#include <stdbool.h>
#include <stdint.h>

struct objective_options {
	float clip_low, clip_high;
	float tis_clip; /* 0: no importance sampling, c = 1 */
	float kl_coef;  /* 0: logp_ref is not read */
};

struct objective_token {
	float logp, logp_old, logp_behaviour, logp_ref; /* natural logarithms */
	float advantage, weight;
};

struct objective_result {
	float loss;
	float gradient; /* d loss / d logp */
	float kl;       /* k, 0 without a reference */
	float tis;      /* c */
	bool clipped;   /* the clamp decided: no policy gradient from this token */
};

struct objective_result objective_evaluate(const struct objective_options *options,
                                           const struct objective_token *token);

/* logits [n] become probabilities softmax(logits * inv_temperature); returns the log-probability of
 * token, *entropy (may be NULL) gets the entropy in nats. */
float objective_softmax(float *logits, int n, float inv_temperature, int32_t token, float *entropy);

/* Probabilities from objective_softmax become the gradient of the loss with respect to the logits, given
 * that with respect to the token's log-probability. */
void objective_backward(float *probabilities, int n, float inv_temperature, int32_t token, float gradient);

#endif
