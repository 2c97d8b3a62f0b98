/* test_simulate_options.c - what becomes of old samples, and in which order they go, in the simulated cluster. */
#include <stdlib.h>

#include "tests/scheduler/simulate_fixture.h"

/* Two groups of one sample begin together and end together, and one of them is delivered when the rank has said
 * that it holds nothing.  Finished, the other is the
 * next batch, at once; if no batch may be older than its version, it is thrown away and made anew. */
#define PAIR "rollout.group_size=1", "scheduler.groups_per_step=1", "scheduler.over_sampling=2", "worker.max_active=2", \
	"simulate.steps=12", "simulate.warmup=2", "trainer.kind=external", "scheduler.max_staleness=0"

static void test_complete_and_too_old(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("april", PAIR);
	assert_near(m.step_seconds_mean, (100 * 0.5 + 2) / 2);
	assert_true(m.given_up_per_step == 0 && m.dropped_tokens_share == 0 && m.staleness_max == 1);
	m = RUN("april", PAIR, "scheduler.stale_action=drop");
	assert_near(m.step_seconds_mean, 100 * 0.5 + 2);
	assert_true(m.given_up_per_step == 1 && m.dropped_tokens_share == 0.5 && m.staleness_max == 0);
	m = RUN("april", PAIR, "scheduler.stale_action=mask");
	assert_near(m.step_seconds_mean, (100 * 0.5 + 2) / 2);
	assert_near(m.masked_share, 0.5); /* all of every other batch */
}

/* One slot: while the word of the end goes there and back, a second, the next sample makes 3 tokens (three rounds of
 * 0.375 s), which it is put aside with.  The next step computes them anew, in a round of its own, and has 97 to go. */
#define IN_TURN "rollout.group_size=1", "scheduler.groups_per_step=1", "scheduler.over_sampling=2", \
	"simulate.steps=12", "simulate.warmup=2", "trainer.kind=external", "scheduler.max_staleness=0"

static void test_masked_tokens(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("april", IN_TURN, "scheduler.stale_action=mask");
	assert_near(m.masked_share, 0.03);
	assert_near(m.put_aside_per_step, 1.0);
	assert_true(m.staleness_mean == 1 && m.given_up_per_step == 0);
	assert_near(m.step_seconds_mean, 0.5 + 0.375 + 3 * 0.125 + 97 * 0.375 + 0.5 + 1.125);
	/* Nothing may be put aside: the step waits for the second sample, which the next one delivers at once. */
	m = RUN("april", IN_TURN);
	assert_true(m.masked_share == 0 && m.put_aside_per_step == 0);
	assert_near(m.step_seconds_mean, (2 * 100 * 0.375 + 1) / 2);
	/* What has a token is thrown away, and with it 3 of 103. */
	m = RUN("april", IN_TURN, "scheduler.stale_action=drop");
	assert_true(m.given_up_per_step == 1 && m.staleness_max == 0);
	assert_near(m.dropped_tokens_share, 3 / 103.0);
	assert_near(m.step_seconds_mean, 0.5 + 100 * 0.375 + 0.5 + 1.125);
	/* Put aside once, and once is the most: the same, with an age that is allowed. */
	m = RUN("april", IN_TURN, "scheduler.max_staleness=9", "scheduler.max_deferrals=1", "scheduler.deferral_action=drop");
	assert_true(m.given_up_per_step == 0 && m.put_aside_per_step == 1 && m.staleness_mean == 1);
}

/* Samples that ranks hold, that wait there and that are on their way, called off by new weights. */
static void test_called_off(void **state)
{
	(void)state;
	static const char *const modes[] = {"april", "april+migration", "one_step_off+migration", "async", "async+migration"};
	static const int bounds[] = {1, 1, 2, 1, 1}; /* one step off, 1 allows only the batch that is being made */
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		double given_up = 0;
		for (int seed = 1; seed <= 3; seed++) {
			char text[32], bound[48];
			snprintf(text, sizeof text, "simulate.seed=%d", seed);
			snprintf(bound, sizeof bound, "scheduler.max_staleness=%d", bounds[i]);
			struct simulate_metrics m = RUN(modes[i], LONG_TAIL, "simulate.length_sigma=2", "simulate.train_seconds=20",
			                                "simulate.latency_seconds=1.5", bound, "scheduler.stale_action=drop", text);
			assert_true(m.staleness_max <= bounds[i]);
			assert_near(m.trajectories_per_sec * m.step_seconds_mean, 32.0);
			assert_true(m.dropped_tokens_share < 1 && (m.given_up_per_step == 0) == (m.dropped_tokens_share == 0));
			given_up += m.given_up_per_step;
		}
		if (given_up == 0) fail_msg("%s gives nothing up", modes[i]);
	}
	/* Masking delivers all of it; dropping prefers the short ones. */
	struct simulate_metrics mask = RUN("async", LONG_TAIL, "simulate.length_sigma=2", "simulate.train_seconds=20",
	                                   "scheduler.max_staleness=1", "scheduler.stale_action=mask");
	struct simulate_metrics drop = RUN("async", LONG_TAIL, "simulate.length_sigma=2", "simulate.train_seconds=20",
	                                   "scheduler.max_staleness=1", "scheduler.stale_action=drop");
	assert_true(mask.masked_share > 0 && mask.masked_share < 1 && mask.given_up_per_step == 0 && mask.dropped_tokens_share == 0);
	assert_true(mask.staleness_max > 1 && drop.length_mean < 0.9 * mask.length_mean);
}

static void test_put_aside_too_often(void **state)
{
	(void)state;
	struct simulate_metrics m = RUN("april", LONG_TAIL, "scheduler.max_staleness=100", "scheduler.max_deferrals=1",
	                                "scheduler.deferral_action=drop");
	assert_true(m.given_up_per_step > 0 && m.dropped_tokens_share > 0);
	m = RUN("april", LONG_TAIL, "scheduler.max_staleness=100", "scheduler.max_deferrals=1");
	assert_true(m.given_up_per_step == 0 && m.dropped_tokens_share == 0);
}

/* Groups of five alike samples on four slots: what the first of a group tells decides when the fifth's turn is, so that a
 * step ends with a short one more often than not. */
static void test_longest_first(void **state)
{
	(void)state;
#define ALIKE LONG_TAIL, "simulate.correlation=1", "simulate.steps=402", "simulate.workers=1", "rollout.group_size=5", \
	"scheduler.rank_backlog=0", "simulate.latency_seconds=0"
	struct simulate_metrics oldest = RUN("sync", ALIKE), longest = RUN("sync", ALIKE, "scheduler.order=longest");
	double ratio = longest.step_seconds_mean / oldest.step_seconds_mean;
	if (!(ratio < 0.985)) fail_msg("longest first takes %.3f of oldest first", ratio);
	/* Every mode runs with it. */
	for (int mode = 0; mode < simulate_modes_n; mode++) {
		struct simulate_metrics m = RUN(simulate_modes[mode].name, LONG_TAIL, "scheduler.order=longest");
		assert_near(m.trajectories_per_sec * m.step_seconds_mean, 32.0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_complete_and_too_old),
		cmocka_unit_test(test_masked_tokens),
		cmocka_unit_test(test_called_off),
		cmocka_unit_test(test_put_aside_too_often),
		cmocka_unit_test(test_longest_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
