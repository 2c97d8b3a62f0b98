/* test_run_status.c - a run's state as JSON and as Prometheus text, line by line, and as the screen of `drumroll top`. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "scheduler/status/run_status.h"
#include "scheduler/status/top_view.h"

enum { RANKS = 3 };

static struct rank_status ranks[RANKS];

static struct run_status some_status(void)
{
	for (int i = 0; i < RANKS; i++)
		ranks[i] = (struct rank_status){ .rank = i + 1, .state = i == 2 ? SHOWN_LOST : SHOWN_GENERATING, .holding = 9, .losses = i == 2,
			.tokens_per_sec = 100 * (i + 1), .acceptance = i == 0 ? -1 : 0.75, .draft_length = 2.5,
			.sums = { .engine = { .tokens = 1000, .drafted = 30, .accepted = 20, .active = 6, .queued = 3, .kv_pages_used = 1,
			                      .kv_pages_max = 4, .drafted_by_position = { 20, 10 }, .accepted_by_position = { 15, 5 },
			                      .verify_seconds = 1.5 }, .wait_seconds = 1, .seconds = 4, .version = 7 } };
	return (struct run_status){ .name = "a \"quoted\\\" run\n", .id = "run-1", .dir = "runs/run", .state = "running", .phase = "rollouts",
		.mode = "speculative", .time = 1795297650.25, .interval = 1, .seconds = 61, .eta_seconds = -1, .step = 5, .steps = 12, .version = 7,
		.groups_wanted = 16, .counts = { .groups_open = 4, .aside = 11, .leased = 18 }, .trainer = "external", .trainer_connected = true,
		.batches_out = 1, .trainer_seconds = 2.5, .eval_pass_rate = 0.25, .ranks = ranks, .n_ranks = RANKS,
		.last_step = "{\"step\":4,\"version\":6,\"reward/mean\":0.5,\"perf/tokens_per_sec\":1234.5,\"staleness/mean\":0.25,\"staleness/max\":2,"
		             "\"timing_s/ranks_total\":3,\"rollout/sd/acceptance_by_position\":[0.75,0.5],\"rollout/sd/drafted_by_position\":[]}" };
}

static void test_json(void **state)
{
	(void)state;
	struct run_status s = some_status();
	char *text = run_status_json(&s);

	assert_null(strchr(text, '\n'));
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, "run")), s.name);
	assert_float_equal(json_number_value(json_object_get(o, "time")), s.time, 0.01);
	assert_float_equal(json_number_value(json_object_get(o, "tokens_per_sec")), 600, 1e-6);
	assert_true(json_is_null(json_object_get(o, "eta_seconds")));
	assert_int_equal(json_integer_value(json_array_get(json_object_get(o, "drafted_by_position"), 1)), 30);
	const json_t *rank = json_array_get(json_object_get(o, "ranks"), 2);
	assert_string_equal(json_string_value(json_object_get(rank, "state")), "lost");
	assert_float_equal(json_number_value(json_object_get(rank, "kv_used")), 0.25, 1e-9);
	assert_float_equal(json_number_value(json_object_get(json_object_get(rank, "seconds"), "verify")), 1.5, 1e-9);
	assert_float_equal(json_number_value(json_object_get(json_object_get(o, "last_step"), "reward/mean")), 0.5, 1e-9);
	json_decref(o);
	free(text);
}

static bool is_name(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:", text[i]) && !(i > 0 && text[i] >= '0' && text[i] <= '9'))
			return false;
	return n > 0;
}

/* Text format 0.0.4: HELP, TYPE, then samples of that name; every name once; the last line ends. */
static void check_prometheus(const char *text)
{
	static char names[256][128];
	char line[1024], name[128] = "";
	int n_names = 0;
	bool counter = false, typed = false;

	assert_int_equal(text[strlen(text) - 1], '\n');
	while (*text) {
		size_t n = strcspn(text, "\n");
		assert_true(n > 0 && n < sizeof line);
		memcpy(line, text, n);
		line[n] = '\0';
		text += n + 1;
		if (strncmp(line, "# HELP ", 7) == 0) {
			assert_int_equal(sscanf(line, "# HELP %127s ", name), 1);
			assert_true(is_name(name, strlen(name)));
			for (int i = 0; i < n_names; i++) assert_string_not_equal(names[i], name);
			strcpy(names[n_names++], name);
			typed = false;
			continue;
		}
		size_t n_name = strlen(name);
		if (strncmp(line, "# TYPE ", 7) == 0) {
			assert_int_equal(strncmp(line + 7, name, n_name), 0);
			counter = strcmp(line + 7 + n_name, " counter") == 0;
			assert_true(counter || strcmp(line + 7 + n_name, " gauge") == 0);
			assert_int_equal(counter, n_name > 6 && strcmp(name + n_name - 6, "_total") == 0);
			typed = true;
			continue;
		}
		assert_true(typed && strncmp(line, name, n_name) == 0 && (line[n_name] == ' ' || line[n_name] == '{'));
		const char *value = strrchr(line, ' ');
		char *end;
		if (line[n_name] == '{') assert_int_equal(value[-1], '}');
		else assert_ptr_equal(value, line + n_name);
		double number = strtod(value + 1, &end);
		assert_true(*end == '\0' && end > value + 1);
		if (counter) assert_true(number >= 0);
	}
	assert_true(n_names > 30);
}

static void test_prometheus(void **state)
{
	(void)state;
	struct run_status s = some_status();
	char *text = run_status_prometheus(&s);

	check_prometheus(text);
	static const char *const lines[] = {
		"drumroll_run_info{name=\"a \\\"quoted\\\\\\\" run\\n\",id=\"run-1\",mode=\"speculative\",trainer=\"external\",state=\"running\",phase=\"rollouts\"} 1\n",
		"# TYPE drumroll_reward_mean gauge\ndrumroll_reward_mean 0.5\n",
		"drumroll_perf_tokens_per_sec 1234.5\n",
		"drumroll_rollout_sd_acceptance_by_position{position=\"2\"} 0.5\n",
		"drumroll_rank_tokens_total{rank=\"3\"} 1000\n",
		"drumroll_rank_up{rank=\"3\"} 0\n",
		"drumroll_rank_seconds_total{rank=\"1\",kind=\"verify\"} 1.5\n",
		"# TYPE drumroll_drafted_tokens_total counter\ndrumroll_drafted_tokens_total{position=\"1\"} 60\n",
		"drumroll_run_samples{state=\"aside\"} 11\n",
	};
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		if (!strstr(text, lines[i])) fail_msg("no line %s", lines[i]);
	free(text);
	s.last_step = NULL; /* before the first step */
	s.n_ranks = 0;
	text = run_status_prometheus(&s);
	check_prometheus(text);
	free(text);
}

/* Draws, and checks that the screen holds it. */
static char *drawn(const struct run_status *s, struct top_screen *screen)
{
	char *json = run_status_json(s), *text;
	struct err err;
	int lines = 1, column = 0;

	assert_int_equal(top_view_draw(json, screen, &text, &err), 0);
	free(json);
	for (const char *p = text; *p; p++) {
		if (*p == '\033' && screen->colour) {
			while (*p != 'm') p++;
			continue;
		}
		assert_true(*p == '\n' || (*p >= 0x20 && *p < 0x7f));
		column = *p == '\n' ? 0 : column + 1;
		lines += *p == '\n';
		assert_true(column <= (screen->width > TOP_WIDTH_MIN ? screen->width : TOP_WIDTH_MIN));
	}
	assert_true(lines <= screen->height);
	return text;
}

static void test_screen(void **state)
{
	(void)state;
	struct run_status s = some_status();
	struct top_screen screen = { .width = 80, .height = 24, .time = s.time + 1 };
	char *text = drawn(&s, &screen);

	static const char *const parts[] = { "rollouts", "step 5/12", "ETA -", "version 7", "reward 0.500", "held out 25.0 %", "11 aside",
	                                     "staleness 0.25 mean 2 max", "lag 1 batch ", "trainer external", "q quit",
	                                     "    2  generating      6      3       200    0.750   2.50       7  25.0%    75%",
	                                     "    3  lost " };
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (!strstr(text, parts[i])) fail_msg("no '%s' in\n%s", parts[i], text);
	assert_null(strchr(text, '\033')); /* no colours unless asked for */
	free(text);
	screen.time += 60;
	text = drawn(&s, &screen);
	assert_non_null(strstr(text, "no news for 1m01s"));
	free(text);
	screen.colour = true;
	text = drawn(&s, &screen);
	assert_non_null(strstr(text, "\033["));
	free(text);
	s.state = "finished";
	text = drawn(&s, &screen);
	assert_non_null(strstr(text, "finished"));
	assert_null(strstr(text, "no news"));
	free(text);
}

static void test_screen_of_any_size(void **state)
{
	(void)state;
	struct run_status s = some_status();

	for (int width = 1; width < 300; width += 13)
		for (int height = 1; height < 40; height++) {
			struct top_screen screen = { .width = width, .height = height, .colour = height % 2, .time = s.time, .first_rank = height - 5 };
			free(drawn(&s, &screen));
		}
}

/* 500 ranks on a small screen: arrows reach them all, and not beyond. */
static void test_many_ranks(void **state)
{
	(void)state;
	enum { MANY = 500 };
	struct run_status s = some_status();
	struct rank_status *many = calloc(MANY, sizeof *many);
	struct top_screen screen = { .width = 80, .height = 24, .time = s.time, .first_rank = 100000 };

	for (int i = 0; i < MANY; i++) many[i] = (struct rank_status){ .rank = i + 1, .acceptance = -1 };
	s.ranks = many;
	s.n_ranks = MANY;
	char *text = drawn(&s, &screen);
	assert_non_null(strstr(text, "\n  500  idle"));
	assert_non_null(strstr(text, "to 500 of 500"));
	free(text);
	screen.first_rank = -3;
	text = drawn(&s, &screen);
	assert_non_null(strstr(text, "\n    1  idle"));
	assert_int_equal(screen.first_rank, 0);
	free(text);
	free(many);
}

static void test_odd_states(void **state)
{
	(void)state;
	static const char *const odd[] = { "{}", "{\"ranks\":[1,{},{\"rank\":\"x\"}],\"state\":7}", "{\"run\":\"\\u001b[31mred\\u0007\\u00e4\"}",
	                                   "{\"seconds\":1e300,\"eta_seconds\":-5,\"step\":1e18,\"steps\":2}" };
	struct top_screen screen = { .width = 80, .height = 24 };
	struct err err;
	char *text;

	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
		assert_int_equal(top_view_draw(odd[i], &screen, &text, &err), 0);
		assert_null(strchr(text, '\033'));
		assert_null(strchr(text, '\007'));
		free(text);
		assert_false(top_view_is_over("rubbish"));
	}
	assert_int_equal(top_view_draw("[1]", &screen, &text, &err), ERR_INVALID);
	assert_int_equal(top_view_draw("", &screen, &text, &err), ERR_INVALID);
	assert_true(top_view_is_over("{\"state\":\"failed\"}"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_prometheus),
		cmocka_unit_test(test_screen),
		cmocka_unit_test(test_screen_of_any_size),
		cmocka_unit_test(test_many_ranks),
		cmocka_unit_test(test_odd_states),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
