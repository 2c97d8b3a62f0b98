/* requests.h - what a trainer asks of a run beside batches: prompts to sample, evaluations, log-probabilities
 * (PROTOCOL.md, "Requests").  The server checks form and limits; whether there is room, and what a text means, is
 * decided by these handlers, which are called from server_poll.
 */
#ifndef TRAINER_BRIDGE_SERVER_REQUESTS_H
#define TRAINER_BRIDGE_SERVER_REQUESTS_H

#include "rollout/trajectory.h"

/* Settings as asked for; what was not said is the run's (SUBMIT) or plain sampling (EVALUATE, SCORE). */
struct request_settings {
	bool has_samples, has_max_tokens, has_temperature, has_top_p, has_top_k, has_min_p;
	int samples, max_tokens;
	struct sampling_options sampling; /* temperature 1 and no truncation where nothing was said */
};

/* One prompt, by exactly one of text, messages (a JSON array) and tokens; all borrowed for the call. */
struct request_prompt {
	const char *prompt_id, *text, *messages;
	const int32_t *tokens;
	size_t n_tokens;
	const char *answer, *meta; /* or NULL; meta is a text, not checked to be JSON */
	int64_t epoch;             /* -1: not given */
	bool unscored;             /* reward "none" */
	struct request_settings settings; /* of SUBMIT */
};

struct request_sequence {
	const int32_t *tokens;
	int n_tokens, n_prompt;    /* 1 <= n_prompt <= n_tokens */
};

/* What a handler says to a request that it takes; `busy` goes with an error: may be tried again. */
struct request_answer {
	int n_prompts, room;
	bool busy;
};

/* 0, or a code that is sent back with err->text; nothing has happened then.  A ticket names the request until it is
 * answered (server_answer_*) or forgotten. */
struct request_handlers {
	void *context;
	int prompts_max, prompt_tokens_max, max_tokens, keep_versions; /* told in the handshake */
	int (*submit)(void *context, const struct request_prompt *prompts, int n, struct request_answer *answer,
	              struct err *err);
	/* n 0: the held-out prompts. */
	int (*evaluate)(void *context, uint64_t ticket, const struct request_prompt *prompts, int n,
	                const struct request_settings *settings, struct request_answer *answer, struct err *err);
	int (*score)(void *context, uint64_t ticket, int64_t version, const struct request_sequence *sequences, int n,
	             const struct request_settings *settings, struct request_answer *answer, struct err *err);
	/* Its peer has gone, or its evaluation has been sent: the room is free. */
	void (*forget)(void *context, uint64_t ticket);
};

#endif
