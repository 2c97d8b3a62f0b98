/* test_cost_file.c - cost tables written, read back, replaced by setup, and refused where they are not ours. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rollout/speculation/cost_file.h"
#include "tests/support/random_model.h"

static char path[] = "/tmp/drumroll-costs-XXXXXX";

static int path_open(void **state)
{
	(void)state;
	int fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int path_close(void **state)
{
	(void)state;
	return unlink(path);
}

static void put_text(const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

/* As the command does: into a file beside, then renamed. */
static int put_costs(const char *setup, const struct speculation_costs *costs, struct err *err)
{
	char beside[sizeof path + 8];
	snprintf(beside, sizeof beside, "%s.part", path);
	FILE *out = fopen(beside, "w");
	assert_non_null(out);
	int rc = cost_file_write(out, path, setup, costs, err);
	assert_int_equal(fclose(out), 0);
	if (rc) unlink(beside);
	else assert_int_equal(rename(beside, path), 0);
	return rc;
}

static struct speculation_costs some_costs(double unit)
{
	struct speculation_costs costs = {.target.per_position = 1e-7 * unit};
	for (int i = 0; i < COST_KNOTS; i += 2) {
		costs.target.seconds[i] = unit * (1 + 0.125 * i);
		costs.target.weight[i] = 3;
		costs.drafters[1].seconds[i] = unit * 0.25;
		costs.drafters[1].weight[i] = 1;
	}
	return costs;
}

/* Six digits are kept. */
static void assert_near(double found, double expected)
{
	assert_true(fabs(found - expected) <= 1e-5 * expected);
}

static void read_back(void **state)
{
	(void)state;
	struct speculation_costs a = some_costs(0.03125), b = some_costs(2), found;
	struct err err;

	put_text("");
	assert_int_equal(put_costs("one", &b, &err), 0);
	assert_int_equal(put_costs("two", &b, &err), 0);
	assert_int_equal(put_costs("one", &a, &err), 0); /* replaces */
	assert_int_equal(cost_file_read(path, "one", &found, &err), 1);
	for (int i = 0; i < COST_KNOTS; i++) {
		assert_near(found.target.seconds[i], a.target.seconds[i]);
		assert_near(found.drafters[1].seconds[i], a.drafters[1].seconds[i]);
		assert_int_equal(found.target.weight[i] > 0, a.target.weight[i] > 0);
	}
	assert_near(found.target.per_position, a.target.per_position);
	assert_false(cost_table_known(&found.drafters[0]));
	assert_int_equal(cost_file_read(path, "two", &found, &err), 1);
	assert_near(found.target.seconds[0], b.target.seconds[0]);
	assert_int_equal(cost_file_read(path, "three", &found, &err), 0);

	/* By a part of the setup, for who plans for another machine. */
	char setup[COST_SETUP_MAX];
	assert_int_equal(cost_file_find(path, "tw", setup, &found, &err), 0);
	assert_string_equal(setup, "two");
	assert_near(found.target.seconds[0], b.target.seconds[0]);
	assert_int_equal(cost_file_find(path, "", setup, &found, &err), 0);
	assert_int_equal(cost_file_find(path, "three", setup, &found, &err), ERR_MISSING);
	assert_non_null(strstr(err.text, "'three'"));
}

static void refused(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"nonsense\n",
		"[1]\n",
		"{\"target\":{}}\n",
		"{\"setup\":\"s\",\"target\":{\"rows\":[1],\"seconds\":[0.5],\"per_position\":0}}\n",
		"{\"setup\":\"s\",\"target\":{\"rows\":[1],\"seconds\":[-0.5],\"per_position\":0},\"drafters\":[]}\n",
		"{\"setup\":\"s\",\"target\":{\"rows\":[9],\"seconds\":[0.5],\"per_position\":0},\"drafters\":[]}\n",
		"{\"setup\":\"s\",\"target\":{\"rows\":[1,2],\"seconds\":[0.5],\"per_position\":0},\"drafters\":[]}\n",
		"{\"setup\":\"s\",\"target\":{\"rows\":[1],\"seconds\":[0.5],\"per_position\":-1},\"drafters\":[]}\n",
		"{\"setup\":\"s\",\"target\":{\"rows\":[1],\"seconds\":[0.5],\"per_position\":0},"
		"\"drafters\":[null,null,null,null,null,null,null,null,null]}\n",
	};
	struct speculation_costs costs;
	struct err err;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		put_text(bad[i]);
		assert_int_equal(cost_file_read(path, "s", &costs, &err), ERR_INVALID);
		assert_non_null(strstr(err.text, "line 1"));
		char setup[COST_SETUP_MAX];
		assert_int_equal(cost_file_find(path, "", setup, &costs, &err), ERR_INVALID);
	}
	put_text("nonsense\n");
	struct speculation_costs some = some_costs(1);
	assert_int_equal(put_costs("s", &some, &err), ERR_INVALID);
	assert_int_equal(cost_file_read("/nowhere/costs.jsonl", "s", &costs, &err), ERR_IO);
	assert_non_null(strstr(err.text, "drumroll calibrate"));
}

/* Whatever changes what calls cost changes the setup. */
static void setups_differ(void **state)
{
	(void)state;
	static const struct draft_options drafts[] = {
		{.format = FORMAT_INT4, .head_format = FORMAT_INT4}, {.format = FORMAT_INT8, .head_format = FORMAT_INT8},
		{.format = FORMAT_INT8, .head_format = FORMAT_INT8, .choose = true},
		{.format = FORMAT_INT8, .head_format = FORMAT_BF16},
		{.format = FORMAT_INT8, .head_format = FORMAT_INT8, .fp32_activations = true},
	};
	enum { DRAFTS = sizeof drafts / sizeof *drafts };
	struct model_config config = random_model_config(32, 2, 2, 1, 64, 61, 64);
	char setups[DRAFTS + 3][COST_SETUP_MAX];
	struct weights weights;
	struct policy *policy = NULL;
	struct err err;

	random_model(&weights, &config, 1);
	for (int i = 0; i < DRAFTS; i++) {
		policy_free(policy);
		assert_int_equal(policy_create(&policy, &weights, 0, &drafts[i], 1, &err), 0);
		cost_setup_describe(setups[i], "some CPU", 1, policy, KV_F32);
	}
	cost_setup_describe(setups[DRAFTS], "other CPU", 1, policy, KV_F32);
	cost_setup_describe(setups[DRAFTS + 1], "some CPU", 2, policy, KV_F32);
	cost_setup_describe(setups[DRAFTS + 2], "some CPU", 1, policy, KV_BF16);
	for (int i = 0; i < DRAFTS + 3; i++)
		for (int j = 0; j < i; j++) assert_string_not_equal(setups[i], setups[j]);
	policy_free(policy);
	weights_free(&weights);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_back), cmocka_unit_test(refused), cmocka_unit_test(setups_differ),
	};
	return cmocka_run_group_tests(tests, path_open, path_close);
}
