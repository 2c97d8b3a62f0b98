/* controller_requests.h - rank 0's desk for what a trainer asks for: submitted prompts, evaluations, scores. */
#ifndef SCHEDULER_CONTROLLER_CONTROLLER_REQUESTS_H
#define SCHEDULER_CONTROLLER_CONTROLLER_REQUESTS_H

#include "scheduler/controller/prompt_queue.h"
#include "scheduler/controller/score_service.h"

struct controller;
struct live_group;

/* Held-out or given prompts that a trainer wants evaluated. */
struct evaluation {
	uint64_t ticket;                    /* 0: its peer has gone */
	struct submitted_prompt **prompts;  /* [n], owned; NULL: the held-out ones */
	int n, n_opened, n_samples;
	int32_t max_tokens;
	struct sampling_options sampling;
	bool running, answered;
	size_t bytes;
	struct evaluation *next;
};

struct request_desk;

/* After the server has been opened. */
int controller_requests_open(struct controller *c, int positions, struct err *err);
void controller_requests_close(struct controller *c);

/* Fills the samples of a group that was opened for the next submitted prompt. */
int controller_open_submitted(struct controller *c, struct live_group *g, struct err *err);
/* The group was given up: its prompt is the next one again. */
void controller_return_prompt(struct controller *c, struct live_group *g);

/* No step is open: begin the oldest evaluation that waits; false if none does. */
bool controller_begin_requested(struct controller *c);
int controller_open_requested(struct controller *c, struct live_group *g, struct err *err);
/* Its groups are delivered: answer it, and go on where it interrupted. */
int controller_end_requested(struct controller *c, struct err *err);

void controller_answer_scores(struct controller *c); /* those that are ready */
void controller_scores_keep(struct controller *c, int64_t version, const struct weights *weights);
/* The version before is still being written: the next one waits for that (weights.keep_versions). */
bool controller_scores_keeping(const struct controller *c);
/* Scores are still being computed. */
bool controller_has_requests(const struct controller *c);
int controller_prompts_waiting(const struct controller *c);
/* Only the trainer has prompts, and all that it submitted have been delivered: a step would have nothing to begin with. */
bool controller_lacks_prompts(const struct controller *c);

#endif
