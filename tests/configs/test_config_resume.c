/* test_config_resume.c - what a run that is resumed may change, and why not the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "configs/config.h"

static int change(const char *before_set, const char *now_set, struct err *err)
{
	struct config before, now;
	const char *const sets[] = { before_set, now_set };
	assert_int_equal(config_load(&before, NULL, sets, 1, err), 0);
	assert_int_equal(config_load(&now, NULL, sets, 2, err), 0);
	int rc = config_check_resume(&before, &now, err);
	config_free(&before);
	config_free(&now);
	return rc;
}

static void test_what_may_change(void **state)
{
	(void)state;
	static const char *const sets[] = {
		"run.steps=9", "run.dir=elsewhere", "run.commit_seconds=5", "run.durability=power", "run.keep_weights=3",
		"data.eval_prompts=more.jsonl", "rollout.mode=exact", "speculation.drafter=suffix", "speculation.format=int4",
		"worker.threads=7", "worker.kv_memory_mb=9", "advantage.clamp=2", "scheduler.groups_per_step=3",
		"scheduler.asynchrony=async", "bridge.listen=tcp:127.0.0.1:0", "trainer.learning_rate=0.5", "trainer.kind=external",
		"data.source=both" };
	struct err err;
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
		if (change("run.name=a", sets[i], &err)) fail_msg("%s: %s", sets[i], err.text);
}

static void test_what_may_not(void **state)
{
	(void)state;
	static const char *const sets[][2] = {
		{ "run.seed=2", "run.seed: the run that is resumed has \"1\" and cannot change to \"2\": it is the key" },
		{ "run.name=b", "part of every trajectory" }, { "run.durability=off", "would not fit" },
		{ "model.path=m", "versions are counted from it" }, { "data.prompts=p", "at a place in them" },
		{ "data.shuffle=false", "which prompt comes next" }, { "rollout.temperature=0.5", "drawn alike" },
		{ "rollout.max_tokens=5", "drawn alike" }, { "rollout.mode=quantized", "drawn alike" },
		{ "speculation.coupling=maximal", "decides what is drawn" }, { "worker.kv_format=bf16", "last bits" },
		{ "reward.tolerance=1", "judged alike" }, { "advantage.estimator=grpo", "how many samples" },
		{ "allocation.budget=9", "how many samples" }, { "data.source=trainer", "half done" },
		{ "trainer.kind=none", "between it and its trainer" } };
	struct err err;
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
		assert_int_equal(change("run.name=a", sets[i][0], &err), ERR_CONFIG);
		if (!strstr(err.text, sets[i][1])) fail_msg("%s: expected \"%s\", found \"%s\"", sets[i][0], sets[i][1], err.text);
	}
	/* Where the quantized copy draws, its format is part of that. */
	assert_int_equal(change("rollout.mode=quantized", "speculation.format=int4", &err), ERR_CONFIG);
	assert_int_equal(change("rollout.mode=quantized", "rollout.mode=exact", &err), ERR_CONFIG);
	assert_int_equal(change("rollout.mode=exact", "rollout.mode=speculative", &err), 0);
	assert_int_equal(change("run.durability=off", "run.durability=power", &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, "nothing was stored"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_may_change),
		cmocka_unit_test(test_what_may_not),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
