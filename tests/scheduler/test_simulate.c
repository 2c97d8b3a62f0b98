/* test_simulate.c - the simulated cluster against closed forms, the scheduler's invariants, and itself. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/simulate/simulate_internal.h"
#include "tests/scheduler/simulate_fixture.h"

/* ---- closed forms ---- */

/* Eight samples after each other in one slot: 100 rounds of 0.375 s each, and a message there and back. */
static void test_one_slot(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("sync", "simulate.seed=3");
	assert_near(m.step_seconds_mean, 8 * 100 * 0.375 + 2 * 0.5);
	assert_near(m.step_seconds_p95, m.step_seconds_mean);
	assert_near(m.rollout_seconds_mean, m.step_seconds_mean);
	assert_near(m.trajectories_per_sec, 8 / m.step_seconds_mean);
	assert_near(m.tokens_per_sec, 800 / m.step_seconds_mean);
	assert_near(m.slots_busy, 300 / m.step_seconds_mean);
	assert_near(m.ranks_busy, 300 / m.step_seconds_mean);
	assert_near(m.tail_share, 1 / m.step_seconds_mean); /* nothing runs while messages are on their way */
	assert_near(m.length_mean, 100.0);
	assert_near(m.length_bias, 1.0);
	assert_near(m.tokens_per_round, 1.0);
	/* begin, 8 done, 2 scored; the rank had joined before */
	assert_near(m.controller_events_per_sec, 11 / m.step_seconds_mean);
	assert_true(m.staleness_max == 0 && m.put_aside_per_step == 0 && m.dropped_tokens_share == 0);
}

/* All eight in slots of one rank: 100 rounds of 0.25 + 8 * 0.125 s. */
static void test_one_batch(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("sync", "worker.max_active=8");
	assert_near(m.step_seconds_mean, 100 * 1.25 + 1);
	assert_near(m.slots_busy, 125 / m.step_seconds_mean);
}

/* Attention: a row of the k-th round attends to k positions of its sample, 1 + ... + 100 = 5050 of each of two. */
static void test_attention(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("sync", "worker.max_active=2", "simulate.position_seconds=0.0625",
	                                "scheduler.groups_per_step=1", "rollout.group_size=2");
	assert_near(m.step_seconds_mean, 100 * 0.5 + 2 * 5050 * 0.0625 + 1);
}

/* A prompt of 129: 128 rows of prefill, which siblings share, in two rounds without anybody that decodes; the round
 * itself costs a call of one row, its rows 0.125 s each. */
static void test_prefill(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("sync", "simulate.prompt_tokens=129", "scheduler.groups_per_step=1");
	assert_near(m.step_seconds_mean, 2 * 0.375 + 128 * 0.125 + 4 * 100 * 0.375 + 1);
	/* While the first of two groups decodes, the other's prompt is computed in its first two rounds. */
	m = RUN("sync", "simulate.prompt_tokens=129", "rollout.group_size=1", "worker.max_active=2", "scheduler.rank_backlog=0");
	double prefill = 2 * 0.375 + 64 * 2 * 0.125, beside = 2 * 0.375 + 64 * 2 * 0.125;
	assert_near(m.step_seconds_mean, prefill + beside + 98 * 0.5 + 2 * 0.375 + 1);
}

/* The step lasts as long as the rank with the most to do: one slot on each of 5 ranks, samples of known lengths,
 * all leased at once, in order, one to each rank in turn. */
static void test_ranks(void **state)
{
	(void)state;
	const char *sets[] = {"simulate.workers=5", "scheduler.groups_per_step=1", "rollout.group_size=20", "simulate.length_sigma=1"};
	struct world w;
	double longest = 0, sums[5] = {0};

	/* The scheduler keeps a group on the rank that has it while that has room: with room for 4, four after each other. */
	world_open(&w, sets, 4);
	for (int i = 0; i < 20; i++) sums[i / 4] += simulate_lengths_response(w.lengths, 1, i);
	world_close(&w);
	for (int r = 0; r < 5; r++) longest = sums[r] > longest ? sums[r] : longest;
	struct simulate_metrics m = RUN("sync", "simulate.workers=5", "scheduler.groups_per_step=1", "rollout.group_size=20",
	                                "simulate.length_sigma=1", "scheduler.rank_backlog=3");
	assert_near(m.step_seconds_mean, longest * 0.375 + 1);
}

/* Messages are handled one after the other: 8 leases out, then each answer. */
static void test_controller(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("sync", "worker.max_active=8", "simulate.controller_seconds=4", "simulate.latency_seconds=0",
	                                "simulate.row_seconds=0", "scheduler.groups_per_step=1", "rollout.group_size=1");
	assert_near(m.step_seconds_mean, 4 + 100 * 0.25 + 4);
	assert_near(m.controller_busy, 8 / m.step_seconds_mean);
}

static void test_trainer(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("sync", "trainer.kind=external", "simulate.steps=3", "simulate.warmup=1", "simulate.train_seconds=7",
	                                "simulate.train_seconds_per_token=0.5", "simulate.broadcast_seconds=2", "simulate.reward_seconds=0.5");
	assert_near(m.rollout_seconds_mean, 301.0 + 8 * 0.5);
	assert_near(m.step_seconds_mean, m.rollout_seconds_mean + 7 + 400 + 2);
	assert_true(m.staleness_max == 0);
}

/* An invented drafter that costs nothing and is always right, 4 tokens long: 5 tokens a round of 5 rows. */
static void test_speculation(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("april+speculation", "scheduler.groups_per_step=1", "rollout.group_size=1", "scheduler.over_sampling=1",
	                                "speculation.draft_length=4", "simulate.acceptance=1", "simulate.draft_share=0.000001");
	assert_near(m.tokens_per_round, 5.0);
	assert_true(fabs(m.step_seconds_mean - (20 * (0.25 + 5 * 0.125) + 1)) < 1e-3);
	/* Nobody drafts what is never accepted, where the controller chooses. */
	m = RUN("april+speculation", "simulate.acceptance=0", "scheduler.over_sampling=1");
	assert_near(m.tokens_per_round, 1.0);
	assert_near(m.step_seconds_mean, 301.0);
}

/* Nothing is left to begin, and another rank has slots free. */
static void test_migration(void **state)
{
	(void)state;
	/* The group's rank gets all 8 leases, and with them the word to keep 4: the others go there, back and to the
	 * second rank, two messages later; 100 rounds of 4 rows. */
	struct simulate_metrics m = RUN("april+migration", "simulate.workers=2", "scheduler.groups_per_step=1", "rollout.group_size=8",
	                                "scheduler.over_sampling=1", "worker.max_active=8");
	assert_near(m.step_seconds_mean, 4 * 0.5 + 100 * 0.75);
	assert_near(m.migrated_per_step, 4.0);
	assert_true(m.put_aside_per_step == 0); /* S15 */
	/* Two samples on the first rank, one on the second, which is done at 0.5 + 37.5 and idle until it has another at 40:
	 * 77 tokens that it computes anew, in two rounds of prefill, before the 23 that are left. */
#define TWO_AND_ONE "simulate.workers=2", "scheduler.groups_per_step=3", "rollout.group_size=1", "scheduler.over_sampling=1", "worker.max_active=2"
	m = RUN("april+migration", TWO_AND_ONE);
	assert_near(m.step_seconds_mean, 40 + 2 * 0.375 + 77 * 0.125 + 23 * 0.375 + 0.5);
	assert_near(m.migrated_per_step, 1.0);
	/* As far away, but with cheap prefill. */
	m = RUN("april+migration", TWO_AND_ONE, "simulate.prefill_seconds=0.0009765625");
	assert_near(m.step_seconds_mean, 40 + 2 * 0.375 + 77 / 1024.0 + 23 * 0.375 + 0.5);
	/* Without migration it stays where it is. */
	m = RUN("april", TWO_AND_ONE);
	assert_near(m.step_seconds_mean, 100 * 0.5 + 1);
	assert_true(m.migrated_per_step == 0);
}

/* A trainer of 500 s is waited for, one of 100 s waits: 301 s of rollouts as in test_one_slot. */
#define BESIDE "trainer.kind=external", "simulate.steps=6", "simulate.warmup=2", "simulate.broadcast_seconds=2", \
	"scheduler.over_sampling=1", "scheduler.max_staleness=1"

static void test_one_step_off(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("one_step_off", BESIDE, "simulate.train_seconds=500");
	assert_near(m.step_seconds_mean, 500 + 2.0);
	assert_near(m.rollout_seconds_mean, 301.0);
	assert_true(m.staleness_mean == 1 && m.staleness_max == 1);
	m = RUN("one_step_off", BESIDE, "simulate.train_seconds=100");
	assert_near(m.step_seconds_mean, 301 + 2.0);
	/* Without a trainer nothing is waited for: in step. */
	m = RUN("one_step_off", BESIDE, "trainer.kind=none", "simulate.train_seconds=100");
	assert_near(m.step_seconds_mean, 301 + 102.0);
	assert_true(m.staleness_max == 0);
}

static void test_async(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("async", BESIDE, "simulate.train_seconds=500");
	assert_near(m.step_seconds_mean, 500 + 2.0);
	assert_true(m.rollout_seconds_mean == 0 && m.staleness_mean == 1);
	assert_near(m.slots_busy, 300 / 502.0); /* S12: no more than one batch ahead */
	/* Weights come 102 s after a batch went out and the next was begun, 271 rounds later, to the third sample in its
	 * slot: it and what began before have an older first token, and its 71 tokens are computed anew or are not. */
	m = RUN("async", BESIDE, "simulate.train_seconds=100", "scheduler.kv=keep");
	assert_near(m.step_seconds_mean, 301.0);
	assert_near(m.rollout_seconds_mean, 301 - 102.0);
	assert_near(m.staleness_mean, 3 / 8.0);
	m = RUN("async", BESIDE, "simulate.train_seconds=100");
	assert_near(m.step_seconds_mean, 301 + 2 * 0.375 + 71 * 0.125);
	assert_near(m.staleness_mean, 3 / 8.0);
	assert_true(m.put_aside_per_step == 0);
}

/* ---- properties, with the invariants checked after every event ---- */

static void test_april_beats_sync(void **state)
{
	(void)state;
	for (int seed = 1; seed <= 5; seed++) {
		char text[32];
		snprintf(text, sizeof text, "simulate.seed=%d", seed);
		struct simulate_metrics sync = RUN("sync", LONG_TAIL, text), april = RUN("april", LONG_TAIL, text);
		assert_true(sync.step_seconds_mean > 1.2 * april.step_seconds_mean);
		assert_true(april.slots_busy > sync.slots_busy && april.tail_share < sync.tail_share);
		assert_true(april.put_aside_per_step > 0 && sync.put_aside_per_step == 0);
		assert_true(april.staleness_max > 0 && sync.staleness_max == 0);
		/* What is put aside is not lost: in the long run lengths are those of all. */
		assert_true(fabs(sync.length_bias - 1) < 0.15 && fabs(april.length_bias - 1) < 0.3);
		/* Dropping what is late prefers short ones, and wastes. */
		struct simulate_metrics dropping = RUN("over-provisioned", LONG_TAIL, text);
		assert_true(dropping.length_bias < 0.9 * april.length_bias && dropping.dropped_tokens_share > 0.1);
		assert_true(dropping.staleness_max == 0 && april.dropped_tokens_share == 0);
	}
}

/* One group, all of it leased to one rank of eight.  It takes at least as long as the longest sample alone and as all
 * tokens in full batches everywhere.  Where moving costs next to nothing, it is list scheduling, which takes no longer
 * than both together (Graham, 1969) and the messages and rounds until a slot is filled again. */
static void test_one_rank_has_everything(void **state)
{
	(void)state;
#define ONE_GROUP "scheduler.groups_per_step=1", "rollout.group_size=64", "scheduler.rank_backlog=64", "scheduler.over_sampling=1", \
	"worker.max_active=4", "simulate.workers=8", "simulate.length_sigma=1.2", "simulate.row_seconds=0.015625", \
	"simulate.prefill_seconds=0.000001", "simulate.latency_seconds=0.0625"
	for (int seed = 1; seed <= 10; seed++) {
		const char *sets[] = {ONE_GROUP, NULL};
		int n = sizeof sets / sizeof *sets;
		char text[32];
		struct world w;
		double tokens = 0, longest = 0;

		snprintf(text, sizeof text, "simulate.seed=%d", seed);
		sets[n - 1] = text;
		world_open(&w, sets, n);
		for (int i = 0; i < 64; i++) {
			double length = simulate_lengths_response(w.lengths, 1, i);
			tokens += length;
			longest = length > longest ? length : longest;
		}
		world_close(&w);
		double alone = 0.25 + 0.015625, full = 0.25 + 4 * 0.015625;
		double least = fmax(longest * alone, tokens / (8 * 4) * full);
		struct simulate_metrics with = run("april+migration", sets, n), without = run("april", sets, n);
		assert_true(with.step_seconds_mean > least && with.step_seconds_mean < without.step_seconds_mean);
		assert_true(with.step_seconds_mean < (tokens / (8 * 4) + longest) * full + 64 * (full + 4 * 0.0625));
		assert_near(without.ranks_busy, (1 - 2 * 0.0625 / without.step_seconds_mean) / 8);
		assert_true(with.ranks_busy > 2 * without.ranks_busy);
		assert_true(with.migrated_per_step >= 7 * 4 && without.migrated_per_step == 0); /* every slot gets one */
	}
}

static void test_staleness_is_bounded(void **state)
{
	(void)state;
	for (int bound = 0; bound <= 3; bound++) {
		char text[48];
		snprintf(text, sizeof text, "scheduler.max_staleness=%d", bound);
		struct simulate_metrics m = RUN("april", LONG_TAIL, "simulate.length_sigma=2", text);
		assert_true(m.staleness_end_max <= bound);
		assert_true(bound == 0 || m.staleness_end_max > 0);
		for (int mode = 0; mode < simulate_modes_n; mode++) { /* S11: of what is delivered */
			if (simulate_modes[mode].asynchrony == SYNCHRONOUS) continue;
			m = RUN(simulate_modes[mode].name, LONG_TAIL, "simulate.length_sigma=2", "simulate.train_seconds=20", text);
			assert_true(m.staleness_max > 0 && m.staleness_max <= (bound > 1 ? bound : 1));
		}
	}
	/* Deferrals alone bound it too. */
	struct simulate_metrics m = RUN("april", LONG_TAIL, "simulate.length_sigma=2", "scheduler.max_staleness=100", "scheduler.max_deferrals=2");
	assert_true(m.staleness_end_max <= 2);
	/* Without a trainer no version is new. */
	m = RUN("april", LONG_TAIL, "trainer.kind=none");
	assert_true(m.staleness_max == 0 && m.put_aside_per_step > 0);
}

static void test_every_kind_of_world(void **state)
{
	(void)state;
	static const char *const worlds[][4] = {
		{"simulate.lengths=pareto", "simulate.length_alpha=1.2", "simulate.latency_seconds=0", "simulate.correlation=0"},
		{"simulate.lengths=uniform", "simulate.drop_share=0.4", "simulate.latency_seconds=3", "simulate.correlation=1"},
		{"simulate.reward_seconds=2", "simulate.controller_seconds=0.2", "scheduler.rank_backlog=0", "scheduler.max_staleness=1"},
		{"worker.prefill_chunk=3", "simulate.prompt_tokens=500", "scheduler.max_deferrals=1", "simulate.position_seconds=0.001"},
	};
	for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++)
		for (int mode = 0; mode < simulate_modes_n; mode++) {
			const char *const *s = worlds[i];
			struct simulate_metrics m = RUN(simulate_modes[mode].name, LONG_TAIL, s[0], s[1], s[2], s[3]);
			assert_true(m.step_seconds_mean > 0 && m.step_seconds_p95 > 0 && m.rollout_seconds_mean <= m.step_seconds_mean * (1 + 1e-9));
			assert_true(m.slots_busy > 0 && m.slots_busy <= 1 && m.ranks_busy >= m.slots_busy && m.ranks_busy <= 1);
			assert_true(m.tail_share >= 0 && m.tail_share <= 1 && m.controller_busy <= 1 + 1e-9);
			assert_near(m.trajectories_per_sec * m.step_seconds_mean, 32.0); /* S5 */
		}
}

static void test_same_seed_same_metrics(void **state)
{
	(void)state;
	for (int mode = 0; mode < simulate_modes_n; mode++) {
		struct simulate_metrics a = RUN(simulate_modes[mode].name, LONG_TAIL), b = RUN(simulate_modes[mode].name, LONG_TAIL);
		struct simulate_metrics other = RUN(simulate_modes[mode].name, LONG_TAIL, "simulate.seed=2");
		a.events_per_cpu_sec = b.events_per_cpu_sec = 0;
		assert_memory_equal(&a, &b, sizeof a);
		assert_true(other.step_seconds_mean != a.step_seconds_mean);
	}
}

/* ---- lengths ---- */

struct moments {
	double mean, deviation, correlation; /* of two samples of a group */
};

enum { DRAWN_GROUPS = 20000 };

static struct moments moments_of(const struct simulate_lengths *lengths)
{
	double sum = 0, square = 0, product = 0, n = 2.0 * DRAWN_GROUPS;

	for (uint64_t g = 1; g <= DRAWN_GROUPS; g++) {
		double a = simulate_lengths_response(lengths, g, 0), b = simulate_lengths_response(lengths, g, 1);
		sum += a + b;
		square += a * a + b * b;
		product += 2 * a * b;
	}
	double mean = sum / n, variance = square / n - mean * mean;
	return (struct moments){mean, sqrt(variance), (product / n - mean * mean) / variance};
}

static void test_distributions(void **state)
{
	(void)state;
	static const struct {
		const char *set[3];
		double deviation, pearson; /* exact, of what is not cut or rounded */
	} cases[] = {
		{{"simulate.length_sigma=0.5", "simulate.correlation=0", "simulate.seed=1"}, 532.94, 0},
		/* exp(sigma^2) - 1 = 0.2840; (exp(rho sigma^2) - 1) / (exp(sigma^2) - 1) = 0.1331 / 0.2840 */
		{{"simulate.length_sigma=0.5", "simulate.correlation=0.5", "simulate.seed=2"}, 532.94, 0.46879},
		{{"simulate.lengths=uniform", "simulate.correlation=1", "simulate.seed=3"}, 577.06, 1},
		/* variance m^2 / (alpha (alpha - 2)) */
		{{"simulate.lengths=pareto", "simulate.length_alpha=9", "simulate.correlation=0"}, 125.99, 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *sets[] = {cases[i].set[0], cases[i].set[1], cases[i].set[2], "simulate.length_mean=1000", "rollout.max_tokens=1000000"};
		struct world w;
		world_open(&w, sets, 5);
		struct moments m = moments_of(w.lengths);
		/* Means of 20,000 to 40,000 independent draws: 5 sigma. */
		assert_true(fabs(m.mean - 1000) < 5 * cases[i].deviation / sqrt(DRAWN_GROUPS));
		assert_true(fabs(m.deviation / cases[i].deviation - 1) < 0.06);
		assert_true(fabs(m.correlation - cases[i].pearson) < 5 / sqrt(DRAWN_GROUPS));
		world_close(&w);
	}
}

static void test_lengths_are_cut(void **state)
{
	(void)state;
	struct world w;
	const char *sets[] = {"simulate.lengths=pareto", "simulate.length_alpha=1.01", "simulate.length_mean=100000", "rollout.max_tokens=300"};
	int cut = 0;

	world_open(&w, sets, 4);
	for (uint64_t g = 1; g <= 1000; g++) {
		int32_t length = simulate_lengths_response(w.lengths, g, (int)g % 7);
		assert_true(length >= 1 && length <= 300);
		cut += length == 300;
		assert_int_equal(length, simulate_lengths_response(w.lengths, g, (int)g % 7));
	}
	assert_true(cut > 500);
	world_close(&w);
}

/* ---- queues ---- */

/* Against a list that is searched. */
static void test_messages_in_order(void **state)
{
	(void)state;
	enum { MESSAGES = 2000 };
	struct sim_messages q = {0};
	static double times[MESSAGES];
	uint64_t random = 7;
	int n_pushed = 0;

	for (int n_popped = 0; n_popped < MESSAGES; n_popped++) {
		for (int i = 0; i < 2 && n_pushed < MESSAGES; i++, n_pushed++) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			times[n_pushed] = n_popped + (random >> 61 == 0 ? (double)(random >> 33 & 255) : 1); /* one of eight late */
			sim_messages_push(&q, (struct sim_message){.time = times[n_pushed], .rank = n_pushed});
		}
		int first = -1;
		for (int i = 0; i < n_pushed; i++)
			if (times[i] < INFINITY && (first < 0 || times[i] < times[first])) first = i;
		assert_int_equal(sim_messages_first(&q)->rank, first);
		struct sim_message m = sim_messages_pop(&q);
		assert_true(m.rank == first && m.time == times[first]);
		times[first] = INFINITY;
	}
	assert_null(sim_messages_first(&q));
	sim_messages_free(&q);
}

static void test_wakes_in_order(void **state)
{
	(void)state;
	enum { RANKS = 100 };
	struct sim_wakes w;
	double times[RANKS + 1];
	uint64_t random = 5;

	sim_wakes_open(&w, RANKS);
	for (int r = 0; r <= RANKS; r++) times[r] = INFINITY;
	for (int i = 0; i < 20000; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		int rank = 1 + (int)((random >> 33) % RANKS), first = 0;
		times[rank] = random >> 62 == 0 ? INFINITY : (double)(random >> 40 & 1023);
		sim_wakes_set(&w, rank, times[rank]);
		for (int r = 1; r <= RANKS; r++)
			if (times[r] < INFINITY && (!first || times[r] < times[first])) first = r;
		assert_true(first ? w.n > 0 && w.heap[1].rank == first && w.heap[1].time == times[first] : w.n == 0);
	}
	sim_wakes_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_slot),
		cmocka_unit_test(test_one_batch),
		cmocka_unit_test(test_attention),
		cmocka_unit_test(test_prefill),
		cmocka_unit_test(test_ranks),
		cmocka_unit_test(test_controller),
		cmocka_unit_test(test_trainer),
		cmocka_unit_test(test_speculation),
		cmocka_unit_test(test_migration),
		cmocka_unit_test(test_one_step_off),
		cmocka_unit_test(test_async),
		cmocka_unit_test(test_april_beats_sync),
		cmocka_unit_test(test_one_rank_has_everything),
		cmocka_unit_test(test_staleness_is_bounded),
		cmocka_unit_test(test_every_kind_of_world),
		cmocka_unit_test(test_same_seed_same_metrics),
		cmocka_unit_test(test_distributions),
		cmocka_unit_test(test_lengths_are_cut),
		cmocka_unit_test(test_messages_in_order),
		cmocka_unit_test(test_wakes_in_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
