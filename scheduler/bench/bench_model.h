/* bench_model.h - a model to measure, and the least that its forward calls cost. */
#ifndef SCHEDULER_BENCH_BENCH_MODEL_H
#define SCHEDULER_BENCH_BENCH_MODEL_H

#include "policy/forward.h"
#include "rollout/prompts.h"
#include "scheduler/bench/bench_report.h"

/* "int4|int4_g64|...|bf16": choices whose index is an enum format. */
extern const char bench_format_choices[];

const char *bench_format_name(enum format format);

/* Weights of a directory, grown in memory to that many parameters where grow > 0 (policy/grow.h). */
int bench_weights_load(struct weights *weights, const char *dir, double grow, struct err *err);

/* Prompts of a file (rollout/prompts.h) in the words of a model directory; limit 0: all. */
int bench_prompts_load(struct prompts *prompts, const char *dir, const char *file, size_t limit, struct err *err);

/* What one forward call reads and computes.  positions_read: of keys and values, each counted as often as
 * it must be read; positions_attended: sum over rows. */
struct bench_call {
	const struct policy *policy;
	bool draft;
	enum kv_type kv_type;
	int rows, logits_rows;
	double positions_read, positions_attended;
};
struct bench_work bench_call_work(const struct bench_call *call);

/* One sequence of pseudo-random tokens and copies of it.  All in one KV cache. */
struct bench_sequences {
	const struct policy *policy;
	struct forward *forward;
	struct kv_cache *cache;
	struct kv_seq *seqs; /* [n] */
	struct forward_row *rows; /* [rows_max] */
	float *logits;            /* [rows_max][stride] */
	size_t stride;
	int n, rows_max;
};

/* n sequences of up to n_positions; ERR_TOO_BIG beyond the model's context. */
int bench_sequences_open(struct bench_sequences *sequences, const struct policy *policy, enum kv_type kv_type, int n,
                         int n_positions, int n_threads, struct err *err);
void bench_sequences_close(struct bench_sequences *sequences);

/* Positions [0, context) of the first sequence by the target, and their KV copied to the others.  Returns
 * the seconds of the call for the first. */
double bench_sequences_prefill(struct bench_sequences *sequences, int context);

/* One more token of each of the first n sequences, at that position; returns the seconds of the call. */
double bench_sequences_step(struct bench_sequences *sequences, int n, int position, enum policy_part part);

#endif
