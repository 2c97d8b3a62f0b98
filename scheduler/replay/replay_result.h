/* replay_result.h - what came of a replay: counts and the first differences, of one rank or of all. */
#ifndef SCHEDULER_REPLAY_REPLAY_RESULT_H
#define SCHEDULER_REPLAY_REPLAY_RESULT_H

#include <jansson.h>
#include <stdint.h>

#include "configs/err.h"
#include "scheduler/replay/replay_plan.h"

enum { REPLAY_DIFFERENCES_MAX = 16 }; /* that are described */

/* X(name): all sums.  `equal` and `different` are of replayed and replayed_partly, and of records that cannot be read. */
#define REPLAY_COUNT_LIST(X) \
	X(trajectories)      /* selected */ \
	X(replayed)          /* every token was drawn again */ \
	X(replayed_partly)   /* some tokens were */ \
	X(not_replayed)      /* none could be */ \
	X(empty)             /* nothing had been drawn */ \
	X(equal) X(different) \
	X(with_not_kept)     /* trajectories with tokens of versions whose weights were not kept */ \
	X(with_kv_kept)      /* with tokens over kept keys and values */ \
	X(with_maximal)      /* with tokens of maximal coupling */ \
	X(tokens) X(tokens_replayed) X(tokens_not_kept) X(tokens_kv_kept) X(tokens_maximal) \
	X(rewards)           /* judged again */ \
	X(rewards_not_asked) /* of external verifiers, or the trainer's */ \
	X(checksums)         /* compared */

struct replay_result {
#define X(name) uint64_t name;
	REPLAY_COUNT_LIST(X)
#undef X
	json_t *differences; /* array, at most REPLAY_DIFFERENCES_MAX, in order of trajectory and position */
	json_t *not_kept;    /* object: version as text, its tokens */
};

void replay_result_open(struct replay_result *result);
void replay_result_close(struct replay_result *result);

/* Takes the description. */
void replay_result_add_difference(struct replay_result *result, json_t *difference);
void replay_result_add_not_kept(struct replay_result *result, int64_t version, uint64_t n_tokens);

/* {counts, differences, not_kept}, for another rank or the user; owned by the caller. */
json_t *replay_result_json(const struct replay_result *result);
/* Adds what replay_result_json gave elsewhere. */
int replay_result_add(struct replay_result *result, const json_t *json, struct err *err);

#endif
