/* test_prompts.c - prompts from JSON lines: what is read, what is refused and how it is said, their order,
 * and the trajectory that a sample starts from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rollout/prompts.h"
#include "rollout/sampling/noise.h"
#include "tests/support/tokens_fixture.h"

/* A tokenizer (with a BOS of <|user|>), a chat, and a folder. */
struct world {
	struct tokenizer *tokenizer;
	struct chat *chat;
	char folder[TOKENS_PATH_MAX], file[TOKENS_PATH_MAX + 32];
	struct prompts prompts;
	struct err err;
};

static int world_open(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	json_t *json = tokens_small_json();

	json_object_set_new(json, "post_processor", json_pack("{s:s,s:[{s:{s:s}},{s:{s:s}}],s:{s:{s:[i]}}}",
		"type", "TemplateProcessing", "single", "SpecialToken", "id", "B", "Sequence", "id", "A",
		"special_tokens", "B", "ids", TOKENS_USER));
	w->tokenizer = tokens_open(json);
	tokens_folder_make(w->folder);
	snprintf(w->file, sizeof w->file, "%s/prompts.jsonl", w->folder);
	tokens_folder_write(
		w->folder, "chat_template.jinja",
		"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
		"'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
		"{% endif %}");
	if (chat_open(&w->chat, w->folder, &w->err) != 0)
		fail_msg("%s", w->err.text);
	*state = w;
	return 0;
}

static int world_close(void **state)
{
	struct world *w = *state;

	prompts_free(&w->prompts);
	tokenizer_close(w->tokenizer);
	chat_close(w->chat);
	tokens_folder_remove(w->folder);
	free(w);
	return 0;
}

static int load(struct world *w, const char *lines, const struct prompts_options *options)
{
	tokens_folder_write(w->folder, "prompts.jsonl", lines);
	prompts_free(&w->prompts);
	w->err = (struct err){0};
	return prompts_load(&w->prompts, w->file, w->tokenizer, w->chat, options, &w->err);
}

static void expect_loaded(struct world *w, const char *lines, const struct prompts_options *options, size_t n)
{
	if (load(w, lines, options) != 0)
		fail_msg("%s", w->err.text);
	assert_int_equal(w->prompts.n, n);
}

static void expect_refused(struct world *w, const char *lines, const struct prompts_options *options,
                           int code, const char *says)
{
	assert_int_equal(load(w, lines, options), code);
	assert_int_equal(w->prompts.n, 0);
	assert_null(w->prompts.items);
	if (!strstr(w->err.text, says))
		fail_msg("\"%s\" does not say \"%s\"", w->err.text, says);
}

static const struct prompts_options plain = {.max_context = 64};

static void test_fields(void **state)
{
	struct world *w = *state;

	expect_loaded(
		w,
		"{\"prompt\": \"the\"}\r\n\n  \n"
		"{\"id\": \"x\", \"answer\": 7, \"prompt\": \" the\", \"steps\": [1, 2]}\n"
		"{\"id\": 12, \"answer\": \"a \\\"b\\\"\", \"prompt\": \"aa\"}",
		&plain, 3);
	const struct prompt *items = w->prompts.items;
	assert_string_equal(items[0].id, "0");
	assert_string_equal(items[0].text, "the");
	assert_null(items[0].answer);
	assert_null(items[0].meta);
	assert_int_equal(items[0].n_tokens, 2);
	assert_int_equal(items[0].tokens[0], TOKENS_USER); /* a text gets its BOS */
	assert_int_equal(items[0].tokens[1], TOKENS_THE);
	assert_string_equal(items[1].id, "x");
	assert_string_equal(items[1].answer, "7");
	assert_string_equal(items[1].meta, "{\"steps\":[1,2]}");
	assert_string_equal(items[2].id, "12");
	assert_string_equal(items[2].answer, "a \"b\"");
}

static void test_messages(void **state)
{
	static const char rendered[] = "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n";
	struct world *w = *state;

	expect_loaded(w, "{\"messages\": [{\"role\": \"user\", \"content\": \"the\"}]}\n"
	              "{\"prompt\": [{\"role\": \"user\", \"content\": \"the\"}], \"k\": true}\n",
	              &(struct prompts_options){.max_context = 256, .template = "Q: {prompt}"}, 2);
	for (int i = 0; i < 2; i++) {
		assert_string_equal(w->prompts.items[i].text, rendered);
		assert_int_equal(w->prompts.items[i].tokens[0], '<'); /* a chat template writes its own BOS */
	}
	assert_string_equal(w->prompts.items[1].meta, "{\"k\":true}");
}

/* GSM8K's and SVAMP's fields, a template, and a limit. */
static void test_options(void **state)
{
	struct world *w = *state;
	const struct prompts_options gsm8k = {
		.prompt_key = "question", .template = "Q: {prompt}\nA ({prompt}):", .limit = 2, .max_context = 64};
	const struct prompts_options svamp = {.prompt_key = "Body", .answer_key = "Answer"};

	expect_loaded(w,
	              "{\"question\": \"1+1?\", \"answer\": \"2\\n#### 2\"}\n{\"question\": \"2?\"}\nnot read\n",
	              &gsm8k, 2);
	assert_string_equal(w->prompts.items[0].text, "Q: 1+1?\nA (1+1?):");
	assert_string_equal(w->prompts.items[0].answer, "2\n#### 2");
	expect_loaded(w, "{\"Answer\":145.0,\"Body\":\"x\",\"answer\":1}\n{\"Answer\":0.1,\"Body\":\"x\"}\n",
	              &svamp, 2);
	assert_string_equal(w->prompts.items[0].answer, "145.0");
	assert_string_equal(w->prompts.items[0].meta, "{\"answer\":1}");
	assert_string_equal(w->prompts.items[1].answer, "0.1");
	expect_refused(w, "{\"prompt\": \"the\"}", &(struct prompts_options){.template = "Q: prompt"}, ERR_CONFIG,
	               "must contain {prompt}, found \"Q: prompt\"");
}

static void test_refused(void **state)
{
	static const struct { const char *lines; int code; const char *says; } cases[] = {
		{"", ERR_INVALID, "prompts.jsonl: no prompts: the file has 0 bytes"},
		{"\n\n", ERR_INVALID, "no prompts: the file has 2 bytes"},
		{"{\"prompt\": \"a\"}\n{\"prompt\": \"b\"", ERR_INVALID, "prompts.jsonl:2: expected a JSON object: "},
		{"[1]", ERR_INVALID, "prompts.jsonl:1: expected a JSON object, found a list"},
		{"7", ERR_INVALID, "expected a JSON object, found a number"},
		{"{\"prompt\": \"\xFF\"}", ERR_INVALID, "unable to decode byte 0xff"},
		{"{\"prompt\": \"a\\u0000b\"}", ERR_INVALID, "prompts.jsonl:1: expected a JSON object: "},
		{"{\"prompt\": 7}", ERR_INVALID, "\"prompt\" must be a string, found a number"},
		{"{\"text\": \"a\"}", ERR_MISSING,
	     "has neither \"prompt\" nor \"messages\" (data.prompt_key names the field)"},
		{"{\"prompt\": \"a\", \"messages\": []}", ERR_INVALID, "has both \"prompt\" and \"messages\""},
		{"{\"messages\": []}", ERR_INVALID, "prompts.jsonl:1: messages must be a list of at least one"},
		{"{\"prompt\": \"a\", \"id\": \"\"}", ERR_INVALID, "found an empty string"},
		{"{\"prompt\": \"a\", \"id\": 1.5}", ERR_INVALID,
	     "id must be a non-empty string or an integer, found a number"},
		{"{\"prompt\": \"a\", \"answer\": [1]}", ERR_INVALID,
	     "answer must be a string or a number, found a list"},
		{"{\"prompt\": \"a\", \"prompt\": \"b\"}", ERR_INVALID, "duplicate"},
		{"{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"id\": \"0\"}", ERR_INVALID,
	     "prompts.jsonl:2: the id \"0\" is also that of line 1"},
		{"{\"prompt\": \"a\", \"id\": 3}\n\n{\"prompt\": \"b\", \"id\": \"3\"}", ERR_INVALID,
	     "prompts.jsonl:3: the id \"3\" is also that of line 1"},
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		expect_refused(w, cases[i].lines, &plain, cases[i].code, cases[i].says);
	remove(w->file);
	assert_int_equal(prompts_load(&w->prompts, w->file, w->tokenizer, w->chat, &plain, &w->err), ERR_MISSING);
}

/* 63 tokens and a BOS fill a context of 64: no room for one more. */
static void test_too_long(void **state)
{
	struct world *w = *state;
	char line[128] = "{\"prompt\": \"";

	for (int i = 0; i < 62; i++)
		strcat(line, "<");
	strcat(line, "\"}");
	expect_loaded(w, line, &plain, 1);
	assert_int_equal(w->prompts.items[0].n_tokens, 63);
	line[strlen(line) - 2] = '\0';
	strcat(line, "<\"}");
	expect_refused(w, line, &plain, ERR_TOO_BIG,
	               "prompts.jsonl:1: the prompt has 64 tokens, expected fewer than the "
	               "context of 64");
}

static void test_empty_prompt(void **state)
{
	struct world *w = *state;

	expect_loaded(w, "{\"prompt\": \"\"}", &plain, 1); /* the BOS alone */
	tokenizer_close(w->tokenizer);
	w->tokenizer = tokens_open(tokens_small_json());
	expect_refused(w, "{\"prompt\": \"\"}", &plain, ERR_INVALID, "the prompt is empty");
}

/* Every epoch of every size is a permutation; epochs and seeds differ. */
static void test_order_is_a_permutation(void **state)
{
	char seen[300];
	int32_t epoch;

	(void)state;
	for (size_t n = 1; n <= 300; n += n < 40 ? 1 : 37) {
		struct prompts prompts = {.n = n};
		for (uint64_t turn = 0; turn < 3; turn++) {
			memset(seen, 0, sizeof seen);
			for (size_t i = 0; i < n; i++) {
				size_t index = prompts_index(&prompts, turn * n + i, true, 5, &epoch);
				assert_true(index < n);
				assert_int_equal(epoch, turn);
				assert_false(seen[index]++);
			}
		}
	}
	struct prompts hundred = {.n = 100};
	int same_epoch = 0, same_seed = 0;
	for (size_t i = 0; i < 100; i++) {
		size_t index = prompts_index(&hundred, i, true, 5, &epoch);
		assert_int_equal(prompts_index(&hundred, i, true, 5, &epoch), index);
		same_epoch += index == prompts_index(&hundred, 100 + i, true, 5, &epoch);
		same_seed += index == prompts_index(&hundred, i, true, 6, &epoch);
		assert_int_equal(prompts_index(&hundred, 300 + i, false, 5, &epoch), i);
		assert_int_equal(epoch, 3);
	}
	assert_true(same_epoch < 10); /* 1 expected, variance 1 */
	assert_true(same_seed < 10);
}

/* Over many epochs each prompt is first equally often: chi-square with 6 degrees of freedom, 5 sigma. */
static void test_order_is_fair(void **state)
{
	enum { N = 7, EPOCHS = 70000 };
	struct prompts prompts = {.n = N};
	double chi_square = 0;
	int first[N] = {0};
	int32_t epoch;

	(void)state;
	for (uint64_t turn = 0; turn < EPOCHS; turn++)
		first[prompts_index(&prompts, turn * N, true, 1, &epoch)]++;
	for (int i = 0; i < N; i++)
		chi_square += ((double)first[i] - EPOCHS / N) * ((double)first[i] - EPOCHS / N) / (EPOCHS / N);
	assert_true(chi_square < 6 + 5 * 3.4641);
}

static void test_open_sample(void **state)
{
	struct world *w = *state;
	const struct sampling_options sampling = {.temperature = 0.5f, .top_p = 0.9f, .top_k = 3, .min_p = 0.2f};

	expect_loaded(w, "{\"id\": \"x\", \"prompt\": \"the\", \"answer\": \"1\", \"steps\": 2}", &plain, 1);
	struct trajectory *t = prompts_open_sample(&w->prompts.items[0], 9, 2, 5, 1, 77, &sampling, 10);
	assert_int_equal(t->id, trajectory_id(9, 2));
	assert_int_equal(t->group_id, 9);
	assert_int_equal(t->sample, 2);
	assert_int_equal(t->group_size, 5);
	assert_int_equal(t->epoch, 1);
	assert_int_equal(t->seed, noise_key(77, "x", 1, 2));
	assert_string_equal(t->prompt_id, "x");
	assert_string_equal(t->answer, "1");
	assert_string_equal(t->meta, "{\"steps\":2}");
	assert_int_equal(t->n_prompt, 2);
	assert_int_equal(t->n_tokens, 2);
	assert_int_equal(t->tokens[1], TOKENS_THE);
	assert_int_equal(t->max_tokens, 10);
	assert_true(t->sampling.top_k == 3 && t->sampling.top_p == 0.9f && t->sampling.temperature == 0.5f && t->sampling.min_p == 0.2f);
	assert_int_equal(t->finish, FINISH_NONE);
	trajectory_free(t);
}

/* A prompt's own limit lowers that of the run, is on record with the sample, and is no meta. */
static void test_own_limits(void **state)
{
	struct world *w = *state;
	const struct sampling_options sampling = {.temperature = 1};
	static const int32_t expected[] = {10, 3, 10, 10};

	expect_loaded(w, "{\"prompt\": \"the\"}\n{\"prompt\": \"the\", \"max_tokens\": 3}\n"
	              "{\"prompt\": \"the\", \"max_tokens\": 11}\n{\"prompt\": \"the\", \"max_tokens\": null}\n", &plain, 4);
	for (int i = 0; i < 4; i++) {
		struct trajectory *t = prompts_open_sample(&w->prompts.items[i], 1, 0, 1, 0, 1, &sampling, 10);
		assert_int_equal(t->max_tokens, expected[i]);
		assert_null(t->meta);
		trajectory_free(t);
	}
	static const char *const bad[] = {"0", "-1", "2147483648", "1.5", "\"8\"", "[8]"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char line[64];
		snprintf(line, sizeof line, "{\"prompt\": \"the\", \"max_tokens\": %s}", bad[i]);
		expect_refused(w, line, &plain, ERR_INVALID, "max_tokens must be a whole number from 1 to 2147483647");
	}
}

/* The whole of a published set with a published tokenizer. */
static void test_gsm8k(void **state)
{
	struct world *w = *state;
	char model[TOKENS_PATH_MAX], file[TOKENS_PATH_MAX];

	if (!tokens_data_path(model, "models/minimind2-small") ||
	    !tokens_data_path(file, "prompts/gsm8k_test.jsonl"))
		skip();
	tokenizer_close(w->tokenizer);
	assert_int_equal(tokenizer_open(&w->tokenizer, model, &w->err), 0);
	const struct prompts_options options = {.prompt_key = "question", .max_context = 2048};
	if (prompts_load(&w->prompts, file, w->tokenizer, NULL, &options, &w->err) != 0)
		fail_msg("%s", w->err.text);
	assert_int_equal(w->prompts.n, 1319);
	assert_string_equal(w->prompts.items[1318].id, "1318");
	assert_non_null(strstr(w->prompts.items[0].answer, "#### 18"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fields, world_open, world_close),
		cmocka_unit_test_setup_teardown(test_messages, world_open, world_close),
		cmocka_unit_test_setup_teardown(test_options, world_open, world_close),
		cmocka_unit_test_setup_teardown(test_refused, world_open, world_close),
		cmocka_unit_test_setup_teardown(test_too_long, world_open, world_close),
		cmocka_unit_test_setup_teardown(test_empty_prompt, world_open, world_close),
		cmocka_unit_test(test_order_is_a_permutation),
		cmocka_unit_test(test_order_is_fair),
		cmocka_unit_test_setup_teardown(test_open_sample, world_open, world_close),
		cmocka_unit_test_setup_teardown(test_own_limits, world_open, world_close),
		cmocka_unit_test_setup_teardown(test_gsm8k, world_open, world_close),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
