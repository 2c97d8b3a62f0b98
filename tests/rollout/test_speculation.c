/* test_speculation.c - the controller against invented machines: it ends near the best fixed length that
 * a sweep finds, turns drafting off where it cannot pay, and notices when the policy moves. */
#include <math.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rollout/speculation/speculation.h"
#include "tests/support/ugly.h"

enum { SESSIONS_MAX = 64, LENGTH_MAX = 16, ROUNDS = 3000, SETTLED = 1000, SEEDS = 2 };

/* A call costs the larger of reading the weights and computing its rows, and something fixed. */
struct invented_drafter {
	double read, row, acceptance; /* seconds, seconds, probability */
};

struct machine {
	double read, row, fixed; /* seconds */
	double noise;   /* relative spread of every measurement */
	int n_made;
	struct invented_drafter drafters[2];
};

static double larger(double a, double b) { return a > b ? a : b; }
static double target_seconds(const struct machine *m, int rows) { return m->fixed + larger(m->read, m->row * rows); }

static double draft_seconds(const struct machine *m, int drafter, int rows)
{
	return m->fixed + larger(m->drafters[drafter].read, m->drafters[drafter].row * rows);
}

static double chance(struct ugly *u) { return (double)ugly_next(u) / 4294967296.0; }

static double noisy(const struct machine *m, struct ugly *u, double seconds)
{
	return seconds * (1 + m->noise * (2 * chance(u) - 1)) * (chance(u) < 0.002 ? 20 : 1);
}

struct outcome {
	double tokens, seconds;
};

/* One round of n sessions under the plan, in a call with so many rows of prompts; returns drafts made. */
static int play_with_prompts(const struct machine *m, struct speculation *s, struct ugly *u, struct session_acceptance *history,
                             int n, int riders, struct outcome *out)
{
	struct plan_session sessions[SESSIONS_MAX];
	int rows = n + riders, drafting;

	for (int i = 0; i < n; i++)
		sessions[i] = (struct plan_session){.acceptance = &history[i * SPECULATION_DRAFTERS], .room = 100,
		                                    .found = -1};
	int drafter = speculation_plan(s, sessions, n, riders);
	for (int j = 0; drafter >= 0; j++) {
		drafting = 0;
		for (int i = 0; i < n; i++) drafting += sessions[i].length > j;
		if (drafting == 0) break;
		rows += drafting;
		double seconds = draft_seconds(m, drafter, drafting);
		out->seconds += seconds;
		speculation_observe(s, drafter, drafting, 0, noisy(m, u, seconds));
	}
	double seconds = target_seconds(m, rows);
	out->seconds += seconds;
	speculation_observe(s, -1, rows, 0, noisy(m, u, seconds));
	for (int i = 0; i < n; i++) {
		int accepted = 0;
		while (accepted < sessions[i].length && chance(u) < m->drafters[drafter].acceptance) accepted++;
		out->tokens += 1 + accepted;
		if (sessions[i].length > 0)
			speculation_learn(s, sessions[i].drafter, &history[i * SPECULATION_DRAFTERS], sessions[i].length, accepted);
	}
	return rows - n - riders;
}

static void play(const struct machine *m, struct speculation *s, struct ugly *u, struct session_acceptance *history,
                 int n, struct outcome *out)
{
	play_with_prompts(m, s, u, history, n, 0, out);
}

static void open_controller(struct speculation *s, int length_fixed, int n_made)
{
	struct speculation_options options = {.length_max = LENGTH_MAX, .length_fixed = length_fixed, .n_made = n_made,
	                                      .sessions_max = SESSIONS_MAX, .hysteresis = 0.02};
	speculation_open(s, &options);
}

/* Tokens per second with a fixed length of drafter 0, 0: exact; -1: the controller's own choice. */
static double rate_with(const struct machine *m, int length, int n, uint64_t seed)
{
	struct speculation s;
	struct session_acceptance history[SESSIONS_MAX * SPECULATION_DRAFTERS] = {{0}};
	struct ugly u = {seed};
	struct outcome out = {0};

	if (length == 0) return n / target_seconds(m, n);
	open_controller(&s, length > 0 ? length : 0, m->n_made);
	for (int round = 0; round < (length < 0 ? ROUNDS : SETTLED); round++) {
		if (round == SETTLED && length < 0) out = (struct outcome){0};
		play(m, &s, &u, history, n, &out);
	}
	speculation_close(&s);
	return out.tokens / out.seconds;
}

/* Of all lengths of all drafters. */
static double best_fixed(const struct machine *m, int n, int *drafter, int *length)
{
	double best = 0;

	for (int d = 0; d < m->n_made; d++) {
		struct machine one = *m;
		one.n_made = 1;
		one.drafters[0] = m->drafters[d];
		for (int l = 0; l <= LENGTH_MAX; l++) {
			double rate = rate_with(&one, l, n, 7);
			if (rate <= best) continue;
			*drafter = d;
			*length = l;
			best = rate;
		}
	}
	return best;
}

static void check_against_best(const struct machine *m, int n)
{
	int drafter = 0, length = 0;
	double best = best_fixed(m, n, &drafter, &length), exact = rate_with(m, 0, n, 7);

	for (uint64_t seed = 3; seed < 3 + SEEDS; seed++) {
		double got = rate_with(m, -1, n, seed);
		if (got >= 0.95 * best && got >= 0.97 * exact) continue;
		fail_msg("seed %d, batch %d, acceptance %.2f: exact 1, best %.3f with %d of drafter %d, controller %.3f", (int)seed,
		         n, m->drafters[0].acceptance, best / exact, length, drafter, got / exact);
	}
}

static const double acceptances[] = {0.3, 0.7, 0.9, 0.98};
static const int batches[] = {1, 2, 4, 8, 16, 32};
enum { ACCEPTANCES = sizeof acceptances / sizeof *acceptances, BATCHES = sizeof batches / sizeof *batches };

static void near_the_best_fixed_length(void **state)
{
	(void)state;
	static const struct machine machines[] = {
		/* bound by memory, balanced, bound by arithmetic, tiny */
		{50e-3, 5e-3, 1e-4, 0.1, 1, {{15e-3, 3e-3, 0}}},
		{50e-3, 10e-3, 1e-4, 0.1, 1, {{15e-3, 8e-3, 0}}},
		{10e-3, 10e-3, 1e-4, 0.1, 1, {{8e-3, 8e-3, 0}}},
		{1e-4, 5e-5, 5e-5, 0.1, 1, {{5e-5, 3e-5, 0}}},
	};
	for (size_t k = 0; k < sizeof machines / sizeof *machines; k++) {
		for (int a = 0; a < ACCEPTANCES; a++) {
			struct machine m = machines[k];
			m.drafters[0].acceptance = acceptances[a];
			for (int b = 0; b < BATCHES; b++) check_against_best(&m, batches[b]);
		}
	}
}

/* A faithful drafter and a fast one, as of a nested format: the better one is found, whichever it is. */
static void near_the_best_of_two_drafters(void **state)
{
	(void)state;
	static const struct machine machine = {50e-3, 4e-3, 1e-4, 0.1, 2, {{28e-3, 3e-3, 0.97}, {15e-3, 3e-3, 0}}};

	for (int a = 0; a < ACCEPTANCES; a++) {
		struct machine m = machine;
		m.drafters[1].acceptance = acceptances[a];
		for (int b = 0; b < BATCHES; b++) check_against_best(&m, batches[b]);
	}
}

/* New weights turn the better drafter into the worse one: within a few dozen rounds the other is in use. */
static void choice_follows_the_policy(void **state)
{
	(void)state;
	enum { BEFORE = 600, RELEARN = 150, AFTER = 600, N = 4 };
	struct machine m = {50e-3, 4e-3, 1e-4, 0.1, 2, {{28e-3, 3e-3, 0.6}, {15e-3, 3e-3, 0.95}}};

	for (int direction = 0; direction < 2; direction++) {
		struct speculation s;
		struct session_acceptance history[SESSIONS_MAX * SPECULATION_DRAFTERS] = {{0}};
		struct ugly u = {11};
		struct outcome out = {0};
		int drafter, length;
		open_controller(&s, 0, 2);
		for (int round = 0; round < BEFORE; round++) play(&m, &s, &u, history, N, &out);
		struct invented_drafter first = m.drafters[0];
		m.drafters[0].acceptance = m.drafters[1].acceptance;
		m.drafters[1].acceptance = first.acceptance;
		memset(history, 0, sizeof history); /* new samples */
		speculation_forget_acceptance(&s);
		for (int round = 0; round < RELEARN; round++) play(&m, &s, &u, history, N, &out);
		out = (struct outcome){0};
		for (int round = 0; round < AFTER; round++) play(&m, &s, &u, history, N, &out);
		double best = best_fixed(&m, N, &drafter, &length), got = out.tokens / out.seconds;
		if (got < 0.95 * best) fail_msg("direction %d: %.3f of the best after the change", direction, got / best);
		speculation_close(&s);
	}
}

/* The batch drains to a long tail and is filled again, over and over. */
static void follows_the_batch(void **state)
{
	(void)state;
	static const struct machine m = {50e-3, 10e-3, 1e-4, 0.1, 1, {{15e-3, 8e-3, 0.9}}};
	struct speculation s;
	struct session_acceptance history[SESSIONS_MAX * SPECULATION_DRAFTERS] = {{0}};
	struct ugly u = {5};
	struct outcome by_batch[BATCHES] = {{0}};

	open_controller(&s, 0, 1);
	for (int wave = 0; wave < 12; wave++) {
		for (int b = BATCHES - 1; b >= 0; b--) {
			struct outcome out = {0};
			for (int round = 0; round < 100; round++) play(&m, &s, &u, history, batches[b], &out);
			if (wave < 2) continue;
			by_batch[b].tokens += out.tokens;
			by_batch[b].seconds += out.seconds;
		}
	}
	speculation_close(&s);
	for (int b = 0; b < BATCHES; b++) {
		int drafter, length;
		double got = by_batch[b].tokens / by_batch[b].seconds, best = best_fixed(&m, batches[b], &drafter, &length);
		if (got < 0.95 * best) fail_msg("batch %d: %.3f of the best", batches[b], got / best);
	}
}

/* A shared machine: now and then everything takes twice as long for a while, on or off the beat of probes.  Where
 * drafts lose a little they stay off, where they win they stay on. */
static void holds_through_slow_times(void **state)
{
	(void)state;
	static const struct machine machines[] = {
		{10e-3, 3e-3, 1e-4, 0.1, 2, {{8e-3, 2.5e-3, 0.97}, {6e-3, 2e-3, 0.8}}},
		{50e-3, 5e-3, 1e-4, 0.1, 2, {{28e-3, 3e-3, 0.97}, {15e-3, 3e-3, 0.8}}},
	};
	for (int k = 0; k < 2; k++) {
		for (int b = 0; b < BATCHES; b++) {
			const struct machine *m = &machines[k];
			struct machine slow = *m;
			slow.read *= 2, slow.row *= 2;
			for (int d = 0; d < 2; d++) slow.drafters[d].read *= 2, slow.drafters[d].row *= 2;
			int n = batches[b], drafter, length;
			struct speculation s;
			struct session_acceptance history[SESSIONS_MAX * SPECULATION_DRAFTERS] = {{0}};
			struct ugly u = {23};
			struct outcome normal = {0}, other = {0};
			open_controller(&s, 0, 2);
			for (int round = 0; round < ROUNDS; round++) {
				bool is_slow = round / 37 % 4 == 3;
				play(is_slow ? &slow : m, &s, &u, history, n, is_slow || round < SETTLED ? &other : &normal);
			}
			speculation_close(&s);
			double got = normal.tokens / normal.seconds, best = best_fixed(m, n, &drafter, &length);
			double exact = rate_with(m, 0, n, 7);
			if (got < 0.92 * best || got < 0.97 * exact)
				fail_msg("machine %d, batch %d: %.3f of the best, %.3f of exact", k, n, got / best, got / exact);
		}
	}
}

/* What calls cost stays what they take, however long a run is: measurements are skewed, as calls are held up and never
 * hurried, and what is learned relative to the pace must not push the pace away. */
static void costs_do_not_drift(void **state)
{
	(void)state;
	enum { LONG = 200000 };
	static const struct machine m = {1e-4, 5e-5, 5e-5, 0.1, 1, {{5e-5, 3e-5, 0.9}}};

	for (int b = 0; b < 3; b++) {
		int n = batches[b];
		struct speculation s;
		struct session_acceptance history[SESSIONS_MAX * SPECULATION_DRAFTERS] = {{0}};
		struct ugly u = {29};
		struct outcome out = {0};
		open_controller(&s, 0, 1);
		for (int round = 0; round < LONG; round++) play(&m, &s, &u, history, n, &out);
		double table = cost_table_seconds(&s.target, n, 0) / target_seconds(&m, n);
		double said = s.exact_seconds / target_seconds(&m, n);
		speculation_close(&s);
		if (table < 0.8 || table > 1.25 || said < 0.8 || said > 1.25)
			fail_msg("batch %d after %d rounds: the table says %.3g of the truth, the plan %.3g", n, LONG, table, said);
	}
}

/* Prompts that share the call make it long whatever is drafted: no reason to draft, and what is tried all the same
 * stays within what probes may lose, on the whole and nearly so each time. */
static void prompts_are_no_reason_to_draft(void **state)
{
	(void)state;
	enum { N = 4, PROMPTS = 40, EVERY = 4, FIRST = 400, LAST = 1600, TRIES = 16 };
	static const struct machine m = {10e-3, 10e-3, 1e-4, 0.1, 1, {{8e-3, 8e-3, 0.95}}};
	double sum = 0;

	for (uint64_t seed = 3; seed < 3 + TRIES; seed++) {
		struct speculation s;
		struct session_acceptance history[SESSIONS_MAX * SPECULATION_DRAFTERS] = {{0}};
		struct ugly u = {seed};
		struct outcome out = {0};
		double prompts = 0;
		open_controller(&s, 0, 1);
		for (int round = 0; round < LAST; round++) {
			if (round == FIRST) out = (struct outcome){0};
			bool with = round % EVERY == 0;
			play_with_prompts(&m, &s, &u, history, N, with ? PROMPTS : 0, &out);
			if (round >= FIRST && with) prompts += target_seconds(&m, N + PROMPTS) - target_seconds(&m, N);
		}
		speculation_close(&s);
		double lost = (out.seconds - prompts - out.tokens * target_seconds(&m, N) / N) / out.seconds;
		if (lost > 0.02) fail_msg("seed %d: drafts lose %.2f %% of the time where none pays", (int)seed, 100 * lost);
		sum += lost;
	}
	if (sum > 0.01 * TRIES) fail_msg("drafts lose %.2f %% of the time where none pays", 100 * sum / TRIES);
}

/* A first measurement that was held up does not hide what neighbours say; the second one counts by the faster. */
static void one_measurement_is_not_believed(void **state)
{
	(void)state;
	struct cost_table t = {{0}};

	for (int i = 0; i < 4; i++) cost_table_observe(&t, 4, 0, 1e-3);
	cost_table_observe(&t, 8, 0, 50e-3);
	assert_true(cost_table_seconds(&t, 8, 0) < 2e-3 && cost_table_weight(&t, 8) < COST_CONFIRMED);
	cost_table_observe(&t, 8, 0, 1.5e-3);
	assert_true(fabs(cost_table_seconds(&t, 8, 0) - 1.5e-3) < 1e-9 && cost_table_weight(&t, 8) >= COST_CONFIRMED);
}

/* What was not measured for long follows a few measurements; what is measured all the time does not follow one. */
static void old_costs_are_given_up_sooner(void **state)
{
	(void)state;
	struct cost_table t = {{0}};

	for (int i = 0; i < 64; i++) cost_table_observe(&t, 4, 0, 1e-3);
	for (int i = 0; i < 400; i++) cost_table_observe(&t, 16, 0, 2e-3);
	for (int i = 0; i < 3; i++) cost_table_observe(&t, 4, 0, 0.5e-3);
	assert_true(cost_table_seconds(&t, 4, 0) < 0.75e-3);
	for (int i = 0; i < 3; i++) cost_table_observe(&t, 16, 0, 1e-3);
	assert_true(cost_table_seconds(&t, 16, 0) > 1.75e-3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(near_the_best_fixed_length),
		cmocka_unit_test(near_the_best_of_two_drafters),
		cmocka_unit_test(choice_follows_the_policy),
		cmocka_unit_test(follows_the_batch),
		cmocka_unit_test(costs_do_not_drift),
		cmocka_unit_test(one_measurement_is_not_believed),
		cmocka_unit_test(old_costs_are_given_up_sooner),
		cmocka_unit_test(holds_through_slow_times),
		cmocka_unit_test(prompts_are_no_reason_to_draft),
	};
	return cmocka_run_group_tests_name("speculation", tests, NULL, NULL);
}
