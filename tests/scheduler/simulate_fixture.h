/* simulate_fixture.h - a mode of `drumroll simulate` run from a test, every invariant checked after every event. */
#ifndef TESTS_SCHEDULER_SIMULATE_FIXTURE_H
#define TESTS_SCHEDULER_SIMULATE_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/simulate/simulate.h"

/* Latency 0.5 s, a round 0.25 s + 0.125 s a row, no attention, prefill as a row; fixed lengths of 100; groups of 4
 * of the plain estimator; no trainer.  All are sums of powers of two: sums are exact. */
static const char *const plain[] = {
	"advantage.estimator=grpo", "rollout.group_size=4", "rollout.max_tokens=1000", "scheduler.groups_per_step=2",
	"scheduler.rank_backlog=64", "worker.max_active=1", "worker.prefill_chunk=64", "trainer.kind=none",
	"simulate.workers=1", "simulate.steps=1", "simulate.warmup=0", "simulate.prompt_tokens=1",
	"simulate.length_mean=100", "simulate.length_sigma=0", "simulate.read_seconds=0.25",
	"simulate.row_seconds=0.125", "simulate.position_seconds=0", "simulate.latency_seconds=0.5",
	"simulate.controller_seconds=0",
};

struct world {
	struct config config;
	struct speculation_costs calls;
	struct simulate_lengths *lengths;
};

static void must(int rc, const struct err *err)
{
	if (rc) fail_msg("%s", err->text);
}

static void set_all(struct config *config, const char *const *sets, int n)
{
	struct err err;
	for (int i = 0; i < n; i++) must(config_set(config, sets[i], &err), &err);
}

static void world_open(struct world *w, const char *const *sets, int n)
{
	struct err err;
	config_defaults(&w->config);
	set_all(&w->config, plain, sizeof plain / sizeof *plain);
	set_all(&w->config, sets, n);
	simulate_costs_invent(&w->calls, &w->config.simulate);
	must(simulate_lengths_open(&w->lengths, &w->config, &err), &err);
}

static void world_close(struct world *w)
{
	simulate_lengths_close(w->lengths);
	config_free(&w->config);
}

static const struct simulate_mode *mode_of(const char *name)
{
	for (int i = 0; i < simulate_modes_n; i++)
		if (strcmp(simulate_modes[i].name, name) == 0) return &simulate_modes[i];
	fail_msg("no mode %s", name);
	return NULL;
}

static struct simulate_metrics run(const char *mode, const char *const *sets, int n)
{
	struct world w;
	struct simulate_metrics metrics;
	struct err err;

	world_open(&w, sets, n);
	struct simulate_inputs in = {.config = &w.config, .lengths = w.lengths, .costs = &w.calls, .check = true};
	must(simulate_run(&metrics, &in, mode_of(mode), &err), &err);
	world_close(&w);
	return metrics;
}

#define RUN(mode, ...) run(mode, (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* Sums of many roundings. */
#define assert_near(found, expected) \
	do { \
		if (fabs((found) - (expected)) > 1e-9 * fabs(expected)) fail_msg(#found " is %.12g, expected %.12g", (found), (double)(expected)); \
	} while (0)

/* Eight ranks, lengths far apart, all sums inexact. */
#define LONG_TAIL "simulate.workers=8", "worker.max_active=4", "scheduler.rank_backlog=2", "scheduler.groups_per_step=8", \
	"simulate.steps=24", "simulate.warmup=4", "simulate.length_mean=80", "simulate.length_sigma=1.4", "rollout.max_tokens=2000", \
	"simulate.latency_seconds=0.01", "simulate.read_seconds=0.5", "simulate.row_seconds=0.01", "trainer.kind=external", \
	"simulate.prompt_tokens=20", "scheduler.over_sampling=2"

#endif
