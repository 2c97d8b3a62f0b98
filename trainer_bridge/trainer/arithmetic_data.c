/* arithmetic_data.c - see arithmetic_data.h. */
#include "trainer_bridge/trainer/arithmetic_data.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/file.h"

static bool is_known(const struct arithmetic_problem *problems, int n, const char *prompt)
{
	for (int i = 0; i < n; i++)
		if (strcmp(problems[i].prompt, prompt) == 0) return true;
	return false;
}

struct arithmetic_problem *arithmetic_collect(uint64_t seed, bool held_out, int n)
{
	struct arithmetic_problem *problems = xmalloc((size_t)n * sizeof *problems);
	uint64_t index = 0;
	for (int i = 0; i < n;) {
		arithmetic_generate(&problems[i], seed, index++);
		if (arithmetic_is_held_out(&problems[i]) != held_out) continue;
		if (!is_known(problems, i, problems[i].prompt)) i++;
	}
	return problems;
}

static char *line_of(const struct arithmetic_problem *problem, const char *prefix, int number)
{
	char id[64], answer[16], step[ARITHMETIC_STEP_MAX];
	json_t *steps = json_array();
	for (int i = 0; i + 1 < problem->n_operands; i++) {
		arithmetic_step(problem, i, step);
		json_array_append_new(steps, json_string(step));
	}
	snprintf(id, sizeof id, "%s-%05d", prefix, number);
	snprintf(answer, sizeof answer, "%d", problem->answer);
	json_t *line = json_pack("{s:s, s:s, s:s, s:o}", "id", id, "prompt", problem->prompt, "answer", answer,
	                         "steps", steps);
	char *text = json_dumps(line, JSON_COMPACT);
	json_decref(line);
	return text;
}

int arithmetic_write(const char *path, const char *prefix, const struct arithmetic_problem *problems, int n,
                     struct err *err)
{
	size_t capacity = (size_t)n * 4 * ARITHMETIC_TEXT_MAX, at = 0;
	char *text = xmalloc(capacity + 1);
	for (int i = 0; i < n; i++) {
		char *line = line_of(&problems[i], prefix, i);
		at += (size_t)snprintf(text + at, capacity - at, "%s\n", line);
		free(line);
	}
	struct file_part part = { text, at };
	int code = file_replace(path, &part, 1, err);
	free(text);
	return code;
}

static int encode(struct train_sequence *out, const char *question, const char *answer,
                  const struct tokenizer *tokenizer, int32_t end_token, struct err *err)
{
	int32_t *prompt, *response;
	size_t n_prompt, n_response;
	if (tokenizer_encode(tokenizer, question, strlen(question), false, &prompt, &n_prompt, err))
		return err->code;
	if (tokenizer_encode(tokenizer, answer, strlen(answer), false, &response, &n_response, err)) {
		free(prompt);
		return err->code;
	}
	int32_t *tokens = xrealloc(prompt, (n_prompt + n_response + 1) * sizeof *tokens);
	memcpy(tokens + n_prompt, response, n_response * sizeof *tokens);
	tokens[n_prompt + n_response] = end_token;
	free(response);
	*out = (struct train_sequence){ tokens, (int)(n_prompt + n_response + 1), (int)n_prompt };
	return 0;
}

int arithmetic_batch_open(struct arithmetic_batch *batch, int n, uint64_t seed, uint64_t *index,
                          int at_once_percent, const struct tokenizer *tokenizer, int32_t end_token,
                          struct err *err)
{
	*batch = (struct arithmetic_batch){ xcalloc((size_t)n, sizeof *batch->sequences), 0, 0 };
	while (batch->n < n) {
		struct arithmetic_problem problem;
		arithmetic_generate(&problem, seed, (*index)++);
		if (arithmetic_is_held_out(&problem)) continue;
		struct train_sequence *sequence = &batch->sequences[batch->n];
		if (encode(sequence, problem.prompt, arithmetic_demonstration(&problem, at_once_percent), tokenizer,
		           end_token, err)) {
			arithmetic_batch_close(batch);
			return err->code;
		}
		batch->n_predicted += sequence->n_tokens - sequence->first;
		batch->n++;
	}
	return 0;
}

void arithmetic_batch_close(struct arithmetic_batch *batch)
{
	for (int i = 0; i < batch->n; i++) {
		union { const int32_t *borrowed; void *owned; } tokens = { batch->sequences[i].tokens };
		free(tokens.owned);
	}
	free(batch->sequences);
}
