/* verifier_lines.h - what is said to an external verifier and what it answers: one JSON object per line each way.
 *
 *   to it    {"id":17,"prompt":"2+2=","response":"4","answer":"4","metadata":{...},"tokens":1,"finish":"stop",
 *             "prompt_id":"p0","group":3,"sample":0,"eval":false}
 *   from it  {"id":17,"reward":1.0,"components":{"answer":1,"steps":0.5}}      judged
 *            {"id":17,"error":"the prompt has no tests"}                       cannot be judged: bad data
 *            {"id":17,"error":"the sandbox is full","retry":true}              not now: tried again
 *
 * `answer` and `metadata` (the other fields of the prompt's JSON line) are null where the prompt has none.  A reward
 * is a number from -REWARD_MAX to REWARD_MAX, true or false; unknown fields are ignored.  Of the components `answer`
 * (1: right, which is what pass rates count; default: reward >= 1) and `steps` are kept.
 * No I/O here, and nothing is kept: bytes in, values out. */
#ifndef SCHEDULER_VERIFIER_VERIFIER_LINES_H
#define SCHEDULER_VERIFIER_VERIFIER_LINES_H

#include <stddef.h>

#include "policy/tokenizer/tokenizer.h"
#include "rollout/trajectory.h"

enum { VERIFIER_ERROR_MAX = 256 };
static const double VERIFIER_REWARD_MAX = 1e9;

enum verifier_answer { VERIFIER_JUDGED, VERIFIER_CANNOT_JUDGE, VERIFIER_TRY_AGAIN };

struct verifier_reply {
	bool has_id;
	uint64_t id;
	enum verifier_answer answer;
	double reward, reward_answer, reward_steps;
	char error[VERIFIER_ERROR_MAX]; /* what it said, cut; with the other two answers */
};

/* The request without its beginning `{"id":N,` and with its newline: an id is given per attempt.  Owned by the caller;
 * NULL with err set where the tokens have no text. */
char *verifier_request_body(const struct trajectory *trajectory, const struct tokenizer *tokenizer, size_t *n_bytes,
                            struct err *err);

/* One line without its newline.  ERR_INVALID or ERR_MISSING where it is no reply; has_id and id are set if they could
 * be read even so. */
int verifier_reply_parse(struct verifier_reply *reply, const char *line, size_t n_bytes, struct err *err);

#endif
