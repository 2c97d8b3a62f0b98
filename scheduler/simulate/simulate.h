/* simulate.h - a cluster in virtual time: the scheduler's own state machine (scheduler.h) and simulated ranks.
 *
 * Owns: virtual time, what the ranks hold, and what is measured.  The state machine is driven by its public
 * header alone.  No clock: the same inputs give the same metrics, but for events_per_cpu_sec.
 * What the ranks take for a round is simulate_costs.h's matter, how long samples are simulate_lengths.h's.
 */
#ifndef SCHEDULER_SIMULATE_SIMULATE_H
#define SCHEDULER_SIMULATE_SIMULATE_H

#include "configs/config.h"
#include "scheduler/scheduler.h"
#include "scheduler/simulate/simulate_costs.h"
#include "scheduler/simulate/simulate_lengths.h"

/* A way to run steps: one line in simulate.c's table, and a column in the report. */
struct simulate_mode {
	const char *name;
	bool over_sampling; /* scheduler.over_sampling as configured; false: 1 */
	bool partials;      /* stop when enough groups are complete; false: wait for all that was started */
	bool drops;         /* what is left over at the end of a step is thrown away, not put aside */
	bool speculation;
	bool migration;     /* samples go from loaded ranks to idle ones (scheduler.h, S14) */
	enum asynchrony asynchrony; /* without a trainer: SYNCHRONOUS, as in a run */
};
extern const struct simulate_mode simulate_modes[];
extern const int simulate_modes_n;

/* X(name, decimals, help): over the steps after the warm-up.  A step lasts until the next one begins; in `async` it begins
 * when the trainer asks for a batch, and samples are generated between steps as well. */
#define SIMULATE_METRICS(X) \
	X(step_seconds_mean, 3, "a step: rollouts, training, broadcast") \
	X(step_seconds_p95, 3, "95 of 100 steps are not longer") \
	X(rollout_seconds_mean, 3, "from a step's beginning until its batch is complete and, but for async, every rank quiet") \
	X(trajectories_per_sec, 2, "delivered, over all of the time") \
	X(tokens_per_sec, 1, "response tokens of delivered trajectories, likewise") \
	X(slots_busy, 3, "share of the time of all slots (workers * worker.max_active) that a sample was in them") \
	X(ranks_busy, 3, "share of the time of all ranks that they had a sample in a slot") \
	X(tail_share, 3, "share of the time in rollouts with fewer than a quarter of the slots in use") \
	X(staleness_mean, 3, "versions a delivered trajectory's first token lags") \
	X(staleness_max, 0, "the most of them") \
	X(staleness_end_max, 0, "the most that a sample lagged when it ended (scheduler.max_staleness bounds it)") \
	X(put_aside_per_step, 1, "samples put aside") \
	X(given_up_per_step, 1, "groups dropped for their age or for being put aside too often (scheduler.stale_action, deferral_action)") \
	X(masked_share, 3, "of the tokens of delivered trajectories, those out of the loss for their age (scheduler.stale_action: mask)") \
	X(migrated_per_step, 1, "samples that went from a loaded rank to an idle one") \
	X(dropped_tokens_share, 3, "of the tokens that were made, those thrown away") \
	X(length_mean, 1, "response tokens of delivered trajectories") \
	X(length_bias, 3, "that mean over the mean of every sample that was opened, to its end") \
	X(tokens_per_round, 3, "of a session: 1 without speculation") \
	X(controller_events_per_sec, 1, "events of the state machine per second of the simulated cluster") \
	X(controller_busy, 3, "share of the time that the controller had messages to handle") \
	X(events_per_cpu_sec, 0, "events of the state machine simulated per CPU second: the one number that a clock measured")

struct simulate_metrics {
#define X(name, decimals, help) double name;
	SIMULATE_METRICS(X)
#undef X
};

struct simulate_inputs {
	const struct config *config;
	const struct simulate_lengths *lengths;
	const struct speculation_costs *costs;
	bool check; /* every invariant of the state machine after every event: slow */
};

/* One mode from the first step to the last.  ERR_STATE if an invariant is broken (check). */
int simulate_run(struct simulate_metrics *metrics, const struct simulate_inputs *inputs,
                 const struct simulate_mode *mode, struct err *err);

#endif
