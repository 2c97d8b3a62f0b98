/* test_scheduler_migrate.c - the tail: recalls from loaded ranks, the longest first, and that what is
 * delivered is as long as what was asked for. */
#include <math.h>

#include "tests/scheduler/scheduler_bench.h"

static const struct scheduler_options eight = {
	.groups_per_step = 1, .over_sampling = 1, .samples_per_group = 8, .eval_samples = 1,
	.partial_rollouts = true, .max_staleness = 4, .max_deferrals = 8, .migrate = true,
};

static void joined_slots(struct bench *bench, int rank, int capacity, int active)
{
	scheduler_on_rank_joined_slots(bench->scheduler, rank, capacity, active);
	settle(bench);
}

static bool back(struct bench *bench, struct action lease, int64_t oldest_version)
{
	bool aside = scheduler_on_sample_recalled(bench->scheduler, lease.group, lease.sample, lease.lease, oldest_version);
	settle(bench);
	return aside;
}

static void recalled(struct bench *bench, struct action recall)
{
	scheduler_on_rank_recalled(bench->scheduler, recall.rank, recall.lease);
	settle(bench);
}

static void test_half_of_the_active_samples_move(void **state)
{
	(void)state;
	struct action leases[8];
	struct bench bench = bench_open(eight);
	joined_slots(&bench, 1, 8, 8);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 8);
	assert_int_equal(count(&bench, ACTION_RECALL), 0);
	joined_slots(&bench, 2, 8, 8);
	assert_int_equal(count(&bench, ACTION_RECALL), 1);
	struct action recall = nth(&bench, ACTION_RECALL, 0);
	assert_int_equal(recall.rank, 1);
	assert_int_equal(recall.n_samples, 4);
	for (int i = 0; i < 4; i++) {
		assert_false(back(&bench, leases[i], i % 2 ? 0 : SCHEDULER_NO_TOKENS));
		assert_int_equal(nth(&bench, ACTION_LEASE, 0).rank, 2);
		assert_int_equal(nth(&bench, ACTION_LEASE, 0).sample, leases[i].sample);
	}
	recalled(&bench, recall);
	assert_int_equal(count(&bench, ACTION_RECALL), 0);
	assert_int_equal(counts(&bench).deferred, 0);
	assert_int_equal(counts(&bench).resumed, 0);
	assert_int_equal(counts(&bench).migrated, 4);
	/* 4 and 4: rank 1 must end all but one of its own before it gets some back. */
	done(&bench, leases[4]);
	done(&bench, leases[5]);
	assert_int_equal(count(&bench, ACTION_RECALL), 0);
	done(&bench, leases[6]);
	assert_int_equal(count(&bench, ACTION_RECALL), 1);
	assert_int_equal(nth(&bench, ACTION_RECALL, 0).rank, 2);
	assert_int_equal(nth(&bench, ACTION_RECALL, 0).n_samples, 3);
	bench_close(&bench);
}

static void test_queued_samples_move_first(void **state)
{
	(void)state;
	struct action leases[8];
	struct bench bench = bench_open(eight);
	joined_slots(&bench, 1, 8, 4);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 8);
	joined_slots(&bench, 2, 4, 4);
	joined_slots(&bench, 3, 4, 4); /* what comes to rank 2 is spoken for: rank 1 answers one recall at a time */
	assert_int_equal(count(&bench, ACTION_RECALL), 0);
	scheduler_on_rank_lost(bench.scheduler, 2);
	settle(&bench);
	assert_false(back(&bench, leases[7], SCHEDULER_NO_TOKENS));
	assert_int_equal(nth(&bench, ACTION_LEASE, 0).rank, 3); /* the receiver is gone: wherever there is room */
	bench_close(&bench);
}

static void test_a_late_answer_to_a_recall_changes_nothing(void **state)
{
	(void)state;
	struct action leases[8];
	struct bench bench = bench_open(eight);
	joined_slots(&bench, 1, 8, 8);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 8);
	joined_slots(&bench, 2, 8, 8);
	struct action recall = nth(&bench, ACTION_RECALL, 0), wrong = recall;
	wrong.lease += 1;
	recalled(&bench, wrong);
	wrong.rank = 2;
	recalled(&bench, wrong);
	assert_int_equal(count(&bench, ACTION_RECALL), 0); /* the first is still on its way */
	recalled(&bench, recall); /* nothing came: not asked again before something has changed */
	assert_int_equal(count(&bench, ACTION_RECALL), 0);
	done(&bench, leases[0]);
	assert_int_equal(count(&bench, ACTION_RECALL), 1);
	assert_false(back(&bench, leases[0], 0)); /* it had ended */
	assert_int_equal(counts(&bench).migrated, 0);
	bench_close(&bench);
}

/* The step closes while a sample is on its way: it is put aside, and that counts. */
static void test_a_recall_overtaken_by_the_end_of_the_step(void **state)
{
	(void)state;
	struct action leases[8];
	struct scheduler_options options = eight;
	options.samples_per_group = 1;
	options.over_sampling = 3;
	struct bench bench = bench_open(options);
	joined_slots(&bench, 1, 8, 8);
	begin(&bench, 1, 0);
	assert_int_equal(leases_take(&bench, leases), 3);
	joined_slots(&bench, 2, 8, 8);
	struct action recall = nth(&bench, ACTION_RECALL, 0);
	done(&bench, leases[2]);
	assert_int_equal(count(&bench, ACTION_STOP), 1);
	assert_true(back(&bench, leases[1], 0));
	partial(&bench, leases[0], 0);
	recalled(&bench, recall);
	quiet(&bench, 1);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	assert_int_equal(counts(&bench).deferred, 2);
	assert_int_equal(counts(&bench).aside, 2);
	bench_close(&bench);
}

static void test_nothing_moves_unless_asked(void **state)
{
	(void)state;
	struct scheduler_options options = eight;
	options.migrate = false;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 8);
	begin(&bench, 1, 0);
	joined(&bench, 2, 8);
	assert_int_equal(count(&bench, ACTION_RECALL), 0);
	bench_close(&bench);
}

static void expected(struct bench *bench, uint64_t group, int sample, int tokens)
{
	scheduler_on_sample_expected(bench->scheduler, group, sample, tokens);
	settle(bench);
}

static void test_the_longest_first(void **state)
{
	(void)state;
	struct scheduler_options options = eight;
	options.groups_per_step = 3;
	options.samples_per_group = 2;
	options.order = ORDER_LONGEST;
	struct bench bench = bench_open(options);
	joined(&bench, 1, 1);
	begin(&bench, 1, 0);
	assert_int_equal(count(&bench, ACTION_OPEN_GROUP), 3);
	assert_int_equal(count(&bench, ACTION_LEASE), 0); /* nothing is expected yet */
	expected(&bench, 2, -1, 50);
	assert_int_equal(nth(&bench, ACTION_LEASE, 0).group, 2);
	struct action lease = nth(&bench, ACTION_LEASE, 0);
	expected(&bench, 1, -1, 70);
	expected(&bench, 3, -1, 10);
	expected(&bench, 3, 1, 90);
	const struct { uint64_t group; int sample; } order[] = {{3, 1}, {1, 0}, {1, 1}, {2, 1}, {3, 0}};
	for (int i = 0; i < 5; i++) {
		done(&bench, lease);
		lease = nth(&bench, ACTION_LEASE, 0);
		assert_int_equal(lease.group, order[i].group);
		assert_int_equal(lease.sample, order[i].sample);
	}
	done(&bench, lease);
	assert_int_equal(count(&bench, ACTION_STEP_READY), 1);
	bench_close(&bench);
}

/* ---- lengths ---- */

enum { STEPS = 50, GROUPS = 16, SAMPLES = 4, N = STEPS * GROUPS * SAMPLES, RANKS = 4, IN_FLIGHT_MAX = 1024 };

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* Log-normal with a long tail, and a part that a group's samples share. */
static int length_of(uint64_t seed, uint64_t group, int sample)
{
	double normal[2] = {0, 0};
	for (int k = 0; k < 24; k++) {
		uint64_t own = k < 12 ? 0 : (uint64_t)sample * 100 + 50;
		uint64_t draw = mix(mix(seed * 2654435761u + group) + own + (uint64_t)k);
		normal[k / 12] += (double)(draw >> 11) * 0x1p-53 - 0.5;
	}
	return 1 + (int)exp(4 + 0.5 * normal[0] + 0.9 * normal[1]);
}

struct flight {
	struct action lease;
	int left;
};

/* Every sample makes a token a round on its rank; rounds take no longer with more samples. */
struct cluster {
	struct scheduler *scheduler;
	struct flight flights[IN_FLIGHT_MAX];
	int n_flights, made[4096][SAMPLES], n_lengths;
	bool stopped[RANKS + 1], ready;
	int lengths[N];
	uint64_t seed;
};

static void cluster_settle(struct cluster *c)
{
	struct action a;
	while (scheduler_next_action(c->scheduler, &a)) {
		if (a.type == ACTION_OPEN_GROUP)
			scheduler_on_sample_expected(c->scheduler, a.group, -1, 0);
		if (a.type == ACTION_LEASE)
			c->flights[c->n_flights++] = (struct flight){a, length_of(c->seed, a.group, a.sample) - c->made[a.group][a.sample]};
		if (a.type == ACTION_STOP)
			c->stopped[a.rank] = true;
		if (a.type == ACTION_GROUP_COMPLETE)
			scheduler_on_group_scored(c->scheduler, a.group, true);
		if (a.type == ACTION_DELIVER)
			for (int k = 0; k < SAMPLES; k++)
				c->lengths[c->n_lengths++] = length_of(c->seed, a.group, k);
		c->ready |= a.type == ACTION_STEP_READY;
		if (a.type != ACTION_RECALL)
			continue;
		int n = 0;
		for (int i = c->n_flights - 1; i >= 0; i--)
			if (c->flights[i].lease.rank == a.rank && n++ >= a.n_samples) {
				struct flight f = c->flights[i];
				c->flights[i] = c->flights[--c->n_flights];
				scheduler_on_sample_recalled(c->scheduler, f.lease.group, f.lease.sample, f.lease.lease, 0);
			}
		scheduler_on_rank_recalled(c->scheduler, a.rank, a.lease);
	}
}

static void cluster_round(struct cluster *c)
{
	for (int i = c->n_flights - 1; i >= 0; i--) {
		struct flight *f = &c->flights[i];
		if (i >= c->n_flights)
			continue; /* recalled since */
		bool stopped = c->stopped[f->lease.rank];
		c->made[f->lease.group][f->lease.sample]++;
		if (--f->left > 0 && !stopped)
			continue;
		struct flight gone = *f;
		*f = c->flights[--c->n_flights];
		if (gone.left <= 0)
			scheduler_on_sample_done(c->scheduler, gone.lease.group, gone.lease.sample, gone.lease.lease);
		else
			scheduler_on_sample_partial(c->scheduler, gone.lease.group, gone.lease.sample, gone.lease.lease, 0);
		cluster_settle(c);
	}
	for (int rank = 1; rank <= RANKS; rank++) {
		if (!c->stopped[rank])
			continue;
		c->stopped[rank] = false;
		scheduler_on_rank_quiet(c->scheduler, rank);
		cluster_settle(c);
	}
}

static void cluster_run(struct cluster *c, const struct scheduler_options *options, uint64_t seed)
{
	*c = (struct cluster){.scheduler = scheduler_open(options), .seed = seed};
	for (int rank = 1; rank <= RANKS; rank++)
		scheduler_on_rank_joined_slots(c->scheduler, rank, 24, 20);
	for (int step = 1; step <= STEPS; step++) {
		c->ready = false;
		scheduler_on_step_begin(c->scheduler, step, 0);
		cluster_settle(c);
		while (!c->ready)
			cluster_round(c);
	}
	assert_true(scheduler_check(c->scheduler, stderr));
	scheduler_close(c->scheduler);
}

static int int_compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Largest distance of the two empirical distributions, in units in which 2.744 is 5 sigma: Kolmogorov's
 * 2 exp(-2 x^2) = 5.7e-7. */
static double distance(int *a, int *b)
{
	double most = 0;
	qsort(a, N, sizeof(*a), int_compare);
	qsort(b, N, sizeof(*b), int_compare);
	for (int i = 0, k = 0; i < N && k < N;) {
		int x = a[i] < b[k] ? a[i] : b[k];
		while (i < N && a[i] == x)
			i++;
		while (k < N && b[k] == x)
			k++;
		if (fabs((double)(i - k)) > most)
			most = fabs((double)(i - k));
	}
	return most / N * sqrt(N / 2.0);
}

/* Over 50 steps what is delivered is as long as what would be without over-sampling, in either order; what a
 * step would give that forgets the rest is not. */
static void test_delivered_lengths_are_those_of_all(void **state)
{
	(void)state;
	static struct cluster cluster;
	static int all[N], first[N];
	struct scheduler_options options = eight;
	options.groups_per_step = GROUPS;
	options.samples_per_group = SAMPLES;
	options.over_sampling = 2;
	for (int order = ORDER_OLDEST; order <= ORDER_LONGEST; order++) {
		options.order = (enum scheduler_order)order;
		cluster_run(&cluster, &options, 1);
		assert_int_equal(cluster.n_lengths, N);
		for (int i = 0; i < N; i++)
			all[i] = length_of(2, (uint64_t)(i / SAMPLES), i % SAMPLES);
		double d = distance(cluster.lengths, all);
		print_message("order %d: %.2f of 2.74\n", order, d);
		assert_true(d < 2.744);
	}
	/* Of every 2 GROUPS the GROUPS whose longest sample is shortest. */
	for (int step = 0, n = 0; step < STEPS; step++) {
		int longest[2 * GROUPS], sorted[2 * GROUPS];
		for (int g = 0; g < 2 * GROUPS; g++) {
			longest[g] = 0;
			for (int k = 0; k < SAMPLES; k++) {
				int length = length_of(3, (uint64_t)(step * 2 * GROUPS + g), k);
				longest[g] = length > longest[g] ? length : longest[g];
			}
			sorted[g] = longest[g];
		}
		qsort(sorted, 2 * GROUPS, sizeof(*sorted), int_compare);
		for (int g = 0; g < 2 * GROUPS && n < (step + 1) * GROUPS * SAMPLES; g++)
			for (int k = 0; k < SAMPLES && longest[g] <= sorted[GROUPS - 1]; k++)
				first[n++] = length_of(3, (uint64_t)(step * 2 * GROUPS + g), k);
	}
	assert_true(distance(first, all) > 2 * 2.744);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_half_of_the_active_samples_move),
		cmocka_unit_test(test_queued_samples_move_first),
		cmocka_unit_test(test_a_late_answer_to_a_recall_changes_nothing),
		cmocka_unit_test(test_a_recall_overtaken_by_the_end_of_the_step),
		cmocka_unit_test(test_nothing_moves_unless_asked),
		cmocka_unit_test(test_the_longest_first),
		cmocka_unit_test(test_delivered_lengths_are_those_of_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
