/* test_prune.c - the probabilities of pruning against all subsets counted out, its draw, and that advantages of what is
 * left have the expectation that nothing pruned would have had. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "rollout/advantage/advantage_pruned.h"
#include "rollout/sampling/noise.h"

enum { MEMBERS_MAX = 16, GROUPS = 20000 };

static double uniform(uint64_t key, int i) { return noise_uniform(key, i).first; }

static struct prune_options options_of(double keep)
{
	return (struct prune_options){ .keep = keep, .keep_min = 3, .balance = 0.5, .weight_max = 8 };
}

/* A group of n with scores by seed, of which every sixth has ended before. */
static void decide(struct prune_decision *d, int n, double keep, uint64_t seed)
{
	double scores[PRUNE_SAMPLES_MAX];
	bool candidate[PRUNE_SAMPLES_MAX];
	struct prune_options options = options_of(keep);

	for (int i = 0; i < n; i++) {
		double u = uniform(seed, i);
		scores[i] = seed % 3 == 0 ? u : seed % 3 == 1 ? u * u * u : 1 - u * u * u; /* even, hopeless, easy */
		candidate[i] = i % 6 != 5;
	}
	prune_decide(d, scores, candidate, n, &options, seed);
}

/* The weight of a set of kept candidates: bit i for sample i; 0 for one that the design does not draw. */
static double weight_of(const struct prune_decision *d, unsigned set)
{
	double weight = 1;
	int k = 0;

	for (int i = 0; i < d->n; i++) {
		bool in = set >> i & 1;
		if (d->fate[i] == PRUNE_SURE && !in) return 0;
		if (d->fate[i] == PRUNE_SURE || !in) continue;
		weight *= exp(d->tilt * (d->scores[i] - 0.5));
		k++;
	}
	return k == d->n_survivors ? weight : 0;
}

static double all_weights(const struct prune_decision *d)
{
	double sum = 0;
	for (unsigned set = 0; set < 1u << d->n; set++) sum += weight_of(d, set);
	return sum;
}

static void test_probabilities_by_counting(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct prune_decision d;
		int n = 4 + (int)(seed % 8);
		decide(&d, n, 0.5, seed);
		double all = all_weights(&d), single[MEMBERS_MAX] = {0}, pair[MEMBERS_MAX][MEMBERS_MAX] = {{0}};
		for (unsigned set = 0; set < 1u << n; set++) {
			double p = weight_of(&d, set) / all;
			for (int i = 0; i < n; i++)
				for (int j = 0; j < n && set >> i & 1; j++) {
					if (j == i) single[i] += p;
					else if (set >> j & 1) pair[i][j] += p;
				}
		}
		for (int i = 0; i < n; i++) {
			if (fabs(single[i] - d.probability[i]) > 1e-5) fail_msg("seed %d: P(%d) is %g, counted %g", (int)seed, i, d.probability[i], single[i]);
			for (int j = 0; j < n; j++)
				if (i != j && fabs(pair[i][j] - prune_joint(&d, i, j)) > 1e-5)
					fail_msg("seed %d: P(%d, %d) is %g, counted %g", (int)seed, i, j, prune_joint(&d, i, j), pair[i][j]);
		}
	}
}

/* Each set as often as it should be, and each decision made again from what a store keeps of it. */
static void test_draws_by_probability(void **state)
{
	(void)state;
	enum { DRAWS = 20000, N = 7 };
	int count[1 << N] = {0};
	struct prune_decision d, again;

	decide(&d, N, 0.5, 4);
	for (int i = 0; i < DRAWS; i++) {
		struct prune_options options = options_of(0.5);
		bool candidate[N];
		for (int k = 0; k < N; k++) candidate[k] = d.fate[k] != PRUNE_SURE;
		prune_decide(&again, d.scores, candidate, N, &options, (uint64_t)i * 7919);
		unsigned set = 0;
		for (int k = 0; k < N; k++) set |= (unsigned)(again.fate[k] != PRUNE_PRUNED) << k;
		count[set]++;
		struct prune_decision redone = { .n = again.n, .n_survivors = again.n_survivors, .tilt = again.tilt };
		memcpy(redone.scores, again.scores, sizeof redone.scores);
		memcpy(redone.fate, again.fate, sizeof redone.fate);
		prune_redo(&redone);
		assert_memory_equal(&redone, &again, sizeof redone);
	}
	double all = all_weights(&d);
	for (unsigned set = 0; set < 1u << N; set++) {
		double p = weight_of(&d, set) / all, sigma = sqrt(DRAWS * p * (1 - p));
		if (fabs(count[set] - DRAWS * p) > 5 * sigma + 1e-9)
			fail_msg("the set %x came %d times, expected %.1f +- %.1f", set, count[set], DRAWS * p, sigma);
	}
}

static void test_bounds_and_balance(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct prune_decision d;
		int n = 1 + (int)(seed * 7 % 64);
		decide(&d, n, 0.25 + 0.25 * (double)(seed % 3), seed);
		double sum = 0, mean = 0, plain = 0, least = 1;
		int kept = 0, sure = 0;
		for (int i = 0; i < n; i++) {
			kept += d.fate[i] == PRUNE_SURVIVOR;
			sure += d.fate[i] == PRUNE_SURE;
			if (d.fate[i] == PRUNE_SURE) continue;
			sum += d.probability[i];
			mean += d.probability[i] * d.scores[i] / d.n_survivors;
			plain += d.scores[i] / d.n_candidates;
			least = fmin(least, d.probability[i]);
		}
		assert_int_equal(kept, d.n_survivors);
		assert_true(kept + sure >= 3 || kept + sure == n);
		assert_true(kept >= 2 || kept == d.n_candidates);
		if (d.n_survivors == d.n_candidates) continue;
		assert_true(fabs(sum - d.n_survivors) < 1e-9 * n);
		assert_true(least * 8 >= 1 - 1e-6);
		/* Nearer to a half than without a tilt; there, or as far as the weights allow. */
		assert_true(fabs(mean - 0.5) <= fabs(plain - 0.5) + 1e-9);
		assert_true(fabs(mean - 0.5) < 1e-5 || least * 8 < 1 + 1e-3 || fabs(d.tilt) > 39);
	}
}

static void test_edges(void **state)
{
	(void)state;
	struct prune_options options = options_of(0.5);
	struct prune_decision d;
	double same[16], ends[8] = {0, 1, 0, 1, 0, 0, 0, 0};
	bool all[16], none[16] = {false};

	for (int i = 0; i < 16; i++) same[i] = 0.3, all[i] = true;
	prune_decide(&d, same, none, 16, &options, 1); /* all had ended */
	assert_true(d.n_candidates == 0 && d.n_survivors == 0 && d.probability[3] == 1);
	prune_decide(&d, same, all, 3, &options, 1); /* keep_min */
	assert_true(d.n_candidates == 3 && d.n_survivors == 3 && d.fate[0] == PRUNE_SURVIVOR);
	prune_decide(&d, same, all, 16, &options, 1); /* nothing to steer by */
	assert_true(d.n_survivors == 8);
	for (int i = 0; i < 16; i++) assert_true(fabs(d.probability[i] - 0.5) < 1e-9);
	prune_decide(&d, ends, all, 8, &options, 1); /* certain scores: both good ones are likely */
	assert_true(d.probability[1] > 0.9 && d.probability[0] >= 0.125 - 1e-9);
	options.keep = 1;
	prune_decide(&d, same, all, 16, &options, 1);
	assert_int_equal(d.n_survivors, 16);
}

/* ---- advantages ---- */

struct members {
	struct trajectory items[MEMBERS_MAX];
	struct trajectory *order[MEMBERS_MAX];
};

static void rewards_set(struct members *m, const double *rewards, int n)
{
	memset(m, 0, sizeof *m);
	for (int i = 0; i < n; i++) {
		m->items[i] = (struct trajectory){ .sample = i, .has_reward = true, .reward = rewards[i] };
		m->order[i] = &m->items[i];
	}
}

/* sum of weight * advantage * direction over the members. */
static double gradient(const struct members *m, int n, const double *direction)
{
	double sum = 0;
	for (int i = 0; i < n; i++)
		if (m->items[i].has_advantage) sum += (double)m->items[i].loss_weight * (double)m->items[i].advantage * direction[i];
	return sum;
}

static const struct config_advantage allowed[] = {
	{ .estimator = ADVANTAGE_RLOO, .scale = SCALE_AUTO, .scale_floor = 0.1, .clamp = 1000 },
	{ .estimator = ADVANTAGE_DR_GRPO, .scale = SCALE_NONE, .scale_floor = 0.1, .clamp = 1000 },
	{ .estimator = ADVANTAGE_GRPO, .scale = SCALE_NONE, .scale_floor = 0.1, .clamp = 1000 },
};
enum { ALLOWED = sizeof allowed / sizeof *allowed };

static void test_unbiased_by_counting(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed < 40; seed++) {
		struct prune_decision d;
		int n = 5 + (int)(seed % 7);
		double rewards[MEMBERS_MAX], direction[MEMBERS_MAX];
		decide(&d, n, 0.5, seed);
		for (int i = 0; i < n; i++) {
			rewards[i] = seed % 2 ? uniform(seed + 1000, i) : uniform(seed + 1000, i) < 0.4;
			direction[i] = 4 * uniform(seed + 2000, i) - 1;
		}
		for (int e = 0; e < ALLOWED; e++) {
			struct members m;
			struct group_advantage out;
			rewards_set(&m, rewards, n);
			advantage_compute(m.order, n, &allowed[e], &out);
			double wanted = gradient(&m, n, direction), mean = out.baseline, found = 0, naive = 0, found_mean = 0;
			double all = all_weights(&d);
			for (unsigned set = 0; set < 1u << n; set++) {
				double p = weight_of(&d, set) / all, survivors = 0;
				int kept = 0;
				if (p == 0) continue;
				struct prune_decision drawn = d;
				rewards_set(&m, rewards, n);
				for (int i = 0; i < n; i++) {
					if (d.fate[i] != PRUNE_SURE) drawn.fate[i] = set >> i & 1 ? PRUNE_SURVIVOR : PRUNE_PRUNED;
					m.items[i].has_reward = drawn.fate[i] != PRUNE_PRUNED;
					kept += m.items[i].has_reward;
					survivors += m.items[i].has_reward ? rewards[i] : 0;
				}
				advantage_pruned(m.order, &drawn, &allowed[e], &out);
				found += p * gradient(&m, n, direction);
				found_mean += p * out.baseline;
				for (int i = 0; i < n; i++)
					if (m.items[i].has_reward) naive += p * (rewards[i] - survivors / kept) * direction[i] * n / kept;
			}
			if (fabs(found - wanted) > 3e-5 * (1 + fabs(wanted)))
				fail_msg("seed %d, estimator %d: %.8g over all draws, unpruned %.8g", (int)seed, e, found, wanted);
			assert_true(fabs(found_mean - mean) < 1e-5);
			/* The mean of survivors, as a check that this test can fail. */
			if (seed == 4) assert_true(fabs(naive - wanted) > 0.01);
		}
	}
}

static void test_nothing_pruned_is_ordinary(void **state)
{
	(void)state;
	double rewards[6] = {0, 1, 0.5, 0, 1, 1}, scores[6] = {0.1, 0.9, 0.2, 0.3, 0.8, 0.4};
	bool candidate[6] = {true, true, true, false, true, true};
	struct prune_options options = options_of(1);
	struct prune_decision d;

	prune_decide(&d, scores, candidate, 6, &options, 5);
	for (int e = 0; e < ALLOWED; e++) {
		struct members m, ordinary;
		struct group_advantage out, expected;
		rewards_set(&m, rewards, 6);
		rewards_set(&ordinary, rewards, 6);
		advantage_pruned(m.order, &d, &allowed[e], &out);
		advantage_compute(ordinary.order, 6, &allowed[e], &expected);
		assert_true(fabs(out.baseline - expected.baseline) < 1e-9);
		for (int i = 0; i < 6; i++) {
			assert_true(m.items[i].loss_weight == 1 && m.items[i].has_advantage);
			assert_true(fabsf(m.items[i].advantage - ordinary.items[i].advantage) < 1e-6f);
		}
	}
}

static void test_what_is_refused(void **state)
{
	(void)state;
	struct config_advantage o = { .estimator = ADVANTAGE_MC_GRPO, .scale = SCALE_NONE };
	assert_false(advantage_takes_pruned(&o));
	o = (struct config_advantage){ .estimator = ADVANTAGE_GRPO, .scale = SCALE_AUTO };
	assert_false(advantage_takes_pruned(&o));
	o = (struct config_advantage){ .estimator = ADVANTAGE_RLOO, .scale = SCALE_STD };
	assert_false(advantage_takes_pruned(&o));
	for (int e = 0; e < ALLOWED; e++) assert_true(advantage_takes_pruned(&allowed[e]));
}

static void test_failed_survivor(void **state)
{
	(void)state;
	struct prune_decision d;
	struct members m;
	struct group_advantage out;
	double rewards[8] = {1, 0, 1, 0, 1, 0, 1, 0};

	decide(&d, 8, 0.5, 6);
	rewards_set(&m, rewards, 8);
	int failed = -1;
	for (int i = 0; i < 8; i++) {
		if (d.fate[i] == PRUNE_SURVIVOR) failed = i;
		if (d.fate[i] == PRUNE_PRUNED) m.items[i].has_reward = false;
	}
	m.items[failed].has_reward = false;
	advantage_pruned(m.order, &d, &allowed[0], &out);
	for (int i = 0; i < 8; i++) {
		bool counts = d.fate[i] != PRUNE_PRUNED && i != failed;
		assert_true(m.items[i].has_advantage == counts && (m.items[i].loss_weight >= 1) == counts);
		assert_true(isfinite(m.items[i].advantage));
	}
}

/* ---- a policy of two words, pruned after the first: the policy gradient against the true one ---- */

/* The first word is 1 with probability a, the second with b; reward by table; the head sees the first word, wrongly. */
enum { SAMPLES = 8 };
static const double first_p = 0.3, second_p = 0.45, reward_of[2][2] = {{0, 0.2}, {0.4, 1}}, head_says[2] = {0.35, 0.55};

static double true_gradient(int word)
{
	double p[2] = {first_p, second_p}, g = 0;
	for (int x = 0; x < 2; x++)
		for (int y = 0; y < 2; y++) {
			double probability = (x ? p[0] : 1 - p[0]) * (y ? p[1] : 1 - p[1]);
			g += probability * reward_of[x][y] * ((word ? y : x) - p[word]); /* d log p / d logit */
		}
	return g;
}

struct sums {
	double sum[2], square[2];
};

static void add_group(struct sums *s, const double g[2])
{
	for (int w = 0; w < 2; w++) {
		s->sum[w] += g[w];
		s->square[w] += g[w] * g[w];
	}
}

/* Standard deviations that the mean is off. */
static double sigmas_off(const struct sums *s, int word, double wanted)
{
	double mean = s->sum[word] / GROUPS, variance = s->square[word] / GROUPS - mean * mean;
	return (mean - wanted) / sqrt(variance / GROUPS);
}

static void test_unbiased_by_simulation(void **state)
{
	(void)state;
	struct prune_options options = options_of(0.5);
	struct sums found[ALLOWED] = {{{0}, {0}}}, naive = {{0}, {0}};
	bool candidate[SAMPLES];

	for (int i = 0; i < SAMPLES; i++) candidate[i] = true;
	for (int group = 0; group < GROUPS; group++) {
		double words[SAMPLES][2], rewards[SAMPLES], scores[SAMPLES], g[2] = {0};
		struct prune_decision d;
		struct members m;
		struct group_advantage out;
		double survivors = 0;
		int kept = 0;
		for (int i = 0; i < SAMPLES; i++) {
			struct noise_pair u = noise_uniform((uint64_t)group + 1, i);
			words[i][0] = u.first < first_p;
			words[i][1] = u.second < second_p;
			rewards[i] = reward_of[(int)words[i][0]][(int)words[i][1]];
			scores[i] = head_says[(int)words[i][0]];
		}
		prune_decide(&d, scores, candidate, SAMPLES, &options, noise_stream(99, 1, group, 0));
		for (int e = 0; e < ALLOWED; e++) {
			rewards_set(&m, rewards, SAMPLES);
			for (int i = 0; i < SAMPLES; i++) m.items[i].has_reward = d.fate[i] != PRUNE_PRUNED;
			advantage_pruned(m.order, &d, &allowed[e], &out);
			double whole = e == 0 ? 1 : (SAMPLES - 1.0) / SAMPLES; /* what the estimator itself multiplies by */
			for (int w = 0; w < 2; w++) {
				double direction[SAMPLES];
				for (int i = 0; i < SAMPLES; i++) direction[i] = words[i][w] - (w ? second_p : first_p);
				g[w] = gradient(&m, SAMPLES, direction) / SAMPLES / whole;
			}
			add_group(&found[e], g);
		}
		for (int i = 0; i < SAMPLES; i++) {
			kept += d.fate[i] != PRUNE_PRUNED;
			survivors += d.fate[i] != PRUNE_PRUNED ? rewards[i] : 0;
		}
		g[0] = g[1] = 0;
		for (int i = 0; i < SAMPLES; i++)
			for (int w = 0; w < 2 && d.fate[i] != PRUNE_PRUNED; w++)
				g[w] += (rewards[i] - survivors / kept) * (words[i][w] - (w ? second_p : first_p)) / (kept - 1);
		add_group(&naive, g);
	}
	for (int e = 0; e < ALLOWED; e++)
		for (int w = 0; w < 2; w++) {
			double off = sigmas_off(&found[e], w, true_gradient(w));
			if (fabs(off) > 5) fail_msg("estimator %d, word %d: mean gradient %g, true %g, %.1f sigma", e, w, found[e].sum[w] / GROUPS, true_gradient(w), off);
		}
	/* Survivors compared with their own mean, without weights: off, and the test would see it. */
	double off = fmax(fabs(sigmas_off(&naive, 0, true_gradient(0))), fabs(sigmas_off(&naive, 1, true_gradient(1))));
	print_message("%d groups of %d: within 5 sigma of the true gradient; survivors against their own mean: %.0f sigma off\n", GROUPS, SAMPLES, off);
	assert_true(off > 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probabilities_by_counting), cmocka_unit_test(test_draws_by_probability),
		cmocka_unit_test(test_bounds_and_balance),        cmocka_unit_test(test_edges),
		cmocka_unit_test(test_unbiased_by_counting),      cmocka_unit_test(test_nothing_pruned_is_ordinary),
		cmocka_unit_test(test_what_is_refused),           cmocka_unit_test(test_failed_survivor),
		cmocka_unit_test(test_unbiased_by_simulation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
