/* explore_run.h - explore mode in one process: pools drawn, rewarded, chosen from and drawn again, in one engine.
 * For `drumroll generate --mode explore` and `drumroll bench explore`; a cluster does the same by leases. */
#ifndef SCHEDULER_COMMANDS_EXPLORE_RUN_H
#define SCHEDULER_COMMANDS_EXPLORE_RUN_H

#include "policy/tokenizer/tokenizer.h"
#include "rollout/engine.h"
#include "rollout/explore.h"
#include "rollout/prompts.h"
#include "rollout/reward/reward.h"

struct explore_run_options {
	int pool, keep;       /* 1 <= keep <= pool */
	bool by_target;       /* the target draws the pool, and nothing is drawn again: what explore is compared with */
	uint64_t seed;
	struct sampling_options sampling;
	int32_t max_tokens;
	int pending_max;      /* samples in the engine at once */
};

/* One prompt's pool, and what was chosen from it. */
struct explore_group {
	struct trajectory **pool;      /* [n_pool], by sample; rewarded */
	struct explore_place *chosen;  /* [n_chosen], in the pool's order */
	struct trajectory **again;     /* [n_chosen], rewarded and noted; NULLs by_target */
	int n_pool, n_chosen;
	int n_ended;                   /* of the pool; then of again */
	bool choosing;                 /* the pool is there */
};

/* Sets reward or error (reward.h). */
void explore_run_reward(const struct reward *reward, const struct tokenizer *tokenizer, struct trajectory *trajectory);

/* Runs all prompts; `done` is called for each, in their order; the group is borrowed for the call. */
void explore_run(struct engine *engine, const struct prompts *prompts, const struct reward *reward,
                 const struct tokenizer *tokenizer, const struct explore_run_options *options,
                 void (*done)(void *context, size_t prompt, const struct explore_group *group), void *context);

#endif
