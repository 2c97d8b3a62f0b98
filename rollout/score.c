/* score.c - teacher forcing: the tokens go through the target in chunks, every row's logits give the
 * log-probability of the token after it.  The same rows, kernels and reductions as in the engine, so
 * the same bits.
 */
#include "rollout/score.h"

#include <stdlib.h>

#include "policy/team.h"
#include "rollout/sampling.h"

enum { CHUNK_ROWS = 64, LOGITS_BYTES_MAX = 32 << 20 };

struct scorer {
	const struct policy *policy;
	const int32_t *tokens;
	const struct sampling_options *sampling;
	int n_given, n_threads, chunk;
	struct forward *forward;
	struct kv_cache *cache;
	struct kv_seq seq;
	float *logits;  /* [chunk][stride] */
	size_t stride;
	struct sampler **samplers;
};

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
	const struct scorer *scorer;
	int first, end; /* rows with logits: row p scores the token at p + 1 */
	float *logprobs;
};

static void score_share(const struct team *team, void *arg)
{
	const struct chunk *c = arg;
	const struct scorer *s = c->scorer;

	for (int p = c->first + team->thread; p < c->end; p += team->n_threads) {
		const float *logits = s->logits + (size_t)(p - c->first) * s->stride;
		c->logprobs[p + 1] = sampler_score(s->samplers[team->thread], logits, s->sampling, s->tokens[p + 1]);
	}
}

static void score_rows(struct scorer *s, int begin, int end, float *logprobs)
{
	struct chunk c = {.scorer = s, .first = s->n_given - 1, .end = end, .logprobs = logprobs};
	struct forward_row rows[CHUNK_ROWS];

	if (c.first < begin) c.first = begin;
	for (int p = begin; p < end; p++)
		rows[p - begin] = (struct forward_row){&s->seq, p, s->tokens[p], p >= c.first ? p - c.first : -1};
	forward_run(s->forward, s->policy, false, rows, end - begin, s->logits, s->stride);
	team_run(s->n_threads, score_share, &c);
}

int score_tokens(const struct policy *policy, const int32_t *tokens, int n_given, int n_tokens,
                 const struct sampling_options *sampling, int n_threads, float *logprobs, struct err *err)
{
	int rc = check_tokens(policy, tokens, n_given, n_tokens, err);
	if (rc || n_given >= n_tokens) return rc;

	struct scorer s = {.policy = policy, .tokens = tokens, .sampling = sampling, .n_given = n_given,
	                   .n_threads = n_threads, .stride = forward_logits_stride(&policy->config)};
	size_t fit = LOGITS_BYTES_MAX / (s.stride * sizeof(float));
	s.chunk = fit > CHUNK_ROWS ? CHUNK_ROWS : fit > 1 ? (int)fit : 1;
	rc = kv_cache_open(&s.cache, &policy->config, SIZE_MAX / 2, err);
	if (rc) return rc;
	kv_seq_open(&s.seq, s.cache);
	if (kv_seq_reserve(&s.seq, 0, n_tokens - 1)) {
		kv_seq_close(&s.seq);
		kv_cache_close(s.cache);
		return err_set(err, ERR_MEMORY, "no memory for the keys and values of %d tokens", n_tokens);
	}
	s.forward = forward_open(&policy->config, s.chunk, n_threads);
	s.logits = xaligned((size_t)s.chunk * s.stride * sizeof *s.logits);
	s.samplers = xmalloc((size_t)n_threads * sizeof *s.samplers);
	for (int i = 0; i < n_threads; i++) s.samplers[i] = sampler_open(policy->config.vocab_size);

	for (int p = 0; p < n_tokens - 1; p += s.chunk)
		score_rows(&s, p, p + s.chunk < n_tokens - 1 ? p + s.chunk : n_tokens - 1, logprobs);

	for (int i = 0; i < n_threads; i++) sampler_close(s.samplers[i]);
	free(s.samplers);
	free(s.logits);
	forward_close(s.forward);
	kv_seq_close(&s.seq);
	kv_cache_close(s.cache);
	return 0;
}
