/* export_columns.h - the columns that formats with one row per trajectory have, in one table. */
#ifndef SCHEDULER_EXPORT_EXPORT_COLUMNS_H
#define SCHEDULER_EXPORT_EXPORT_COLUMNS_H

#include "scheduler/export/export.h"

/* WORD: short, of a small set or an id; TEXT: of any length. */
enum column_kind { COLUMN_U64, COLUMN_I64, COLUMN_I32, COLUMN_BOOL, COLUMN_F32, COLUMN_F64, COLUMN_WORD, COLUMN_TEXT };

/* X(kind, name, stable, value of row and t): numbers that are not there are NaN.  seed: 64 random bits. */
#define EXPORT_COLUMN_LIST(X) \
	X(U64, id, true, t->id) \
	X(U64, group_id, true, t->group_id) \
	X(I32, sample, true, t->sample) \
	X(I32, group_size, true, t->group_size) \
	X(WORD, prompt_id, true, t->prompt_id) \
	X(I32, epoch, true, t->epoch) \
	X(BOOL, eval, true, t->eval) \
	X(WORD, state, true, export_state_name(row->state)) \
	X(I64, step, false, row->step) \
	X(U64, seed, true, t->seed) \
	X(F32, temperature, true, t->sampling.temperature) \
	X(F32, top_p, true, t->sampling.top_p) \
	X(I32, top_k, true, t->sampling.top_k) \
	X(F32, min_p, true, t->sampling.min_p) \
	X(I32, max_tokens, true, t->max_tokens) \
	X(I32, n_prompt, true, t->n_prompt) \
	X(I32, n_response, true, trajectory_response_length(t)) \
	X(WORD, finish_reason, true, finish_name(t->finish)) \
	X(F64, reward, true, t->has_reward ? t->reward : (double)NAN) \
	X(F64, reward_answer, true, t->has_reward ? t->reward_answer : (double)NAN) \
	X(F64, reward_steps, true, t->has_reward ? t->reward_steps : (double)NAN) \
	X(F32, advantage, true, t->has_advantage ? t->advantage : NAN) \
	X(F32, baseline, true, t->has_advantage ? t->baseline : NAN) \
	X(F32, scale, true, t->has_advantage ? t->scale : NAN) \
	X(BOOL, pivot, true, t->pivot) \
	X(F32, loss_weight, true, t->loss_weight) \
	X(F64, logprob_sum, true, column_logprob_sum(t)) \
	X(I32, version_first, true, t->n_tokens > t->n_prompt ? t->versions[t->n_prompt] : -1) \
	X(I32, version_last, true, t->n_tokens > t->n_prompt ? t->versions[t->n_tokens - 1] : -1) \
	X(BOOL, kv_kept, true, column_kv_kept(t)) \
	X(I32, staleness_max, true, t->staleness_max) \
	X(I32, staleness_min, true, t->staleness_min) \
	X(I32, deferrals, false, t->deferrals) \
	X(I32, drafted, false, t->drafted) \
	X(I32, accepted, false, t->accepted) \
	X(I32, verify_calls, false, t->verify_calls) \
	X(F64, queue_seconds, false, t->queue_seconds) \
	X(F64, prefill_seconds, false, t->prefill_seconds) \
	X(F64, decode_seconds, false, t->decode_seconds) \
	X(F64, reward_seconds, false, t->reward_seconds) \
	X(TEXT, error, true, t->error) \
	X(TEXT, answer, true, t->answer) \
	X(TEXT, meta, true, t->meta)

enum export_column {
#define X(kind, name, stable, value) EXPORT_COLUMN_##name,
	EXPORT_COLUMN_LIST(X)
#undef X
	EXPORT_COLUMNS
};

struct column {
	const char *name;
	enum column_kind kind;
	bool stable;
};
extern const struct column export_columns[EXPORT_COLUMNS];

/* By kind: U64 in u; I64, I32 and BOOL in i; F32 and F64 in r; WORD and TEXT in text, borrowed, NULL: none. */
struct column_value {
	uint64_t u;
	int64_t i;
	double r;
	const char *text;
};
struct column_value export_column_value(enum export_column column, const struct export_row *row);

#endif
