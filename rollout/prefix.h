/* prefix.h - the KV of a group's prompt, computed once and shared by its samples.
 *
 * A prefix lives while any session of its group is queued or active.  It covers all of the prompt
 * but its last token, whose row each session computes itself since it needs the logits.  Under
 * memory pressure a prefix that nobody waits for may be forgotten and computed again later.
 *
 * In quantized mode `kv` is the quantized copy's, and rescoring leaves the target's of the same positions in
 * `target`: a cache, which may be forgotten at any time.
 */
#ifndef ROLLOUT_PREFIX_H
#define ROLLOUT_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/kv_cache.h"
#include "policy/policy.h"

struct prefix {
	struct prefix *next;
	uint64_t group_id;
	enum policy_part part; /* who computes it */
	int32_t *tokens;    /* [n_tokens], the prompt, owned */
	int32_t n_tokens;
	struct kv_seq kv;
	int32_t n_computed; /* positions [0, n_computed) are there, under the current policy */
	int32_t n_prefill;  /* positions computed this round */
	int32_t n_reached;  /* positions that were computed at some time: more of them is done again */
	int users;          /* sessions of the group, queued or active */
	int waiting;        /* of those, active and not forked yet */
	int forks;          /* since it was computed */
	struct kv_seq target; /* of all positions, or empty */
};

struct prefix_table {
	struct kv_cache *cache; /* borrowed */
	struct prefix *first;
};

/* Find or make the prefix of a group's prompt, as a part of the policy computes it; one more user. */
struct prefix *prefix_join(struct prefix_table *table, enum policy_part part, uint64_t group_id, const int32_t *tokens,
                           int32_t n_tokens);

/* One user less; the last one closes it. */
void prefix_leave(struct prefix_table *table, struct prefix *prefix);

static inline int32_t prefix_positions(const struct prefix *prefix) { return prefix->n_tokens - 1; }
static inline bool prefix_ready(const struct prefix *prefix)
{
	return prefix->n_computed == prefix_positions(prefix);
}

/* kv (open, empty) shares the pages of a ready prefix, or takes them over where no other user is left.
 * Returns positions that need not be computed because an earlier fork paid for them. */
int32_t prefix_fork(struct prefix *prefix, struct kv_seq *kv);

/* Give up all computed KV: the policy changed. */
void prefix_forget_all(struct prefix_table *table);

/* Give up the target's KV, or else the KV of prefixes that nobody waits for; false if there was none. */
bool prefix_forget_idle(struct prefix_table *table);

#endif
