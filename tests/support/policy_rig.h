/* policy_rig.h - a random policy with all that a forward pass needs, and the ways tests call it. */
#ifndef TESTS_SUPPORT_POLICY_RIG_H
#define TESTS_SUPPORT_POLICY_RIG_H

#include "policy/forward.h"

enum { RIG_TOKENS = 80, RIG_ROWS_MAX = 128, RIG_SHAPES = 9 };

struct policy_rig {
	struct weights weights;
	struct policy *policy; /* version 1, with a drafter */
	struct kv_cache *cache;
	struct forward *forward;
	int tokens[RIG_TOKENS]; /* random */
};

/* Shapes 0 .. RIG_SHAPES-1 meet every edge: heads narrower than a panel, widths that are no multiple of
 * a panel or an INT8 group, K above one block, untied head, biases, head norms, rope scalings. */
struct model_config rig_shape(int i);

void rig_open(struct policy_rig *rig, const struct model_config *config, uint64_t seed, int n_threads);
/* The same with a cache of this type; rig_open takes BF16. */
void rig_open_kv(struct policy_rig *rig, const struct model_config *config, enum kv_type type, uint64_t seed,
                 int n_threads);
void rig_close(struct policy_rig *rig);

/* Room for n_rows of logits, filled with NaN; free with free(). */
float *rig_logits(const struct policy_rig *rig, int n_rows);
float *rig_row(const struct policy_rig *rig, float *logits, int row);

/* Positions [begin, end) of tokens in one call, logits into the rows of those positions. */
void rig_run_piece(const struct policy_rig *rig, struct kv_seq *seq, const int *tokens, int begin, int end,
                   enum policy_part part, float *logits);

/* The first n tokens in one call on a fresh sequence; owned by the caller. */
float *rig_run(const struct policy_rig *rig, const int *tokens, int n, enum policy_part part);

#endif
