/* controller.h - rank 0: the scheduler's state machine between ranks, trainer, store and person. */
#ifndef SCHEDULER_CONTROLLER_CONTROLLER_H
#define SCHEDULER_CONTROLLER_CONTROLLER_H

#include "configs/config.h"
#include "policy/model_config.h"
#include "policy/chat/chat.h"
#include "policy/tokenizer/tokenizer.h"
#include "rollout/prompts.h"
#include "scheduler/ranks/transport.h"

/* What was read and checked before any rank starts to work; borrowed for the call. */
struct controller_inputs {
	const struct config *config;
	const struct model_config *model;
	const struct tokenizer *tokenizer;
	const struct chat *chat;
	const struct prompts *prompts;      /* training; n == 0: all are submitted */
	const struct prompts *eval_prompts; /* n == 0: no evaluation */
	const char *resume_dir;             /* a run directory to go on with; NULL: make a new one */
};

/* Runs run.steps steps and returns the exit status; errors are printed. */
int controller_run(struct transport *transport, const struct controller_inputs *inputs);

/* Nothing to do after all: tells every worker to go. */
void controller_dismiss(struct transport *transport);

#endif
