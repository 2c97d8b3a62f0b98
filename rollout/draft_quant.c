/* draft_quant.c - self-speculation: the policy's quantized copy proposes (QuantSpec, Tiwari et al.
 * 2025; ML-SpecQD, Georganas et al. 2025, draft with a 4-bit copy likewise).
 *
 * It reads the target's KV of all tokens made so far and writes its own, provisional, behind it;
 * the verified rows overwrite those, so every round starts from a prefix made by the target alone.
 * It draws with the sample's own noise at the position it drafts for: where its logits are close to
 * the target's, the draws coincide.  Cost: one quantized forward call over all sessions per token.
 */
#include "rollout/draft.h"

#include "policy/team.h"

/* The rows of one more token for each session that still drafts, behind what is in the workspace;
 * returns how many. */
static int draft_rows(struct workspace *w, struct session *const *sessions, int n, int step, double *positions)
{
	int n_rows = 0;

	for (int i = 0; i < n; i++) {
		struct session *s = sessions[i];
		int32_t last = s->trajectory->n_tokens - 1;
		if (s->drafter != DRAFTER_QUANT || step >= s->n_draft) continue;
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

	s->draft[step] = sampler_draw_token(sampler, workspace_logits(w, s->logits_row), &t->sampling, t->seed,
	                                    t->n_tokens + step);
	if (workspace_is_stop(w, s->draft[step])) s->n_draft = step + 1;
}

struct draw_step {
	struct workspace *workspace;
	struct session *const *sessions;
	int n, step;
};

static void draw_share(const struct team *team, void *arg)
{
	const struct draw_step *d = arg;
	struct workspace *w = d->workspace;

	for (int i = team->thread; i < d->n; i += team->n_threads)
		if (d->sessions[i]->drafter == DRAFTER_QUANT && d->step < d->sessions[i]->n_draft)
			draft_draw(w, w->samplers[team->thread], d->sessions[i], d->step);
}

static void propose(struct workspace *w, struct session *const *sessions, int n)
{
	int base = w->n_rows;
	double begun = workspace_now(w);

	for (int step = 0; step < DRAFT_LENGTH_MAX; step++) {
		double start = workspace_now(w), positions = 0;
		int n_rows = draft_rows(w, sessions, n, step, &positions);
		if (n_rows == 0) break;
		forward_run(w->forward, w->policy, true, w->rows + base, n_rows, w->logits, w->stride);
		w->n_rows = base;
		w->stats.draft_rows += (uint64_t)n_rows;
		team_run(workspace_draw_threads(w, n_rows), draw_share,
		         &(struct draw_step){.workspace = w, .sessions = sessions, .n = n, .step = step});
		if (w->speculation)
			speculation_observe(w->speculation, DRAFTER_QUANT, n_rows, positions, workspace_now(w) - start);
	}
	w->stats.draft_seconds += workspace_now(w) - begun;
}

const struct drafter draft_quant = {.name = "quant", .propose = propose};
