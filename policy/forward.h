/* forward.h - the forward pass over a ragged batch of rows.
 *
 * A row is one token of one sequence at one position.  Prefill, chunked prefill, decode and verify
 * are the same call with different rows, so they give the same bits: all rows
 * of a layer write their K and V before any of them attends, and a row at position p attends to
 * positions 0..p of its own sequence.  Rows of one sequence may be many (a chunk, a verified draft)
 * and need not be sorted.
 */
#ifndef POLICY_FORWARD_H
#define POLICY_FORWARD_H

#include "policy/kv_cache.h"
#include "policy/policy.h"

struct forward_row {
	struct kv_seq *seq;   /* borrowed; position must be reserved (kv_seq_reserve) */
	int32_t position;
	int32_t token;
	int32_t logits_row;   /* row of the logits output, or -1 for none; those given are 0 .. n-1, each once */
};

struct forward; /* scratch memory and thread count; mutable, one call at a time */

/* rows_max bounds the rows of one call (longer calls are an assert). */
struct forward *forward_open(const struct model_config *config, int rows_max, int n_threads);
void forward_close(struct forward *forward);

/* logits [n_logits][stride] f32, stride >= forward_logits_stride(config); entries at and above
 * vocab_size are undefined.  Parts but PART_TARGET need a policy with a drafter. */
void forward_run(struct forward *forward, const struct policy *policy, enum policy_part part,
                 const struct forward_row *rows, int n_rows, float *logits, size_t stride);

/* What the head of the last call read for a row of its logits, the final norm's output: [dim] f32, good until the next
 * call.  The same bits whatever else was in the call. */
const float *forward_hidden(const struct forward *forward, int logits_row);

size_t forward_logits_stride(const struct model_config *config);

/* Use this table instead of kernels_best(); results are the same bits (tests assert it). */
void forward_set_kernels(struct forward *forward, const struct kernels *kernels);

#endif
