/* prompts.h - prompts from JSON lines, tokenized, in a reproducible order.
 *
 * A line holds `prompt` (text) or `messages` (chat), optionally `id` (default: line number from
 * 0), `answer`, and `max_tokens`, a limit of its responses below that of the run; every other field is kept as
 * meta.  Bad lines are refused with their number before any work starts.
 */
#ifndef ROLLOUT_PROMPTS_H
#define ROLLOUT_PROMPTS_H

#include <stdbool.h>
#include <stddef.h>

#include "policy/chat/chat.h"
#include "policy/tokenizer/tokenizer.h"
#include "rollout/trajectory.h"

struct prompt {
	char *id;
	char *text;     /* as rendered */
	char *answer;   /* or NULL */
	char *meta;     /* compact JSON object, or NULL */
	int32_t *tokens;
	int32_t n_tokens;
	int32_t max_tokens; /* its own limit, 0: none */
};

struct prompts {
	struct prompt *items; /* [n], owned */
	size_t n;
};

struct prompts_options {
	const char *prompt_key, *answer_key; /* NULL: "prompt", "answer" */
	const char *template;                /* with {prompt}; NULL: as it is */
	size_t limit;                        /* 0: all */
	int max_context;                     /* a prompt must be shorter */
};

int prompts_load(struct prompts *prompts, const char *path, const struct tokenizer *tokenizer,
                 const struct chat *chat, const struct prompts_options *options, struct err *err);
void prompts_free(struct prompts *prompts);

/* Index of the ordinal-th prompt of a run: epoch = ordinal / n, and a permutation of that epoch
 * keyed by seed where shuffle is set. */
size_t prompts_index(const struct prompts *prompts, uint64_t ordinal, bool shuffle, uint64_t seed, int32_t *epoch);

/* A fresh trajectory for one sample of a prompt; max_tokens, or the prompt's own limit if that is lower. */
struct trajectory *prompts_open_sample(const struct prompt *prompt, uint64_t group_id, int32_t sample,
                                       int32_t group_size, int32_t epoch, uint64_t run_seed,
                                       const struct sampling_options *sampling, int32_t max_tokens);
/* One more sample of the same group, index `sample`; alike in all but its noise. */
struct trajectory *prompts_open_sibling(const struct trajectory *member, int32_t sample, uint64_t run_seed);

#endif
