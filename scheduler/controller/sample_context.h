/* sample_context.h - how many positions the longest sample can reach, and whether the model ends it first. */
#ifndef SCHEDULER_CONTROLLER_SAMPLE_CONTEXT_H
#define SCHEDULER_CONTROLLER_SAMPLE_CONTEXT_H

#include "policy/model_config.h"
#include "rollout/prompts.h"

struct sample_context {
	int positions;  /* of the longest prompt and its response, at most the model's context */
	char note[400]; /* a sentence for people where the model's context cut them; else empty */
};

/* sets[n_sets] are borrowed for the call; option: what people set max_tokens by. */
void sample_context_find(struct sample_context *context, const struct model_config *model,
                         const struct prompts *const *sets, int n_sets, int64_t max_tokens, const char *option);

#endif
