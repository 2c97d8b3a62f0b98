/* test_speculation.c - the controller against invented machines: it ends near the best fixed length that
 * a sweep finds, turns drafting off where it cannot pay, and notices when the policy moves. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rollout/speculation.h"
#include "tests/support/ugly.h"

enum { SESSIONS_MAX = 64, LENGTH_MAX = 16, ROUNDS = 3000, SETTLED = 1000 };

/* A call costs the larger of reading the weights and computing its rows, and something fixed. */
struct machine {
	double read, row, draft_read, draft_row, fixed; /* seconds */
	double acceptance[SESSIONS_MAX];
	double decay;   /* of acceptance per place */
	double noise;   /* relative spread of every measurement */
};

static double larger(double a, double b) { return a > b ? a : b; }
static double target_seconds(const struct machine *m, int rows) { return m->fixed + larger(m->read, m->row * rows); }

static double draft_seconds(const struct machine *m, int rows)
{
	return m->fixed + larger(m->draft_read, m->draft_row * rows);
}

static double chance(struct ugly *u) { return (double)ugly_next(u) / 4294967296.0; }

static double noisy(const struct machine *m, struct ugly *u, double seconds)
{
	return seconds * (1 + m->noise * (2 * chance(u) - 1)) * (chance(u) < 0.002 ? 20 : 1);
}

struct outcome {
	double tokens, seconds;
};

/* One round of n sessions under the plan. */
static void play(const struct machine *m, struct speculation *s, struct ugly *u, struct session_acceptance *history,
                 int n, struct outcome *out)
{
	struct plan_session sessions[SESSIONS_MAX];
	int rows = n, drafting;

	for (int i = 0; i < n; i++)
		sessions[i] = (struct plan_session){.acceptance = &history[i * SPECULATION_DRAFTERS], .room = 100,
		                                    .found = -1};
	int drafter = speculation_plan(s, sessions, n);
	for (int j = 0; drafter >= 0; j++) {
		drafting = 0;
		for (int i = 0; i < n; i++) drafting += sessions[i].length > j;
		if (drafting == 0) break;
		rows += drafting;
		double seconds = draft_seconds(m, drafting);
		out->seconds += seconds;
		cost_table_observe(&s->drafters[drafter].cost, drafting, 0, noisy(m, u, seconds));
	}
	double seconds = target_seconds(m, rows);
	out->seconds += seconds;
	cost_table_observe(&s->target, rows, 0, noisy(m, u, seconds));
	for (int i = 0; i < n; i++) {
		int accepted = 0;
		double p = m->acceptance[i];
		while (accepted < sessions[i].length && chance(u) < p) {
			accepted++;
			p *= m->decay;
		}
		out->tokens += 1 + accepted;
		if (sessions[i].length > 0)
			speculation_learn(s, sessions[i].drafter, &history[i * SPECULATION_DRAFTERS], sessions[i].length, accepted);
	}
}

/* Tokens per second with a fixed length, 0: exact; -1: the controller's own choice. */
static double rate_with(const struct machine *m, int length, int n, uint64_t seed)
{
	struct speculation s;
	struct session_acceptance history[SESSIONS_MAX * SPECULATION_DRAFTERS] = {{0}};
	struct ugly u = {seed};
	struct outcome out = {0};
	struct speculation_options options = {.length_max = LENGTH_MAX, .length_fixed = length > 0 ? length : 0,
	                                      .n_made = 1, .sessions_max = SESSIONS_MAX, .hysteresis = 0.02};

	if (length == 0) return n / target_seconds(m, n);
	speculation_open(&s, &options);
	for (int round = 0; round < ROUNDS; round++) {
		if (round == SETTLED && length < 0) out = (struct outcome){0};
		play(m, &s, &u, history, n, &out);
	}
	speculation_close(&s);
	return out.tokens / out.seconds;
}

static double best_fixed(const struct machine *m, int n, int *length)
{
	double best = 0;

	for (int l = 0; l <= LENGTH_MAX; l++) {
		double rate = rate_with(m, l, n, 7);
		if (rate > best) *length = l;
		best = larger(best, rate);
	}
	return best;
}

static void near_the_best_fixed_length(void **state)
{
	(void)state;
	static const double machines[][5] = {
		/* read, row, draft read, draft row, fixed: memory-bound, balanced, bound by arithmetic, tiny */
		{50e-3, 5e-3, 15e-3, 3e-3, 1e-4},
		{50e-3, 10e-3, 15e-3, 8e-3, 1e-4},
		{10e-3, 10e-3, 8e-3, 8e-3, 1e-4},
		{1e-4, 5e-5, 5e-5, 3e-5, 5e-5},
	};
	static const double acceptances[] = {0.3, 0.7, 0.9, 0.98};
	static const int batches[] = {1, 2, 4, 8, 16, 32};
	for (size_t k = 0; k < sizeof machines / sizeof *machines; k++) {
		for (size_t a = 0; a < sizeof acceptances / sizeof *acceptances; a++) {
			for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
				const double *v = machines[k];
				struct machine m = {v[0], v[1], v[2], v[3], v[4], {0}, 1.0, 0.1};
				for (int i = 0; i < SESSIONS_MAX; i++) m.acceptance[i] = acceptances[a];
				int length = 0;
				double best = best_fixed(&m, batches[b], &length), exact = rate_with(&m, 0, batches[b], 7);
				double got = rate_with(&m, -1, batches[b], 3);
				print_message("machine %zu acceptance %.2f batch %2d: exact 1, best %.3f at %2d, controller %.3f\n", k,
				              acceptances[a], batches[b], best / exact, length, got / exact);
				if (got < 0.95 * best || got < 0.97 * exact) fail_msg("too slow");
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(near_the_best_fixed_length),
	};
	return cmocka_run_group_tests_name("speculation", tests, NULL, NULL);
}
