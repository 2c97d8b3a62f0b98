/* replay_ranks.h - a replay on many ranks: rank 0 selects, deals groups out, draws its own share and gathers.
 *
 * Every rank reads the run directory and the model itself, so they must be where all can see them.  Messages are bytes
 * behind a u32 (enum in the .c file); the same program runs on every rank.
 */
#ifndef SCHEDULER_REPLAY_REPLAY_RANKS_H
#define SCHEDULER_REPLAY_REPLAY_RANKS_H

#include "scheduler/ranks/transport.h"
#include "scheduler/replay/replay.h"

struct replay_team {
	struct transport *transport; /* NULL: this process alone */
	const struct replay_options *options;
	const struct replay_selection *selection;
	bool quiet;                  /* no progress is shown */
};

/* Rank 0, or the only one.  What all ranks found is added to result; ERR_PEER where another rank failed.  The others are
 * told to end in every case. */
int replay_lead(const struct replay_team *team, struct replay_result *result, struct err *err);

/* Another rank: does its share.  Errors are told to rank 0, which reports them. */
int replay_follow(const struct replay_team *team, struct err *err);

/* Shares of samples[n], whose groups stand together: owner[i] is the rank of samples[i].  Groups stay whole, the longest
 * are dealt first, each to the rank with the fewest tokens. */
void replay_deal(const struct stored_sample *samples, size_t n, int n_ranks, int *owner);

#endif
