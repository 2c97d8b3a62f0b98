/* test_reward.c - what each verifier takes for the answer, what is an error, what must not hang. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "rollout/reward/reward_kinds.h"

static char empty[] = "";

static struct config_reward options_of(int kind, char *pattern)
{
	return (struct config_reward){ .kind = kind, .pattern = pattern ? pattern : empty, .tolerance = 1e-6,
	                               .answer_weight = 0.25 };
}

/* Score one response; the trajectory stays for the caller to look at and free. */
static struct trajectory *score(const struct config_reward *options, const char *answer, const char *meta,
                                const char *response, int *code, struct err *err)
{
	struct reward *reward;
	if (reward_open(&reward, options, err)) fail_msg("%s", err->text);
	struct trajectory *trajectory = trajectory_new((const int32_t[]){ 1 }, 1, 8);
	trajectory->prompt_id = xstrdup("p7");
	trajectory->answer = answer ? xstrdup(answer) : NULL;
	trajectory->meta = meta ? xstrdup(meta) : NULL;
	trajectory->finish = FINISH_STOP;
	*code = reward_score(reward, trajectory, response, err);
	reward_close(reward);
	return trajectory;
}

static double reward_of(struct config_reward options, const char *answer, const char *response)
{
	int code;
	struct err err = { 0 };
	struct trajectory *trajectory = score(&options, answer, NULL, response, &code, &err);
	if (code) fail_msg("%s for \"%s\"", err.text, response);
	assert_true(trajectory->has_reward);
	assert_int_equal(trajectory->finish, FINISH_STOP);
	assert_true(trajectory->reward == trajectory->reward_answer);
	assert_true(trajectory->reward_steps == 0);
	double reward = trajectory->reward;
	trajectory_free(trajectory);
	return reward;
}

static void assert_error(struct config_reward options, const char *answer, const char *meta,
                         const char *response, int expected_code, const char *part)
{
	int code;
	struct err err = { 0 };
	struct trajectory *trajectory = score(&options, answer, meta, response, &code, &err);
	assert_int_equal(code, expected_code);
	assert_false(trajectory->has_reward);
	assert_int_equal(trajectory->finish, FINISH_ERROR);
	assert_true(trajectory->reward == 0 && trajectory->reward_answer == 0 && trajectory->reward_steps == 0);
	assert_non_null(trajectory->error);
	assert_string_equal(trajectory->error, err.text);
	if (!strstr(err.text, part) || !strstr(err.text, "p7")) fail_msg("no \"%s\" in \"%s\"", part, err.text);
	trajectory_free(trajectory);
}

static void test_exact(void **state)
{
	(void)state;
	struct config_reward options = options_of(REWARD_EXACT, NULL);
	assert_true(reward_of(options, "Paris", "Paris") == 1);
	assert_true(reward_of(options, " Paris\n", "Thinking.\nIt is a city.\n\n  Paris \n \n") == 1);
	assert_true(reward_of(options, "work\n#### 18", "first\n#### 18") == 1);
	assert_true(reward_of(options, "18", "####18") == 1);
	assert_true(reward_of(options, "Paris", "paris") == 0);
	assert_true(reward_of(options, "Paris", "Paris.") == 0);
	assert_true(reward_of(options, "Paris", "Paris\nor Rome") == 0);
	assert_true(reward_of(options, "Paris", "") == 0);
	assert_true(reward_of(options, "Paris", " \n\n") == 0);
}

static void test_exact_with_pattern(void **state)
{
	(void)state;
	char pattern[] = "answer is (\\S+)\\.";
	struct config_reward options = options_of(REWARD_EXACT, pattern);
	assert_true(reward_of(options, "12", "The answer is 12. Done.") == 1);
	assert_true(reward_of(options, "12", "12") == 0);
}

static void test_numbers(void **state)
{
	(void)state;
	static const struct { const char *text; double number; } cases[] = {
		{ "18", 18 }, { "18.00", 18 }, { "$18", 18 }, { "-3", -3 }, { "-$18", -18 }, { "$-18", -18 },
		{ "1,234.5", 1234.5 }, { "1,234,567", 1234567 }, { ".5", 0.5 }, { "-.5", -0.5 }, { "3/4", 0.75 },
		{ "-3/4", -0.75 }, { "2e-3", 0.002 }, { "1.5E+2", 150 }, { "\xe2\x88\x92" "7", -7 },
		{ "it is 18.", 18 }, { "50%", 50 }, { "x=5", 5 }, { "x=-5", -5 }, { "5-3", 3 }, { "(2)-3", 3 },
		{ "5 - 3", 3 }, { "1, 2, 3", 3 }, { "1,2", 2 }, { "12,3456", 3456 }, { "1,234,56", 56 }, { "3/0", 0 },
		{ "2 eggs", 2 }, { "2e", 2 }, { "7.", 7 }, { "1.2.3", 0.3 }, { "4/", 4 }, { "a1", 1 }, { "007", 7 },
		{ "work 16-3-4=9, 9*2=18\n#### 18", 18 }, { "#### 5\n#### 6 of 7", 6 }, { "9\n####-1,000 m", -1000 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		double number = 1e300;
		assert_true(reward_number(span_of(cases[i].text), &number));
		if (number != cases[i].number) fail_msg("\"%s\" read as %g", cases[i].text, number);
	}
	static const char *const none[] = {
		"", "none", "-", "$", ".", "-.", "$-", "5 then #### nothing", "\xe2\x88"
	};
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
		double number;
		if (reward_number(span_of(none[i]), &number)) fail_msg("\"%s\" read as %g", none[i], number);
	}
}

static void test_numeric(void **state)
{
	(void)state;
	struct config_reward options = options_of(REWARD_NUMERIC, NULL);
	assert_true(reward_of(options, "18", "so it is $18.00.") == 1);
	assert_true(reward_of(options, "He pays 9 * 2 = <<9*2=18>>18\n#### 18", "#### 18") == 1);
	assert_true(reward_of(options, "1234.5", "#### 1,234.5 dollars for 3 days") == 1);
	assert_true(reward_of(options, "0.5", "1/2") == 1);
	assert_true(reward_of(options, "18", "first 18, no: 19") == 0);
	assert_true(reward_of(options, "18", "no idea") == 0);
	assert_true(reward_of(options, "18", "18.001") == 0);
	options.tolerance = 0.01;
	assert_true(reward_of(options, "18", "18.001") == 1);
	char pattern[] = "\\\\boxed\\{([^}]*)\\}";
	options = options_of(REWARD_NUMERIC, pattern);
	assert_true(reward_of(options, "18", "\\boxed{18} and 3 more") == 1);
	assert_true(reward_of(options, "18", "18") == 0);
	assert_error(options_of(REWARD_NUMERIC, NULL), "many", NULL, "18", ERR_INVALID, "found \"many\"");
}

static void test_huge_numbers_are_wrong_not_equal(void **state)
{
	(void)state;
	char digits[2001];
	memset(digits, '9', 2000);
	digits[2000] = '\0';
	struct config_reward options = options_of(REWARD_NUMERIC, NULL);
	assert_true(reward_of(options, "18", digits) == 0);
	assert_true(reward_of(options, digits, digits) == 0);
	assert_true(reward_of(options, "18", "1e999999999999999999999") == 0);
}

static void test_regex(void **state)
{
	(void)state;
	char group[] = "answer: (\\w+)", whole[] = "\\d+", optional[] = "x(y)?", unicode[] = "ans\xc3\xa9r (.)";
	assert_true(reward_of(options_of(REWARD_REGEX, group), "b", "answer: a, then answer: b") == 1);
	assert_true(reward_of(options_of(REWARD_REGEX, group), "a", "answer: a, then answer: b") == 0);
	assert_true(reward_of(options_of(REWARD_REGEX, group), "a", "nothing") == 0);
	assert_true(reward_of(options_of(REWARD_REGEX, whole), "123", "9 and 123") == 1);
	assert_true(reward_of(options_of(REWARD_REGEX, optional), "x", "xy x") == 1);
	static const char broken_utf8[] = "\xff ans\xc3\xa9r \xe2\x82\xac \xc3";
	assert_true(reward_of(options_of(REWARD_REGEX, unicode), "\xe2\x82\xac", broken_utf8) == 1);
	char nothing[] = "a*", kept[] = "a\\Kb", at_end[] = "$";
	assert_true(reward_of(options_of(REWARD_REGEX, nothing), "z", "b\xc3\xa9\xf0\x9f\xa5\x81") == 0);
	assert_true(reward_of(options_of(REWARD_REGEX, kept), "b", "ab ab") == 1);
	assert_true(reward_of(options_of(REWARD_REGEX, at_end), "z", "ab ab") == 0);
}

static void test_bad_patterns_are_refused_at_open(void **state)
{
	(void)state;
	struct reward *reward;
	struct err err;
	char unclosed[] = "answer (", none[] = "";
	struct config_reward options = options_of(REWARD_EXACT, unclosed);
	assert_int_equal(reward_open(&reward, &options, &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, "reward.pattern"));
	options = options_of(REWARD_REGEX, none);
	assert_int_equal(reward_open(&reward, &options, &err), ERR_CONFIG);
}

static void test_catastrophic_pattern_ends_as_an_error(void **state)
{
	(void)state;
	char pattern[] = "^(a+)+$", response[4001];
	memset(response, 'a', 4000);
	response[3999] = '!';
	response[4000] = '\0';
	clock_t start = clock();
	assert_error(options_of(REWARD_REGEX, pattern), "a", NULL, response, ERR_TOO_BIG, "too much work");
	assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 10);
}

static double steps_share(const char *meta, const char *response, double *answer, double *total)
{
	int code;
	struct err err = { 0 };
	struct config_reward options = options_of(REWARD_STEPS, NULL);
	struct trajectory *trajectory = score(&options, "12", meta, response, &code, &err);
	if (code) fail_msg("%s", err.text);
	double share = trajectory->reward_steps;
	*answer = trajectory->reward_answer;
	*total = trajectory->reward;
	trajectory_free(trajectory);
	return share;
}

static void test_steps(void **state)
{
	(void)state;
	static const char meta[] = "{\"other\":1,\"steps\":[\"3+4=7\",\"7+5=12\",\"= 12\",\"\"]}";
	static const struct { const char *response; double share, answer; } cases[] = {
		{ "3+4=7\n7+5=12\n= 12\n", 1, 1 }, { " 3+4=7 \r\n\t7+5=12\n= 12\n\n", 1, 1 },
		{ "3+4=7\n7+5=12", 0.5, 1 }, { "7+5=12\n3+4=7", 0, 0 }, { "3+4=8\n7+5=12\n= 12", 0.5, 1 },
		{ "", 0, 0 }, { "12", 0, 1 }, { "answer: 12", 0, 1 }, { "#12", 0, 1 },
		{ "3+4=7\n7+5=12\n= 12\n\nextra", 1, 0 },
		{ "x\ny\nz\n\nw = q: 12 ", 0.25, 1 }, { "3+4=7\n\n7+5=12\n= 12", 0.25, 1 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		double answer, total, share = steps_share(meta, cases[i].response, &answer, &total);
		if (share != cases[i].share || answer != cases[i].answer)
			fail_msg("\"%s\": %g of the steps, answer %g", cases[i].response, share, answer);
		assert_true(total == 0.25 * answer + 0.75 * share);
	}
}

static void test_steps_with_pattern(void **state)
{
	(void)state;
	char pattern[] = "\\[(\\d+)\\]";
	struct config_reward options = options_of(REWARD_STEPS, pattern);
	int code;
	struct err err;
	struct trajectory *trajectory = score(&options, "12", "{\"steps\":[\"a\"]}", "[12]\nend", &code, &err);
	assert_int_equal(code, 0);
	assert_true(trajectory->reward_answer == 1 && trajectory->reward_steps == 0);
	assert_true(trajectory->reward == 0.25);
	trajectory_free(trajectory);
}

static void test_what_cannot_be_verified_is_an_error(void **state)
{
	(void)state;
	struct config_reward exact = options_of(REWARD_EXACT, NULL), steps = options_of(REWARD_STEPS, NULL);
	assert_error(exact, NULL, NULL, "x", ERR_MISSING, "found none");
	assert_error(exact, " \n", NULL, "x", ERR_MISSING, "a blank one");
	assert_error(exact, "work ####", NULL, "x", ERR_MISSING, "a blank one");
	assert_error(steps, "12", NULL, "x", ERR_MISSING, "steps");
	assert_error(steps, "12", "{}", "x", ERR_MISSING, "steps");
	assert_error(steps, "12", "not json", "x", ERR_MISSING, "steps");
	assert_error(steps, "12", "[1]", "x", ERR_MISSING, "steps");
	assert_error(steps, "12", "{\"steps\":[]}", "x", ERR_MISSING, "steps");
	assert_error(steps, "12", "{\"steps\":\"a\"}", "x", ERR_MISSING, "steps");
	assert_error(steps, "12", "{\"steps\":[\"a\",3]}", "x", ERR_INVALID, "item 2");
}

static void test_math(void **state)
{
	(void)state;
	struct config_reward options = options_of(REWARD_MATH, NULL);
	static const struct { const char *answer, *response; } same[] = {
		{ "1/2", "so \\boxed{\\frac{1}{2}}." }, { "1/2", "\\boxed{0.5}" }, { "\\frac12", "\\boxed{\\dfrac{2}{4}}" },
		{ "\\boxed{3}", "first \\boxed{4}, no: \\boxed{3}" }, { "42", "a\n#### 42" }, { "42", "42" }, { "42", "$42$." },
		{ "1234", "\\boxed{1,234}" }, { "1234", "\\boxed{1{,}234}" }, { "10", "\\boxed{x = 10}" }, { "50", "\\boxed{50\\%}" },
		{ "5", "\\boxed{5\\text{ cm}}" }, { "\\text{Monday}", "\\boxed{Monday}" }, { "90", "\\boxed{90^\\circ}" },
		{ "2\\sqrt{3}", "\\boxed{2\\sqrt3}" }, { "2\\sqrt{3}", "\\boxed{\\sqrt{12}}" }, { "\\frac{\\pi}{2}", "\\boxed{0.5\\pi}" },
		{ "3\\frac{1}{2}", "\\boxed{3.5}" }, { "-3", "\\boxed{ -3 }" }, { "2^{10}", "\\boxed{1024}" }, { "8", "\\boxed{\\sqrt[3]{512}}" },
		{ "(1,2)", "\\boxed{\\left( 1, \\frac{4}{2} \\right)}" }, { "[0,\\infty)", "\\boxed{[0, \\infty)}" },
		{ "\\{1,2,3\\}", "\\boxed{\\{3, 1, 2\\}}" }, { "1,-1", "\\boxed{-1, 1}" }, { "x^2+1", "\\boxed{x^2 + 1}" },
		{ "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}" }, { "7", "\\fbox{7}" },
		{ "\\frac{1}{3}", "\\boxed{1/3}" }, { "6", "\\boxed{2\\cdot 3}" }, { "6", "\\boxed{2(3)}" }, { "-0.5", "\\boxed{-\\frac{1}{2}}" },
	};
	static const struct { const char *answer, *response; } other[] = {
		{ "1/2", "\\boxed{1/3}" }, { "3", "\\boxed{4} or so, 3" }, { "(1,2)", "\\boxed{(2,1)}" }, { "(1,2)", "\\boxed{[1,2]}" },
		{ "[0,1)", "\\boxed{[0,1]}" }, { "\\{1,2\\}", "\\boxed{\\{1,1\\}}" }, { "1", "\\boxed{}" }, { "1", "\\boxed{1" }, { "1", "" },
		{ "(1,2)", "\\boxed{(1,2,3)}" }, { "12", "\\boxed{1,2}" }, { "0", "\\boxed{1/0}" }, { "0", "\\boxed{\\frac{0}{0}}" },
		{ "x^2", "\\boxed{x^3}" }, { "1", "\\boxed{\\frac}" }, { "5", "\\boxed{5x}" }, { "10", "\\boxed{(((((10)}" }, { "3", "\\boxed{--3}" },
	};
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		if (reward_of(options, same[i].answer, same[i].response) != 1) fail_msg("%s is %s", same[i].response, same[i].answer);
	for (size_t i = 0; i < sizeof other / sizeof *other; i++)
		if (reward_of(options, other[i].answer, other[i].response) != 0) fail_msg("%s is not %s", other[i].response, other[i].answer);
	char pattern[] = "answer: (.*)";
	assert_true(reward_of(options_of(REWARD_MATH, pattern), "1/4", "answer: 0.25") == 1);
	assert_error(options, NULL, NULL, "\\boxed{1}", ERR_MISSING, "found none");
}

/* Depth and size are bounded: what is too deep is wrong, and quickly. */
static void test_math_and_countdown_survive_depth(void **state)
{
	(void)state;
	enum { N = 200000 };
	static char deep[2 * N + 16], meta[] = "{\"nums\":[1],\"target\":1}";
	int code;
	struct err err;
	for (int kind = 0; kind < 2; kind++) {
		for (int length = 2000; length <= N; length *= 100) {
			memset(deep, '(', (size_t)length);
			strcpy(deep + length, "1");
			struct config_reward options = options_of(kind ? REWARD_COUNTDOWN : REWARD_MATH, NULL);
			struct trajectory *trajectory = score(&options, "1", meta, deep, &code, &err);
			assert_int_equal(code, 0);
			assert_true(trajectory->reward == 0);
			trajectory_free(trajectory);
		}
	}
}

static void test_countdown(void **state)
{
	(void)state;
	static const struct { const char *response; double reward; } cases[] = {
		{ "<answer>(19 + 36) * 2 - 7</answer>", 1 }, { "<answer>(19+36)*2-7 = 103</answer>", 1 }, { "thinking\n2*(36+19)-7\n", 1 },
		{ "<answer>1</answer> no, <answer>(19+36)*2-7</answer>", 1 }, { "<answer>19+36*2-7</answer>", 0 }, { "<answer>103</answer>", 0 },
		{ "<answer>(19+36)*2-7+0</answer>", 0 }, { "<answer>(19+36)*2-7-7+7</answer>", 0 }, { "<answer></answer>", 0 }, { "", 0 },
		{ "<answer>(19+36)*2-7)</answer>", 0 }, { "<answer>(19+36)*2-7; import os</answer>", 0 }, { "<answer>(19+36)**2-7</answer>", 0 },
		{ "<answer>19 36 2 7</answer>", 0 }, { "<answer>99999999999999999999*2</answer>", 0 }, { "<answer>7/(19-19)</answer>", 0 },
	};
	struct config_reward options = options_of(REWARD_COUNTDOWN, NULL);
	int code;
	struct err err;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct trajectory *trajectory = score(&options, NULL, "{\"nums\":[19,36,2,7],\"target\":103}", cases[i].response, &code, &err);
		if (code || trajectory->reward != cases[i].reward) fail_msg("%s: %g", cases[i].response, trajectory->reward);
		trajectory_free(trajectory);
	}
	struct trajectory *exact = score(&options, NULL, "{\"nums\":[8,3,8,3],\"target\":24}", "8/(3-8/3)", &code, &err);
	assert_true(exact->reward == 1); /* no rounding: 8 / (1/3) */
	trajectory_free(exact);
	exact = score(&options, NULL, "{\"nums\":[4611686018427387904,4611686018427387904,2],\"target\":0}",
	              "4611686018427387904*4611686018427387904*2", &code, &err);
	assert_true(code == 0 && exact->reward == 0);
	trajectory_free(exact);
	assert_error(options, NULL, "{\"target\":1}", "1", ERR_MISSING, "`nums`");
	assert_error(options, NULL, "{\"nums\":[1.5],\"target\":1}", "1", ERR_MISSING, "`nums`");
	assert_error(options, NULL, NULL, "1", ERR_MISSING, "`target`");
}

static void test_contains(void **state)
{
	(void)state;
	char pattern[] = "<b>(.*)</b>";
	assert_true(reward_of(options_of(REWARD_CONTAINS, NULL), " Paris ", "It is Paris, I think") == 1);
	assert_true(reward_of(options_of(REWARD_CONTAINS, NULL), "Paris", "It is paris") == 0);
	assert_true(reward_of(options_of(REWARD_CONTAINS, NULL), "Paris", "") == 0);
	assert_true(reward_of(options_of(REWARD_CONTAINS, pattern), "Paris", "Paris <b>Rome</b>") == 0);
	assert_true(reward_of(options_of(REWARD_CONTAINS, pattern), "Rome", "Paris <b>in Rome</b>") == 1);
	assert_true(reward_of(options_of(REWARD_CONTAINS, pattern), "Rome", "Rome") == 0);
	assert_error(options_of(REWARD_CONTAINS, NULL), NULL, NULL, "x", ERR_MISSING, "found none");
}

static double length_reward(int64_t target, int64_t slack, const char *answer, int n_tokens)
{
	struct config_reward options = options_of(REWARD_LENGTH, NULL);
	options.length_target = target;
	options.length_slack = slack;
	struct reward *reward;
	struct err err;
	if (reward_open(&reward, &options, &err)) fail_msg("%s", err.text);
	struct trajectory *trajectory = trajectory_new((const int32_t[]){ 1 }, 1, 64);
	trajectory->answer = answer ? xstrdup(answer) : NULL;
	for (int i = 0; i < n_tokens; i++) trajectory_append(trajectory, 1, 0, 0, 0, 0);
	double found = reward_score(reward, trajectory, "any", &err) ? -1 : trajectory->reward;
	assert_int_equal(trajectory->has_reward, found >= 0);
	trajectory_free(trajectory);
	reward_close(reward);
	return found;
}

static void test_length(void **state)
{
	(void)state;
	assert_true(length_reward(10, 4, NULL, 10) == 1);
	assert_true(length_reward(10, 4, NULL, 9) == 0.75);
	assert_true(length_reward(10, 4, NULL, 12) == 0.5);
	assert_true(length_reward(10, 4, NULL, 60) == 0);
	assert_true(length_reward(0, 4, "8 tokens", 8) == 1);
	assert_true(length_reward(0, 4, "long", 8) == -1);
	assert_true(length_reward(0, 4, NULL, 8) == -1);
}

static void test_none_leaves_the_reward_to_the_trainer(void **state)
{
	(void)state;
	int code;
	struct err err;
	static const int kinds[] = { REWARD_NONE, REWARD_PROGRAM };
	for (int i = 0; i < 2; i++) {
		struct config_reward options = options_of(kinds[i], NULL);
		options.program = "true";
		struct trajectory *trajectory = score(&options, NULL, NULL, "x", &code, &err);
		assert_int_equal(code, 0);
		assert_false(trajectory->has_reward);
		assert_int_equal(trajectory->finish, FINISH_STOP);
		trajectory_free(trajectory);
	}
}

/* Seeded garbage through every verifier: a reward or an error, never a crash. */
static void test_garbage_does_no_harm(void **state)
{
	(void)state;
	static const char alphabet[] = "0123456789,.-+$/eE#=:\n a\xe2\x88\x92\xff\\{}()[]^*<>%", *const words[] = {
		"\\boxed{", "\\frac", "\\sqrt", "\\text{ ", "<answer>", "\\left(", "\\pi", "}{" };
	char pattern[] = "([-+]?[0-9]+)|#", text[65];
	struct config_reward kinds[] = { options_of(REWARD_EXACT, NULL), options_of(REWARD_NUMERIC, NULL),
	                                 options_of(REWARD_REGEX, pattern), options_of(REWARD_STEPS, NULL), options_of(REWARD_MATH, NULL),
	                                 options_of(REWARD_COUNTDOWN, NULL), options_of(REWARD_CONTAINS, pattern),
	                                 options_of(REWARD_LENGTH, NULL) };
	enum { KINDS = sizeof kinds / sizeof *kinds };
	kinds[KINDS - 1].length_slack = 3;
	uint32_t random = 7;
	for (int i = 0; i < 16000; i++) {
		random = random * 1664525u + 1013904223u;
		size_t n = random >> 26;
		for (size_t j = 0; j < n; j++) {
			random = random * 1664525u + 1013904223u;
			const char *word = words[(random >> 8) % 8];
			bool fits = random >> 30 == 0 && j + strlen(word) < n;
			text[j] = alphabet[(random >> 16) % (sizeof alphabet - 1)];
			if (fits) memcpy(text + j, word, strlen(word));
			if (fits) j += strlen(word) - 1;
		}
		text[n] = '\0';
		int code;
		struct err err;
		char *exact_size = xstrdup(text); /* so that a sanitizer sees a read beyond the end */
		const char *answer = i % (2 * KINDS) < KINDS ? "1" : exact_size, *meta = "{\"steps\":[\"1\"],\"nums\":[1,2],\"target\":3}";
		struct trajectory *trajectory = score(&kinds[i % KINDS], answer, meta, exact_size, &code, &err);
		assert_int_equal(trajectory->has_reward, code == 0);
		trajectory_free(trajectory);
		free(exact_size);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_exact_with_pattern),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_numeric),
		cmocka_unit_test(test_huge_numbers_are_wrong_not_equal),
		cmocka_unit_test(test_regex),
		cmocka_unit_test(test_bad_patterns_are_refused_at_open),
		cmocka_unit_test(test_catastrophic_pattern_ends_as_an_error),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_steps_with_pattern),
		cmocka_unit_test(test_math),
		cmocka_unit_test(test_math_and_countdown_survive_depth),
		cmocka_unit_test(test_countdown),
		cmocka_unit_test(test_contains),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_what_cannot_be_verified_is_an_error),
		cmocka_unit_test(test_none_leaves_the_reward_to_the_trainer),
		cmocka_unit_test(test_garbage_does_no_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
