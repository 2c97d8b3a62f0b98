/* fuzz_prompts.c - any bytes are prompts or an error that names the line; what is taken has an id of its own, tokens of
 * the vocabulary, and opens samples. */
#define _GNU_SOURCE /* memfd_create */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rollout/prompts.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_file.h"

enum { CONTEXT = 256 };
static const char model[] = "configs/quickstart"; /* run from the top of the tree */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	static struct tokenizer *tokenizer;
	static struct chat *chat;
	struct prompts prompts;
	struct err err = {0};
	struct prompts_options options = {.max_context = CONTEXT};

	if (!tokenizer && (tokenizer_open(&tokenizer, model, &err) || chat_open(&chat, model, &err))) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	if (prompts_load(&prompts, fuzz_file(bytes, n_bytes), tokenizer, chat, &options, &err)) {
		assert(err.code < 0 && err.text[0] && !prompts.items);
		return 0;
	}
	assert(prompts.n > 0);
	for (size_t i = 0; i < prompts.n; i++) {
		const struct prompt *prompt = &prompts.items[i];
		assert(prompt->id && prompt->n_tokens > 0 && prompt->n_tokens < CONTEXT);
		for (int32_t k = 0; k < prompt->n_tokens; k++)
			assert(prompt->tokens[k] >= 0 && prompt->tokens[k] < tokenizer_vocab_size(tokenizer));
		struct sampling_options sampling = {.temperature = 1, .top_p = 1};
		trajectory_free(prompts_open_sample(prompt, 1, 0, 1, 0, 1, &sampling, 8));
	}
	prompts_free(&prompts);
	return 0;
}
