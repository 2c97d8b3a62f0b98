/* engine.c - continuous batching: one round after the other over whatever samples are here.
 *
 * A round: admit from the queue; fork sessions whose prompt is ready; plan, oldest first, what each
 * active session computes (a chunk of prefill, or its last token with a draft behind it) and reserve
 * the KV for it; then draft and verify in batches of bounded logits memory, the prefill rows riding
 * in the first; retire what ended.  Sessions do not see each other, so none of these choices can
 * change a trajectory's bits.
 */
#include "rollout/engine.h"

#include <assert.h>
#include <stdlib.h>

#include "configs/config.h"
#include "quant/kernels.h"
#include "rollout/engine_internal.h"
#include "rollout/verify.h"

enum { LOGITS_BYTES_MAX = 64 << 20 }; /* of one call */

static int batch_sessions(const struct engine *e, const struct model_config *config)
{
	size_t row_bytes = forward_logits_stride(config) * sizeof(float);
	size_t fit = LOGITS_BYTES_MAX / (row_bytes * (size_t)(1 + e->draft_length));

	if (fit < 1) fit = 1;
	return fit < (size_t)e->options.max_active ? (int)fit : e->options.max_active;
}

int engine_open(struct engine **out, const struct policy *policy, const struct engine_options *options,
                int max_context_needed, struct err *err)
{
	bool speculative = options->mode == ROLLOUT_SPECULATIVE && options->draft_length > 0;
	struct kv_cache *cache;

	assert(options->max_active >= 1 && options->prefill_chunk >= 1 && options->n_threads >= 1);
	assert(options->draft_length <= DRAFT_LENGTH_MAX);
	assert(!speculative || policy->head.draft || policy->layers[0].qkv.draft);
	int rc = kv_cache_open(&cache, &policy->config, options->kv_bytes, err);
	if (rc) return rc;
	if (kv_cache_pages_max(cache) < panels(max_context_needed)) {
		size_t needed = (size_t)panels(max_context_needed) * kv_cache_page_bytes(cache);
		kv_cache_close(cache);
		return err_set(err, ERR_MEMORY,
		               "the KV budget of %zu MiB cannot hold one sequence of %d tokens, which takes "
		               "%zu MiB: raise it, or shorten prompts or responses",
		               options->kv_bytes >> 20, max_context_needed, (needed + (1 << 20) - 1) >> 20);
	}

	struct engine *e = xcalloc(1, sizeof *e);
	e->options = *options;
	e->cache = cache;
	e->prefixes.cache = cache;
	e->drafter = speculative ? &draft_quant : NULL;
	e->draft_length = speculative ? options->draft_length : 0;
	e->active = xmalloc((size_t)options->max_active * sizeof *e->active);
	e->decoding = xmalloc((size_t)options->max_active * sizeof *e->decoding);
	e->batch_max = batch_sessions(e, &policy->config);
	workspace_open(&e->workspace, policy, options, e->batch_max * (1 + e->draft_length));
	*out = e;
	return 0;
}

void engine_close(struct engine *e)
{
	struct trajectory *t;

	if (!e) return;
	while ((t = engine_take_finished(e)) || (t = engine_withdraw(e, 0))) trajectory_free(t);
	workspace_close(&e->workspace);
	kv_cache_close(e->cache);
	free(e->active);
	free(e->decoding);
	free(e);
}

void engine_set_policy(struct engine *e, const struct policy *policy)
{
	assert(model_config_same_shape(&e->workspace.policy->config, &policy->config));
	e->workspace.policy = policy;
	for (int i = 0; i < e->n_active; i++) {
		struct session *s = e->active[i];
		if (s->forked) s->prefix->waiting++;
		session_rewind(s);
		session_enter(s, PHASE_PREFILL, workspace_now(&e->workspace));
	}
	prefix_forget_all(&e->prefixes);
}

/* ---- samples in and out ---- */

/* Why a sample cannot be generated, or FINISH_NONE. */
static enum finish_reason check_sample(const struct engine *e, const struct trajectory *t, struct err *err)
{
	const struct model_config *config = &e->workspace.policy->config;
	int64_t capacity = (int64_t)kv_cache_pages_max(e->cache) * KV_TILE;
	int64_t length = (int64_t)t->n_prompt + t->max_tokens;

	if (length > config->max_context) length = config->max_context;
	if (t->n_prompt < 1)
		err_set(err, ERR_INVALID, "the prompt is empty: at least one token is needed to go on from");
	else if (t->n_prompt > config->max_context)
		err_set(err, ERR_TOO_BIG, "the prompt has %d tokens, but the model's context is %d", t->n_prompt,
		        config->max_context);
	else if (length > capacity)
		err_set(err, ERR_MEMORY,
		        "the sample may grow to %lld tokens, but the KV budget holds %lld: raise the budget",
		        (long long)length, (long long)capacity);
	else
		return t->n_tokens >= length ? FINISH_LENGTH : FINISH_NONE;
	return FINISH_ERROR;
}

static bool tokens_valid(const struct engine *e, const struct trajectory *t, struct err *err)
{
	int vocab_size = e->workspace.policy->config.vocab_size;

	for (int32_t i = 0; i < t->n_tokens; i++) {
		if (t->tokens[i] >= 0 && t->tokens[i] < vocab_size) continue;
		err_set(err, ERR_INVALID,
		        "token %d of the sample is %d, but the model's vocabulary has %d entries: do prompt "
		        "and model belong together?",
		        i, t->tokens[i], vocab_size);
		return false;
	}
	return true;
}

void engine_add(struct engine *e, struct trajectory *t)
{
	struct err err;

	assert(t->finish == FINISH_NONE);
	enum finish_reason finish = tokens_valid(e, t, &err) ? check_sample(e, t, &err) : FINISH_ERROR;
	if (finish == FINISH_ERROR) t->error = xstrdup(err.text);
	t->finish = finish;
	struct session *s = session_open(t, &e->prefixes, e->workspace.policy->config.max_context);
	session_enter(s, finish == FINISH_NONE ? PHASE_QUEUED : PHASE_OVER, workspace_now(&e->workspace));
	session_list_append(finish == FINISH_NONE ? &e->queue : &e->finished, s);
}

int engine_pending(const struct engine *e)
{
	return e->queue.n + e->n_active;
}

struct trajectory *engine_take_finished(struct engine *e)
{
	struct session *s = session_list_pop(&e->finished);
	return s ? session_close(s, &e->prefixes) : NULL;
}

struct trajectory *engine_withdraw(struct engine *e, uint64_t trajectory_id)
{
	struct session *s = session_list_remove(&e->queue, trajectory_id);

	for (int i = 0; !s && i < e->n_active; i++) {
		if (trajectory_id != 0 && e->active[i]->trajectory->id != trajectory_id) continue;
		s = e->active[i];
		engine_remove_active(e, i);
	}
	if (!s) return NULL;
	session_enter(s, PHASE_OVER, workspace_now(&e->workspace));
	return session_close(s, &e->prefixes);
}

void engine_stats_read(const struct engine *e, struct engine_stats *stats)
{
	*stats = e->workspace.stats;
	stats->active = e->n_active;
	stats->queued = e->queue.n;
	stats->kv_pages_used = kv_cache_pages_used(e->cache);
	stats->kv_pages_max = kv_cache_pages_max(e->cache);
}

/* ---- one round ---- */

static void fork_ready(struct engine *e)
{
	for (int i = 0; i < e->n_active; i++) {
		struct session *s = e->active[i];
		if (s->forked || !prefix_ready(s->prefix)) continue;
		e->workspace.stats.prefix_shared_tokens += (uint64_t)session_fork(s);
	}
}

/* Reserve positions [from, to) of active[index]'s sequence, whatever it takes.  False if it had to
 * give way itself. */
static bool reserve(struct engine *e, int index, struct kv_seq *seq, int from, int to)
{
	while (kv_seq_reserve(seq, from, to))
		if (!engine_make_room(e, index)) return false;
	return true;
}

/* Rows for tokens [from, from + n) with n limited by the round's chunk; returns n. */
static int plan_chunk(struct engine *e, int index, struct kv_seq *seq, const int32_t *tokens, int32_t from,
                      int32_t to)
{
	struct workspace *w = &e->workspace;
	int32_t n = to - from, left = e->options.prefill_chunk - w->n_rows;

	if (n > left) n = left;
	if (n == 0 || !reserve(e, index, seq, from, from + n)) return 0;
	for (int32_t p = from; p < from + n; p++) workspace_add_row(w, seq, p, tokens[p], -1);
	return n;
}

/* The last token's row and as many drafts as can be of use: the round makes one token more than it
 * accepts.  A draft displaces nobody.  False if the session had to give way itself. */
static bool plan_decode(struct engine *e, int index, bool drafting)
{
	struct session *s = e->active[index];
	int32_t n_tokens = s->trajectory->n_tokens, room = s->length_max - n_tokens - 1;

	s->n_draft = drafting ? e->draft_length : 0;
	if (s->n_draft > room) s->n_draft = room;
	if (s->n_draft > 0 && kv_seq_reserve(&s->kv, n_tokens - 1, n_tokens + s->n_draft) == 0) return true;
	s->n_draft = 0;
	return reserve(e, index, &s->kv, n_tokens - 1, n_tokens);
}

/* Fills e->decoding and the workspace's prefill rows; returns sessions that decode. */
static int plan_round(struct engine *e)
{
	int n_decoding = 0, n_forked = 0;

	for (int i = 0; i < e->n_active; i++) n_forked += e->active[i]->forked;
	bool drafting = e->drafter && n_forked <= e->options.draft_max_active;
	e->workspace.n_rows = 0;
	for (int i = 0; i < e->n_active; i++) {
		struct session *s = e->active[i];
		const struct trajectory *t = s->trajectory;
		struct prefix *p = s->prefix;
		s->n_prefill = 0;
		if (session_decodes(s)) {
			if (plan_decode(e, i, drafting)) e->decoding[n_decoding++] = s;
		} else if (s->forked) {
			s->n_prefill = plan_chunk(e, i, &s->kv, t->tokens, s->n_computed, t->n_tokens - 1);
		} else if (p->n_prefill == 0) {
			p->n_prefill = plan_chunk(e, i, &p->kv, p->tokens, p->n_computed, prefix_positions(p));
		}
	}
	return n_decoding;
}

/* The prefill rows have been computed. */
static int settle_prefill(struct engine *e)
{
	int n_moved = 0;

	for (int i = 0; i < e->n_active; i++) {
		struct session *s = e->active[i];
		n_moved += s->n_prefill > 0;
		s->n_computed += s->n_prefill;
		s->n_prefill = 0;
	}
	for (struct prefix *p = e->prefixes.first; p; p = p->next) {
		n_moved += p->n_prefill > 0;
		p->n_computed += p->n_prefill;
		p->n_prefill = 0;
	}
	return n_moved;
}

static void retire_finished(struct engine *e)
{
	double now = workspace_now(&e->workspace);
	int kept = 0;

	for (int i = 0; i < e->n_active; i++) {
		struct session *s = e->active[i];
		if (s->trajectory->finish == FINISH_NONE) {
			e->active[kept++] = s;
			continue;
		}
		session_enter(s, PHASE_OVER, now);
		kv_seq_truncate(&s->kv, 0);
		session_list_append(&e->finished, s);
	}
	e->n_active = kept;
}

static void draft_and_verify(struct engine *e, struct session **sessions, int n)
{
	struct workspace *w = &e->workspace;
	const struct verify_label label = {.rank = e->options.rank, .mode = e->options.mode};

	if (e->drafter && n > 0) {
		double start = workspace_now(w);
		e->drafter->propose(w, sessions, n);
		w->stats.draft_seconds += workspace_now(w) - start;
	}
	verify_run(w, sessions, n, label);
	w->n_rows = 0;
}

int engine_round(struct engine *e)
{
	engine_admit(e);
	fork_ready(e);
	int n = plan_round(e);
	double now = workspace_now(&e->workspace);

	for (int i = 0; i < n; i++)
		if (e->decoding[i]->phase == PHASE_PREFILL) session_enter(e->decoding[i], PHASE_DECODE, now);
	for (int i = 0; i == 0 || i < n; i += e->batch_max)
		draft_and_verify(e, e->decoding + i, n - i < e->batch_max ? n - i : e->batch_max);
	int moved = n + settle_prefill(e);
	retire_finished(e);
	e->workspace.stats.rounds++;
	return moved;
}
