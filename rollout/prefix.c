/* prefix.c - a short list of prompts, found by explicit group id and equal tokens. */
#include "rollout/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

struct prefix *prefix_join(struct prefix_table *table, enum policy_part part, uint64_t group_id, const int32_t *tokens,
                           int32_t n_tokens)
{
	size_t n_bytes = (size_t)n_tokens * sizeof *tokens;

	for (struct prefix *p = table->first; p; p = p->next) {
		if (p->group_id != group_id || p->part != part || p->n_tokens != n_tokens || memcmp(p->tokens, tokens, n_bytes) != 0)
			continue;
		p->users++;
		return p;
	}
	struct prefix *prefix = xcalloc(1, sizeof *prefix);
	prefix->group_id = group_id;
	prefix->part = part;
	prefix->tokens = memcpy(xmalloc(n_bytes), tokens, n_bytes);
	prefix->n_tokens = n_tokens;
	prefix->users = 1;
	kv_seq_open(&prefix->kv, table->cache);
	kv_seq_open(&prefix->target, table->cache);
	prefix->next = table->first;
	table->first = prefix;
	return prefix;
}

void prefix_leave(struct prefix_table *table, struct prefix *prefix)
{
	assert(prefix->users > 0);
	if (--prefix->users > 0) return;
	struct prefix **at = &table->first;
	while (*at != prefix) at = &(*at)->next;
	*at = prefix->next;
	kv_seq_close(&prefix->kv);
	kv_seq_close(&prefix->target);
	free(prefix->tokens);
	free(prefix);
}

static void prefix_forget(struct prefix *prefix)
{
	kv_seq_truncate(&prefix->kv, 0);
	prefix->n_computed = 0;
	prefix->forks = 0;
}

int32_t prefix_fork(struct prefix *prefix, struct kv_seq *kv)
{
	int32_t positions = prefix_positions(prefix), shared = prefix->forks++ > 0 ? positions : 0;

	assert(prefix_ready(prefix));
	if (prefix->users > 1) {
		kv_seq_fork(kv, &prefix->kv, positions);
		return shared;
	}
	struct kv_seq empty = *kv;
	*kv = prefix->kv;
	prefix->kv = empty;
	prefix_forget(prefix);
	return shared;
}

void prefix_forget_all(struct prefix_table *table)
{
	for (struct prefix *p = table->first; p; p = p->next) {
		prefix_forget(p);
		kv_seq_truncate(&p->target, 0);
	}
}

bool prefix_forget_idle(struct prefix_table *table)
{
	bool any = false;

	for (struct prefix *p = table->first; p; p = p->next) {
		any |= p->target.n_pages > 0;
		kv_seq_truncate(&p->target, 0);
	}
	if (any) return true;
	for (struct prefix *p = table->first; p; p = p->next) {
		if (p->waiting > 0 || p->kv.n_pages == 0) continue;
		prefix_forget(p);
		any = true;
	}
	return any;
}
