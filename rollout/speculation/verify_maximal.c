/* verify_maximal.c - rejection with residual resampling (Leviathan, Kalman, Matias, "Fast Inference from
 * Transformers via Speculative Decoding", 2023, algorithm 1; Chen et al., "Accelerating Large Language Model
 * Decoding with Speculative Sampling", 2023).
 *
 * p is the target's distribution at a position and q the drafter's, both after temperature and truncation.  A
 * draft x ~ q stands if u < p(x) / q(x); else the token is drawn from max(0, p - q), normalised.  Then it is
 * distributed as p, and the draft stands with probability sum min(p, q) = 1 - d at total variation d, which no
 * rule can exceed (coupled verification: (1 - d) / (1 + d) at least).  A found draft has q(x) = 1: it stands
 * with p(x), and else the token is one of the others.  Behind a draft that stood as a whole, and where nothing
 * was drafted, the token is the ordinary draw from p.  At temperature 0 both rules are equality.
 * Cost over coupled verification: a copy of the drafter's row and its mass at each draft; at each rejection, at
 * most one a round, one pass over both rows.
 *
 * Noise.  The token at position i, given those before it, is distributed as p if the noise that decides it is
 * independent of everything that led there: the tokens before, the draft, and the choice that there is one.
 *   - The uniform u, that of the residual, and the Gumbel noise of the ordinary draw are keyed by (sample,
 *     version) and position.  They are used when the token at i is decided, which happens once, and nothing has
 *     looked at them before: a rejection ends the round, so positions behind it are not tried.
 *   - The drafts of a round are keyed by its first position too.  A position can be drafted for in several
 *     rounds, after other tokens each time; with one noise for all, a draft that was void would tell of the next
 *     one before its length is chosen (through the cost of its round, or a stop token).  With a key of its own a
 *     round's drafts are independent of all that was decided, or chosen, before it.
 *   - Within a round a draft ends behind a stop token: what depends on that lies behind the token, and is only
 *     reached if it stands, when the sample is over.
 *   - Found drafts quote what is in memory.  Other samples have other keys.  The sample itself may be there from
 *     an earlier version of the weights (evaluations repeat their keys): hence the version in the key, so
 *     evaluations do not share their noise here.  Not covered is a sample that one rank draws twice under one
 *     version (evaluations of weights that never change, with found drafts).
 * So lengths may depend on anything (measured speed, other samples): they change the tokens, not their
 * distribution.  With lengths that are given, the tokens are a function of the same things as in coupled
 * verification, the lengths and the drafter.
 *
 * Differences from the papers: none in the rule.  Probabilities are whole masses (row_kernels.h), so p = q means
 * p(x) / q(x) = 1, and the residual's sum is exact in any order.
 */
#include "rollout/speculation/verify_maximal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"
#include "quant/kernels.h"
#include "rollout/sampling/noise.h"

enum { STREAM_TARGET, STREAM_DRAFT };

uint64_t maximal_target_key(uint64_t key, int32_t version)
{
	return noise_stream(key, STREAM_TARGET, version, 0);
}

uint64_t maximal_draft_key(uint64_t key, int32_t version, int32_t n_tokens)
{
	return noise_stream(key, STREAM_DRAFT, version, n_tokens);
}

/* The token beside a draft; -1 if rounding leaves p nothing above q. */
static int32_t draw_beside(struct sampler *sampler, const float *logits, const struct distribution *p,
                           const struct proposal *draft, struct noise_pair u)
{
	double of_p = distribution_probability(p, logits, draft->token), of_q = 1;

	if (draft->logits) of_q = distribution_probability(draft->distribution, draft->logits, draft->token);
	/* of_q is 0 for a token that was drawn although its mass rounds to none. */
	if (u.first * of_q < of_p) return draft->token;
	return sampler_draw_residual(sampler, logits, p, draft, u.second);
}

int32_t maximal_draw(struct sampler *sampler, const float *logits, const struct sampling_options *options,
                     uint64_t target_key, int32_t position, const struct proposal *draft, float *logprob)
{
	struct distribution p;
	int32_t token = -1;

	sampler_distribution(sampler, logits, options, &p);
	if (draft && !p.broken && !p.greedy)
		token = draw_beside(sampler, logits, &p, draft, noise_uniform(target_key, position));
	if (token < 0) token = sampler_draw_from(sampler, logits, &p, target_key, position);
	*logprob = distribution_logprob(&p, logits[token]);
	return token;
}

/* ---- in a round ---- */

struct maximal_store {
	int n;
	size_t stride;
	float *logits;                      /* [n][stride] */
	struct distribution *distributions; /* [n] */
};

struct maximal_store *maximal_store_open(int n, size_t stride)
{
	struct maximal_store *store = xmalloc(sizeof *store);

	*store = (struct maximal_store){.n = n, .stride = stride};
	store->logits = xaligned((size_t)n * stride * sizeof *store->logits);
	store->distributions = xmalloc((size_t)n * sizeof *store->distributions);
	return store;
}

void maximal_store_close(struct maximal_store *store)
{
	if (!store) return;
	free(store->logits);
	free(store->distributions);
	free(store);
}

void maximal_begin(struct workspace *w, struct session *const *sessions, int n)
{
	int32_t row = 0;

	if (!w->maximal) return;
	for (int i = 0; i < n; i++) {
		sessions[i]->kept_row = row;
		sessions[i]->n_kept = 0;
		row += sessions[i]->n_draft;
	}
	assert(row <= w->maximal->n);
}

static float *kept_logits(const struct maximal_store *store, int row)
{
	return store->logits + (size_t)row * store->stride;
}

void maximal_propose(struct workspace *w, struct sampler *sampler, struct session *s, int step)
{
	const struct trajectory *t = s->trajectory;
	const float *logits = workspace_logits(w, s->logits_row);
	struct distribution *q = &w->maximal->distributions[s->kept_row + step];
	uint64_t key = maximal_draft_key(t->seed, (int32_t)w->policy->version, t->n_tokens);

	sampler_distribution(sampler, logits, &t->sampling, q);
	if (q->broken) {
		s->n_draft = step;
		return;
	}
	s->draft[step] = sampler_draw_from(sampler, logits, q, key, t->n_tokens + step);
	if (!q->greedy)
		memcpy(kept_logits(w->maximal, s->kept_row + step), logits, (size_t)w->policy->config.vocab_size * sizeof *logits);
	s->n_kept = step + 1;
	if (workspace_is_stop(w, s->draft[step])) s->n_draft = step + 1;
}

int32_t maximal_verify(const struct workspace *w, struct sampler *sampler, const struct session *s, const float *logits,
                       float *logprob)
{
	const struct trajectory *t = s->trajectory;
	int32_t i = s->n_made;
	struct proposal draft = {.token = i < s->n_draft ? s->draft[i] : -1};

	if (i < s->n_kept) {
		draft.logits = kept_logits(w->maximal, s->kept_row + i);
		draft.distribution = &w->maximal->distributions[s->kept_row + i];
	}
	return maximal_draw(sampler, logits, &t->sampling, maximal_target_key(t->seed, (int32_t)w->policy->version),
	                    t->n_tokens, i < s->n_draft ? &draft : NULL, logprob);
}
