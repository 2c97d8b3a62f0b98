/* pass_rate.h - how often a model answers right: the engine itself, in this process, on a prompt file. */
#ifndef TRAINER_BRIDGE_TRAINER_PASS_RATE_H
#define TRAINER_BRIDGE_TRAINER_PASS_RATE_H

#include "configs/config.h"
#include "policy/tokenizer/tokenizer.h"
#include "policy/weights.h"

struct pass_rate {
	int samples;
	double strict;      /* share with the right answer */
	double reward;      /* mean */
	double tokens_mean; /* response length */
	int tokens_min, tokens_max;
};

/* One sample of every prompt of `path`, drawn and scored as config says (rollout, reward, data, run.seed). */
int pass_rate_measure(struct pass_rate *rate, const struct weights *weights,
                      const struct tokenizer *tokenizer, const char *path, const struct config *config,
                      int n_threads, struct err *err);

#endif
