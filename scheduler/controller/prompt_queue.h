/* prompt_queue.h - prompts that a trainer submitted and no group has been opened for yet: bounded, first come first
 * served.  Also what makes a prompt of a request (trainer_bridge/server/requests.h). */
#ifndef SCHEDULER_CONTROLLER_PROMPT_QUEUE_H
#define SCHEDULER_CONTROLLER_PROMPT_QUEUE_H

#include "configs/config.h"
#include "rollout/prompts.h"
#include "trainer_bridge/server/requests.h"

/* A prompt with what was asked for it; owned by whoever holds it. */
struct submitted_prompt {
	struct prompt prompt;     /* owned; text is NULL */
	int32_t epoch;
	bool unscored;            /* the trainer scores */
	int n_samples;            /* to draw */
	int32_t max_tokens;
	struct sampling_options sampling;
	size_t bytes;             /* that it holds */
	struct submitted_prompt *next;
};

/* What stays the same from prompt to prompt; all borrowed. */
struct prompt_maker {
	const struct tokenizer *tokenizer;
	const struct chat *chat;
	const struct config *config;
	int vocab_size, tokens_max;
};

/* Tokenizes and checks; the settings are those of the run where it says nothing. */
int submitted_prompt_make(struct submitted_prompt **out, const struct prompt_maker *maker,
                          const struct request_prompt *request, struct err *err);
void submitted_prompt_free(struct submitted_prompt *prompt); /* NULL is allowed */

struct prompt_queue {
	struct submitted_prompt *first, *last;
	int n;
	size_t bytes;
};

void prompt_queue_append(struct prompt_queue *queue, struct submitted_prompt *prompt); /* takes it */
struct submitted_prompt *prompt_queue_take(struct prompt_queue *queue);                /* owned; NULL if none */
/* Whether one of this id and epoch waits. */
bool prompt_queue_has(const struct prompt_queue *queue, const char *prompt_id, int64_t epoch);
void prompt_queue_clear(struct prompt_queue *queue);

#endif
