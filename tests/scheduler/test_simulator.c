/* test_simulator.c - the scheduler in a hostile world, one seed after the other.
 *
 * Virtual time.  Messages to a rank are delayed and keep their order (as MPI's do); messages from ranks are delayed,
 * overtake each other, come twice and come long after.  Ranks die, or are taken for dead and go on, and join again; the
 * controller restarts and restores what it had.  A shadow of every sample, kept from events and actions alone, is held
 * against the invariants of scheduler.h after every event.  Modes of asynchrony and so on are drawn with the rest.
 *
 *   SIM_SEEDS=1000000 build/release/tests/scheduler/test_simulator     more seeds
 *   SIM_FIRST=1234 SIM_SEEDS=1 ...                                     one that failed */
#include "tests/scheduler/simulated_extensions.h"
#include "tests/scheduler/simulated_orders.h"
#include "tests/scheduler/simulated_pruning.h"
#include "tests/scheduler/simulated_ranks.h"
#include "tests/scheduler/simulated_totals.h"

/* Actions */

static void on_open_group(struct world *world, const struct action *action)
{
	require(world, (world->open || sim_async(world)) && action->eval == sim_eval(world),
	        "S10: group opened in a step of the other kind");
	require(world, action->group == world->next_group++, "group ids leave a gap at %d", (int)action->group);
	require(world, world->n_groups < GROUPS_MAX, "over-sampling has no bound");
	struct shadow_group *group = &world->groups[world->n_groups++];
	*group = (struct shadow_group){.id = action->group, .eval = action->eval, .n_samples = action->n_samples,
	                               .version = world->version};
	world->n_opened += !group->eval;
	for (int i = 0; i < group->n_samples; i++)
		group->samples[i].oldest_version = NO_TOKENS;
	if (!group->eval)
		require_capacity(world);
	if (world->options.order == ORDER_LONGEST)
		event_post(world, chance(world, 500) ? 0 : random_below(world, 50),
		           (struct event){.type = EVENT_EXPECTED, .group = group->id, .sample = -1});
}

static void on_lease(struct world *world, const struct action *action)
{
	struct shadow_group *group = shadow_find(world, action->group);
	require(world, group && group->eval == sim_eval(world), "S10: lease of group %d", (int)action->group);
	struct shadow *sample = &group->samples[action->sample];
	require(world, !sample->done && !sample->leased, "S1: sample %d of group %d is leased twice",
	        action->sample, (int)action->group);
	require(world, world->ranks[action->rank].alive && !world->ranks[action->rank].stopping,
	        "S1: rank %d is not there or was told to stop", action->rank);
	require(world,
	        world->options.partial_rollouts || sample->oldest_version == NO_TOKENS || world->p_spontaneous ||
	            world->options.migrate,
	        "a partial without partial rollouts");
	if (!(world->closing || (!sim_async(world) && is_closing(world))))
		require_order(world, group, sample);
	world->n_leases++;
	sample->leased = true;
	sample->due |= is_due(world, group, sample);
	sample->lease = action->lease;
	sample->rank = action->rank;
	require(world, !world->closing || sample->due,
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
	require(world, !sim_async(world) || sim_eval(world), "S8: a stop that no evaluation asks for");
	world->n_kept_named = 0;
	world->closing = !sim_async(world);
	world->ranks[action->rank].stopping = true;
	send_to_rank(world, (struct event){.type = EVENT_STOP, .rank = action->rank});
}

static void on_group_complete(struct world *world, const struct action *action)
{
	struct shadow_group *group = shadow_find(world, action->group);
	require(world, group && !group->complete, "S2: group %d is complete twice", (int)action->group);
	for (int i = 0; i < group->n_samples; i++)
		require(world, group->samples[i].done, "S2: group %d is not complete", (int)action->group);
	group->complete = true;
	group->settled |= extension_is_spent(world);
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
		require(world, sim_streams(world) || !older->kept || older->kept_late || older->eval != world->eval, "group %d is delivered before %d",
		        (int)group->id, (int)older->id);
	if (!group->eval)
		require_fresh(world, group);
	world->n_delivered++;
	if (!group->eval)
		world->streamed[world->n_streamed++] = *group;
	shadow_remove(world, group);
}

static void on_step_ready(struct world *world, const struct action *action)
{
	require(world, world->open && action->eval == world->eval, "a step ended that was not begun");
	require(world, world->n_delivered == world->wanted, "S5: %d groups delivered, %d wanted",
	        world->n_delivered, world->wanted);
	if (world->delivered && !world->eval)
		remember_delivered(world);
	world->n_streamed = 0;
	if (!world->eval)
		world->n_extra = 0;
	for (int i = 0; i < world->n_groups; i++) {
		for (int k = 0; k < world->groups[i].n_samples; k++)
			require(world, (!world->groups[i].samples[k].leased || sim_async(world)) && !world->groups[i].eval,
			        "S10: group %d outlives the step", (int)world->groups[i].id);
		world->n_awaited += world->groups[i].complete && !world->groups[i].kept && !sim_async(world);
	}
	for (int i = 0; i < world->n_ranks; i++)
		require(world, !world->ranks[i].stopping, "the step ended before rank %d was quiet", i);
	world->open = false;
	world->steps_done += !world->eval;
	if (!world->eval)
		on_batch_ready(world);
	begin_soon(world);
}

static void settle(struct world *world)
{
	struct action action;
	/* Scores given below may close the step behind leases that are already said. */
	if (world->options.asynchrony == SYNCHRONOUS) /* else enough groups may have to wait (S11): the first STOP says it */
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
		case ACTION_CANCEL:
			on_cancel(world, &action);
			break;
		case ACTION_DROP_GROUP:
			on_drop_group(world, &action);
			break;
		case ACTION_STEP_READY:
			on_step_ready(world, &action);
			break;
		case ACTION_RECALL:
			on_recall(world, &action);
			break;
		default:
			require(world, false, "unknown action %d", (int)action.type);
		}
	}
	extensions_are_heard(world);
	require(world, scheduler_check(world->scheduler, stderr), "an invariant is broken");
	shadow_compare(world);
	require_no_surplus(world);
}

/* The controller */

static void on_begin(struct world *world)
{
	world->open = true;
	world->begin_posted = world->closing = false;
	world->n_delivered = 0;
	world->eval = mix(world->plan++) % 5 == 0;
	if (world->eval) {
		world->wanted = (int)(mix(world->plan++) % 5);
		scheduler_on_eval_begin(world->scheduler, world->steps_done, world->wanted);
		return;
	}
	world->wanted = world->options.groups_per_step;
	for (int i = 0; i < world->n_groups; i++)
		if (world->groups[i].version == NO_TOKENS)
			world->groups[i].version = world->version;
	scheduler_on_step_begin(world->scheduler, world->steps_done, world->version);
}

static void on_done(struct world *world, const struct event *event)
{
	struct shadow *sample = shadow_leased(world, event);
	if (sample) {
		const struct shadow_group *group = shadow_find(world, event->group);
		bool bound = world->options.asynchrony == SYNCHRONOUS && world->options.stale_action == ON_STALE_FINISH;
		require(world, !bound || group->eval || world->version - event->oldest_version <= world->options.max_staleness,
		        "S7: sample %d of group %d ends %d versions late", event->sample, (int)event->group,
		        (int)(world->version - event->oldest_version));
		sample->leased = false;
		sample->done = true;
		sample->oldest_version = event->oldest_version;
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
		sample->deferrals += !sim_async(world) || !world->ranks[event->rank].stopping;
		sample->progress = event->progress;
		sample->oldest_version = event->oldest_version;
	}
	scheduler_on_sample_partial(world->scheduler, event->group, event->sample, event->lease,
	                            event->oldest_version);
}

static void on_back(struct world *world, const struct event *event)
{
	struct shadow *sample = shadow_leased(world, event);
	bool aside = false, possible = false;
	/* When a step closes is seen by its first STOP where enough groups may have to wait (S11). */
	bool closing = world->options.asynchrony == SYNCHRONOUS ? is_closing(world) : world->closing;
	if (sample) {
		bool due = is_due(world, shadow_find(world, event->group), sample);
		possible = !due && world->options.partial_rollouts && event->oldest_version != NO_TOKENS;
		aside = closing && possible;
		sample->leased = false;
		sample->due |= closing && !world->options.partial_rollouts;
		sample->progress = event->progress;
		sample->oldest_version = event->oldest_version;
		world->n_migrated++;
	}
	bool counted = scheduler_on_sample_recalled(world->scheduler, event->group, event->sample, event->lease,
	                                            event->oldest_version);
	require(world, counted == aside || (sim_async(world) && possible),
	        "S15: a recalled sample counts as put aside (%d), expected %d", counted, aside);
	if (sample)
		sample->deferrals += counted;
}

static void on_recalled(struct world *world, const struct event *event)
{
	struct sim_rank *rank = &world->ranks[event->rank];
	if (rank->recall == event->lease)
		rank->recall = 0;
	scheduler_on_rank_recalled(world->scheduler, event->rank, event->lease);
}

/* First of the whole group; then it may change its mind about one sample. */
static void on_expected(struct world *world, const struct event *event)
{
	struct shadow_group *group = shadow_find(world, event->group);
	int tokens = (int)random_below(world, 100) * 10;
	if (group) {
		for (int i = 0; i < group->n_samples; i++)
			if (event->sample < 0 || event->sample == i)
				group->samples[i].expected = tokens;
		group->known = true;
	}
	scheduler_on_sample_expected(world->scheduler, event->group, event->sample, tokens);
	if (chance(world, 300))
		event_post(world, random_below(world, 200),
		           (struct event){.type = EVENT_EXPECTED,
		                          .group = event->group,
		                          .sample = (int)random_below(world, SAMPLES_MAX)});
}

/* The controller ends and begins again from what it had stored; MPI starts all ranks anew. */
static void on_restart(struct world *world)
{
	scheduler_close(world->scheduler);
	world->scheduler = scheduler_open(&world->options);
	world->n_events = 0;
	/* A batch that was not complete was nobody's. */
	for (int i = 0; i < world->n_streamed; i++)
		world->groups[world->n_groups++] = world->streamed[i];
	world->n_streamed = 0;
	qsort(world->groups, (size_t)world->n_groups, sizeof *world->groups, id_compare);
	scheduler_restore_extra(world->scheduler, world->n_extra);
	for (int i = world->n_groups - 1; i >= 0; i--) {
		struct shadow_group *group = &world->groups[i];
		if (group->eval) {
			shadow_remove(world, group);
			continue;
		}
		group->complete = group->kept = false;
		group->version = NO_TOKENS;
		for (int k = 0; k < group->n_samples; k++) {
			int64_t version = group->samples[k].oldest_version;
			if (version != NO_TOKENS && (group->version == NO_TOKENS || version < group->version))
				group->version = version;
		}
		group->known = true;
		scheduler_restore_group(world->scheduler, group->id, group->n_samples);
		if (group->settled)
			scheduler_restore_settled(world->scheduler, group->id);
		for (int k = 0; k < group->n_samples; k++) {
			struct shadow *sample = &group->samples[k];
			sample->leased = sample->due = false;
			sample->expected = 0;
			if (sample->done || sample->oldest_version != NO_TOKENS)
				scheduler_restore_sample(world->scheduler, group->id, k, sample->done, sample->deferrals,
				                         sample->oldest_version);
		}
	}
	scheduler_restore_next_group(world->scheduler, world->next_group);
	trainer_restart(world);
	if (chance(world, 500)) /* before anything is opened, known or not known yet */
		scheduler_restore_version(world->scheduler, world->version, 0);
	world->open = false;
	for (int i = 0; i < world->n_ranks; i++) {
		world->ranks[i].alive = world->ranks[i].stopping = false;
		world->ranks[i].recall = 0;
		rank_reset(&world->ranks[i]);
		event_post(world, 1 + random_below(world, 100), (struct event){.type = EVENT_JOIN, .rank = i});
	}
	event_post(world, random_below(world, 100), (struct event){.type = EVENT_BEGIN});
}

static void toggle_stream(struct world *world)
{
	uint64_t draw = mix(world->seed * 77 ^ (uint64_t)world->n_handled);
	if (sim_streams(world) && draw % 8 == 0) {
		int before = world->n_streamed;
		scheduler_on_stream(world->scheduler, (enum scheduler_stream)(draw / 8 % 3));
		settle(world);
		world->n_early += world->n_streamed - before;
	}
}

static void prune_some(struct world *world)
{
	int index;
	struct shadow_group *group = pruning_picks(world, &index);
	if (!group)
		return;
	pruning_marks(group, index); /* settle sees to it that one that is leased is called back */
	scheduler_on_sample_pruned(world->scheduler, group->id, index);
	settle(world);
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
	case EVENT_BACK:
		on_back(world, event);
		break;
	case EVENT_RECALLED:
		on_recalled(world, event);
		break;
	case EVENT_EXPECTED:
		on_expected(world, event);
		break;
	case EVENT_SCORED:
		score(world, event->group);
		break;
	case EVENT_RESTART:
		on_restart(world);
		break;
	case EVENT_VERSION:
		on_version(world);
		break;
	case EVENT_TRAINED:
		on_trained(world);
		return;
	case EVENT_ADOPT:
		world->ranks[event->rank].version = event->oldest_version;
		return;
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
		.migrate = chance(world, 700),
		.order = chance(world, 400) ? ORDER_LONGEST : ORDER_OLDEST,
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
	trainer_draw(world);
	extensions_draw(world);
}

/* Run to the last step; frees all but world->delivered. */
static void world_run(struct world *world)
{
	world->scheduler = scheduler_open(&world->options);
	for (int i = 0; i < world->n_ranks; i++)
		event_post(world, random_below(world, 200), (struct event){.type = EVENT_JOIN, .rank = i});
	event_post(world, random_below(world, 200), (struct event){.type = EVENT_BEGIN});
	world->begin_posted = true;
	if (chance(world, world->p_restart))
		event_post(world, random_below(world, 5000), (struct event){.type = EVENT_RESTART});
	while (world->steps_done < STEPS) {
		require(world, world->n_events > 0, "S8: nothing is on its way and %d steps are done",
		        world->steps_done);
		require(world, world->n_handled++ < EVENTS_MAX, "S8: no end after %d events", EVENTS_MAX);
		struct event event = event_take(world);
		world->now = event.time;
		handle(world, &event);
		toggle_stream(world);
		prune_some(world);
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
	struct totals totals = {0};
	uint64_t first = environment("SIM_FIRST", 1), n = environment("SIM_SEEDS", 20000);
	for (uint64_t seed = first; seed < first + n; seed++) {
		world_draw(&world, seed);
		world_run(&world);
		totals_add(&totals, &world);
	}
	totals_say(&totals);
	totals_require(&totals);
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
			world.options.asynchrony = SYNCHRONOUS;
			world.options.stale_action = ON_STALE_FINISH;
			world.options.deferral_action = ON_DEFERRALS_FINISH;
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

/* S16: the same world with peers that want micro-batches and without.  (What has left cannot become too old.) */
static void test_streaming_changes_no_batch(void **state)
{
	(void)state;
	static struct world world;
	uint64_t delivered[2][STEPS * GROUPS_PER_STEP_MAX];
	int n_early = 0;
	for (uint64_t seed = 1; seed <= environment("SIM_SEEDS", 6000) / 3; seed++) {
		for (int stream = 0; stream < 2; stream++) {
			world_draw(&world, seed);
			world.stream = stream ? SIM_STREAMS : SIM_WHOLE;
			if (sim_async(&world) && world.options.stale_action == ON_STALE_DROP)
				world.options.stale_action = ON_STALE_MASK;
			world.delivered = delivered[stream];
			world_run(&world);
			assert_int_equal(world.n_delivered_ids, STEPS * world.options.groups_per_step);
			for (int i = 0; i < world.n_delivered_ids; i++)
				delivered[stream][i] >>= 8; /* after a restart what streamed is scored again: another step's budget */
			size_t n_bytes = (size_t)world.n_delivered_ids * sizeof(uint64_t);
			require(&world, memcmp(delivered[stream], delivered[0], n_bytes) == 0, "S16: batches differ");
		}
		n_early += world.n_early;
	}
	assert_in_range(n_early, 1000, UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seeds),
		cmocka_unit_test(test_same_events_same_actions),
		cmocka_unit_test(test_batches_do_not_depend_on_timing),
		cmocka_unit_test(test_streaming_changes_no_batch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
