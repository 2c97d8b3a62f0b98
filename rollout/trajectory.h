/* trajectory.h - the record of one sample, from lease to trainer.
 *
 * One struct serves all of a sample's life: freshly opened (n_tokens == n_prompt, finish NONE),
 * put aside as a partial (more tokens, finish NONE), finished (finish set), scored (reward,
 * advantage set).  It owns its arrays and strings.
 */
#ifndef ROLLOUT_TRAJECTORY_H
#define ROLLOUT_TRAJECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

enum { TRAJECTORY_SCHEMA = 1, TRAJECTORY_SAMPLES_MAX = 4096 };

/* X(name, wire text) */
#define FINISH_LIST(X) \
	X(FINISH_NONE, "none")     /* not finished: fresh or partial */ \
	X(FINISH_STOP, "stop")     /* an end or stop token was drawn (it is the last token) */ \
	X(FINISH_LENGTH, "length") /* max_tokens or the context was reached */ \
	X(FINISH_ABORT, "abort") \
	X(FINISH_PRUNED, "pruned") \
	X(FINISH_ERROR, "error")

enum finish_reason {
#define X(name, text) name,
	FINISH_LIST(X)
#undef X
};
const char *finish_name(enum finish_reason finish);
int finish_parse(const char *text); /* -1 if unknown */

struct sampling_options {
	float temperature; /* 0: greedy */
	float top_p;       /* 1: off */
	int32_t top_k;     /* 0: off */
	float min_p;       /* 0: off */
};

/* A run of response tokens made under one policy version on one rank. */
struct segment {
	int32_t start, length; /* token indices from 0 = first prompt token */
	int32_t version;
	int32_t rank;
	int32_t mode;          /* enum rollout_mode, and SEGMENT_KV_KEPT */
};

/* In mode: drawn over keys and values of which some were made by earlier versions (scheduler.kv: keep).  Such tokens
 * are on record, with their log-probabilities, but the record is not enough to draw them again. */
enum { SEGMENT_KV_KEPT = 16 };

struct trajectory {
	/* identity */
	uint64_t id;           /* trajectory_id(group_id, sample): stable */
	uint64_t group_id;     /* from 1, explicit: never by position */
	int32_t sample;        /* 0 .. group_size-1 */
	int32_t group_size;    /* samples drawn for the group, the MC-GRPO pivot included */
	char *prompt_id;       /* owned */
	int32_t epoch;
	bool eval;             /* evaluation: never trained on */
	uint64_t seed;         /* noise key, noise_key(run seed, prompt_id, epoch, sample) */

	/* what the verifier needs; owned, may be NULL */
	char *answer;
	char *meta;            /* other fields of the prompt's JSON line, a compact JSON object */

	/* settings */
	struct sampling_options sampling;
	int32_t max_tokens;    /* longest response */

	/* tokens; arrays [capacity], entries at and after n_prompt filled as tokens are made */
	int32_t n_prompt, n_tokens, capacity;
	int32_t *tokens;
	float *logprobs;       /* behaviour log-probability after temperature and truncation; 0 on the prompt */
	float *target_logprobs; /* the target's, of the same tokens, after the same; 0 on the prompt, -INFINITY for a token
	                         * outside the target's kept set.  NULL: nothing was drawn in quantized mode, or it is an
	                         * evaluation */
	int32_t *versions;     /* -1 on the prompt */
	uint8_t *loss_mask;    /* 0 on the prompt, 1 on the response */
	struct segment *segments;
	int32_t n_segments;

	/* explore mode, while it is generated; no part of the record */
	bool explored;         /* the quantized copy draws it: it is rewarded and never trained on */
	int32_t *proposal;     /* [n_proposal], owned: the response as the copy drew it; what is drawn here is the target's */
	int32_t n_proposal;

	enum finish_reason finish;
	char *error;           /* owned, with FINISH_ERROR */
	int32_t deferrals;     /* times put aside */

	/* reward and advantage */
	bool has_reward;
	double reward;
	double reward_answer;  /* component: 1 if the answer is right (strict pass), else 0 */
	double reward_steps;   /* component: share of right steps, or 0 */
	bool has_advantage;
	float advantage, baseline, scale;
	bool pivot;
	float loss_weight;     /* 0 for the pivot and for what must not be trained on */

	/* speculation counters: ratio of sums gives the acceptance rate */
	int32_t drafted, accepted, verify_calls;

	/* seconds; not part of what must be reproducible */
	double queue_seconds, prefill_seconds, decode_seconds, reward_seconds;

	/* versions the batch's version was ahead of the oldest and newest token; set at delivery */
	int32_t staleness_max, staleness_min;
};

static inline uint64_t trajectory_id(uint64_t group_id, int32_t sample)
{
	return group_id * TRAJECTORY_SAMPLES_MAX + (uint64_t)sample;
}

/* A fresh one with a copy of the prompt; owned by the caller. */
struct trajectory *trajectory_new(const int32_t *prompt, int32_t n_prompt, int32_t max_tokens);
struct trajectory *trajectory_copy(const struct trajectory *trajectory); /* deep */
void trajectory_free(struct trajectory *trajectory);                     /* NULL is allowed */

/* Append a token; extends the last segment or opens one when version, rank or mode differ.  Where they are
 * kept, its target_logprobs is logprob, but NaN in quantized mode: it is still to be computed. */
void trajectory_append(struct trajectory *trajectory, int32_t token, float logprob, int32_t version,
                       int32_t rank, int32_t mode);

/* Only its first n_tokens, n_prompt at least: tokens, segments and all that is by token. */
void trajectory_truncate(struct trajectory *trajectory, int32_t n_tokens);

static inline int32_t trajectory_response_length(const struct trajectory *t) { return t->n_tokens - t->n_prompt; }

/* The response of `explored` is what the target is to try first. */
void trajectory_propose(struct trajectory *trajectory, const int32_t *tokens, int32_t n);

/* From here on target_logprobs are kept.  What was drawn before was drawn by the target. */
void trajectory_keep_target(struct trajectory *trajectory);

/* XXH3-64 of everything that must be reproducible: identity, tokens, log-probabilities, versions,
 * mask, finish, reward, advantage; not ranks, segment modes, counters or timings. */
uint64_t trajectory_checksum(const struct trajectory *trajectory);

#endif
