/* draft_quant.c - self-speculation: the policy's quantized copy proposes (QuantSpec, Tiwari et al.
 * 2025; ML-SpecQD, Georganas et al. 2025, draft with a 4-bit copy likewise).
 *
 * It reads the target's KV of all tokens made so far and writes its own, provisional, behind it;
 * the verified rows overwrite those, so every round starts from a prefix made by the target alone.
 * It draws with the sample's own noise at the position it drafts for: where its logits are close to
 * the target's, the draws coincide.  Cost: one quantized forward call over all sessions per token.
 */
#include "rollout/speculation/draft.h"

#include "policy/team.h"
#include "rollout/speculation/verify_maximal.h"

/* The sessions of one drafter, and the place in the draft that is being made. */
struct drafting {
	struct workspace *workspace;
	struct session *const *sessions;
	int n, drafter, step;
};

static bool still_drafts(const struct drafting *d, const struct session *s)
{
	return s->drafter == d->drafter && d->step < s->n_draft;
}

/* The rows of one more token for each session that still drafts, behind what is in the workspace;
 * returns how many. */
static int draft_rows(const struct drafting *d, double *positions)
{
	struct workspace *w = d->workspace;
	int n_rows = 0, step = d->step;

	for (int i = 0; i < d->n; i++) {
		struct session *s = d->sessions[i];
		int32_t last = s->trajectory->n_tokens - 1;
		if (!still_drafts(d, s)) continue;
		*positions += last + step + 1;
		s->logits_row = n_rows++;
		workspace_add_row(w, &s->kv, last + step, step > 0 ? s->draft[step - 1] : s->trajectory->tokens[last],
		                  s->logits_row);
	}
	return n_rows;
}

static void draft_draw(struct workspace *w, struct sampler *sampler, struct session *s, int step)
{
	const struct trajectory *t = s->trajectory;

	if (w->maximal) {
		maximal_propose(w, sampler, s, step);
		return;
	}
	s->draft[step] = sampler_draw_token(sampler, workspace_logits(w, s->logits_row), &t->sampling, t->seed,
	                                    t->n_tokens + step);
	if (workspace_is_stop(w, s->draft[step])) s->n_draft = step + 1;
}

static void draw_share(const struct team *team, void *arg)
{
	const struct drafting *d = arg;
	struct workspace *w = d->workspace;

	for (int i = team->thread; i < d->n; i += team->n_threads)
		if (still_drafts(d, d->sessions[i])) draft_draw(w, w->samplers[team->thread], d->sessions[i], d->step);
}

static void draft_all(struct drafting *d)
{
	struct workspace *w = d->workspace;
	enum policy_part part = d->drafter == DRAFTER_QUANT_INT4 ? PART_DRAFT_INT4 : PART_DRAFT;
	int base = w->n_rows;

	for (; d->step < DRAFT_LENGTH_MAX; d->step++) {
		double start = workspace_now(w), positions = 0;
		int n_rows = draft_rows(d, &positions);
		if (n_rows == 0) break;
		forward_run(w->forward, w->policy, part, w->rows + base, n_rows, w->logits, w->stride);
		w->n_rows = base;
		w->stats.draft_rows += (uint64_t)n_rows;
		team_run(workspace_draw_threads(w, n_rows), draw_share, d);
		if (w->speculation)
			speculation_observe(w->speculation, d->drafter, n_rows, positions, workspace_now(w) - start);
	}
}

static void propose(struct workspace *w, struct session *const *sessions, int n)
{
	double begun = workspace_now(w);

	for (int drafter = DRAFTER_QUANT; drafter < DRAFTER_SUFFIX; drafter++)
		draft_all(&(struct drafting){.workspace = w, .sessions = sessions, .n = n, .drafter = drafter});
	w->stats.draft_seconds += workspace_now(w) - begun;
}

const struct drafter draft_quant = {.name = "quant", .propose = propose};
