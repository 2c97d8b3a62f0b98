/* test_quality_head.c - the head learns what there is to learn, is calibrated though pruned samples have no reward, and
 * is a function of its examples. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "rollout/quality_head.h"
#include "rollout/sampling/noise.h"

enum { DIM = 24, PER_STEP = 256 };

/* Features of sample i of a step, and whether it will succeed: by a plane in the first three of them, or by whether two of
 * them have the same sign, with noise. */
struct task {
	uint64_t seed;
	int squares;    /* 1: the latter */
	double signal;  /* 0: success has nothing to do with features */
};

static double success_probability(const struct task *task, const float *f)
{
	double z = task->squares ? 3 * (double)(f[0] * f[1]) : 2 * (double)(f[0] + f[1] - f[2]) - 1;
	return 1 / (1 + exp(-task->signal * z));
}

static void draw_features(const struct task *task, int step, int i, float *f)
{
	uint64_t key = noise_stream(task->seed, 5, step, i);
	for (int k = 0; k < DIM; k++) f[k] = (float)(3.5 * (noise_uniform(key, k).first - 0.5)) * (k % 3 == 0 ? 50.0f : 1.0f) + (float)k;
}

/* As the task sees them: of mean 0 and like size. */
static void plain(const float *f, float *out)
{
	for (int k = 0; k < 3; k++) out[k] = (f[k] - (float)k) / (k % 3 == 0 ? 50.0f : 1.0f);
}

struct step {
	float features[PER_STEP][DIM];
	struct quality_example examples[PER_STEP];
	int n;
};

/* keep_low < 1: of those with scores below a half only so many are kept, and weigh more. */
static void make_step(struct step *s, const struct task *task, const struct quality_head *head, int step, double keep_low)
{
	s->n = 0;
	for (int i = 0; i < PER_STEP; i++) {
		float *f = s->features[s->n], seen[3];
		draw_features(task, step, i, f);
		plain(f, seen);
		struct noise_pair u = noise_uniform(noise_stream(task->seed, 6, step, i), 0);
		double score = quality_head_score(head, f), kept = score < 0.5 ? keep_low : 1;
		if (u.second >= kept) continue;
		s->examples[s->n++] = (struct quality_example){ .features = f, .score = score, .expected = quality_head_expect(head, score),
			.reward = u.first < success_probability(task, seen), .weight = 1 / kept };
	}
}

static struct quality_report run(struct quality_head *head, const struct task *task, int steps, double keep_low)
{
	struct quality_report report = {0};
	static struct step s;

	for (int step = 0; step < steps; step++) {
		make_step(&s, task, head, step, keep_low);
		quality_head_learn(head, s.examples, s.n, &report);
	}
	return report;
}

static void test_learns_a_plane(void **state)
{
	(void)state;
	for (int hidden = 0; hidden <= 16; hidden += 16) {
		struct quality_head *head = quality_head_open(DIM, hidden, 0.01, 1);
		struct task task = { .seed = 11, .signal = 1 };
		struct quality_report early = run(head, &task, 2, 1), late = run(head, &task, 30, 1);
		print_message("%d hidden: AUC %.3f after one step, %.3f after 30; Brier %.3f, ECE %.3f\n", hidden, early.auc, late.auc, late.brier, late.ece);
		assert_true(early.auc > 0.7);
		assert_true(late.auc > 0.85 && late.brier < 0.18 && late.ece < 0.12);
		assert_int_equal(quality_head_examples(head), 32 * PER_STEP);
		assert_int_equal(quality_head_steps(head), 32);
		quality_head_close(head);
	}
}

/* No plane tells these apart: the units are needed. */
static void test_units_learn_more(void **state)
{
	(void)state;
	struct task task = { .seed = 12, .squares = 1, .signal = 2 };
	struct quality_head *linear = quality_head_open(DIM, 0, 0.01, 1), *units = quality_head_open(DIM, 32, 0.01, 1);
	double without = run(linear, &task, 60, 1).auc, with = run(units, &task, 60, 1).auc;

	print_message("same signs: AUC %.3f without units, %.3f with 32\n", without, with);
	assert_true(without < 0.62 && with > without + 0.15);
	quality_head_close(linear);
	quality_head_close(units);
}

/* Three quarters of the unpromising are pruned: by weights, what is expected still comes true. */
static void test_calibrated_in_spite_of_pruning(void **state)
{
	(void)state;
	struct quality_head *head = quality_head_open(DIM, 0, 0.01, 1);
	struct task task = { .seed = 13, .signal = 1 };
	double ece = 0, positive = 0, expected = 0;
	static struct step s;
	enum { FROM = 10, STEPS = 40 };

	for (int step = 0; step < STEPS; step++) {
		struct quality_report report;
		make_step(&s, &task, head, step, 0.25);
		quality_head_learn(head, s.examples, s.n, &report);
		ece += step >= FROM ? report.ece / (STEPS - FROM) : 0;
	}
	/* Against all samples of new steps, pruned or not. */
	for (int step = STEPS; step < STEPS + 8; step++) {
		make_step(&s, &task, head, step, 1);
		for (int i = 0; i < s.n; i++) {
			positive += s.examples[i].reward;
			expected += s.examples[i].expected;
		}
	}
	double n = 8 * PER_STEP, sigma = sqrt(n * 0.25);
	print_message("pruned to a quarter: mean ECE %.3f; %.0f successes expected of %.0f, %.0f came\n", ece, expected, n, positive);
	assert_true(ece < 0.12);
	assert_true(fabs(expected - positive) < 5 * sigma);
	quality_head_close(head);
}

/* Where there is nothing to learn it says so: AUC about a half, and expects the mean. */
static void test_learns_nothing_from_noise(void **state)
{
	(void)state;
	struct quality_head *head = quality_head_open(DIM, 0, 0.003, 1);
	struct task task = { .seed = 14, .signal = 0 };
	static struct step s;
	double auc = 0;
	enum { STEPS = 40 };

	for (int step = 0; step < STEPS; step++) {
		struct quality_report report;
		make_step(&s, &task, head, step, 1);
		quality_head_learn(head, s.examples, s.n, &report);
		auc += report.auc / STEPS;
	}
	/* Each step's AUC has a variance of about 1 / (12 * 64). */
	assert_true(fabs(auc - 0.5) < 5 * sqrt(1.0 / (12 * 64 * STEPS)));
	quality_head_close(head);
}

static void test_report_by_hand(void **state)
{
	(void)state;
	struct quality_head *head = quality_head_open(1, 0, 0.01, 1);
	float f = 0;
	struct quality_example e[] = {
		{ .features = &f, .score = 0.9, .expected = 0.8, .reward = 1, .weight = 1 },
		{ .features = &f, .score = 0.2, .expected = 0.2, .reward = 0, .weight = 3 },
		{ .features = &f, .score = 0.9, .expected = 0.85, .reward = 0, .weight = 1 },
	};
	struct quality_report r;

	quality_head_learn(head, e, 3, &r);
	assert_true(fabs(r.brier - (0.04 + 3 * 0.04 + 0.7225) / 5) < 1e-12);
	assert_true(fabs(r.ece - ((1.65 - 1) + 0.6) / 5) < 1e-12); /* one bin of 1 and 1, one of 3 */
	assert_true(fabs(r.auc - (3 + 0.5) / 4) < 1e-12);
	assert_true(fabs(r.positive_ratio - 0.2) < 1e-12);
	quality_head_learn(head, e, 0, &r);
	assert_true(r.n == 0 && r.auc == 0.5);
	assert_int_equal(quality_head_steps(head), 2);
	quality_head_close(head);
}

static void test_saved_is_the_same(void **state)
{
	(void)state;
	struct task task = { .seed = 15, .signal = 1 };
	struct quality_head *a = quality_head_open(DIM, 8, 0.01, 3), *b = quality_head_open(DIM, 8, 0.01, 4), *other = quality_head_open(DIM, 4, 0.01, 3);
	struct err err;
	size_t n, m;

	run(a, &task, 3, 1);
	void *saved = quality_head_save(a, &n);
	assert_int_equal(quality_head_load(b, saved, n, &err), 0);
	run(a, &task, 3, 1);
	run(b, &task, 3, 1); /* another seed, but the first values are gone */
	void *from_a = quality_head_save(a, &n), *from_b = quality_head_save(b, &m);
	assert_true(n == m && memcmp(from_a, from_b, n) == 0);
	assert_int_equal(quality_head_load(other, saved, n, &err), ERR_INVALID);
	assert_int_equal(quality_head_load(b, saved, n - 1, &err), ERR_INVALID);
	free(saved);
	free(from_a);
	free(from_b);
	quality_head_close(a);
	quality_head_close(b);
	quality_head_close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_learns_a_plane),     cmocka_unit_test(test_units_learn_more),
		cmocka_unit_test(test_calibrated_in_spite_of_pruning), cmocka_unit_test(test_learns_nothing_from_noise),
		cmocka_unit_test(test_report_by_hand),     cmocka_unit_test(test_saved_is_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
