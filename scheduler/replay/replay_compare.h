/* replay_compare.h - a stretch that was drawn again beside its record, bit for bit, and what to say of a difference.
 *
 * A difference is a JSON object, which travels between ranks, is printed for people by replay_report.c and is what
 * `--json` has: trajectory, group, sample, prompt_id, epoch, step, state, eval; differs (what: REPLAY_FIELD_LIST);
 * prompt (text); where tokens differ position (from the first prompt token), response_position, segment {index, start,
 * length, version, rank, mode}, before, recorded and replayed {token, text, after, logprob, logprob_hex,
 * target_logprob, ...}; recorded and replayed also have what else differs; note.
 */
#ifndef SCHEDULER_REPLAY_REPLAY_COMPARE_H
#define SCHEDULER_REPLAY_REPLAY_COMPARE_H

#include <jansson.h>

#include "policy/tokenizer/tokenizer.h"
#include "scheduler/replay/replay_plan.h"
#include "scheduler/store/store_read.h"

/* X(name, what people read) */
#define REPLAY_FIELD_LIST(X) \
	X(FIELD_TOKENS, "tokens") \
	X(FIELD_LOGPROBS, "logprobs") \
	X(FIELD_TARGET_LOGPROBS, "target_logprobs") \
	X(FIELD_SEGMENTS, "segments") /* they contradict the tokens */ \
	X(FIELD_SEED, "seed")         /* it is not that of run, prompt, epoch and sample */ \
	X(FIELD_FINISH, "finish_reason") \
	X(FIELD_REWARD, "reward") \
	X(FIELD_CHECKSUM, "checksum") \
	X(FIELD_RECORD, "record")     /* it cannot be read, or its sample cannot be generated */

enum replay_field {
#define X(name, text) name,
	REPLAY_FIELD_LIST(X)
#undef X
	FIELD_COUNT
};

/* What is not the same. */
struct replay_verdict {
	unsigned fields;  /* 1 << enum replay_field; 0: equal */
	int32_t position; /* of the first token with a difference of its own, -1: there is none */
};

/* `again` is what replay_begin gave, drawn to its end.  Tokens, log-probabilities and finish reason; of the last
 * stretch of a trajectory also the seed, the reward if reward_known, and the checksum with all that is not drawn. */
struct replay_verdict replay_compare(const struct replay_stretch *stretch, const struct trajectory *recorded,
                                     const struct trajectory *again, uint64_t run_seed, bool reward_known);

/* The checksum of the record as it was drawn again: what is not drawn is the record's. */
uint64_t replay_checksum(const struct trajectory *recorded, const struct trajectory *again, bool reward_known);

/* Owned by the caller.  again and stretch may be NULL: there is only a note.  sample says what the store knows. */
json_t *replay_describe(const struct replay_verdict *verdict, const struct replay_stretch *stretch,
                        const struct stored_sample *sample, const struct trajectory *recorded,
                        const struct trajectory *again, const struct tokenizer *tokenizer, const char *note);

#endif
