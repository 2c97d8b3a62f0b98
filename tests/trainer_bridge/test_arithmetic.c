/* test_arithmetic.c - the quickstart task: answers and steps worked out again from the prompt's text,
 * disjoint sets, prompt files and supervised examples that the engine's own code reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rollout/prompts.h"
#include "rollout/reward/reward.h"
#include "trainer_bridge/trainer/arithmetic_data.h"
#include "trainer_bridge/trainer/tokenizer_build.h"

enum { N = 3000 };
static const char end_token[] = "<|endoftext|>";

/* The response that the prompt "a+b-c=\n" asks for, from its text alone. */
static void work_out(const char *prompt, char *out, size_t size, int *answer)
{
	char *rest;
	size_t at = 0;
	long total = strtol(prompt, &rest, 10);
	while (*rest == '+' || *rest == '-') {
		char sign = *rest;
		long operand = strtol(rest + 1, &rest, 10), before = total;
		total += sign == '+' ? operand : -operand;
		at += (size_t)snprintf(out + at, size - at, "%ld%c%ld=%ld\n", before, sign, operand, total);
	}
	assert_string_equal(rest, "=\n");
	snprintf(out + at, size - at, "#%ld", total);
	*answer = (int)total;
}

static void test_answers_and_steps_are_right(void **state)
{
	(void)state;
	int shortest = 1000, longest = 0, at_once = 0;
	for (uint64_t i = 0; i < N; i++) {
		struct arithmetic_problem p;
		char expected[ARITHMETIC_TEXT_MAX], step[ARITHMETIC_STEP_MAX], lines[ARITHMETIC_TEXT_MAX] = "";
		int answer, total = 0;
		arithmetic_generate(&p, 1, i);
		work_out(p.prompt, expected, sizeof expected, &answer);
		assert_string_equal(p.response, expected);
		assert_int_equal(p.answer, answer);
		for (int k = 0; k < p.n_operands; k++) {
			total += p.operands[k];
			assert_true(p.operands[k] != 0 && total >= 0 && total <= ARITHMETIC_TOTAL_MAX);
		}
		for (int k = 0; k + 1 < p.n_operands; k++) {
			arithmetic_step(&p, k, step);
			strcat(strcat(lines, step), "\n");
		}
		assert_memory_equal(lines, p.response, strlen(lines));
		assert_ptr_equal(arithmetic_demonstration(&p, 0), p.response);
		assert_int_equal(strtol(arithmetic_demonstration(&p, 100) + 1, NULL, 10), answer);
		at_once += arithmetic_demonstration(&p, 60) != p.response;
		int length = (int)strlen(p.response);
		shortest = length < shortest ? length : shortest;
		longest = length > longest ? length : longest;
	}
	assert_true(shortest <= 10 && longest >= 90); /* lengths vary widely */
	assert_in_range(at_once, N * 55 / 100, N * 65 / 100);
}

static void test_same_seed_same_problem(void **state)
{
	(void)state;
	struct arithmetic_problem a, b, c;
	arithmetic_generate(&a, 5, 7);
	arithmetic_generate(&b, 5, 7);
	arithmetic_generate(&c, 6, 7);
	assert_memory_equal(&a, &b, sizeof a);
	assert_string_not_equal(a.prompt, c.prompt);
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct arithmetic_problem *)a)->prompt,
	              ((const struct arithmetic_problem *)b)->prompt);
}

static void test_sets_are_distinct_and_disjoint(void **state)
{
	(void)state;
	enum { TRAIN = 1500, HELD = 200 };
	struct arithmetic_problem *train = arithmetic_collect(1, false, TRAIN),
							  *held = arithmetic_collect(2, true, HELD);
	struct arithmetic_problem *all = xmalloc((TRAIN + HELD) * sizeof *all);
	memcpy(all, train, TRAIN * sizeof *all);
	memcpy(all + TRAIN, held, HELD * sizeof *all);
	qsort(all, TRAIN + HELD, sizeof *all, compare);
	for (int i = 1; i < TRAIN + HELD; i++) assert_string_not_equal(all[i - 1].prompt, all[i].prompt);
	free(train);
	free(held);
	free(all);
}

struct files {
	char dir[64], prompts[128], tokenizer[128], tokenizer_config[128];
};

static struct tokenizer *files_open(struct files *files, const struct arithmetic_problem *problems, int n)
{
	struct tokenizer *tokenizer;
	struct err err;
	const char **texts = xmalloc((size_t)n * sizeof *texts);
	struct tokenizer_build_options options = { end_token, 8, 4 };
	snprintf(files->dir, sizeof files->dir, "/tmp/test_arithmetic_XXXXXX");
	assert_non_null(mkdtemp(files->dir));
	snprintf(files->prompts, sizeof files->prompts, "%s/prompts.jsonl", files->dir);
	snprintf(files->tokenizer, sizeof files->tokenizer, "%s/tokenizer.json", files->dir);
	snprintf(files->tokenizer_config, sizeof files->tokenizer_config, "%s/tokenizer_config.json", files->dir);
	for (int i = 0; i < n; i++) texts[i] = problems[i].response;
	assert_int_equal(tokenizer_build(files->dir, texts, (size_t)n, &options, &err), 0);
	if (tokenizer_open(&tokenizer, files->dir, &err)) fail_msg("%s", err.text);
	free(texts);
	return tokenizer;
}

static void files_close(const struct files *files)
{
	unlink(files->prompts);
	unlink(files->tokenizer);
	unlink(files->tokenizer_config);
	rmdir(files->dir);
}

static void test_prompt_files_are_read_and_scored(void **state)
{
	(void)state;
	enum { FEW = 50 };
	struct arithmetic_problem *problems = arithmetic_collect(3, false, FEW);
	struct files files;
	struct tokenizer *tokenizer = files_open(&files, problems, FEW);
	struct prompts prompts;
	struct prompts_options options = { .max_context = 256 };
	struct config_reward reward_options = { .kind = REWARD_STEPS, .pattern = "", .answer_weight = 0.5 };
	struct sampling_options sampling = { 1, 1, 0 };
	struct reward *reward;
	struct err err;
	assert_int_equal(arithmetic_write(files.prompts, "t", problems, FEW, &err), 0);
	if (prompts_load(&prompts, files.prompts, tokenizer, NULL, &options, &err)) fail_msg("%s", err.text);
	reward_options.pattern = xstrdup("#(-?\\d+)");
	assert_int_equal(reward_open(&reward, &reward_options, &err), 0);
	assert_int_equal(prompts.n, FEW);
	for (int i = 0; i < FEW; i++) {
		struct trajectory *t = prompts_open_sample(&prompts.items[i], 1, 0, 1, 0, 1, &sampling, 128);
		assert_int_equal(reward_score(reward, t, problems[i].response, &err), 0);
		assert_true(t->reward == 1);
		assert_int_equal(reward_score(reward, t, strchr(problems[i].response, '#'), &err), 0);
		assert_true(t->reward == 0.5); /* right, but nothing worked out */
		assert_int_equal(reward_score(reward, t, "1+1=3\n#100", &err), 0);
		assert_true(t->reward == 0);
		trajectory_free(t);
	}
	reward_close(reward);
	free(reward_options.pattern);
	prompts_free(&prompts);
	tokenizer_close(tokenizer);
	files_close(&files);
	free(problems);
}

static void test_examples_say_what_the_problem_says(void **state)
{
	(void)state;
	enum { FEW = 40 };
	struct arithmetic_problem *problems = arithmetic_collect(4, false, FEW);
	struct files files;
	struct tokenizer *tokenizer = files_open(&files, problems, FEW);
	int32_t end = tokenizer_id(tokenizer, end_token);
	struct arithmetic_batch batch;
	struct err err;
	uint64_t index = 0, again = 0;
	assert_int_equal(arithmetic_batch_open(&batch, FEW, 9, &index, 50, tokenizer, end, &err), 0);
	int predicted = 0;
	for (int i = 0; i < FEW; i++) {
		struct arithmetic_problem p;
		char expected[2 * ARITHMETIC_TEXT_MAX], *text;
		size_t n_bytes;
		do arithmetic_generate(&p, 9, again++);
		while (arithmetic_is_held_out(&p));
		const struct train_sequence *s = &batch.sequences[i];
		snprintf(expected, sizeof expected, "%s%s", p.prompt, arithmetic_demonstration(&p, 50));
		assert_int_equal(
			tokenizer_decode(tokenizer, s->tokens, (size_t)s->n_tokens, true, &text, &n_bytes, &err), 0);
		assert_string_equal(text, expected);
		assert_int_equal(s->tokens[s->n_tokens - 1], end);
		free(text);
		assert_int_equal(
			tokenizer_decode(tokenizer, s->tokens, (size_t)s->first, true, &text, &n_bytes, &err), 0);
		assert_string_equal(text, p.prompt);
		free(text);
		predicted += s->n_tokens - s->first;
	}
	assert_int_equal(batch.n_predicted, predicted);
	assert_int_equal(index, again);
	arithmetic_batch_close(&batch);
	tokenizer_close(tokenizer);
	files_close(&files);
	free(problems);
}

static void test_tokenizer_merges_and_splits_digits(void **state)
{
	(void)state;
	static const char *const texts[] = { "hello hello +- 12 12 12 hello", "hello +-+- hello", "hello 12" };
	struct tokenizer_build_options options = { end_token, 6, 2 };
	char dir[] = "/tmp/test_arithmetic_XXXXXX", path[64];
	struct tokenizer *tokenizer;
	struct err err;
	int32_t *ids;
	size_t n;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(tokenizer_build(dir, texts, 3, &options, &err), 0);
	if (tokenizer_open(&tokenizer, dir, &err)) fail_msg("%s", err.text);
	assert_int_equal(tokenizer_id(tokenizer, end_token), 0);
	assert_int_equal(tokenizer_vocab_size(tokenizer), 1 + 256 + 6);
	assert_int_equal(tokenizer_encode(tokenizer, "hello12", 7, false, &ids, &n, &err), 0);
	assert_int_equal(n, 3); /* the word is one token, each digit its own */
	free(ids);
	assert_int_equal(tokenizer_encode(tokenizer, "\xff\xc3\x28<|endoftext|>", 16, false, &ids, &n, &err), 0);
	assert_true(n >= 1 && ids[n - 1] == 0);
	free(ids);
	tokenizer_close(tokenizer);
	snprintf(path, sizeof path, "%s/tokenizer.json", dir);
	unlink(path);
	snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
	unlink(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers_and_steps_are_right),
		cmocka_unit_test(test_same_seed_same_problem),
		cmocka_unit_test(test_sets_are_distinct_and_disjoint),
		cmocka_unit_test(test_prompt_files_are_read_and_scored),
		cmocka_unit_test(test_examples_say_what_the_problem_says),
		cmocka_unit_test(test_tokenizer_merges_and_splits_digits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
