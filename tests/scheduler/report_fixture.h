/* report_fixture.h - directories of runs and sweeps with numbers that are known, and a look at HTML that forgives nothing. */
#ifndef TESTS_SCHEDULER_REPORT_FIXTURE_H
#define TESTS_SCHEDULER_REPORT_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "scheduler/store/store.h"
#include "tests/scheduler/made_up_trajectory.h"

static inline void write_text_file(const char *dir, const char *name, const char *text)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static inline char *read_text_file(const char *path)
{
	char *text = NULL;
	size_t capacity = 0;
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	assert_true(getdelim(&text, &capacity, '\0', f) > 0);
	fclose(f);
	return text;
}

/* Groups of 4 delivered samples: lengths 1 to 32 over 8 groups and again, rewards 0 and 1, advantages -1 and 1. */
static inline void write_store(const char *dir, int groups)
{
	const int32_t prompt[] = {1, 2, 3};
	struct store *store;
	struct err err;

	assert_int_equal(store_open(&store, dir, "r", "", &err), 0);
	for (int g = 1; g <= groups; g++) {
		assert_int_equal(store_put_group(store, (uint64_t)g, "p", 0, 4, false, (uint64_t)g, &err), 0);
		for (int sample = 0; sample < 4; sample++) {
			struct trajectory *t = trajectory_new(prompt, 3, 64);
			t->group_id = (uint64_t)g;
			t->sample = sample;
			t->id = trajectory_id(t->group_id, sample);
			t->group_size = 4;
			t->prompt_id = made_up_text("p");
			for (int i = 0; i < 4 * ((g - 1) % 8) + sample + 1; i++) trajectory_append(t, i, -0.5f, 0, 1, 0);
			t->finish = sample == 3 ? FINISH_LENGTH : FINISH_STOP;
			t->has_reward = t->has_advantage = true;
			t->reward = t->reward_answer = sample % 2;
			t->advantage = sample % 2 ? 1 : -1;
			t->staleness_max = sample == 0;
			assert_int_equal(store_put_trajectory(store, t, STORE_DELIVERED, &err), 0);
			trajectory_free(t);
		}
	}
	assert_int_equal(store_close(store, &err), 0);
}

/* A line of a step: rewards rise from 0.1 to 0.1 * n. */
static inline void write_step(FILE *f, int step)
{
	fprintf(f, "{\"step\":%d,\"version\":%d,\"reward/mean\":%.2f,\"reward/pass_rate\":%.2f,\"rollout/response_len/mean\":16.5,"
	        "\"rollout/response_len/median\":16,\"rollout/response_len/p90\":29,\"rollout/response_len/max\":32,"
	        "\"rollout/truncated_ratio\":0.25,\"rollout/trajectories\":4,\"rollout/sd/acceptance_rate\":0.75,"
	        "\"rollout/sd/total_draft_tokens\":400,\"rollout/sd/total_accepted_tokens\":300,\"rollout/sd/draft_length/mean\":2,"
	        "\"rollout/sd/drafted_by_position\":[200,200],\"rollout/sd/accepted_by_position\":[180,120],"
	        "\"rollout/sd/acceptance_by_position\":[0.9,0.6],\"rollout/tokens\":1000,\"perf/tokens_per_sec\":500,"
	        "\"perf/rollout_time\":2,\"timing_s/train\":1,\"timing_s/update_weights\":0.1,\"timing_s/prefill\":0.5,"
	        "\"timing_s/draft\":0.25,\"timing_s/verify\":1,\"timing_s/sample\":0.25,\"timing_s/ranks_total\":4,"
	        "\"timing_s/ranks_wait\":1.5,\"partial/put_aside\":3,\"partial/resumed\":2,\"staleness/mean\":0.25,\"staleness/max\":1,"
	        "\"off_policy_ratio\":0.1,\"advantage/abs_mean\":1,\"advantage/mad_zero_frac\":0.5,\"trainer/loss\":%.2f}\n",
	        step, step - 1, 0.1 * step, 0.05 * step, -0.1 * step);
}

static inline void write_metrics(const char *dir, int steps)
{
	char path[512];
	snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs("{\"step\":0,\"version\":0,\"eval/pass_rate\":0.125,\"eval/samples\":64}\n", f);
	for (int step = 1; step <= steps; step++) write_step(f, step);
	fprintf(f, "{\"step\":%d,\"version\":%d,\"eval/pass_rate\":0.625,\"eval/samples\":64}\n", steps, steps);
	assert_int_equal(fclose(f), 0);
}

/* Two ranks, 20 seconds, steps of 10: rank 1 always at work, rank 2 half of the time. */
static inline void write_timeline(const char *dir)
{
	char path[512];
	snprintf(path, sizeof path, "%s/timeline.jsonl", dir);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	for (int t = 1; t <= 20; t++) {
		int step = (t + 9) / 10;
		if (t % 10 == 1) fprintf(f, "{\"t\":%d,\"step\":%d,\"event\":\"step_begin\",\"version\":0}\n", t - 1, step);
		for (int rank = 1; rank <= 2; rank++)
			fprintf(f, "{\"t\":%d,\"step\":%d,\"rank\":%d,\"state\":\"generating\",\"active\":%d,\"queued\":1,\"tokens\":%d,"
			        "\"drafted_by_position\":[%d,%d],\"accepted_by_position\":[%d,%d],\"draft_length\":1.5,\"version\":0,\"kv_used\":0.25,"
			        "\"seconds\":{\"prefill\":0,\"draft\":0,\"verify\":%g,\"sampling\":0,\"wait\":%g,\"total\":%d}}\n",
			        t, step, rank, 8 / rank, 100 * t, 10 * t, 10 * t, 9 * t, 6 * t, rank == 1 ? t : 0.5 * t, rank == 1 ? 0 : 0.5 * t, t);
		if (t % 10 == 0) fprintf(f, "{\"t\":%d,\"step\":%d,\"event\":\"batch\",\"version\":0}\n", t, step);
	}
	assert_int_equal(fclose(f), 0);
}

static inline void make_run(const char *dir, int steps, const char *name)
{
	char config[512];
	assert_int_equal(mkdir(dir, 0755), 0);
	snprintf(config, sizeof config, "run:\n  dir: \"%s\"\n  name: \"%s\"\n  seed: 7\nrollout:\n  mode: speculative\n  group_size: 4\n", dir, name);
	write_text_file(dir, "config.yaml", config);
	write_metrics(dir, steps);
	write_timeline(dir);
	write_store(dir, 8);
	write_text_file(dir, "summary.json", "{\"status\": \"finished\", \"pass_rate_end\": 0.625, \"steps\": 10, \"seconds\": 20.5}\n");
}

/* ---- HTML ---- */

enum { OPEN_MAX = 64 };

static inline const char *check_attributes(const char *c)
{
	while (*c != '>' && *c != '/') {
		while (*c == ' ' || *c == '\n') c++;
		if (*c == '>' || *c == '/') break;
		size_t n = strcspn(c, "= >/");
		if (c[n] == ' ') n += strspn(c + n, " ");
		if (c[n] != '=') fail_msg("an attribute without a value at %.60s", c);
		c += n + 1;
		c += strspn(c, " ");
		if (*c != '"' && *c != '\'') fail_msg("an attribute without quotes at %.60s", c);
		const char *end = strchr(c + 1, *c), *less = strchr(c, '<');
		if (!end || (less && less < end)) fail_msg("an attribute that does not end at %.60s", c);
		c = end + 1;
	}
	return c;
}

static inline const char *check_entity(const char *c)
{
	static const char *const known[] = { "&amp;", "&lt;", "&gt;", "&quot;", "&#39;" };
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strncmp(c, known[i], strlen(known[i])) == 0) return c + strlen(known[i]);
	fail_msg("an ampersand that is no entity: %.40s", c);
	return NULL;
}

/* Fails unless every element is closed in order, attributes are quoted, and & and < are only what they should be. */
static inline void check_well_formed(const char *html)
{
	char open[OPEN_MAX][32];
	int depth = 0;
	const char *c = strstr(html, "<html");

	assert_true(strncmp(html, "<!DOCTYPE html>", 15) == 0 && c);
	while (*c) {
		if (*c == '&') c = check_entity(c);
		else if (*c != '<') c++;
		else if (c[1] == '/') {
			size_t n = strcspn(c + 2, ">");
			if (depth == 0 || strlen(open[depth - 1]) != n || strncmp(open[depth - 1], c + 2, n) != 0)
				fail_msg("expected </%s>, found %.30s", depth ? open[depth - 1] : "", c);
			depth--;
			c += n + 3;
		} else {
			size_t n = strcspn(c + 1, " \n>/");
			assert_true(n > 0 && n < sizeof open[0] && depth < OPEN_MAX);
			snprintf(open[depth++], sizeof open[0], "%.*s", (int)n, c + 1);
			c = check_attributes(c + 1 + n);
			if (*c == '/') {
				assert_true(c[1] == '>');
				depth--;
				c++;
			}
			c++;
		}
	}
	assert_int_equal(depth, 0);
}

#endif
