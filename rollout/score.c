/* score.c - teacher forcing: the tokens go through the target in chunks, every row's logits give the
 * log-probability of the token after it.  The same rows, kernels and reductions as in the engine, so
 * the same bits.
 */
#include "rollout/score.h"

#include <assert.h>
#include <stdlib.h>

#include "policy/team.h"
#include "rollout/sampling/sampling.h"

enum { LOGITS_BYTES_MAX = 32 << 20 };

struct scorer {
	const struct policy *policy;
	struct score_scratch scratch; /* owned here */
	struct kv_cache *cache;
	struct kv_seq seq;
};

struct scorer *scorer_open(const struct policy *policy, enum kv_type kv_type, int n_threads)
{
	struct scorer *s = xcalloc(1, sizeof *s);
	struct score_scratch *scratch = &s->scratch;
	struct err err;

	s->policy = policy;
	scratch->n_threads = n_threads;
	scratch->stride = forward_logits_stride(&policy->config);
	size_t fit = LOGITS_BYTES_MAX / (scratch->stride * sizeof(float));
	scratch->rows_max = fit > SCORE_ROWS_MAX ? SCORE_ROWS_MAX : fit > 1 ? (int)fit : 1;
	if (kv_cache_open(&s->cache, &policy->config, kv_type, SIZE_MAX / 2, &err)) abort(); /* no such budget is too small */
	kv_seq_open(&s->seq, s->cache);
	scratch->forward = forward_open(&policy->config, scratch->rows_max, n_threads);
	scratch->logits = xaligned((size_t)scratch->rows_max * scratch->stride * sizeof *scratch->logits);
	scratch->samplers = xmalloc((size_t)n_threads * sizeof(struct sampler *));
	for (int i = 0; i < n_threads; i++) scratch->samplers[i] = sampler_open(policy->config.vocab_size);
	return s;
}

void scorer_close(struct scorer *s)
{
	if (!s) return;
	for (int i = 0; i < s->scratch.n_threads; i++) sampler_close(s->scratch.samplers[i]);
	free(s->scratch.samplers);
	free(s->scratch.logits);
	forward_close(s->scratch.forward);
	kv_seq_close(&s->seq);
	kv_cache_close(s->cache);
	free(s);
}

static int check_tokens(const struct policy *policy, const int32_t *tokens, int n_given, int n_tokens,
                        struct err *err)
{
	if (n_given < 1)
		return err_set(err, ERR_INVALID,
		               "nothing is given before the first token to score: give at least one token");
	if (n_tokens > policy->config.max_context)
		return err_set(err, ERR_TOO_BIG, "%d tokens are longer than the model's context of %d", n_tokens,
		               policy->config.max_context);
	for (int i = 0; i < n_tokens; i++)
		if (tokens[i] < 0 || tokens[i] >= policy->config.vocab_size)
			return err_set(err, ERR_INVALID, "token %d is %d, but the model's vocabulary has %d entries", i,
			               tokens[i], policy->config.vocab_size);
	return 0;
}

struct chunk {
	const struct score_scratch *scratch;
	const int32_t *tokens;
	const struct sampling_options *sampling;
	int first, end; /* rows with logits: row p scores the token at p + 1 */
	float *logprobs;
};

static void score_share(const struct team *team, void *arg)
{
	const struct chunk *c = arg;
	const struct score_scratch *s = c->scratch;

	for (int p = c->first + team->thread; p < c->end; p += team->n_threads) {
		const float *logits = s->logits + (size_t)(p - c->first) * s->stride;
		c->logprobs[p + 1] = sampler_score(s->samplers[team->thread], logits, c->sampling, c->tokens[p + 1]);
	}
}

/* Rows [begin, c->end). */
static void score_rows(const struct policy *policy, struct kv_seq *seq, int begin, struct chunk *c)
{
	const struct score_scratch *s = c->scratch;
	struct forward_row rows[SCORE_ROWS_MAX];

	for (int p = begin; p < c->end; p++)
		rows[p - begin] = (struct forward_row){seq, p, c->tokens[p], p >= c->first ? p - c->first : -1};
	forward_run(s->forward, policy, PART_TARGET, rows, c->end - begin, s->logits, s->stride);
	if (c->first < c->end) team_run(s->n_threads, score_share, c);
}

void score_sequence(const struct score_scratch *scratch, const struct policy *policy, struct kv_seq *seq,
                    int n_computed, const int32_t *tokens, int n_given, int n_tokens,
                    const struct sampling_options *sampling, float *logprobs)
{
	int rows_max = scratch->rows_max < SCORE_ROWS_MAX ? scratch->rows_max : SCORE_ROWS_MAX;
	int n_rows = n_tokens - 1 - n_computed, n_calls = (n_rows + rows_max - 1) / rows_max;
	int chunk = n_calls > 0 ? (n_rows + n_calls - 1) / n_calls : 0; /* alike: a call of few rows costs as one of many */

	assert(n_computed < n_given && n_given <= n_tokens);
	for (int p = n_computed; p < n_tokens - 1; p += chunk) {
		struct chunk c = {scratch, tokens, sampling, .first = n_given - 1 > p ? n_given - 1 : p,
		                  .end = p + chunk < n_tokens - 1 ? p + chunk : n_tokens - 1, logprobs};
		score_rows(policy, seq, p, &c);
	}
}

int score_tokens(struct scorer *s, const int32_t *tokens, int n_given, int n_tokens,
                 const struct sampling_options *sampling, float *logprobs, struct err *err)
{
	int rc = check_tokens(s->policy, tokens, n_given, n_tokens, err);
	if (rc || n_given >= n_tokens) return rc;

	kv_seq_truncate(&s->seq, 0);
	if (kv_seq_reserve(&s->seq, 0, n_tokens - 1))
		return err_set(err, ERR_MEMORY, "no memory for the keys and values of %d tokens", n_tokens);
	score_sequence(&s->scratch, s->policy, &s->seq, 0, tokens, n_given, n_tokens, sampling, logprobs);
	return 0;
}
