/* objective.h - the token-level clipped objective, and the log-probabilities that it is made of.
 *
 * For a token with advantage A and weight w (its share of the batch):
 *
 *     r    = exp(logp - logp_old)                      PPO ratio (Schulman et al. 2017, eq. 7)
 *     c    = min(exp(logp_old - logp_behaviour), tis_clip)   truncated importance sampling, a constant
 *     k    = exp(logp_ref - logp) - (logp_ref - logp) - 1    k3 estimator of KL (Schulman 2020)
 *     loss = w ( -c min(r A, clamp(r, 1 - clip_low, 1 + clip_high) A) + kl_coef k )
 *
 * Three policies, decoupled ("Batch size-invariance for policy optimization", Hilton et al. 2022; verl's
 * rollout correction, FlashRL): r is clipped against the old one, c corrects for what drew the token being
 * another one, logp_behaviour.  The old one is either the policy at the start of the batch, or, where another
 * numeric format drew, the target of the version that drew (policy_update.h says when).  A token that the old
 * policy cannot draw (logp_old -infinity) has c = 0 and no policy loss, whatever r.  clip_high > clip_low is
 * the clip-higher of DAPO (Yu et al. 2025), as is the mean over tokens instead of over samples.
 */
#ifndef TRAINER_BRIDGE_TRAINER_OBJECTIVE_H
#define TRAINER_BRIDGE_TRAINER_OBJECTIVE_H

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
