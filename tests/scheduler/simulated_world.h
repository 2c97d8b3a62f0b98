/* simulated_world.h - the world of test_simulator.c: virtual time, random numbers, messages on their
 * way, ranks with what they hold, and the shadow of every sample as events and actions tell it.
 */
#ifndef TESTS_SCHEDULER_SIMULATED_WORLD_H
#define TESTS_SCHEDULER_SIMULATED_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/scheduler.h"

enum { RANKS_MAX = 6, CAPACITY_MAX = 12, SAMPLES_MAX = 5, EXTENDED_MAX = 12, GROUPS_PER_STEP_MAX = 5, GROUPS_MAX = 64 };
enum { STEPS = 6, EVENTS_MAX = 200000 };
#define NO_TOKENS INT64_MIN

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

enum event_type {
	EVENT_BEGIN,   /* the next step or evaluation */
	EVENT_JOIN,    /* rank: joins (again) */
	EVENT_LOST,    /* rank: is taken for dead */
	EVENT_LEASE,   /* at the rank */
	EVENT_KEEP,    /* at the rank */
	EVENT_STOP,    /* at the rank */
	EVENT_RECALL,  /* at the rank; sample: what it keeps, lease: the recall */
	EVENT_FINISH,  /* at the rank: a sample reaches its end */
	EVENT_RETURN,  /* at the rank: it puts a sample aside of its own accord */
	EVENT_DONE,    /* at the controller */
	EVENT_PARTIAL, /* at the controller */
	EVENT_QUIET,   /* at the controller */
	EVENT_BACK,    /* at the controller: a sample by a recall */
	EVENT_RECALLED, /* at the controller: the recall is answered */
	EVENT_EXPECTED, /* at the controller: what it expects of a group */
	EVENT_SCORED,  /* at the controller */
	EVENT_RESTART, /* of the controller */
	EVENT_CANCEL,  /* at the rank */
	EVENT_ADOPT,   /* at the rank: new weights, oldest_version says which */
	EVENT_TRAINED, /* at the trainer */
	EVENT_VERSION, /* at the controller: every rank has the newest */
};

struct event {
	uint64_t time, order;
	enum event_type type;
	int rank, life; /* life: how often the rank had joined; older messages to it are lost */
	int sample, progress;
	uint64_t group, lease;
	int64_t oldest_version;
};

/* A sample on a rank. */
struct held {
	uint64_t group, lease, since;
	int sample, progress;
	int64_t oldest_version;
	bool keep, fresh; /* fresh: came without tokens */
};

struct sim_rank {
	bool alive, stopping; /* as the controller sees it */
	uint64_t recall;      /* the one in flight, as the controller sees it */
	int life, capacity, active, n_held;
	bool owes_quiet;    /* says so when the last kept sample is done */
	uint64_t last_sent; /* arrival of the latest message to it */
	int64_t version;    /* async: of its weights */
	struct held held[CAPACITY_MAX];
};

/* What the controller knows of a sample. */
struct shadow {
	bool done, leased;
	bool added; /* by an extension behind actions that had been said already */
	bool due; /* S7 has asked for it: stays so when its rank is lost or it is recalled */
	int rank, deferrals, progress;
	uint64_t lease;
	int64_t oldest_version;
	int expected;
};

struct shadow_group {
	uint64_t id;
	bool eval, complete, kept, known; /* known: something is expected of it */
	bool settled; /* extended, or judged complete */
	bool kept_late; /* behind actions that had been said already, for groups that were held until then */
	int n_samples;
	int64_t version; /* it was opened under; NO_TOKENS: restored, not known */
	struct shadow samples[EXTENDED_MAX];
};

struct world {
	uint64_t seed, random, plan, now, order, hash; /* plan: draws that timing must not change */
	struct scheduler_options options;
	struct scheduler *scheduler;
	struct event *events; /* binary heap by (time, order) */
	int n_events, events_capacity, n_handled;
	struct sim_rank ranks[RANKS_MAX];
	int n_ranks;
	struct shadow_group groups[GROUPS_MAX]; /* ascending id */
	int n_groups;
	uint64_t next_group;
	/* how hostile: chances in 1000 */
	int p_drop, p_twice, p_late, p_lost, p_late_score, p_restart, p_spontaneous;
	bool quiet_after_kept;
	/* the step */
	bool open, eval, closing; /* closing: enough groups are kept */
	int wanted, n_delivered, steps_done;
	int64_t version;       /* as the scheduler knows it */
	uint64_t n_kept_named; /* KEEP actions since the last STOP */
	int n_recalls, n_migrated, n_leases;
	struct shadow_group streamed[GROUPS_PER_STEP_MAX]; /* delivered before the step is ready: not safe from a restart */
	int n_streamed, n_early; /* n_early: as soon as streaming began */
	enum { SIM_DRAWN, SIM_STREAMS, SIM_WHOLE } stream;
	uint64_t *delivered;   /* ids of all training groups delivered, or NULL */
	int n_delivered_ids;
	/* the trainer (simulated_trainer.h) */
	bool irregular;            /* it does not make one version per batch */
	bool begin_posted, held, arrived;
	int prefetch, unversioned; /* batches that it asks for ahead; that are out without a version */
	int lag_max;
	uint64_t train_max;
	int64_t pushed, n_batches, n_opened, n_dropped, forgiven;
	uint64_t n_cancelled, n_given_up;
	/* extensions (simulated_extensions.h) */
	int n_extra; /* samples since the last training batch */
	uint64_t n_extended, n_in_turn, n_cut;
	uint64_t n_awaited; /* groups whose score was awaited while a batch went out without them, not async */
	int n_pruned[3]; /* that were not leased, leased, done already */
};

#define require(world, holds, ...) \
	do { \
		if (!(holds)) { \
			print_error("seed %llu, event %d: ", (unsigned long long)(world)->seed, (world)->n_handled); \
			fail_msg(__VA_ARGS__); \
		} \
	} while (0)

static inline uint64_t random_below(struct world *world, uint64_t n)
{
	return mix(world->random++) % n;
}

static inline bool chance(struct world *world, int per_mille)
{
	return random_below(world, 1000) < (uint64_t)per_mille;
}

/* Peers that want micro-batches come and go. */
static inline bool sim_streams(const struct world *world)
{
	return world->stream == SIM_STREAMS || (world->stream == SIM_DRAWN && mix(world->seed ^ 0x57e4u) % 3 == 0);
}

/* Events in order of time */

static inline bool event_before(const struct event *a, const struct event *b)
{
	return a->time != b->time ? a->time < b->time : a->order < b->order;
}

static inline void event_post(struct world *world, uint64_t delay, struct event event)
{
	event.time = world->now + delay;
	event.order = world->order++;
	if (world->n_events == world->events_capacity) {
		world->events_capacity = world->events_capacity ? 2 * world->events_capacity : 64;
		world->events = realloc(world->events, (size_t)world->events_capacity * sizeof(event));
		assert_non_null(world->events);
	}
	int at = world->n_events++;
	for (; at > 0 && event_before(&event, &world->events[(at - 1) / 2]); at = (at - 1) / 2)
		world->events[at] = world->events[(at - 1) / 2];
	world->events[at] = event;
}

static inline struct event event_take(struct world *world)
{
	struct event first = world->events[0], last = world->events[--world->n_events];
	int at = 0;
	for (int child; (child = 2 * at + 1) < world->n_events; at = child) {
		if (child + 1 < world->n_events && event_before(&world->events[child + 1], &world->events[child]))
			child++;
		if (!event_before(&world->events[child], &last))
			break;
		world->events[at] = world->events[child];
	}
	world->events[at] = last;
	return first;
}

static inline void send_to_rank(struct world *world, struct event event)
{
	struct sim_rank *rank = &world->ranks[event.rank];
	uint64_t arrival = world->now + 1 + random_below(world, 20);
	if (arrival < rank->last_sent)
		arrival = rank->last_sent;
	rank->last_sent = arrival;
	event.life = rank->life;
	event_post(world, arrival - world->now, event);
}

static inline void send_to_controller(struct world *world, struct event event)
{
	uint64_t delay = 1 + random_below(world, 20);
	event_post(world, chance(world, world->p_late) ? 50 * delay : delay, event);
	if (chance(world, world->p_twice))
		event_post(world, random_below(world, 2000), event);
}

/* The shadow */

static inline struct shadow_group *shadow_find(struct world *world, uint64_t id)
{
	for (int i = 0; i < world->n_groups; i++)
		if (world->groups[i].id == id)
			return &world->groups[i];
	return NULL;
}

static inline void shadow_remove(struct world *world, struct shadow_group *group)
{
	struct shadow_group *end = &world->groups[world->n_groups--];
	memmove(group, group + 1, (size_t)(end - group - 1) * sizeof(*group));
}

/* The sample that an answer is about, if its lease is current. */
static inline struct shadow *shadow_leased(struct world *world, const struct event *event)
{
	struct shadow_group *group = shadow_find(world, event->group);
	struct shadow *sample = group ? &group->samples[event->sample] : NULL;
	return sample && sample->leased && sample->lease == event->lease ? sample : NULL;
}

/* S7: must be done in this step. */
static inline bool is_due(const struct world *world, const struct shadow_group *group,
                          const struct shadow *sample)
{
	if (group->eval || sample->done || (!sample->leased && sample->oldest_version == NO_TOKENS))
		return false;
	if (world->options.asynchrony == ASYNCHRONOUS)
		return false;
	if (world->options.deferral_action == ON_DEFERRALS_FINISH && sample->deferrals >= world->options.max_deferrals)
		return true;
	if (world->options.stale_action != ON_STALE_FINISH || world->options.asynchrony != SYNCHRONOUS)
		return false;
	int64_t lag = sample->oldest_version == NO_TOKENS ? 0 : world->version - sample->oldest_version;
	return lag >= world->options.max_staleness;
}

static inline bool is_closing(const struct world *world)
{
	int n_kept = world->open ? world->n_streamed : 0;
	for (int i = 0; i < world->n_groups; i++)
		n_kept += world->groups[i].kept && world->groups[i].eval == world->eval;
	return n_kept >= world->wanted;
}

static inline void shadow_compare(struct world *world)
{
	struct scheduler_counts counts, mine = {0};
	scheduler_counts_read(world->scheduler, &counts);
	for (int i = 0; i < world->n_groups; i++) {
		const struct shadow_group *group = &world->groups[i];
		*(group->complete ? &mine.groups_complete : &mine.groups_open) += 1;
		for (int k = 0; k < group->n_samples; k++) {
			const struct shadow *sample = &group->samples[k];
			mine.done += sample->done;
			mine.leased += sample->leased;
			bool pending = !sample->done && !sample->leased;
			mine.aside += pending && sample->oldest_version != NO_TOKENS;
			mine.waiting += pending && sample->oldest_version == NO_TOKENS;
		}
	}
	require(world, counts.groups_open == mine.groups_open && counts.groups_complete == mine.groups_complete,
	        "S3: groups open, complete are %d %d, expected %d %d", counts.groups_open, counts.groups_complete,
	        mine.groups_open, mine.groups_complete);
	require(world,
	        counts.waiting == mine.waiting && counts.leased == mine.leased && counts.aside == mine.aside &&
	            counts.done == mine.done,
	        "S3: waiting, leased, aside, done are %d %d %d %d, expected %d %d %d %d", counts.waiting,
	        counts.leased, counts.aside, counts.done, mine.waiting, mine.leased, mine.aside, mine.done);
}

#endif
