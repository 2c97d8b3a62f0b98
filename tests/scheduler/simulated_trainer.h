/* simulated_trainer.h - who takes the batches of test_simulator.c, makes versions of them and has them sent to the
 * ranks; and what S11 to S13 say about the ages that come of it.
 *
 * Synchronously versions come between steps.  One step off, a batch that is complete before the version made of the
 * one before is held until that is there.  Asynchronously the trainer asks for up to `prefetch` batches ahead, ranks
 * adopt a version one by one under what they generate, and the scheduler hears of it when all have.
 */
#ifndef TESTS_SCHEDULER_SIMULATED_TRAINER_H
#define TESTS_SCHEDULER_SIMULATED_TRAINER_H

#include "tests/scheduler/simulated_world.h"

enum { ADOPT_MAX = 50, TRAIN_MAX = 3000 };

static inline bool sim_async(const struct world *world)
{
	return world->options.asynchrony == ASYNCHRONOUS;
}

static inline bool sim_one_step(const struct world *world)
{
	return world->options.asynchrony == ASYNCHRONOUS_BY_ONE_STEP;
}

/* The kind of group that is opened and leased now. */
static inline bool sim_eval(const struct world *world)
{
	return world->open && world->eval;
}

static inline void begin_soon(struct world *world)
{
	bool wanted = !sim_async(world) || world->unversioned <= world->prefetch;
	if (world->open || world->begin_posted || world->held || !wanted || world->steps_done >= STEPS)
		return;
	world->begin_posted = true;
	event_post(world, random_below(world, 100), (struct event){.type = EVENT_BEGIN});
}

static inline void trainer_take(struct world *world)
{
	world->n_batches++;
	if (world->unversioned++ == 0)
		event_post(world, 1 + random_below(world, world->train_max), (struct event){.type = EVENT_TRAINED});
}

/* One step off, between steps: the version is everywhere, and the batch that waited for it goes out. */
static inline void version_between_steps(struct world *world)
{
	world->version = world->pushed;
	world->unversioned = 0;
	world->arrived = false;
}

static inline void on_batch_ready(struct world *world)
{
	if (world->options.asynchrony == SYNCHRONOUS) {
		world->version += mix(world->plan++) % 4 > 0; /* a batch may bring new weights */
		return;
	}
	if (sim_one_step(world) && world->arrived)
		version_between_steps(world);
	if (sim_one_step(world) && world->unversioned > 0)
		world->held = true;
	else
		trainer_take(world);
}

static inline void on_trained(struct world *world)
{
	world->pushed += world->irregular ? (int64_t)random_below(world, 3) : 1;
	for (int i = 0; i < world->n_ranks; i++)
		event_post(world, random_below(world, ADOPT_MAX),
		           (struct event){.type = EVENT_ADOPT, .rank = i, .oldest_version = world->pushed});
	event_post(world, ADOPT_MAX, (struct event){.type = EVENT_VERSION});
}

static inline void on_version(struct world *world)
{
	if (sim_one_step(world)) {
		world->arrived = true;
		if (!world->held)
			return;
		version_between_steps(world);
		world->held = false;
		trainer_take(world);
	} else {
		if (--world->unversioned > 0)
			event_post(world, 1 + random_below(world, world->train_max), (struct event){.type = EVENT_TRAINED});
		if (world->pushed > world->version) {
			world->version = world->pushed;
			scheduler_on_version(world->scheduler, world->version);
		}
	}
	begin_soon(world);
}

/* After a restart of the controller nothing comes of the batches that are out. */
static inline void trainer_restart(struct world *world)
{
	world->version = world->pushed = world->pushed > world->version ? world->pushed : world->version;
	world->forgiven = world->n_batches - world->version;
	world->unversioned = 0;
	world->held = world->arrived = false;
	world->begin_posted = true;
}

/* S13 */

static inline void on_cancel(struct world *world, const struct action *action)
{
	struct shadow_group *group = shadow_find(world, action->group);
	struct shadow *sample = group ? &group->samples[action->sample] : NULL;
	require(world, sample && sample->leased && sample->lease == action->lease && sample->rank == action->rank,
	        "S13: sample %d of group %d is called back from rank %d, which does not have it", action->sample,
	        (int)action->group, action->rank);
	sample->leased = false;
	world->n_cancelled++;
	send_to_rank(world, (struct event){.type = EVENT_CANCEL,
	                                   .rank = action->rank,
	                                   .group = action->group,
	                                   .sample = action->sample,
	                                   .lease = action->lease});
}

static inline void on_drop_group(struct world *world, const struct action *action)
{
	struct shadow_group *group = shadow_find(world, action->group);
	require(world, group && !group->eval && group->complete == group->kept, "S13: group %d is given up",
	        (int)action->group);
	bool reason = world->options.stale_action == ON_STALE_DROP &&
	              world->version + sim_one_step(world) - group->version > world->options.max_staleness;
	for (int i = 0; i < group->n_samples; i++) {
		require(world, !group->samples[i].leased, "S13: sample %d of group %d is not called back", i, (int)group->id);
		reason |= world->options.deferral_action == ON_DEFERRALS_DROP &&
		          group->samples[i].deferrals > world->options.max_deferrals;
	}
	require(world, reason, "S13: group %d is given up for no reason", (int)group->id);
	world->n_dropped++;
	world->n_given_up++;
	shadow_remove(world, group);
	if (world->options.asynchrony == SYNCHRONOUS)
		world->closing = is_closing(world); /* it may have been among those that were kept */
}

/* S11 */
static inline void require_fresh(struct world *world, const struct shadow_group *group)
{
	bool ahead = sim_one_step(world) && world->unversioned > 0; /* it will go out with the next version */
	bool drop = world->options.stale_action == ON_STALE_DROP;
	bool finish = world->options.stale_action == ON_STALE_FINISH && world->options.asynchrony != SYNCHRONOUS;
	if (!finish && !drop)
		return;
	if (world->irregular && (finish || sim_one_step(world)))
		return;
	for (int i = 0; i < group->n_samples; i++) {
		if (group->samples[i].oldest_version == NO_TOKENS) /* pruned before anything of it was known */
			continue;
		int lag = (int)(world->version + ahead - group->samples[i].oldest_version);
		require(world, lag <= world->options.max_staleness, "S11: sample %d of group %d is delivered %d versions late",
		        i, (int)group->id, lag);
		world->lag_max = lag > world->lag_max ? lag : world->lag_max;
	}
}

/* S12, when one more has been opened. */
static inline void require_capacity(struct world *world)
{
	int n_live = world->n_streamed, limit = (int)(world->options.groups_per_step * world->options.over_sampling + 0.999);
	for (int i = 0; i < world->n_groups; i++)
		n_live += !world->groups[i].eval;
	if (!sim_async(world))
		return;
	require(world, n_live <= limit, "S12: %d groups are there, over-sampling allows %d", n_live, limit);
	int64_t batches = world->version + world->forgiven + world->options.max_staleness + 1;
	require(world, world->irregular || world->n_opened - world->n_dropped <= batches * world->options.groups_per_step,
	        "S12: %d groups opened and not dropped under version %d; %d batches, %d forgiven, staleness %d, %d a step, "
	        "%d delivered",
	        (int)(world->n_opened - world->n_dropped), (int)world->version, (int)world->n_batches,
	        (int)world->forgiven, world->options.max_staleness, world->options.groups_per_step, world->n_delivered);
}

/* S21, after every event: a step that is over but for scores waits only for those that it needs.  (One step off and under
 * ON_STALE_FINISH enough groups may have to wait, S11.) */
static inline void require_no_surplus(struct world *world)
{
	bool finish = world->options.stale_action == ON_STALE_FINISH && !(world->options.asynchrony == SYNCHRONOUS);
	int n_kept = world->n_streamed;
	if (!world->open || world->eval || sim_async(world) || finish || !is_closing(world))
		return;
	for (int i = 0; i < world->n_ranks; i++)
		if (world->ranks[i].stopping)
			return;
	for (int i = 0; i < world->n_groups; i++)
		for (int k = 0; k < world->groups[i].n_samples; k++) {
			const struct shadow *sample = &world->groups[i].samples[k];
			if (sample->leased || (!sample->done && (sample->due || is_due(world, &world->groups[i], sample))))
				return;
		}
	for (int i = 0; i < world->n_groups && n_kept < world->wanted; i++) {
		const struct shadow_group *group = &world->groups[i];
		int64_t lag = group->version == NO_TOKENS ? 0 : world->version + sim_one_step(world) - group->version;
		n_kept += group->kept;
		if (group->complete && !group->kept && lag >= world->options.max_staleness)
			return;
	}
	require(world, false, "S21: enough groups are kept, nothing is in flight, and the step waits");
}

static inline void trainer_draw(struct world *world)
{
	uint64_t draw = mix(world->seed ^ 0x5ca1ab1eu);
	world->options.asynchrony = draw % 3;
	world->options.stale_action = draw / 3 % 3;
	world->options.deferral_action = draw / 9 % 2;
	world->irregular = draw / 18 % 5 == 0;
	world->train_max = draw / 90 % 2 ? TRAIN_MAX : TRAIN_MAX / 20;
	if (world->options.asynchrony != SYNCHRONOUS && world->options.max_staleness == 0)
		world->options.max_staleness = 1;
	world->prefetch = (int)(draw / 180 % (uint64_t)(world->options.max_staleness + 1));
}

#endif
