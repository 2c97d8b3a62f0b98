/* simulate_controller.c - rank 0 of the simulated cluster: feeds the state machine what arrives, does what it says as
 * controller_samples.c does, and plays the trainer.
 *
 * The trainer asks for one batch at a time, trains, and its weights go to every rank (simulate.broadcast_seconds).
 * What happens meanwhile is as in controller.c.  Synchronously nothing.  One step off the next batch is generated while
 * it trains; weights are sent between steps, and the batch that waits for them is delivered with them.  Async the
 * ranks generate all along, and what they hold gets the weights as they come; then the next batch is asked for.
 *
 * The controller handles messages one after the other, each for simulate.controller_seconds, and so are those that
 * it sends; a message is on its way for simulate.latency_seconds and keeps its order.
 *
 * Another action of the state machine is a case in take_actions; one that is not known there ends the simulation with
 * an error.
 */
#include <inttypes.h>
#include <math.h>

#include "scheduler/bench/bench_report.h"
#include "scheduler/simulate/simulate_internal.h"

static void handle_one_more(struct simulation *sim)
{
	sim->controller_free += sim->config->simulate.controller_seconds;
	sim->sums.controller_seconds += sim->config->simulate.controller_seconds;
}

static void event(struct simulation *sim)
{
	sim->sums.events++;
	sim->sums.events_all++;
}

void sim_send(struct simulation *sim, enum sim_message_type type, int rank, struct sim_sample *sample, double time)
{
	sim_messages_push(&sim->messages, (struct sim_message){.type = type, .rank = rank, .sample = sample,
	                                                       .time = time + sim->config->simulate.latency_seconds});
}

/* As the filter does: equal rewards are a property of the group. */
static void score_group(struct simulation *sim, uint64_t id)
{
	enum { DRAW_DROP = -3 };
	const struct config *c = sim->config;
	bool keep = simulate_lengths_uniform(sim->in->lengths, id, DRAW_DROP) >= c->simulate.drop_share ||
	            sim->dropped + 1 > c->advantage.drop_limit * (double)c->scheduler.groups_per_step;

	event(sim);
	scheduler_on_group_scored(sim->scheduler, id, keep);
	if (keep) return;
	sim->dropped++;
	sim_group_drop(sim, sim_groups_find(&sim->groups, id));
}

void sim_open_scheduler(struct simulation *sim)
{
	const struct config *c = sim->config;

	sim->scheduler = scheduler_open(&sim->options);
	scheduler_restore_next_group(sim->scheduler, sim->next_group);
	for (int r = 1; r <= sim->n_ranks; r++) {
		event(sim);
		scheduler_on_rank_joined_slots(sim->scheduler, r, (int)(c->worker.max_active + c->scheduler.rank_backlog),
		                               (int)c->worker.max_active);
	}
}

static void drop_rest(struct simulation *sim)
{
	for (size_t i = 0; i < sim->groups.n; i++)
		if (sim->groups.window[i]) sim_group_drop(sim, sim->groups.window[i]);
	scheduler_close(sim->scheduler);
	sim_open_scheduler(sim);
}

/* The batch is complete: until when the next step has to wait.  Async, the weights are taken then too. */
static double next_begin(struct simulation *sim, double now)
{
	const struct config_simulate *o = &sim->config->simulate;
	double train = o->train_seconds + o->train_seconds_per_token * sim->batch_tokens, begin = now + train + o->broadcast_seconds;
	bool made = sim->config->trainer.kind != TRAINER_NONE && sim->options.asynchrony != ASYNCHRONOUS;

	if (sim->options.asynchrony == ASYNCHRONOUS_BY_ONE_STEP) {
		made = sim->trained_at < INFINITY;
		begin = now;
		if (made) begin = (sim->trained_at > now ? sim->trained_at : now) + o->broadcast_seconds;
		sim->trained_at = begin + train;
	}
	sim->version += made;
	return begin;
}

static void end_step(struct simulation *sim)
{
	double now = sim->controller_free;

	sim_count_until(sim, now);
	sim->rollouts = false;
	sim->sums.rollout_seconds += now - sim->step_began;
	if (sim->mode->drops) drop_rest(sim);
	sim->begin_at = next_begin(sim, now);
	sim->step_seconds[sim->step - 1] = sim->begin_at - sim->step_began;
	sim->sums.until = sim->begin_at;
	bench_progress(sim->mode->name, (int)sim->step - 1, (int)sim->config->simulate.steps);
}

static double sent_at(struct simulation *sim)
{
	handle_one_more(sim);
	return sim->controller_free + sim->config->simulate.latency_seconds;
}

static void take_actions(struct simulation *sim)
{
	struct action a;

	while (!sim->rc && scheduler_next_action(sim->scheduler, &a)) {
		switch (a.type) {
		case ACTION_OPEN_GROUP: sim_group_open(sim, a.group, a.n_samples); break;
		case ACTION_LEASE: {
			struct sim_sample *s = &sim_groups_find(&sim->groups, a.group)->samples[a.sample];
			s->lease = a.lease;
			sim_sample_leave(s);
			sim_rank_lease(sim, a.rank, s, sent_at(sim));
			break;
		}
		case ACTION_KEEP: sim_groups_find(&sim->groups, a.group)->samples[a.sample].keep = true; break;
		case ACTION_STOP: sim_rank_stop(sim, a.rank, sent_at(sim)); break;
		case ACTION_RECALL:
			sim_rank_recall(sim, a.rank, (struct sim_recall){.at = sent_at(sim), .number = a.lease, .keep = a.n_samples});
			break;
		case ACTION_GROUP_COMPLETE: score_group(sim, a.group); break;
		case ACTION_DELIVER: sim_group_deliver(sim, a.group); break;
		case ACTION_CANCEL:
			sim_rank_cancel(sim, a.rank, &sim_groups_find(&sim->groups, a.group)->samples[a.sample], sent_at(sim));
			break;
		case ACTION_DROP_GROUP:
			sim->sums.given_up++;
			sim_group_drop(sim, sim_groups_find(&sim->groups, a.group));
			break;
		case ACTION_STEP_READY: end_step(sim); break;
		case ACTION_NONE: break;
		default: sim->rc = err_set(sim->err, ERR_STATE, "the simulator does not know action %d of the scheduler", (int)a.type);
		}
	}
	if (sim->in->check && !sim->rc && !scheduler_check(sim->scheduler, stderr))
		sim->rc = err_set(sim->err, ERR_STATE, "%s, step %" PRId64 ", %.6f s: an invariant of the scheduler is broken",
		                  sim->mode->name, sim->step, sim->now);
}

void sim_take_message(struct simulation *sim, const struct sim_message *m)
{
	struct sim_sample *s = m->sample;
	bool gone = s && s->group->gone; /* a late answer: it changes nothing (S9) */

	if (sim->controller_free < m->time) sim->controller_free = m->time;
	handle_one_more(sim);
	event(sim);
	switch (m->type) {
	case SIM_DONE: {
		double lag = (double)(sim->version - s->first_version);
		if (lag > sim->sums.staleness_end_max && !gone) sim->sums.staleness_end_max = lag;
		sim_sample_tell(sim, s, true);
		scheduler_on_sample_done(sim->scheduler, s->group->id, s->index, s->lease);
		break;
	}
	case SIM_PARTIAL:
		sim->sums.put_aside += !sim->mode->drops && !gone;
		sim_sample_tell(sim, s, false);
		scheduler_on_sample_partial(sim->scheduler, s->group->id, s->index, s->lease,
		                            s->first_version == VERSION_UNSET ? sim->version : s->first_version);
		break;
	case SIM_QUIET: scheduler_on_rank_quiet(sim->scheduler, m->rank); break;
	case SIM_RETURNED:
		sim->sums.migrated += !gone;
		sim_sample_tell(sim, s, false);
		sim->sums.put_aside += scheduler_on_sample_recalled(
			sim->scheduler, s->group->id, s->index, s->lease,
			s->first_version == VERSION_UNSET ? SCHEDULER_NO_TOKENS : s->first_version);
		break;
	case SIM_RECALLED: scheduler_on_rank_recalled(sim->scheduler, m->rank, sim->ranks[m->rank].recall.number); break;
	case SIM_CANCELLED: break; /* never sent */
	}
	if (s) sim_sample_return(sim, s);
	take_actions(sim);
}

/* Async: every rank has the weights made of the last batch. */
static void take_weights(struct simulation *sim)
{
	sim->version++;
	for (int r = 1; r <= sim->n_ranks; r++) sim_rank_weights(sim, r);
	event(sim);
	scheduler_on_version(sim->scheduler, sim->version);
	take_actions(sim);
}

void sim_begin_step(struct simulation *sim)
{
	sim->now = sim->step_began = sim->begin_at;
	if (sim->controller_free < sim->now) sim->controller_free = sim->now;
	sim->begin_at = INFINITY;
	sim_count_until(sim, sim->now);
	if (sim->step == sim->config->simulate.warmup) sim_sums_restart(sim);
	if (sim->options.asynchrony == ASYNCHRONOUS && sim->step > 0) take_weights(sim);
	sim->step++;
	sim->rollouts = true;
	sim->dropped = 0;
	sim->batch_tokens = 0;
	event(sim);
	scheduler_on_step_begin(sim->scheduler, sim->step, sim->version);
	take_actions(sim);
}
