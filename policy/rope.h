/* rope.h - rotary position angles (RoFormer, Su et al. 2021), the same bits on every machine. */
#ifndef POLICY_ROPE_H
#define POLICY_ROPE_H

#include "policy/model_config.h"

/* Rotation per position of each pair, with the config's scaling: out [head_dim/2].  Returns what cos and
 * sin are multiplied by: 1 but for yarn. */
float rope_frequencies(float *out, const struct model_config *config);

/* cos, sin [n] of position * frequency[i], rounded to float, times scale; 0 <= position < MODEL_CONTEXT_MAX. */
void rope_angles(float *cos, float *sin, const float *frequency, float scale, int n, int position);

#endif
