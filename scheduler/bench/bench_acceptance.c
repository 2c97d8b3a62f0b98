/* bench_acceptance.c - acceptance of a drafter, teacher-forced along the target's samples. */
#include "scheduler/bench/bench_acceptance.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy/team.h"
#include "rollout/sampling/noise.h"
#include "rollout/sampling/sampling.h"

enum { CHUNK = 32 }; /* rows of one call */

struct walk { /* what one pass over the samples needs */
	const struct policy *policy;
	const struct acceptance_options *options;
	struct sampling_options sampling;
	struct forward *forward;
	struct kv_cache *cache;
	struct kv_seq seq, forks[CHUNK];
	float *target, *draft; /* [CHUNK][stride] */
	size_t stride;
	struct sampler **samplers; /* [n_threads] */
};

static int walk_open(struct walk *w, const struct policy *policy, const struct acceptance_options *options,
                     int positions_max, struct err *err)
{
	const struct model_config *c = &policy->config;
	*w = (struct walk){.policy = policy, .options = options, .stride = forward_logits_stride(c)};
	w->sampling = (struct sampling_options){.temperature = (float)options->temperature, .top_p = 1.0f};
	size_t budget = kv_bytes(c, options->kv_type, positions_max) + CHUNK * kv_bytes(c, options->kv_type, 1);
	int rc = kv_cache_open(&w->cache, c, options->kv_type, budget, err);
	if (rc) return rc;
	w->forward = forward_open(c, CHUNK, options->n_threads);
	w->target = xaligned(CHUNK * w->stride * sizeof *w->target);
	w->draft = xaligned(CHUNK * w->stride * sizeof *w->draft);
	w->samplers = xcalloc((size_t)options->n_threads, sizeof *w->samplers);
	for (int i = 0; i < options->n_threads; i++) w->samplers[i] = sampler_open(c->vocab_size);
	kv_seq_open(&w->seq, w->cache);
	return 0;
}

static void walk_close(struct walk *w)
{
	if (!w->cache) return;
	kv_seq_close(&w->seq);
	for (int i = 0; i < w->options->n_threads; i++) sampler_close(w->samplers[i]);
	forward_close(w->forward);
	kv_cache_close(w->cache);
	free(w->samplers);
	free(w->target);
	free(w->draft);
}

static int reserve(struct walk *w, struct kv_seq *seq, int from, int to, struct err *err)
{
	if (kv_seq_reserve(seq, from, to) == 0) return 0;
	return err_set(err, ERR_MEMORY, "no memory for keys and values (%d pages are in use)", kv_cache_pages_used(w->cache));
}

/* Positions [begin, end) by the target, at most CHUNK; logits of those from first on. */
static int run_target(struct walk *w, const int32_t *tokens, int begin, int end, int first, struct err *err)
{
	struct forward_row rows[CHUNK];
	if (first < begin) first = begin;
	int rc = reserve(w, &w->seq, begin, end, err);
	for (int p = begin; p < end; p++)
		rows[p - begin] = (struct forward_row){&w->seq, p, tokens[p], p >= first ? p - first : -1};
	if (!rc) forward_run(w->forward, w->policy, PART_TARGET, rows, end - begin, w->target, w->stride);
	return rc;
}

/* ---- samples ---- */

/* Nats. */
static double entropy_of(const float *logits, int n, double temperature)
{
	double max = -INFINITY, sum = 0, mean = 0;
	for (int i = 0; i < n; i++) max = fmax(max, (double)logits[i]);
	for (int i = 0; i < n; i++) {
		double x = ((double)logits[i] - max) / temperature, e = exp(x);
		sum += e;
		mean += e * x;
	}
	return log(sum) - mean / sum;
}

static bool is_end(const struct model_config *c, int32_t token)
{
	for (int i = 0; i < c->n_eos; i++)
		if (token == c->eos_ids[i]) return true;
	return false;
}

static int draw_sample(struct walk *w, struct acceptance_sample *sample, int n_max, double *entropy, struct err *err)
{
	const struct model_config *c = &w->policy->config;
	int computed = 0, rc = 0;
	while (!rc && sample->n < n_max && (sample->n == sample->n_prompt || !is_end(c, sample->tokens[sample->n - 1]))) {
		int end = computed + CHUNK < sample->n ? computed + CHUNK : sample->n;
		rc = run_target(w, sample->tokens, computed, end, end - 1, err);
		computed = end;
		if (rc || computed < sample->n) continue;
		float logprob;
		*entropy += entropy_of(w->target, c->vocab_size, w->options->temperature);
		int32_t token = sampler_draw(w->samplers[0], w->target, &w->sampling, sample->keys[0], sample->n, &logprob);
		sample->tokens[sample->n++] = token;
	}
	kv_seq_truncate(&w->seq, 0);
	return rc;
}

int acceptance_samples_draw(struct acceptance_samples *samples, const struct policy *policy,
                            const struct prompts *prompts, const struct acceptance_options *options, struct err *err)
{
	int context = policy->config.max_context;
	struct walk w;
	*samples = (struct acceptance_samples){.n = prompts->n};
	int rc = walk_open(&w, policy, options, context, err);
	samples->items = xcalloc(prompts->n, sizeof *samples->items);
	for (size_t i = 0; !rc && i < prompts->n; i++) {
		const struct prompt *prompt = &prompts->items[i];
		struct acceptance_sample *sample = &samples->items[i];
		int n_max = prompt->n_tokens + options->tokens < context ? prompt->n_tokens + options->tokens : context;
		sample->tokens = xcalloc((size_t)n_max, sizeof *sample->tokens);
		sample->n_prompt = sample->n = prompt->n_tokens;
		memcpy(sample->tokens, prompt->tokens, (size_t)prompt->n_tokens * sizeof *sample->tokens);
		for (int k = 0; k < ACCEPTANCE_DRAWS; k++) sample->keys[k] = noise_key(options->seed, prompt->id, 0, k);
		rc = draw_sample(&w, sample, n_max, &samples->entropy, err);
		samples->positions += sample->n - sample->n_prompt;
	}
	walk_close(&w);
	if (samples->positions > 0) samples->entropy /= samples->positions;
	return rc;
}

void acceptance_samples_free(struct acceptance_samples *samples)
{
	for (size_t i = 0; i < samples->n && samples->items; i++) free(samples->items[i].tokens);
	free(samples->items);
	*samples = (struct acceptance_samples){0};
}

/* ---- comparison ---- */

/* Total variation of two softmaxes. */
static double total_variation(const float *a, const float *b, int n, double temperature)
{
	double max_a = -INFINITY, max_b = -INFINITY, sum_a = 0, sum_b = 0, distance = 0;
	for (int i = 0; i < n; i++) {
		max_a = fmax(max_a, (double)a[i]);
		max_b = fmax(max_b, (double)b[i]);
	}
	for (int i = 0; i < n; i++) {
		sum_a += exp(((double)a[i] - max_a) / temperature);
		sum_b += exp(((double)b[i] - max_b) / temperature);
	}
	double shift_a = max_a + temperature * log(sum_a), shift_b = max_b + temperature * log(sum_b);
	for (int i = 0; i < n; i++)
		distance += fabs(exp(((double)a[i] - shift_a) / temperature) - exp(((double)b[i] - shift_b) / temperature));
	return 0.5 * distance;
}

struct comparison {
	struct walk *walk;
	const struct acceptance_sample *sample;
	int first, n;                      /* rows of positions first .. first + n - 1 */
	double maximal[CHUNK], coupled[CHUNK];
};

static void compare_share(const struct team *team, void *arg)
{
	struct comparison *c = arg;
	struct walk *w = c->walk;
	struct sampler *sampler = w->samplers[team->thread];
	for (int r = team->thread; r < c->n; r += team->n_threads) {
		const float *target = w->target + (size_t)r * w->stride, *draft = w->draft + (size_t)r * w->stride;
		int agree = 0;
		for (int k = 0; k < ACCEPTANCE_DRAWS; k++) {
			uint64_t key = c->sample->keys[k];
			int32_t drawn = sampler_draw_token(sampler, target, &w->sampling, key, c->first + r + 1);
			assert(k > 0 || drawn == c->sample->tokens[c->first + r + 1]);
			agree += drawn == sampler_draw_token(sampler, draft, &w->sampling, key, c->first + r + 1);
		}
		c->coupled[r] = (double)agree / ACCEPTANCE_DRAWS;
		c->maximal[r] = 1.0 - total_variation(target, draft, w->policy->config.vocab_size, w->options->temperature);
	}
}

/* The drafter at positions first .. first + n - 1: each reads the target's KV before it through a fork. */
static int run_draft(struct walk *w, const int32_t *tokens, int first, int n, struct err *err)
{
	struct forward_row rows[CHUNK];
	int rc = 0;
	for (int i = 0; i < n; i++) {
		kv_seq_open(&w->forks[i], w->cache);
		kv_seq_fork(&w->forks[i], &w->seq, first + i);
		if (!rc) rc = reserve(w, &w->forks[i], first + i, first + i + 1, err);
		rows[i] = (struct forward_row){&w->forks[i], first + i, tokens[first + i], i};
	}
	if (!rc) forward_run(w->forward, w->policy, PART_DRAFT, rows, n, w->draft, w->stride);
	for (int i = 0; i < n; i++) kv_seq_close(&w->forks[i]);
	return rc;
}

static int measure_sample(struct walk *w, const struct acceptance_sample *sample, struct acceptance *sums,
                          struct err *err)
{
	int rc = 0, last = sample->n - 1; /* the last token's row predicts nothing that was drawn */
	for (int begin = 0; !rc && begin < last; begin += CHUNK) {
		int end = begin + CHUNK < last ? begin + CHUNK : last;
		struct comparison c = {.walk = w, .sample = sample, .first = sample->n_prompt - 1};
		if (c.first < begin) c.first = begin;
		c.n = end - c.first;
		rc = run_target(w, sample->tokens, begin, end, c.first, err);
		if (c.n <= 0) continue;
		if (!rc) rc = run_draft(w, sample->tokens, c.first, c.n, err);
		if (!rc) team_run(w->options->n_threads, compare_share, &c);
		for (int r = 0; !rc && r < c.n; r++) {
			sums->maximal += c.maximal[r];
			sums->coupled += c.coupled[r];
		}
	}
	kv_seq_truncate(&w->seq, 0);
	return rc;
}

int acceptance_measure(struct acceptance *acceptance, const struct policy *policy,
                       const struct acceptance_samples *samples, const struct acceptance_options *options,
                       struct err *err)
{
	struct walk w;
	*acceptance = (struct acceptance){0};
	int rc = walk_open(&w, policy, options, policy->config.max_context, err);
	for (size_t i = 0; !rc && i < samples->n; i++) rc = measure_sample(&w, &samples->items[i], acceptance, err);
	walk_close(&w);
	if (samples->positions > 0) {
		acceptance->maximal /= samples->positions;
		acceptance->coupled /= samples->positions;
	}
	return rc;
}
