/* bench_acceptance.h - how often a drafter's token would be accepted, given the same tokens before it.
 *
 * The target draws a sample from each prompt.  Along these tokens target and drafter are compared at every
 * position: the drafter reads the target's keys and values of all earlier positions and its own of this
 * one, as for the first token of a draft (rollout/speculation/draft_quant.c).
 */
#ifndef SCHEDULER_BENCH_BENCH_ACCEPTANCE_H
#define SCHEDULER_BENCH_BENCH_ACCEPTANCE_H

#include "policy/forward.h"
#include "rollout/prompts.h"

enum { ACCEPTANCE_DRAWS = 8 }; /* noise tried per position */

struct acceptance_options {
	enum kv_type kv_type;
	double temperature; /* above 0; no truncation */
	int tokens;         /* of a response at most */
	int n_threads;
	uint64_t seed;
};

struct acceptance_sample {
	int32_t *tokens; /* owned; prompt, then response */
	int n_prompt, n;
	uint64_t keys[ACCEPTANCE_DRAWS]; /* the first drew the response */
};

struct acceptance_samples {
	struct acceptance_sample *items; /* [n], owned */
	size_t n;
	int positions;  /* response tokens in all */
	double entropy; /* of the target's distribution, nats, mean over positions */
};

struct acceptance {
	double maximal; /* 1 - total variation between the two distributions, mean over positions */
	double coupled; /* share of draws under the same noise that agree */
};

/* One sample of each prompt by the policy's target. */
int acceptance_samples_draw(struct acceptance_samples *samples, const struct policy *policy,
                            const struct prompts *prompts, const struct acceptance_options *options, struct err *err);
void acceptance_samples_free(struct acceptance_samples *samples);

/* The policy, which has a drafter, along the samples that its target drew. */
int acceptance_measure(struct acceptance *acceptance, const struct policy *policy,
                       const struct acceptance_samples *samples, const struct acceptance_options *options,
                       struct err *err);

#endif
