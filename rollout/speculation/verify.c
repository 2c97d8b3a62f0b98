/* verify.c - coupled verification (Daliri, Musco, Suresh, "Coupling without Communication and
 * Drafter-Invariant Speculative Decoding", 2024).
 *
 * The target draws at every drafted position with the noise that the drafter used.  While its draw
 * equals the draft, the next row was computed for the right token and counts; at the first
 * difference the target's own draw is the token and the rest is void.  So the tokens are those of
 * plain autoregressive sampling, whatever was drafted; without drafts this is plain decoding.
 * Cost: one target call of 1 + n_draft rows per session, and as many draws as tokens are made.
 * Where the quantized copy draws it stands in the target's place, and nobody drafts.
 *
 * Under maximal coupling (verify_maximal.c) only what the target draws beside a draft differs.
 *
 * Differences from the paper: none in the rule; noise is Gumbel by counter instead of a shared
 * stream of exponentials, so the two sides need not run in step.
 */
#include "rollout/speculation/verify.h"

#include <math.h>
#include <string.h>

#include "policy/team.h"
#include "rollout/speculation/verify_maximal.h"

_Static_assert((int)DRAFT_LENGTH_MAX <= (int)ENGINE_POSITIONS, "every place of a draft is counted");

static void add_rows(struct workspace *w, struct session *s, int *n_logits)
{
	const struct trajectory *t = s->trajectory;
	int32_t last = t->n_tokens - 1;

	s->logits_row = s->twin ? s->twin->logits_row : *n_logits;
	if (s->twin) return;
	workspace_add_row(w, &s->kv, last, t->tokens[last], (*n_logits)++);
	for (int32_t i = 0; i < s->n_draft; i++)
		workspace_add_row(w, &s->kv, last + 1 + i, s->draft[i], (*n_logits)++);
	if (s->n_draft > 0) w->stats.verify_rows += 1 + (uint64_t)s->n_draft;
	else w->stats.decode_rows++;
}

/* True if the sample ends with the token just appended. */
static bool session_ends(const struct workspace *w, struct session *s)
{
	struct trajectory *t = s->trajectory;

	if (workspace_is_stop(w, t->tokens[t->n_tokens - 1])) t->finish = FINISH_STOP;
	else if (t->n_tokens >= s->length_max) t->finish = FINISH_LENGTH;
	return t->finish != FINISH_NONE;
}

static void verify_session(struct workspace *w, struct sampler *sampler, struct session *s,
                           struct verify_label label)
{
	struct trajectory *t = s->trajectory;
	int32_t mode = label.mode | (s->kv_kept ? SEGMENT_KV_KEPT : 0);
	bool goes_on = true;

	s->n_made = s->n_accepted = 0;
	while (goes_on) {
		const float *logits = workspace_logits(w, s->logits_row + s->n_made);
		float logprob;
		if (t->n_tokens == s->observe_at) {
			const float *hidden = forward_hidden(w->forward, s->logits_row + s->n_made);
			memcpy(s->observed, hidden, (size_t)w->policy->config.dim * sizeof *hidden);
			s->observed_version = (int32_t)w->policy->version;
		}
		int32_t token = w->maximal
			? maximal_verify(w, sampler, s, logits, &logprob)
			: sampler_draw(sampler, logits, &t->sampling, t->seed, t->n_tokens, &logprob);
		if (!isfinite(logprob)) {
			t->finish = FINISH_ERROR;
			t->error = xstrdup("the policy's logits are not finite: its weights have diverged");
			break;
		}
		trajectory_append(t, token, logprob, (int32_t)w->policy->version, label.rank, mode);
		bool hit = s->n_made < s->n_draft && token == s->draft[s->n_made];
		s->n_accepted += hit;
		s->n_made++;
		goes_on = !session_ends(w, s) && hit;
	}
	s->n_computed = t->n_tokens - 1;
	t->drafted += s->n_draft;
	t->accepted += s->n_accepted;
	t->verify_calls += s->n_draft > 0;
}

struct verify_call {
	struct workspace *workspace;
	struct session *const *sessions;
	int n;
	struct verify_label label;
};

static void verify_share(const struct team *team, void *arg)
{
	const struct verify_call *call = arg;
	struct workspace *w = call->workspace;

	for (int i = team->thread; i < call->n; i += team->n_threads)
		verify_session(w, w->samplers[team->thread], call->sessions[i], call->label);
}

static double attended(const struct workspace *w)
{
	double positions = 0;

	for (int i = 0; i < w->n_rows; i++) positions += w->rows[i].position + 1;
	return positions;
}

void verify_run(struct workspace *w, struct session *const *sessions, int n, struct verify_label label)
{
	struct verify_call call = {.workspace = w, .sessions = sessions, .n = n, .label = label};
	int n_logits = 0, n_prefill = w->n_rows;

	for (int i = 0; i < n; i++) add_rows(w, sessions[i], &n_logits);
	if (w->n_rows == 0) return;
	double start = workspace_now(w);
	forward_run(w->forward, w->policy, w->part, w->rows, w->n_rows, w->logits, w->stride);
	double computed = workspace_now(w);
	team_run(workspace_draw_threads(w, n_logits), verify_share, &call);
	double drawn = workspace_now(w);

	if (w->speculation && n_logits > 0)
		speculation_observe(w->speculation, -1, n_logits + workspace_whole_rows(w, n_prefill), attended(w), drawn - start);
	else if (w->speculation)
		speculation_hint(w->speculation, w->n_rows, attended(w), computed - start);
	double prefill_share = (computed - start) * n_prefill / w->n_rows;
	w->stats.prefill_rows += (uint64_t)n_prefill;
	w->stats.prefill_seconds += prefill_share;
	w->stats.verify_seconds += computed - start - prefill_share;
	w->stats.sample_seconds += drawn - computed;
	if (w->part != PART_TARGET) w->stats.explored_seconds += drawn - start;
	for (int i = 0; i < n; i++) {
		w->stats.drafted += (uint64_t)sessions[i]->n_draft;
		w->stats.accepted += (uint64_t)sessions[i]->n_accepted;
		w->stats.tokens += (uint64_t)sessions[i]->n_made;
		for (int j = 0; j < sessions[i]->n_draft && !sessions[i]->given; j++) w->stats.drafted_by_position[j]++;
		for (int j = 0; j < sessions[i]->n_accepted && !sessions[i]->given; j++) w->stats.accepted_by_position[j]++;
		if (sessions[i]->trajectory->explored) w->stats.explored_tokens += (uint64_t)sessions[i]->n_made;
	}
}
