/* serving_state.h - how far a serving has come (replay_serve.h): serving.json of its directory, replaced as a whole before a
 * batch is put, after it is acknowledged, and before weights are answered.  So what is killed goes on where the trainer
 * acknowledged last: at worst a batch comes again that was put and never seen, or whose acknowledgement was lost. */
#ifndef SCHEDULER_REPLAY_SERVING_STATE_H
#define SCHEDULER_REPLAY_SERVING_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "configs/err.h"
#include "scheduler/store/store_read.h"

enum { SERVING_UNACKNOWLEDGED_MAX = 1024 }; /* batches; a peer's credits are fewer */

struct serving_state {
	char run_id[STORE_RUN_ID_MAX + 16];          /* of the serving */
	int64_t put, last;                           /* steps: of the last batch that was put; of the last to be put */
	int64_t version;                             /* of the newest weights that came */
	int64_t n_batches, n_trajectories, n_tokens; /* acknowledged; put; response tokens of those */
	int64_t n_versions, n_same;                  /* of the weights that came; those with the bits of the recording */
	double seconds;                              /* that it has taken so far */
	int64_t unacknowledged[SERVING_UNACKNOWLEDGED_MAX]; /* [n] steps, ascending */
	int n_unacknowledged;
};

void serving_put(struct serving_state *state, int64_t step);
void serving_acknowledge(struct serving_state *state, int64_t step);

int serving_state_write(const struct serving_state *state, const char *dir, struct err *err);
/* ERR_MISSING: no serving began there; ERR_INVALID: damaged. */
int serving_state_read(struct serving_state *state, const char *dir, struct err *err);

#endif
