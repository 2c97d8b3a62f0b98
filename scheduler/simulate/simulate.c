/* simulate.c - a run of the simulated cluster: what happens next in virtual time, and what is measured.
 *
 * Virtual time is in seconds.  Two kinds of things happen: a message reaches the controller
 * (simulate_controller.c), a rank wakes up (simulate_rank.c).
 *
 * `over-provisioned` is not a mode of the state machine.  It is expressed by its header: at the end of a step the
 * scheduler is opened anew, with ids that go on, so that surplus groups and partials are gone.  No sample is due
 * (S7) in that mode: nothing of it outlives a step.
 *
 * Another mode is a line in simulate_modes and what scheduler_mode_options makes of it.
 */
#include "scheduler/simulate/simulate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "configs/err.h"
#include "rollout/advantage/advantage.h"
#include "scheduler/bench/bench_report.h"
#include "scheduler/simulate/simulate_internal.h"

const struct simulate_mode simulate_modes[] = {
	{.name = "sync"},
	{.name = "over-provisioned", .over_sampling = true, .partials = true, .drops = true},
	{.name = "april", .over_sampling = true, .partials = true},
	{.name = "april+speculation", .over_sampling = true, .partials = true, .speculation = true},
	{.name = "april+migration", .over_sampling = true, .partials = true, .migration = true},
	{.name = "april+speculation+migration", .over_sampling = true, .partials = true, .speculation = true,
	 .migration = true},
	{.name = "one_step_off", .over_sampling = true, .partials = true, .asynchrony = ASYNCHRONOUS_BY_ONE_STEP},
	{.name = "one_step_off+migration", .over_sampling = true, .partials = true, .migration = true,
	 .asynchrony = ASYNCHRONOUS_BY_ONE_STEP},
	{.name = "async", .over_sampling = true, .partials = true, .asynchrony = ASYNCHRONOUS},
	{.name = "async+migration", .over_sampling = true, .partials = true, .migration = true, .asynchrony = ASYNCHRONOUS},
};
const int simulate_modes_n = sizeof simulate_modes / sizeof *simulate_modes;

static struct scheduler_options scheduler_mode_options(const struct config *c, const struct simulate_mode *mode)
{
	enum asynchrony asynchrony = c->trainer.kind == TRAINER_NONE ? SYNCHRONOUS : mode->asynchrony;
	int64_t max_staleness = c->scheduler.max_staleness;

	if (asynchrony != SYNCHRONOUS && max_staleness < 1) max_staleness = 1; /* what is generated beside training lags */
	return (struct scheduler_options){
		.groups_per_step = (int)c->scheduler.groups_per_step,
		.over_sampling = mode->over_sampling ? c->scheduler.over_sampling : 1,
		.samples_per_group = advantage_samples_to_draw(&c->advantage, (int)c->rollout.group_size),
		.eval_samples = (int)c->eval.samples,
		.partial_rollouts = mode->partials,
		.max_staleness = mode->drops ? INT32_MAX : (int)max_staleness,
		.max_deferrals = mode->drops ? INT32_MAX : (int)c->scheduler.max_deferrals,
		.stale_action = mode->drops ? ON_STALE_FINISH : (enum on_stale)c->scheduler.stale_action,
		.deferral_action = mode->drops ? ON_DEFERRALS_FINISH : (enum on_deferrals)c->scheduler.deferral_action,
		.order = c->scheduler.order == LEASE_LONGEST ? ORDER_LONGEST : ORDER_OLDEST,
		.migrate = mode->migration,
		.asynchrony = asynchrony,
	};
}

/* ---- sums ---- */

/* Slots and ranks in use, up to this time. */
void sim_count_until(struct simulation *sim, double time)
{
	double seconds = time - sim->counted_at;

	if (seconds <= 0) return;
	sim->counted_at = time;
	sim->sums.slot_seconds += seconds * sim->active;
	sim->sums.rank_seconds += seconds * sim->busy;
	if (sim->rollouts && 4.0 * sim->active < (double)sim->n_ranks * sim->max_active) sim->sums.tail_seconds += seconds;
}

void sim_occupancy(struct simulation *sim, int active, int busy)
{
	if (active == 0 && busy == 0) return;
	sim_count_until(sim, sim->now);
	sim->active += active;
	sim->busy += busy;
}

/* The warm-up is over: what was summed so far is left out. */
void sim_sums_restart(struct simulation *sim)
{
	sim->sums = (struct sim_sums){.since = sim->now, .opened = sim->sums.opened,
	                              .opened_tokens = sim->sums.opened_tokens, .events_all = sim->sums.events_all};
}

/* ---- a run ---- */

/* What happens next; false when the last step has ended, or nothing can happen any more. */
static bool happen(struct simulation *sim)
{
	const struct sim_message *first = sim_messages_first(&sim->messages);
	double message = first ? first->time : INFINITY, wake = sim->wakes.n ? sim->wakes.heap[1].time : INFINITY;

	if (sim->begin_at <= message && sim->begin_at <= wake) {
		if (sim->begin_at == INFINITY) return false;
		if (sim->step == sim->config->simulate.steps) {
			sim_count_until(sim, sim->begin_at); /* async, slots are in use */
			return false;
		}
		sim_begin_step(sim);
	} else if (message <= wake) {
		struct sim_message m = sim_messages_pop(&sim->messages);
		sim->now = m.time;
		sim_take_message(sim, &m);
	} else {
		sim->now = wake;
		sim_rank_wake(sim, sim->wakes.heap[1].rank);
	}
	return !sim->rc;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double share(double part, double all) { return all > 0 ? part / all : 0; }

static void metrics_fill(struct simulate_metrics *m, struct simulation *sim, double cpu_seconds)
{
	const struct sim_sums *s = &sim->sums;
	int64_t warmup = sim->config->simulate.warmup, n = sim->config->simulate.steps - warmup;
	double seconds = s->until - s->since, ranks = sim->n_ranks, mean = share(s->delivered_tokens, s->delivered);
	double *measured = sim->step_seconds + warmup;

	qsort(measured, (size_t)n, sizeof *measured, compare);
	*m = (struct simulate_metrics){
		.step_seconds_mean = seconds / (double)n,
		.step_seconds_p95 = measured[(95 * n + 99) / 100 - 1], /* nearest rank */
		.rollout_seconds_mean = s->rollout_seconds / (double)n,
		.trajectories_per_sec = share(s->delivered, seconds),
		.tokens_per_sec = share(s->delivered_tokens, seconds),
		.slots_busy = share(s->slot_seconds, seconds * ranks * sim->max_active),
		.ranks_busy = share(s->rank_seconds, seconds * ranks),
		.tail_share = share(s->tail_seconds, s->rollout_seconds),
		.staleness_mean = share(s->staleness, s->delivered),
		.staleness_max = s->staleness_max,
		.staleness_end_max = s->staleness_end_max,
		.put_aside_per_step = s->put_aside / (double)n,
		.given_up_per_step = s->given_up / (double)n,
		.masked_share = share(s->masked_tokens, s->delivered_tokens),
		.migrated_per_step = s->migrated / (double)n,
		.dropped_tokens_share = share(s->tokens_dropped, s->tokens_made),
		.length_mean = mean,
		.length_bias = share(mean, share(s->opened_tokens, s->opened)),
		.tokens_per_round = share(s->tokens_made, s->session_rounds),
		.controller_events_per_sec = share(s->events, seconds),
		.controller_busy = share(s->controller_seconds, seconds),
		.events_per_cpu_sec = share(s->events_all, cpu_seconds),
	};
}

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void simulation_free(struct simulation *sim)
{
	scheduler_close(sim->scheduler);
	simulate_costs_close(sim->costs);
	length_estimate_close(sim->expected);
	for (int r = 1; r <= sim->n_ranks; r++) free(sim->ranks[r].slots);
	free(sim->ranks);
	sim_wakes_free(&sim->wakes);
	sim_messages_free(&sim->messages);
	sim_groups_free(&sim->groups);
	free(sim->step_seconds);
}

int simulate_run(struct simulate_metrics *metrics, const struct simulate_inputs *in, const struct simulate_mode *mode,
                 struct err *err)
{
	const struct config *c = in->config;
	struct simulation sim = {
		.config = c, .in = in, .mode = mode, .err = err, .options = scheduler_mode_options(c, mode), .next_group = 1,
		.n_ranks = (int)c->simulate.workers, .max_active = (int)c->worker.max_active, .trained_at = INFINITY,
	};

	sim.costs = simulate_costs_open(in->costs, c, mode->speculation);
	sim.step_seconds = xcalloc((size_t)c->simulate.steps, sizeof *sim.step_seconds);
	sim.ranks = xcalloc((size_t)sim.n_ranks + 1, sizeof *sim.ranks);
	for (int r = 1; r <= sim.n_ranks; r++)
		sim.ranks[r].stop_at = sim.ranks[r].recall.at = sim.ranks[r].weights_at = sim.ranks[r].cancel_at = INFINITY;
	if (sim.options.order == ORDER_LONGEST) sim.expected = length_estimate_open();
	sim_wakes_open(&sim.wakes, sim.n_ranks);
	double start = cpu_seconds();
	sim_open_scheduler(&sim);
	while (happen(&sim)) {}
	bench_progress(mode->name, (int)c->simulate.steps, (int)c->simulate.steps);
	if (!sim.rc && sim.begin_at == INFINITY)
		sim.rc = err_set(err, ERR_STATE, "%s stands still in step %" PRId64 " at %.6f s: nothing is on its way and no rank works",
		                 mode->name, sim.step, sim.now);
	if (!sim.rc) metrics_fill(metrics, &sim, cpu_seconds() - start);
	simulation_free(&sim);
	return sim.rc;
}
