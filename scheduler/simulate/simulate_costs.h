/* simulate_costs.h - what a round of a rank costs and makes, by active sessions and their contexts. */
#ifndef SCHEDULER_SIMULATE_SIMULATE_COSTS_H
#define SCHEDULER_SIMULATE_SIMULATE_COSTS_H

#include "configs/config.h"
#include "rollout/speculation/speculation.h"

struct simulate_costs;

/* Rounds of one batch, one after the other: the i-th takes seconds + i * growth, each gives every session so many
 * tokens.  Holds for rounds_max rounds; then contexts have grown enough to ask again. */
struct simulate_round {
	double tokens, seconds, growth, rounds_max;
};

/* Calls from the keys simulate.read_seconds and so on, as `drumroll calibrate` would have measured them. */
void simulate_costs_invent(struct speculation_costs *calls, const struct config_simulate *options);

/* Owned by the caller.  With speculation: plans of the real controller (speculation.h) at the acceptance in
 * simulate.acceptance. */
struct simulate_costs *simulate_costs_open(const struct speculation_costs *calls, const struct config *config,
                                           bool speculation);
void simulate_costs_close(struct simulate_costs *costs);

/* n sessions, 0 .. worker.max_active, that attend to `positions` together; with none, a round of prefill, whose rows
 * come on top. */
struct simulate_round simulate_costs_round(const struct simulate_costs *costs, int n, double positions);

/* Prefill of positions [from, to). */
double simulate_costs_prefill(const struct simulate_costs *costs, double from, double to);

#endif
