/* draft_given.c - drafts that came with the sample: a response that the quantized copy drew with the same noise, on its
 * own and over its own keys and values (explore.h).
 *
 * Until the target differs from it for the first time, its next tokens are verified in chunks, like any draft; from
 * there on the two are different texts, and the usual drafters take over.  Its places are nearly as good as those of a
 * drafter that reads the target's KV, cost no drafting, and what lies beyond the difference is wasted once per sample.
 *
 * Samples of one prompt often say the same, those that are right above all.  The target's logits are a function of the
 * tokens alone, to the bit, so as long as several samples of a call have the same tokens behind and before them, the rows
 * are computed for one of them; each draws from them with its own noise, and shares its pages of keys and values.
 */
#include <string.h>

#include "rollout/speculation/draft.h"

int draft_given(struct session *s, int most)
{
	const struct trajectory *t = s->trajectory;
	int32_t n_made = trajectory_response_length(t);

	for (; !s->differed && s->n_agreed < n_made; s->n_agreed++)
		s->differed = s->n_agreed >= t->n_proposal || t->tokens[t->n_prompt + s->n_agreed] != t->proposal[s->n_agreed];
	int32_t left = t->n_proposal - n_made, n = left < most ? left : most;
	if (s->differed || n <= 0) return 0;
	memcpy(s->draft, t->proposal + n_made, (size_t)n * sizeof *s->draft);
	return n;
}

static bool same_so_far(const struct session *a, const struct session *b)
{
	const struct trajectory *x = a->trajectory, *y = b->trajectory;

	return a->prefix == b->prefix && x->n_tokens == y->n_tokens && !a->kv_kept && !b->kv_kept &&
	       memcmp(x->tokens + x->n_prompt, y->tokens + y->n_prompt, (size_t)trajectory_response_length(x) * sizeof *x->tokens) == 0;
}

/* What b tries is the beginning of what a tries. */
static bool same_draft(const struct session *a, const struct session *b)
{
	return a->n_draft >= b->n_draft && memcmp(a->draft, b->draft, (size_t)b->n_draft * sizeof *b->draft) == 0;
}

void draft_given_pair(struct session *const *sessions, int n)
{
	for (int i = 0; i < n; i++) {
		sessions[i]->twin = NULL;
		for (int j = 0; j < i && !sessions[i]->twin; j++)
			if (!sessions[j]->twin && same_draft(sessions[j], sessions[i]) && same_so_far(sessions[j], sessions[i]))
				sessions[i]->twin = sessions[j];
	}
}

struct session *draft_find_twin(struct session *const *sessions, int n, const struct session *s)
{
	for (int i = 0; i < n; i++)
		if (!sessions[i]->twin && same_so_far(sessions[i], s)) return sessions[i];
	return NULL;
}

void draft_settle_twin(struct session *s)
{
	kv_seq_truncate(&s->kv, 0);
	if (s->trajectory->finish == FINISH_NONE) kv_seq_fork(&s->kv, &s->twin->kv, s->n_computed);
}
