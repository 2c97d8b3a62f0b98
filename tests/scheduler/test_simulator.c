/* test_simulator.c - the scheduler in a hostile world, one seed after the other.
 *
 * Virtual time.  Messages to a rank are delayed and keep their order (as MPI's do); messages from
 * ranks are delayed, overtake each other, come twice and come long after.  Ranks die, or are taken
 * for dead and go on, and join again; the controller restarts and restores what it had.  A shadow of
 * every sample, kept from events and actions alone, is held against the numbered invariants of
 * scheduler.h after every event, and every run must finish its steps.
 *
 *   SIM_SEEDS=1000000 build/release/tests/scheduler/test_simulator     more seeds
 *   SIM_FIRST=1234 SIM_SEEDS=1 ...                                     one that failed
 */
#include "tests/scheduler/simulated_world.h"

/* Actions */

static void on_open_group(struct world *world, const struct action *action)
{
	require(world, world->open && action->eval == world->eval,
	        "S10: group opened in a step of the other kind");
	require(world, action->group == world->next_group++, "group ids leave a gap at %d", (int)action->group);
	require(world, world->n_groups < GROUPS_MAX, "over-sampling has no bound");
	struct shadow_group *group = &world->groups[world->n_groups++];
	*group = (struct shadow_group){.id = action->group, .eval = action->eval, .n_samples = action->n_samples};
	for (int i = 0; i < group->n_samples; i++)
		group->samples[i].oldest_version = NO_TOKENS;
}

static void on_lease(struct world *world, const struct action *action)
{
	struct shadow_group *group = shadow_find(world, action->group);
	require(world, group && group->eval == world->eval, "S10: lease of group %d", (int)action->group);
	struct shadow *sample = &group->samples[action->sample];
	require(world, !sample->done && !sample->leased, "S1: sample %d of group %d is leased twice",
	        action->sample, (int)action->group);
	require(world, world->ranks[action->rank].alive && !world->ranks[action->rank].stopping,
	        "S1: rank %d is not there or was told to stop", action->rank);
	require(world,
	        world->options.partial_rollouts || sample->oldest_version == NO_TOKENS || world->p_spontaneous,
	        "a partial without partial rollouts");
	for (struct shadow_group *older = world->groups; older < group && !is_closing(world); older++)
		for (int i = 0; i < older->n_samples; i++)
			require(world, older->eval != group->eval || older->samples[i].done || older->samples[i].leased,
			        "S6: group %d is leased before %d", (int)group->id, (int)older->id);
	sample->leased = true;
	sample->lease = action->lease;
	sample->rank = action->rank;
	require(world, !world->closing || is_due(world, group, sample),
	        "a lease after the stop that S7 does not ask for");
	send_to_rank(world, (struct event){.type = EVENT_LEASE,
	                                   .rank = action->rank,
	                                   .group = action->group,
	                                   .sample = action->sample,
	                                   .lease = action->lease,
	                                   .progress = sample->progress,
	                                   .oldest_version = sample->oldest_version});
}

static void on_stop(struct world *world, const struct action *action)
{
	uint64_t n_due = 0;
	for (int i = 0; i < world->n_groups; i++)
		for (int k = 0; k < world->groups[i].n_samples; k++) {
			const struct shadow *sample = &world->groups[i].samples[k];
			n_due +=
				sample->leased && sample->rank == action->rank && is_due(world, &world->groups[i], sample);
		}
	require(world, world->options.partial_rollouts, "a stop without partial rollouts");
	require(world, n_due == world->n_kept_named, "S7: rank %d must finish %d samples, %d are named",
	        action->rank, (int)n_due, (int)world->n_kept_named);
	world->n_kept_named = 0;
	world->closing = true;
	world->ranks[action->rank].stopping = true;
	send_to_rank(world, (struct event){.type = EVENT_STOP, .rank = action->rank});
}

/* Whether a group is worth training on depends on it alone, as its rewards do. */
static bool group_keep(const struct world *world, uint64_t group)
{
	return mix(group * 31 + 7) % 1000 >= (uint64_t)world->p_drop;
}

static void score(struct world *world, uint64_t id)
{
	struct shadow_group *group = shadow_find(world, id);
	bool keep = group_keep(world, id);
	if (group && group->complete && !group->kept) {
		group->kept = keep || group->eval;
		if (!group->kept)
			shadow_remove(world, group);
	}
	scheduler_on_group_scored(world->scheduler, id, keep);
}

static void on_group_complete(struct world *world, const struct action *action)
{
	struct shadow_group *group = shadow_find(world, action->group);
	require(world, group && !group->complete, "S2: group %d is complete twice", (int)action->group);
	for (int i = 0; i < group->n_samples; i++)
		require(world, group->samples[i].done, "S2: group %d is not complete", (int)action->group);
	group->complete = true;
	if (chance(world, world->p_late_score))
		event_post(world, random_below(world, 300), (struct event){.type = EVENT_SCORED, .group = group->id});
	else
		score(world, group->id);
}

static void on_deliver(struct world *world, const struct action *action)
{
	struct shadow_group *group = shadow_find(world, action->group);
	require(world, group && group->kept && group->eval == world->eval, "S2: group %d is delivered unready",
	        (int)action->group);
	for (struct shadow_group *older = world->groups; older < group; older++)
		require(world, !older->kept || older->eval != world->eval, "group %d is delivered before %d",
		        (int)group->id, (int)older->id);
	world->n_delivered++;
	if (world->delivered && !world->eval)
		world->delivered[world->n_delivered_ids++] = group->id;
	shadow_remove(world, group);
}

static void on_step_ready(struct world *world, const struct action *action)
{
	require(world, world->open && action->eval == world->eval, "a step ended that was not begun");
	require(world, world->n_delivered == world->wanted, "S5: %d groups delivered, %d wanted",
	        world->n_delivered, world->wanted);
	for (int i = 0; i < world->n_groups; i++)
		for (int k = 0; k < world->groups[i].n_samples; k++)
			require(world, !world->groups[i].samples[k].leased && !world->groups[i].eval,
			        "S10: group %d outlives the step", (int)world->groups[i].id);
	for (int i = 0; i < world->n_ranks; i++)
		require(world, !world->ranks[i].stopping, "the step ended before rank %d was quiet", i);
	world->open = false;
	world->steps_done += !world->eval;
	world->version += !world->eval && mix(world->plan++) % 4 > 0; /* a batch may bring new weights */
	if (world->steps_done < STEPS)
		event_post(world, random_below(world, 100), (struct event){.type = EVENT_BEGIN});
}

static void settle(struct world *world)
{
	struct action action;
	/* Scores given below may close the step behind leases that are already said. */
	world->closing = is_closing(world);
	while (scheduler_next_action(world->scheduler, &action)) {
		world->hash = mix(world->hash ^ mix(action.group * 64 + (uint64_t)action.sample) ^ action.lease << 8 ^
		                  (uint64_t)(action.rank + 1) << 40 ^ (uint64_t)action.type << 56);
		switch (action.type) {
		case ACTION_OPEN_GROUP:
			on_open_group(world, &action);
			break;
		case ACTION_LEASE:
			on_lease(world, &action);
			break;
		case ACTION_KEEP:
			world->n_kept_named++;
			send_to_rank(world, (struct event){.type = EVENT_KEEP,
			                                   .rank = action.rank,
			                                   .group = action.group,
			                                   .sample = action.sample});
			break;
		case ACTION_STOP:
			on_stop(world, &action);
			break;
		case ACTION_GROUP_COMPLETE:
			on_group_complete(world, &action);
			break;
		case ACTION_DELIVER:
			on_deliver(world, &action);
			break;
		case ACTION_STEP_READY:
			on_step_ready(world, &action);
			break;
		default:
			require(world, false, "unknown action %d", (int)action.type);
		}
	}
	require(world, scheduler_check(world->scheduler, stderr), "an invariant is broken");
	shadow_compare(world);
}

/* Ranks */

static struct held *held_find(struct sim_rank *rank, uint64_t group, int sample)
{
	for (int i = 0; i < rank->n_held; i++)
		if (rank->held[i].group == group && rank->held[i].sample == sample)
			return &rank->held[i];
	return NULL;
}

/* A sample's length depends on it alone; half are short, some are very long. */
static int sample_length(const struct world *world, uint64_t group, int sample)
{
	uint64_t draw = mix(world->seed ^ mix(group * 64 + (uint64_t)sample));
	return 1 + (int)(draw % 64 < 32 ? draw % 40 : draw % 64 < 56 ? draw % 200 : draw % 2000);
}

static void rank_answer(struct world *world, int number, struct held *held, enum event_type type)
{
	struct sim_rank *rank = &world->ranks[number];
	int progress = held->progress + (int)(world->now - held->since);
	send_to_controller(world, (struct event){.type = type,
	                                         .rank = number,
	                                         .group = held->group,
	                                         .sample = held->sample,
	                                         .lease = held->lease,
	                                         .progress = progress,
	                                         .oldest_version = held->oldest_version});
	*held = rank->held[--rank->n_held];
	if (rank->owes_quiet && rank->n_held == 0) {
		rank->owes_quiet = false;
		send_to_controller(world, (struct event){.type = EVENT_QUIET, .rank = number});
	}
}

static void rank_on_lease(struct world *world, const struct event *event)
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
		.oldest_version = event->oldest_version == NO_TOKENS ? world->version : event->oldest_version};
	struct event end = *event;
	end.type = chance(world, world->p_spontaneous) ? EVENT_RETURN : EVENT_FINISH;
	if (rest > 1 && end.type == EVENT_RETURN)
		rest = 1 + (int)random_below(world, (uint64_t)rest);
	event_post(world, rest > 1 ? (uint64_t)rest : 1, end);
}

static void rank_on_stop(struct world *world, const struct event *event)
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

static void rank_on_message(struct world *world, const struct event *event)
{
	struct sim_rank *rank = &world->ranks[event->rank];
	if (event->life != rank->life)
		return;
	struct held *held = held_find(rank, event->group, event->sample);
	if (event->type == EVENT_LEASE)
		rank_on_lease(world, event);
	else if (event->type == EVENT_STOP)
		rank_on_stop(world, event);
	else if (event->type == EVENT_KEEP && held)
		held->keep = true;
	else if (event->type == EVENT_FINISH && held && held->lease == event->lease)
		rank_answer(world, event->rank, held, EVENT_DONE);
	else if (event->type == EVENT_RETURN && held && held->lease == event->lease)
		rank_answer(world, event->rank, held, EVENT_PARTIAL);
}

static void rank_reset(struct sim_rank *rank)
{
	rank->n_held = 0;
	rank->owes_quiet = false;
	rank->life++;
}

static void shadow_rank_lost(struct world *world, int rank)
{
	for (int i = 0; i < world->n_groups; i++)
		for (int k = 0; k < world->groups[i].n_samples; k++)
			if (world->groups[i].samples[k].rank == rank)
				world->groups[i].samples[k].leased = false;
	world->ranks[rank].alive = world->ranks[rank].stopping = false;
}

static void on_lost(struct world *world, int number)
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

static void on_join(struct world *world, int number)
{
	struct sim_rank *rank = &world->ranks[number];
	rank_reset(rank);
	shadow_rank_lost(world, number);
	rank->alive = true;
	rank->capacity = 1 + (int)random_below(world, CAPACITY_MAX);
	if (chance(world, world->p_lost))
		event_post(world, random_below(world, 5000), (struct event){.type = EVENT_LOST, .rank = number});
	scheduler_on_rank_joined(world->scheduler, number, rank->capacity);
}

/* The controller */

static void on_begin(struct world *world)
{
	world->open = true;
	world->n_delivered = 0;
	world->eval = mix(world->plan++) % 5 == 0;
	if (world->eval) {
		world->wanted = (int)(mix(world->plan++) % 5);
		scheduler_on_eval_begin(world->scheduler, world->steps_done, world->wanted);
		return;
	}
	world->wanted = world->options.groups_per_step;
	scheduler_on_step_begin(world->scheduler, world->steps_done, world->version);
}

static void on_done(struct world *world, const struct event *event)
{
	struct shadow *sample = shadow_leased(world, event);
	if (sample) {
		const struct shadow_group *group = shadow_find(world, event->group);
		require(world, group->eval || world->version - event->oldest_version <= world->options.max_staleness,
		        "S7: sample %d of group %d ends %d versions late", event->sample, (int)event->group,
		        (int)(world->version - event->oldest_version));
		sample->leased = false;
		sample->done = true;
	}
	scheduler_on_sample_done(world->scheduler, event->group, event->sample, event->lease);
}

static void on_partial(struct world *world, const struct event *event)
{
	struct shadow *sample = shadow_leased(world, event);
	if (sample) {
		const struct shadow_group *group = shadow_find(world, event->group);
		require(world, world->p_spontaneous > 0 || !is_due(world, group, sample),
		        "S7: put aside once too often");
		sample->leased = false;
		sample->deferrals++;
		sample->progress = event->progress;
		sample->oldest_version = event->oldest_version;
	}
	scheduler_on_sample_partial(world->scheduler, event->group, event->sample, event->lease,
	                            event->oldest_version);
}

/* The controller ends and begins again from what it had stored; MPI starts all ranks anew. */
static void on_restart(struct world *world)
{
	scheduler_close(world->scheduler);
	world->scheduler = scheduler_open(&world->options);
	world->n_events = 0;
	for (int i = world->n_groups - 1; i >= 0; i--) {
		struct shadow_group *group = &world->groups[i];
		if (group->eval) {
			shadow_remove(world, group);
			continue;
		}
		group->complete = group->kept = false;
		scheduler_restore_group(world->scheduler, group->id, group->n_samples);
		for (int k = 0; k < group->n_samples; k++) {
			struct shadow *sample = &group->samples[k];
			sample->leased = false;
			if (sample->done || sample->oldest_version != NO_TOKENS)
				scheduler_restore_sample(world->scheduler, group->id, k, sample->done, sample->deferrals,
				                         sample->oldest_version);
		}
	}
	scheduler_restore_next_group(world->scheduler, world->next_group);
	world->open = false;
	for (int i = 0; i < world->n_ranks; i++) {
		world->ranks[i].alive = world->ranks[i].stopping = false;
		rank_reset(&world->ranks[i]);
		event_post(world, 1 + random_below(world, 100), (struct event){.type = EVENT_JOIN, .rank = i});
	}
	event_post(world, random_below(world, 100), (struct event){.type = EVENT_BEGIN});
}

static void handle(struct world *world, const struct event *event)
{
	switch (event->type) {
	case EVENT_BEGIN:
		on_begin(world);
		break;
	case EVENT_JOIN:
		on_join(world, event->rank);
		break;
	case EVENT_LOST:
		on_lost(world, event->rank);
		break;
	case EVENT_DONE:
		on_done(world, event);
		break;
	case EVENT_PARTIAL:
		on_partial(world, event);
		break;
	case EVENT_QUIET:
		world->ranks[event->rank].stopping = false;
		scheduler_on_rank_quiet(world->scheduler, event->rank);
		break;
	case EVENT_SCORED:
		score(world, event->group);
		break;
	case EVENT_RESTART:
		on_restart(world);
		break;
	default:
		rank_on_message(world, event);
		return;
	}
	settle(world);
}

static int some(struct world *world, int low, int high)
{
	return low + (int)random_below(world, (uint64_t)(high - low + 1));
}

static void world_draw(struct world *world, uint64_t seed)
{
	*world = (struct world){.seed = seed, .random = mix(seed), .plan = mix(~seed), .next_group = 1};
	world->options = (struct scheduler_options){
		.groups_per_step = some(world, 1, GROUPS_PER_STEP_MAX),
		.over_sampling = 1 + (double)some(world, 0, 8) / 4,
		.samples_per_group = some(world, 1, SAMPLES_MAX),
		.eval_samples = some(world, 1, SAMPLES_MAX),
		.partial_rollouts = chance(world, 800),
		.max_staleness = some(world, 0, 4),
		.max_deferrals = some(world, 1, 4),
	};
	world->n_ranks = some(world, 1, RANKS_MAX);
	world->p_drop = some(world, 0, 1) * some(world, 0, 500);
	world->p_twice = some(world, 0, 1) * some(world, 0, 300);
	world->p_late = some(world, 0, 1) * some(world, 0, 100);
	world->p_lost = some(world, 0, 1) * some(world, 0, 900);
	world->p_late_score = some(world, 0, 1) * some(world, 0, 1000);
	world->p_restart = some(world, 0, 1) * some(world, 0, 500);
	world->p_spontaneous = chance(world, 100) ? some(world, 0, 300) : 0;
	world->quiet_after_kept = chance(world, 500);
}

/* Run to the last step; frees all but world->delivered. */
static void world_run(struct world *world)
{
	world->scheduler = scheduler_open(&world->options);
	for (int i = 0; i < world->n_ranks; i++)
		event_post(world, random_below(world, 200), (struct event){.type = EVENT_JOIN, .rank = i});
	event_post(world, random_below(world, 200), (struct event){.type = EVENT_BEGIN});
	if (chance(world, world->p_restart))
		event_post(world, random_below(world, 5000), (struct event){.type = EVENT_RESTART});
	while (world->steps_done < STEPS) {
		require(world, world->n_events > 0, "S8: nothing is on its way and %d steps are done",
		        world->steps_done);
		require(world, world->n_handled++ < EVENTS_MAX, "S8: no end after %d events", EVENTS_MAX);
		struct event event = event_take(world);
		world->now = event.time;
		handle(world, &event);
	}
	free(world->events);
	scheduler_close(world->scheduler);
}

static uint64_t environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_seeds(void **state)
{
	(void)state;
	static struct world world;
	uint64_t first = environment("SIM_FIRST", 1), n = environment("SIM_SEEDS", 10000), n_events = 0;
	for (uint64_t seed = first; seed < first + n; seed++) {
		world_draw(&world, seed);
		world_run(&world);
		n_events += (uint64_t)world.n_handled;
	}
	print_message("%llu seeds, %llu events\n", (unsigned long long)n, (unsigned long long)n_events);
}

static void test_same_events_same_actions(void **state)
{
	(void)state;
	static struct world world;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		world_draw(&world, seed);
		world_run(&world);
		uint64_t hash = world.hash;
		world_draw(&world, seed);
		world_run(&world);
		assert_true(world.hash == hash);
	}
}

/* Without over-sampling, which groups make up which batch does not depend on timing, on the number of
 * ranks or on their deaths, whatever is dropped. */
static void test_batches_do_not_depend_on_timing(void **state)
{
	(void)state;
	static struct world world;
	uint64_t delivered[3][STEPS * GROUPS_PER_STEP_MAX];
	for (uint64_t seed = 1; seed <= 200; seed++) {
		for (int timing = 0; timing < 3; timing++) {
			world_draw(&world, seed);
			world.options.over_sampling = 1;
			world.p_restart = 0;
			world.random = mix(seed + (uint64_t)timing * 1000003);
			world.n_ranks = 1 + timing;
			world.delivered = delivered[timing];
			world_run(&world);
			assert_int_equal(world.n_delivered_ids, STEPS * world.options.groups_per_step);
			size_t n_bytes = (size_t)world.n_delivered_ids * sizeof(uint64_t);
			require(&world, memcmp(delivered[timing], delivered[0], n_bytes) == 0, "batches differ");
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seeds),
		cmocka_unit_test(test_same_events_same_actions),
		cmocka_unit_test(test_batches_do_not_depend_on_timing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
