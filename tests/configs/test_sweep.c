/* test_sweep.c - `sweep:` and `variants:` of a config file: what they say, every combination, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "configs/sweep.h"

static char path[] = "/tmp/drumroll_test_sweep_XXXXXX";

static int open_scratch(void **state)
{
	(void)state;
	int file = mkstemp(path);
	return file < 0 ? -1 : close(file);
}

static int remove_scratch(void **state)
{
	(void)state;
	return unlink(path);
}

static int read_text(struct sweep *sweep, const char *yaml, struct err *err)
{
	FILE *file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(yaml, 1, strlen(yaml), file), strlen(yaml));
	fclose(file);
	return sweep_read(sweep, path, err);
}

static void refused(const char *yaml, int line, const char *part)
{
	struct sweep sweep;
	struct err err;
	char where[128];

	assert_int_equal(read_text(&sweep, yaml, &err), ERR_CONFIG);
	snprintf(where, sizeof where, "%s:%d: ", path, line);
	if (strncmp(err.text, where, strlen(where)) != 0 || !strstr(err.text, part)) fail_msg("expected \"%s...%s\", found \"%s\"", where, part, err.text);
}

static const char both[] =
	"run: {name: x}\n"
	"sweep:\n"
	"  rollout.mode: [exact, speculative]\n"
	"  speculation.draft_length: [0, 2, 4]\n"
	"variants:\n"
	"  sync: {scheduler.over_sampling: 1}\n"
	"  april: {scheduler.over_sampling: 2, scheduler.partial_rollouts: true}\n";

/* The last axis runs fastest, and a point has the sets of all its values in the order of the axes. */
static void test_product(void **state)
{
	struct sweep sweep;
	struct sweep_points points;
	struct err err;

	(void)state;
	assert_int_equal(read_text(&sweep, both, &err), 0);
	assert_int_equal(sweep_expand(&points, &sweep, "", &err), 0);
	assert_int_equal(points.n, 2 * 3 * 2);
	assert_string_equal(points.items[0].label, "mode=exact, draft_length=0, sync");
	assert_string_equal(points.items[1].label, "mode=exact, draft_length=0, april");
	assert_string_equal(points.items[2].label, "mode=exact, draft_length=2, sync");
	assert_string_equal(points.items[11].label, "mode=speculative, draft_length=4, april");
	assert_int_equal(points.items[11].n_sets, 4);
	assert_string_equal(points.items[11].sets[0], "rollout.mode=speculative");
	assert_string_equal(points.items[11].sets[1], "speculation.draft_length=4");
	assert_string_equal(points.items[11].sets[2], "scheduler.over_sampling=2");
	assert_string_equal(points.items[11].sets[3], "scheduler.partial_rollouts=true");
	for (int i = 0; i < points.n; i++)
		for (int k = 0; k < i; k++) assert_string_not_equal(points.items[i].label, points.items[k].label);
	assert_true(sweep_varies(&sweep, "scheduler.partial_rollouts"));
	assert_false(sweep_varies(&sweep, "scheduler.over"));
	sweep_points_free(&points);
	sweep_free(&sweep);
}

/* A point's baseline has the named values, and its own of every other axis. */
static void test_baselines(void **state)
{
	struct sweep sweep;
	struct sweep_points points;
	struct err err;

	(void)state;
	assert_int_equal(read_text(&sweep, both, &err), 0);
	assert_int_equal(sweep_expand(&points, &sweep, "", &err), 0);
	for (int i = 0; i < points.n; i++) assert_int_equal(points.items[i].baseline, 0);
	sweep_points_free(&points);
	assert_int_equal(sweep_expand(&points, &sweep, "april", &err), 0);
	for (int i = 0; i < points.n; i++) assert_int_equal(points.items[i].baseline, i | 1);
	sweep_points_free(&points);
	assert_int_equal(sweep_expand(&points, &sweep, "mode=speculative, sync", &err), 0);
	for (int i = 0; i < points.n; i++) assert_int_equal(points.items[i].baseline, 6 + i % 6 / 2 * 2);
	sweep_points_free(&points);
	assert_int_equal(sweep_expand(&points, &sweep, "mode=quantized", &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, "mode=quantized"));
	assert_int_equal(sweep_expand(&points, &sweep, "apri", &err), ERR_CONFIG);
	sweep_free(&sweep);
}

static void test_nothing_varied(void **state)
{
	struct sweep sweep;
	struct sweep_points points;
	struct err err;

	(void)state;
	assert_int_equal(read_text(&sweep, "run: {name: x}\n", &err), 0);
	assert_int_equal(sweep_expand(&points, &sweep, "", &err), 0);
	assert_int_equal(points.n, 1);
	assert_string_equal(points.items[0].label, "base");
	assert_int_equal(points.items[0].n_sets, 0);
	sweep_points_free(&points);
	assert_int_equal(sweep_expand(&points, &sweep, "sync", &err), ERR_CONFIG);
	sweep_free(&sweep);
}

static void test_too_many(void **state)
{
	struct sweep sweep;
	struct sweep_points points;
	struct err err;

	(void)state;
	assert_int_equal(read_text(&sweep, "sweep:\n"
	                      "  speculation.draft_length: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
	                      "  rollout.group_size: [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n"
	                      "  run.seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n", &err), 0);
	assert_int_equal(sweep_expand(&points, &sweep, "", &err), ERR_TOO_BIG);
	sweep_free(&sweep);
}

static void test_refusals(void **state)
{
	(void)state;
	refused("sweep:\n  rollout.mod: [exact]\n", 2, "the nearest known one is \"rollout.mode\"");
	refused("sweep:\n  temperature: [1]\n", 2, "unknown key \"temperature\"");
	refused("sweep:\n  rollout.mode: exact\n", 2, "expected a list of values");
	refused("sweep:\n  rollout.mode: []\n", 2, "expected a list of values");
	refused("sweep:\n  rollout.mode: [exact, exact]\n", 2, "\"mode=exact\" is given twice");
	refused("sweep:\n  rollout.mode: [exact]\n  rollout.mode: [speculative]\n", 3, "given twice");
	refused("sweep:\n  rollout.mode:\n  - exact\n  - slow\n", 4, "rollout.mode: expected");
	refused("sweep:\n  rollout.temperature: [1, nan]\n", 2, "rollout.temperature: expected");
	refused("sweep:\n  rollout.temperature: [[1]]\n", 2, "no single value");
	refused("sweep: [1]\n", 1, "expected indented lines");
	refused("sweep:\n  run.dir: [a, b]\n", 2, "every run of a sweep gets its own");
	refused("sweep:\n  throughput.metric: [tokens, seconds]\n", 2, "the sweep as a whole");
	refused("variants:\n  a: {rollout.mode: [exact]}\n", 2, "no single value");
	refused("variants:\n  a: {rollout.mode: exact}\n  a: {rollout.mode: exact}\n", 3, "\"a\" is given twice");
	refused("variants:\n  a: exact\n", 2, "{} for the config as it is");
	refused("variants:\n  a, b: {}\n", 2, "without commas");
	refused("variants: {}\n", 1, "expected indented names");
	refused("sweep:\n  rollout.mode: [exact]\nvariants:\n  a: {rollout.mode: exact}\n", 4, "vary it in one place");
	refused("variants:\n  a: {rollout.mode: exact, rollout.mode: exact}\n", 2, "given twice");
}

/* A run of the file takes the rest of it; what is wrong there is still found, on its line. */
static void test_rest_loads(void **state)
{
	struct config config;
	struct sweep sweep;
	struct err err;

	(void)state;
	assert_int_equal(read_text(&sweep, both, &err), 0);
	sweep_free(&sweep);
	assert_int_equal(config_load(&config, path, NULL, 0, &err), 0);
	assert_string_equal(config.run.name, "x");
	assert_int_equal(config.speculation.draft_length, 0);
	config_free(&config);
	assert_int_equal(read_text(&sweep, "sweep: {run.steps: [1, {a: [b]}]}\n\nrun: {step: 3}\n", &err), ERR_CONFIG);
	assert_int_equal(config_load(&config, path, NULL, 0, &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, ":3: unknown key \"run.step\""));
	assert_int_equal(read_text(&sweep, "variants:\n  a: &a {run.steps: 1}\n  b: *a\n", &err), 0);
	sweep_free(&sweep);
	assert_int_equal(config_load(&config, path, NULL, 0, &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, ":3: expected a value, found an alias"));
	assert_int_equal(read_text(&sweep, "sweep: {run.steps: [1]}\nsweep: {run.seed: [1]}\n", &err), 0);
	sweep_free(&sweep);
	assert_int_equal(config_load(&config, path, NULL, 0, &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, ":2: section sweep is opened twice"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_product), cmocka_unit_test(test_baselines), cmocka_unit_test(test_nothing_varied),
		cmocka_unit_test(test_too_many), cmocka_unit_test(test_refusals), cmocka_unit_test(test_rest_loads),
	};
	return cmocka_run_group_tests(tests, open_scratch, remove_scratch);
}
