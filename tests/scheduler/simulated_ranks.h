/* simulated_ranks.h - the ranks of test_simulator.c: what they hold, and how they answer. */
#ifndef TESTS_SCHEDULER_SIMULATED_RANKS_H
#define TESTS_SCHEDULER_SIMULATED_RANKS_H

#include "tests/scheduler/simulated_trainer.h"

static inline struct held *held_find(struct sim_rank *rank, uint64_t group, int sample)
{
	for (int i = 0; i < rank->n_held; i++)
		if (rank->held[i].group == group && rank->held[i].sample == sample)
			return &rank->held[i];
	return NULL;
}

/* A sample's length depends on it alone; half are short, some are very long. */
static inline int sample_length(const struct world *world, uint64_t group, int sample)
{
	uint64_t draw = mix(world->seed ^ mix(group * 64 + (uint64_t)sample));
	return 1 + (int)(draw % 64 < 32 ? draw % 40 : draw % 64 < 56 ? draw % 200 : draw % 2000);
}

static inline void rank_forget(struct world *world, int number, struct held *held)
{
	struct sim_rank *rank = &world->ranks[number];
	*held = rank->held[--rank->n_held];
	if (rank->owes_quiet && rank->n_held == 0) {
		rank->owes_quiet = false;
		send_to_controller(world, (struct event){.type = EVENT_QUIET, .rank = number});
	}
}

static inline void rank_answer(struct world *world, int number, struct held *held, enum event_type type)
{
	int progress = held->progress + (int)(world->now - held->since);
	bool queued = type == EVENT_BACK && held->fresh && world->now - held->since < 3; /* it never began */
	send_to_controller(world, (struct event){.type = type,
	                                         .rank = number,
	                                         .group = held->group,
	                                         .sample = held->sample,
	                                         .lease = held->lease,
	                                         .progress = progress,
	                                         .oldest_version = queued ? NO_TOKENS : held->oldest_version});
	rank_forget(world, number, held);
}

static inline void rank_on_lease(struct world *world, const struct event *event)
{
	struct sim_rank *rank = &world->ranks[event->rank];
	require(world, rank->n_held < rank->capacity, "S4: rank %d holds %d and is given one more", event->rank,
	        rank->n_held);
	int rest = sample_length(world, event->group, event->sample) - event->progress;
	rank->held[rank->n_held++] = (struct held){
		.group = event->group,
		.sample = event->sample,
		.lease = event->lease,
		.since = world->now,
		.progress = event->progress,
		.fresh = event->oldest_version == NO_TOKENS,
		.oldest_version = event->oldest_version != NO_TOKENS ? event->oldest_version
		                  : sim_async(world)                  ? rank->version
		                                                      : world->version};
	struct event end = *event;
	end.type = chance(world, world->p_spontaneous) ? EVENT_RETURN : EVENT_FINISH;
	if (rest > 1 && end.type == EVENT_RETURN)
		rest = 1 + (int)random_below(world, (uint64_t)rest);
	event_post(world, rest > 1 ? (uint64_t)rest : 1, end);
}

static inline void rank_on_stop(struct world *world, const struct event *event)
{
	struct sim_rank *rank = &world->ranks[event->rank];
	for (int i = rank->n_held - 1; i >= 0; i--)
		if (!rank->held[i].keep)
			rank_answer(world, event->rank, &rank->held[i], EVENT_PARTIAL);
	if (world->quiet_after_kept && rank->n_held > 0)
		rank->owes_quiet = true;
	else
		send_to_controller(world, (struct event){.type = EVENT_QUIET, .rank = event->rank});
}

/* What has the least progress goes back first. */
static inline void rank_on_recall(struct world *world, const struct event *event)
{
	struct sim_rank *rank = &world->ranks[event->rank];
	while (rank->n_held > event->sample) {
		struct held *least = &rank->held[0];
		for (int i = 1; i < rank->n_held; i++)
			if (rank->held[i].progress - (int)rank->held[i].since < least->progress - (int)least->since)
				least = &rank->held[i];
		rank_answer(world, event->rank, least, EVENT_BACK);
	}
	send_to_controller(world, (struct event){.type = EVENT_RECALLED, .rank = event->rank, .lease = event->lease});
}

static inline void rank_on_message(struct world *world, const struct event *event)
{
	struct sim_rank *rank = &world->ranks[event->rank];
	if (event->life != rank->life)
		return;
	struct held *held = held_find(rank, event->group, event->sample);
	if (event->type == EVENT_LEASE)
		rank_on_lease(world, event);
	else if (event->type == EVENT_STOP)
		rank_on_stop(world, event);
	else if (event->type == EVENT_RECALL)
		rank_on_recall(world, event);
	else if (event->type == EVENT_KEEP && held)
		held->keep = true;
	else if (event->type == EVENT_CANCEL && held && held->lease == event->lease)
		rank_forget(world, event->rank, held);
	else if (event->type == EVENT_FINISH && held && held->lease == event->lease)
		rank_answer(world, event->rank, held, EVENT_DONE);
	else if (event->type == EVENT_RETURN && held && held->lease == event->lease)
		rank_answer(world, event->rank, held, EVENT_PARTIAL);
}

static inline void rank_reset(struct sim_rank *rank)
{
	rank->n_held = 0;
	rank->owes_quiet = false;
	rank->life++;
}

/* As the controller sees them come and go */

static inline void shadow_rank_lost(struct world *world, int rank)
{
	for (int i = 0; i < world->n_groups; i++)
		for (int k = 0; k < world->groups[i].n_samples; k++)
			if (world->groups[i].samples[k].rank == rank)
				world->groups[i].samples[k].leased = false;
	world->ranks[rank].alive = world->ranks[rank].stopping = false;
	world->ranks[rank].recall = 0;
}

static inline void on_lost(struct world *world, int number)
{
	struct sim_rank *rank = &world->ranks[number];
	if (!rank->alive)
		return;
	shadow_rank_lost(world, number);
	if (chance(world, 500)) /* dead; else it goes on and its answers come late */
		rank_reset(rank);
	event_post(world, 1 + random_below(world, 1000), (struct event){.type = EVENT_JOIN, .rank = number});
	scheduler_on_rank_lost(world->scheduler, number);
}

static inline void on_join(struct world *world, int number)
{
	struct sim_rank *rank = &world->ranks[number];
	rank_reset(rank);
	shadow_rank_lost(world, number);
	rank->alive = true;
	rank->version = world->pushed;
	rank->capacity = 1 + (int)random_below(world, CAPACITY_MAX);
	rank->active = 1 + (int)random_below(world, (uint64_t)rank->capacity);
	if (chance(world, world->p_lost))
		event_post(world, random_below(world, 5000), (struct event){.type = EVENT_LOST, .rank = number});
	scheduler_on_rank_joined_slots(world->scheduler, number, rank->capacity, rank->active);
}

#endif
