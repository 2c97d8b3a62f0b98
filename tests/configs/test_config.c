/* test_config.c - loading, refusing and printing configs; error texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "configs/option_table.h"

static char scratch_path[] = "/tmp/drumroll_test_config_XXXXXX";

static int open_scratch(void **state)
{
	(void)state;
	int file = mkstemp(scratch_path);
	return file < 0 ? -1 : close(file);
}

static int remove_scratch(void **state)
{
	(void)state;
	return unlink(scratch_path);
}

static void write_scratch(const char *bytes, size_t n)
{
	FILE *file = fopen(scratch_path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, n, file), n);
	fclose(file);
}

static int load(struct config *config, const char *yaml, struct err *err)
{
	write_scratch(yaml, strlen(yaml));
	return config_load(config, scratch_path, NULL, 0, err);
}

static void assert_contains(const char *text, const char *part)
{
	if (!strstr(text, part)) fail_msg("expected \"%s\" in \"%s\"", part, text);
}

static char *printed(const struct config *config, bool annotated)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	config_print(config, out, annotated);
	fclose(out);
	return text;
}

static void assert_same_values(const struct config *a, const struct config *b)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		char x[OPTION_VALUE_MAX], y[OPTION_VALUE_MAX];
		assert_string_equal(option_format(&option_table[i], a, x), option_format(&option_table[i], b, y));
	}
}

static void test_defaults_are_within_their_bounds(void **state)
{
	(void)state;
	struct config config, again;
	struct err err;
	config_defaults(&config);
	config_defaults(&again);
	for (int i = 0; i < OPTION_COUNT; i++) {
		char buffer[OPTION_VALUE_MAX];
		const char *text = option_format(&option_table[i], &config, buffer);
		if (option_parse(&option_table[i], text, &again, &err)) fail_msg("%s", err.text);
		assert_true(strlen(option_table[i].help) > 3);
	}
	assert_same_values(&config, &again);
	config_free(&config);
	config_free(&again);
}

static void test_file_goes_over_defaults(void **state)
{
	(void)state;
	struct config config;
	struct err err;
	assert_int_equal(load(&config,
	                      "rollout: {mode: exact, temperature: 0.75}\n"
	                      "run:\n  steps: 12 # a comment\n  name: \"two words\"\n"
	                      "data:\n  shuffle: false\n  template: |-\n    Q: {prompt}\n    A:\n",
	                      &err), 0);
	assert_int_equal(config.rollout.mode, ROLLOUT_EXACT);
	assert_true(config.rollout.temperature == 0.75);
	assert_int_equal(config.run.steps, 12);
	assert_string_equal(config.run.name, "two words");
	assert_false(config.data.shuffle);
	assert_string_equal(config.data.template, "Q: {prompt}\nA:");
	assert_int_equal(config.rollout.group_size, 8);
	assert_int_equal(config.rollout.max_tokens, 128);
	config_free(&config);
}

static void test_no_file_and_empty_mapping_are_the_defaults(void **state)
{
	(void)state;
	struct config defaults, config;
	struct err err;
	config_defaults(&defaults);
	assert_int_equal(config_load(&config, NULL, NULL, 0, &err), 0);
	assert_same_values(&config, &defaults);
	config_free(&config);
	assert_int_equal(load(&config, "{}\n", &err), 0);
	assert_same_values(&config, &defaults);
	config_free(&config);
	config_free(&defaults);
}

static void test_sets_go_over_the_file_in_order(void **state)
{
	(void)state;
	const char *const sets[] = { "run.steps=5", "run.steps=6", "rollout.stop=", "run.name=a=b.c" };
	struct config config;
	struct err err;
	write_scratch("run: {steps: 4}\n", 16);
	assert_int_equal(config_load(&config, scratch_path, sets, 4, &err), 0);
	assert_int_equal(config.run.steps, 6);
	assert_string_equal(config.rollout.stop, "");
	assert_string_equal(config.run.name, "a=b.c");
	config_free(&config);
}

static void test_choices_have_the_order_of_their_enums(void **state)
{
	(void)state;
	static const struct { const char *set; size_t offset; int value; } cases[] = {
		{ "rollout.mode=speculative", offsetof(struct config, rollout.mode), ROLLOUT_SPECULATIVE },
		{ "rollout.mode=exact", offsetof(struct config, rollout.mode), ROLLOUT_EXACT },
		{ "rollout.mode=quantized", offsetof(struct config, rollout.mode), ROLLOUT_QUANTIZED },
		{ "speculation.head_format=int4", offsetof(struct config, speculation.head_format), DRAFT_HEAD_FORMATS },
		{ "reward.kind=exact", offsetof(struct config, reward.kind), REWARD_EXACT },
		{ "reward.kind=numeric", offsetof(struct config, reward.kind), REWARD_NUMERIC },
		{ "reward.kind=math", offsetof(struct config, reward.kind), REWARD_MATH },
		{ "reward.kind=countdown", offsetof(struct config, reward.kind), REWARD_COUNTDOWN },
		{ "reward.kind=contains", offsetof(struct config, reward.kind), REWARD_CONTAINS },
		{ "reward.kind=length", offsetof(struct config, reward.kind), REWARD_LENGTH },
		{ "reward.kind=program", offsetof(struct config, reward.kind), REWARD_PROGRAM },
		{ "reward.kind=regex", offsetof(struct config, reward.kind), REWARD_REGEX },
		{ "reward.kind=steps", offsetof(struct config, reward.kind), REWARD_STEPS },
		{ "reward.kind=none", offsetof(struct config, reward.kind), REWARD_NONE },
		{ "advantage.estimator=mc_grpo", offsetof(struct config, advantage.estimator), ADVANTAGE_MC_GRPO },
		{ "advantage.estimator=grpo", offsetof(struct config, advantage.estimator), ADVANTAGE_GRPO },
		{ "advantage.estimator=dr_grpo", offsetof(struct config, advantage.estimator), ADVANTAGE_DR_GRPO },
		{ "advantage.estimator=rloo", offsetof(struct config, advantage.estimator), ADVANTAGE_RLOO },
		{ "advantage.scale=auto", offsetof(struct config, advantage.scale), SCALE_AUTO },
		{ "advantage.scale=mad", offsetof(struct config, advantage.scale), SCALE_MAD },
		{ "advantage.scale=std", offsetof(struct config, advantage.scale), SCALE_STD },
		{ "advantage.scale=none", offsetof(struct config, advantage.scale), SCALE_NONE },
		{ "trainer.kind=reference", offsetof(struct config, trainer.kind), TRAINER_REFERENCE },
		{ "trainer.kind=external", offsetof(struct config, trainer.kind), TRAINER_EXTERNAL },
		{ "trainer.kind=none", offsetof(struct config, trainer.kind), TRAINER_NONE },
		{ "trainer.kind=simulated", offsetof(struct config, trainer.kind), TRAINER_SIMULATED },
	};
	struct config config;
	struct err err;
	config_defaults(&config);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(config_set(&config, cases[i].set, &err), 0);
		assert_int_equal(*(const int *)((const char *)&config + cases[i].offset), cases[i].value);
	}
	config_free(&config);
}

struct refusal {
	const char *yaml;
	const char *where; /* what stands behind the path */
	const char *what;  /* part of the message */
};

static void test_bad_files_are_refused_with_their_line(void **state)
{
	(void)state;
	static const struct refusal refusals[] = {
		{ "", " is empty", "--default" },
		{ "# only a comment\n", " is empty", "--default" },
		{ "---\n", ":2:", "expected sections" },
		{ "- run\n", ":1:", "found a list" },
		{ "run:\n  stesp: 3\n", ":2:", "unknown key \"run.stesp\"; the nearest known one is \"run.steps\"" },
		{ "\nrollout:\n\n  temprature: 3\n", ":4:", "the nearest known one is \"rollout.temperature\"" },
		{ "run:\n  threads: 3\n", ":2:", "the nearest known one is \"worker.threads\"" },
		{ "rolout:\n  top_k: 3\n", ":1:", "unknown section \"rolout\"; the nearest known one is \"roll" },
		{ "temperature: 1\n", ":1:", "as in \"rollout.temperature\"" },
		{ "run:\n  steps: many\n", ":2:", "expected a whole number from 1 to 1000000000, found \"many\"" },
		{ "run:\n  steps: 1.5\n", ":2:", "found \"1.5\"" },
		{ "run:\n  steps: 0x10\n", ":2:", "found \"0x10\"" },
		{ "run:\n  steps: 0\n", ":2:", "found \"0\"" },
		{ "run:\n  steps: 99999999999999999999\n", ":2:", "found \"99999999999999999999\"" },
		{ "run:\n  steps: \"\"\n", ":2:", "found \"\"" },
		{ "run:\n  steps: \" 3\"\n", ":2:", "found \" 3\"" },
		{ "rollout:\n  temperature: nan\n", ":2:", "expected a number from 0 to 100, found \"nan\"" },
		{ "rollout:\n  temperature: .nan\n", ":2:", "found \".nan\"" },
		{ "rollout:\n  temperature: .inf\n", ":2:", "found \".inf\"" },
		{ "rollout:\n  temperature: -inf\n", ":2:", "found \"-inf\"" },
		{ "rollout:\n  temperature: 1e999\n", ":2:", "found \"1e999\"" },
		{ "rollout:\n  temperature: -0.001\n", ":2:", "found \"-0.001\"" },
		{ "rollout:\n  temperature: 1,5\n", ":2:", "found \"1,5\"" },
		{ "data:\n  shuffle: yes\n", ":2:", "expected true or false, found \"yes\"" },
		{ "data:\n  shuffle: True\n", ":2:", "expected true or false" },
		{ "rollout:\n  mode: fast\n", ":2:", "expected one of exact|speculative|quantized|explore, found \"fast\"" },
		{ "rollout:\n  mode: exact|speculative\n", ":2:", "expected one of" },
		{ "run:\n  name:\n", ":2:", "run.name has no value" },
		{ "run:\n  name: ~\n", ":2:", "run.name has no value" },
		{ "run:\n  name: [a]\n", ":2:", "found a list" },
		{ "run:\n  name: {a: b}\n", ":2:", "found a mapping" },
		{ "run:\n", ":1:", "section run: expected indented lines" },
		{ "run: 3\n", ":1:", "found a single value" },
		{ "run:\n  steps: 1\n  seed: 2\n  steps: 3\n", ":4:", "run.steps is given twice, first on line 2" },
		{ "run: {steps: 1}\nrun: {seed: 2}\n", ":2:", "section run is opened twice, first on line 1" },
		{ "run: &r\n  steps: *r\n", ":2:", "an alias" },
		{ "run: {steps: 1}\n---\nrun: {steps: 2}\n", ":2:", "a second document" },
		{ "run:\n  steps: 1\n bad\n", ":3:", "not YAML" },
		{ "run:\n\tsteps: 1\n", ":2:", "not YAML" },
		{ "run:\n  name: \"open\n", ":3:", "not YAML" },
		{ "run:\n  name: a\n  dir: \xff\n", ":3:", "not YAML" },
		{ "run:\n  name: \"a\\0b\"\n", ":2:", "zero byte" },
		{ "[[[[[[[[[[[[\n", ":1:", "found a list" },
		{ "? [a]\n: b\n", ":1:", "expected the name of a section" },
	};
	for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
		struct config config;
		struct err err = { 0 };
		int code = load(&config, refusals[i].yaml, &err);
		if (code != ERR_CONFIG) fail_msg("code %d for: %s", code, refusals[i].yaml);
		assert_int_equal(err.code, ERR_CONFIG);
		char where[128];
		snprintf(where, sizeof where, "%s%s", scratch_path, refusals[i].where);
		if (strncmp(err.text, where, strlen(where))) fail_msg("\"%s\" is not before \"%s\"", where, err.text);
		assert_contains(err.text, refusals[i].what);
	}
}

static void test_bad_sets_are_refused(void **state)
{
	(void)state;
	static const struct { const char *set; int code; const char *what; } refusals[] = {
		{ "steps", ERR_USAGE, "expected section.key=value" },
		{ "steps=3", ERR_USAGE, "expected section.key=value" },
		{ "", ERR_USAGE, "expected section.key=value" },
		{ "run.steps", ERR_USAGE, "expected section.key=value" },
		{ "run=a.b", ERR_USAGE, "expected section.key=value" },
		{ "run.stesp=3", ERR_CONFIG, "the nearest known one is \"run.steps\"" },
		{ "nur.steps=3", ERR_CONFIG, "the nearest known one is \"run.steps\"" },
		{ ".=3", ERR_CONFIG, "the nearest known one is" },
		{ "run.steps=", ERR_CONFIG, "run.steps: expected a whole number" },
		{ "run.steps=3 ", ERR_CONFIG, "found \"3 \"" },
		{ "rollout.top_p=nan", ERR_CONFIG, "found \"nan\"" },
		{ "rollout.top_p=0x1p-1", ERR_CONFIG, "found \"0x1p-1\"" },
		{ "rollout.top_p=1.0000001", ERR_CONFIG, "to 1, found" },
		{ "run.name=\xc3\x28", ERR_CONFIG, "UTF-8" },
	};
	struct config config, defaults;
	config_defaults(&config);
	config_defaults(&defaults);
	for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
		struct err err = { 0 };
		assert_int_equal(config_set(&config, refusals[i].set, &err), refusals[i].code);
		assert_contains(err.text, "--set");
		assert_contains(err.text, refusals[i].what);
	}
	assert_same_values(&config, &defaults);
	config_free(&config);
	config_free(&defaults);
}

static void test_unreadable_files_are_refused(void **state)
{
	(void)state;
	struct config config;
	struct err err;
	assert_int_equal(config_load(&config, "/nonexistent/c.yaml", NULL, 0, &err), ERR_MISSING);
	assert_contains(err.text, "/nonexistent/c.yaml");
	assert_int_equal(config_load(&config, "/tmp", NULL, 0, &err), ERR_IO);
	size_t size = (1 << 20) + 1;
	char *spaces = malloc(size);
	memset(spaces, ' ', size);
	write_scratch(spaces, size);
	free(spaces);
	assert_int_equal(config_load(&config, scratch_path, NULL, 0, &err), ERR_TOO_BIG);
	assert_contains(err.text, "1048576");
}

static void test_what_is_printed_loads_back_equal(void **state)
{
	(void)state;
	static const char *const sets[] = {
		"run.name= # \"quoted\" \\ 'single' : {x} ", "rollout.stop=\n\t\r\x01\x7f",
		"run.dir=\xc3\xa9\xe2\x82\xac\xf0\x9f\xa5\x81",
		"data.template=\xc2\x85\xe2\x80\xa8\xef\xbb\xbf\xef\xbf\xbf\n\n x\n",
		"data.prompt_key=null", "data.answer_key=",
		"rollout.temperature=0.1", "rollout.top_p=0.30000000000000004", "trainer.learning_rate=1e-300",
		"run.seed=9007199254740991", "data.shuffle=false", "advantage.estimator=rloo",
		"reward.tolerance=123456.789",
	};
	struct config config, again;
	struct err err;
	if (config_load(&config, NULL, sets, sizeof sets / sizeof sets[0], &err)) fail_msg("%s", err.text);
	for (int annotated = 0; annotated < 2; annotated++) {
		char *yaml = printed(&config, annotated);
		if (load(&again, yaml, &err)) fail_msg("%s", err.text);
		assert_same_values(&config, &again);
		assert_true(again.rollout.top_p == 0.30000000000000004);
		assert_string_equal(again.rollout.stop, "\n\t\r\x01\x7f");
		config_free(&again);
		free(yaml);
	}
	config_free(&config);
}

static void test_annotated_print_explains_every_option(void **state)
{
	(void)state;
	struct config config;
	config_defaults(&config);
	char *yaml = printed(&config, true);
	for (int i = 0; i < OPTION_COUNT; i++) assert_contains(yaml, option_table[i].help);
	assert_contains(yaml, "# a whole number from 1 to 1024; default 8\n  group_size: 8\n");
	assert_contains(yaml, "# one of mc_grpo|grpo|dr_grpo|rloo; default mc_grpo\n");
	free(yaml);
	config_free(&config);
}

/* Every beginning of a good file, and seeded damage to it: an error or a config, never a crash. */
static void test_damaged_files_do_no_harm(void **state)
{
	(void)state;
	struct config config;
	struct err err;
	config_defaults(&config);
	char *yaml = printed(&config, false);
	config_free(&config);
	size_t n = strlen(yaml);
	uint32_t random = 1;
	int refused = 0;
	for (size_t i = 0; i < n; i += 3) {
		write_scratch(yaml, i);
		if (config_load(&config, scratch_path, NULL, 0, &err)) refused++;
		else config_free(&config);
	}
	for (int i = 0; i < 500; i++) {
		random = random * 1664525u + 1013904223u;
		size_t at = (random >> 8) % n;
		char kept = yaml[at];
		random = random * 1664525u + 1013904223u;
		yaml[at] = (char)(random >> 24);
		write_scratch(yaml, n);
		if (config_load(&config, scratch_path, NULL, 0, &err)) refused++;
		else config_free(&config);
		yaml[at] = kept;
	}
	assert_true(refused > 400);
	free(yaml);
}

static void test_nearest_names(void **state)
{
	(void)state;
	static const struct { const char *section, *key, *nearest; } cases[] = {
		{ "run", "sede", "seed" }, { "rollout", "max_token", "max_tokens" }, { "rollout", "topk", "top_k" },
		{ "trainer", "lerning_rate", "learning_rate" }, { "bridge", "listne", "listen" },
		{ "scheduler", "oversampling", "over_sampling" }, { "advantage", "estimater", "estimator" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_string_equal(option_nearest(cases[i].section, cases[i].key)->key, cases[i].nearest);
		assert_string_equal(option_nearest(cases[i].section, cases[i].key)->section, cases[i].section);
	}
	char long_name[5000];
	memset(long_name, 'x', sizeof long_name);
	long_name[sizeof long_name - 1] = '\0';
	assert_non_null(option_nearest(long_name, long_name));
	assert_non_null(option_nearest("", ""));
}

static void test_error_texts(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(err_set(&err, ERR_INVALID, "expected %d\nfound \x1b[31m", 3), ERR_INVALID);
	assert_string_equal(err.text, "expected 3?found ?[31m");
	assert_int_equal(err_context(&err, "file %s", "a"), ERR_INVALID);
	assert_string_equal(err.text, "file a: expected 3?found ?[31m");
	assert_int_equal(err_set(&err, ERR_IO, "again: %s", err.text), ERR_IO);
	assert_string_equal(err.text, "again: file a: expected 3?found ?[31m");
	for (int i = 0; i < 100; i++) err_context(&err, "a context that is long enough to fill the text");
	assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
	assert_string_equal(err_name(ERR_TOO_BIG), "too_big");
	assert_string_equal(err_name(-1000), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_are_within_their_bounds),
		cmocka_unit_test(test_file_goes_over_defaults),
		cmocka_unit_test(test_no_file_and_empty_mapping_are_the_defaults),
		cmocka_unit_test(test_sets_go_over_the_file_in_order),
		cmocka_unit_test(test_choices_have_the_order_of_their_enums),
		cmocka_unit_test(test_bad_files_are_refused_with_their_line),
		cmocka_unit_test(test_bad_sets_are_refused),
		cmocka_unit_test(test_unreadable_files_are_refused),
		cmocka_unit_test(test_what_is_printed_loads_back_equal),
		cmocka_unit_test(test_annotated_print_explains_every_option),
		cmocka_unit_test(test_damaged_files_do_no_harm),
		cmocka_unit_test(test_nearest_names),
		cmocka_unit_test(test_error_texts),
	};
	return cmocka_run_group_tests(tests, open_scratch, remove_scratch);
}
