/* engine.c - continuous batching: one round after the other over whatever samples are here.
 *
 * A round: admit from the queue; fork sessions whose prompt is ready; plan, oldest first, what each
 * active session computes (a chunk of prefill, or its last token with a draft behind it) and reserve
 * the KV for it; then draft and verify in batches of bounded logits memory, the prefill rows riding
 * in the first; retire what ended.  Sessions do not see each other, so none of these choices can
 * change a trajectory's bits, but for draft lengths under maximal coupling (verify_maximal.c).
 */
#include "rollout/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "quant/kernels.h"
#include "rollout/engine_internal.h"
#include "rollout/score.h"
#include "rollout/speculation/verify.h"
#include "rollout/speculation/verify_maximal.h"

enum { LOGITS_BYTES_MAX = 64 << 20 }; /* of one call */

static int logits_rows(const struct engine *e, const struct model_config *config)
{
	int draft = e->draft_length_max > e->explore_chunk ? e->draft_length_max : e->explore_chunk;
	size_t rows_each = 1 + (size_t)draft, rows = rows_each * (size_t)e->options.max_active;
	size_t fit = LOGITS_BYTES_MAX / (forward_logits_stride(config) * sizeof(float));

	if (e->options.mode == ROLLOUT_QUANTIZED && rows < SCORE_ROWS_MAX) rows = SCORE_ROWS_MAX;
	if (rows > fit) rows = fit;
	return (int)(rows > rows_each ? rows : rows_each);
}

int engine_open(struct engine **out, const struct policy *policy, const struct engine_options *options,
                int max_context_needed, struct err *err)
{
	bool speculative = options->mode == ROLLOUT_SPECULATIVE || options->mode == ROLLOUT_EXPLORE;
	struct kv_cache *cache;

	assert(options->max_active >= 1 && options->prefill_chunk >= 1 && options->n_threads >= 1);
	assert(options->draft_length <= DRAFT_LENGTH_MAX && options->draft_length_max <= DRAFT_LENGTH_MAX);
	assert(!speculative || options->draft_length > 0 || options->draft_length_max > 0);
	assert(!speculative || options->drafter == DRAFTER_KIND_SUFFIX || policy->drafts);
	assert((options->mode != ROLLOUT_QUANTIZED && options->mode != ROLLOUT_EXPLORE) || policy->drafts);
	assert(options->mode != ROLLOUT_EXPLORE || options->coupling == COUPLING_COUPLED);
	assert(options->mode != ROLLOUT_EXPLORE || (options->explore_chunk >= 1 && options->explore_chunk <= DRAFT_LENGTH_MAX));
	int rc = kv_cache_open(&cache, &policy->config, options->kv_type, options->kv_bytes, err);
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
	e->drafts = speculative;
	e->explores = options->mode == ROLLOUT_EXPLORE;
	if (e->explores) e->explore_chunk = options->explore_chunk;
	if (speculative) e->draft_length_max = options->draft_length > 0 ? options->draft_length : options->draft_length_max;
	e->active = xmalloc((size_t)options->max_active * sizeof *e->active);
	e->decoding = xmalloc((size_t)options->max_active * sizeof *e->decoding);
	e->logits_max = logits_rows(e, &policy->config);
	workspace_open(&e->workspace, policy, options, e->logits_max);
	if (speculative) engine_drafts_open(e);
	*out = e;
	return 0;
}

/* Out of the queue or the active ones, by trajectory id, 0 for any; NULL if there is none. */
static struct session *take_pending(struct engine *e, uint64_t trajectory_id)
{
	struct session *s = session_list_remove(&e->queue, trajectory_id);

	for (int i = 0; !s && i < e->n_active; i++) {
		if (trajectory_id != 0 && e->active[i]->trajectory->id != trajectory_id) continue;
		s = e->active[i];
		engine_remove_active(e, i);
	}
	return s;
}

void engine_close(struct engine *e)
{
	struct trajectory *t;

	if (!e) return;
	while ((t = engine_take_finished(e))) trajectory_free(t);
	for (struct session *s; (s = take_pending(e, 0));) trajectory_free(session_close(s, &e->prefixes));
	engine_drafts_close(e);
	workspace_close(&e->workspace);
	kv_cache_close(e->cache);
	free(e->active);
	free(e->decoding);
	free(e);
}

void engine_set_policy(struct engine *e, const struct policy *policy, bool keep_kv)
{
	assert(model_config_same_shape(&e->workspace.policy->config, &policy->config));
	assert(!keep_kv || e->options.mode != ROLLOUT_QUANTIZED);
	for (int i = 0; i < e->n_active; i++) {
		struct session *s = e->active[i];
		memset(s->acceptance, 0, sizeof s->acceptance);
		if (keep_kv && s->part == PART_TARGET && session_decodes(s)) {
			s->kv_kept = true;
			continue;
		}
		if (s->forked) s->prefix->waiting++;
		session_rewind(s);
		session_enter(s, PHASE_PREFILL, workspace_now(&e->workspace));
	}
	prefix_forget_all(&e->prefixes);
	/* What the old version drew, while it is here; one put back for memory waits in the queue. */
	for (int i = 0; i < e->n_active; i++) engine_rescore(e, e->active[i]);
	for (struct session *s = e->queue.first; s; s = s->next) {
		engine_parcel_drop(e, s);
		engine_rescore(e, s);
	}
	prefix_forget_all(&e->prefixes);
	e->workspace.policy = policy;
	for (int i = 0; i < e->drafts + e->explores; i++) speculation_forget_acceptance(&e->control[i].speculation);
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

enum policy_part engine_part(const struct engine *e, const struct trajectory *t)
{
	bool copy = e->options.mode == ROLLOUT_QUANTIZED || (e->options.mode == ROLLOUT_EXPLORE && t->explored);
	return copy ? PART_DRAFT : PART_TARGET;
}

void engine_add(struct engine *e, struct trajectory *t)
{
	struct err err;

	assert(t->finish == FINISH_NONE);
	enum finish_reason finish = tokens_valid(e, t, &err) ? check_sample(e, t, &err) : FINISH_ERROR;
	if (finish == FINISH_ERROR) t->error = xstrdup(err.text);
	t->finish = finish;
	if (e->options.mode == ROLLOUT_QUANTIZED && !t->eval) trajectory_keep_target(t);
	struct session *s = session_open(t, engine_part(e, t), &e->prefixes, e->workspace.policy->config.max_context);
	if (e->options.observe_at > 0 && !t->eval) session_observe(s, e->options.observe_at, e->workspace.policy->config.dim);
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
	struct session *s = take_pending(e, trajectory_id);

	if (!s) return NULL;
	session_enter(s, PHASE_OVER, workspace_now(&e->workspace));
	engine_parcel_drop(e, s);
	kv_seq_truncate(&s->kv, 0);
	engine_rescore(e, s);
	return session_close(s, &e->prefixes);
}

void engine_each_pending(const struct engine *e, void (*each)(void *context, const struct trajectory *trajectory),
                         void *context)
{
	for (const struct session *s = e->queue.first; s; s = s->next) each(context, s->trajectory);
	for (int i = 0; i < e->n_active; i++) each(context, e->active[i]->trajectory);
}

typedef void observer(void *context, const struct trajectory *trajectory, const float *hidden, int dim, int32_t version);

static void hand_out(const struct engine *e, struct session *s, observer *each, void *context)
{
	if (!s->observed || s->observed_version < 0) return;
	each(context, s->trajectory, s->observed, e->workspace.policy->config.dim, s->observed_version);
	s->observed_version = -1;
}

void engine_each_observed(struct engine *e, observer *each, void *context)
{
	for (struct session *s = e->queue.first; s; s = s->next) hand_out(e, s, each, context);
	for (int i = 0; i < e->n_active; i++) hand_out(e, e->active[i], each, context);
	for (struct session *s = e->finished.first; s; s = s->next) hand_out(e, s, each, context);
}

void engine_discard(struct engine *e, uint64_t trajectory_id)
{
	struct session *s = take_pending(e, trajectory_id);
	if (s) trajectory_free(session_close(s, &e->prefixes));
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

/* Fills e->decoding and the workspace's prefill rows with what the part at hand computes; returns sessions that
 * decode. */
static int plan_round(struct engine *e)
{
	int n_decoding = 0;

	e->workspace.n_rows = 0;
	for (int i = 0; i < e->n_active; i++) {
		struct session *s = e->active[i];
		if (s->part != e->workspace.part) continue;
		const struct trajectory *t = s->trajectory;
		struct prefix *p = s->prefix;
		s->n_prefill = 0;
		s->twin = NULL;
		if (session_decodes(s)) {
			/* The copy's samples of a prompt that still say the same are computed once (draft_given.c). */
			if (e->explores && s->part != PART_TARGET) s->twin = draft_find_twin(e->decoding, n_decoding, s);
			if (s->twin) e->decoding[n_decoding++] = s;
			else if (reserve(e, i, &s->kv, t->n_tokens - 1, t->n_tokens)) e->decoding[n_decoding++] = s;
		} else if (s->forked) {
			s->n_prefill = plan_chunk(e, i, &s->kv, t->tokens, s->n_computed, t->n_tokens - 1);
		} else if (p->n_prefill == 0) {
			p->n_prefill = plan_chunk(e, i, &p->kv, p->tokens, p->n_computed, prefix_positions(p));
		}
	}
	engine_drafts_plan(e, n_decoding);
	return n_decoding;
}

/* The prefill rows have been computed: sessions' own, and those of prompts, whose session is active still, as only
 * newer ones were put back meanwhile. */
static int settle_prefill(struct engine *e)
{
	struct engine_stats *stats = &e->workspace.stats;
	int n_moved = 0;

	for (int i = 0; i < e->n_active; i++) {
		struct session *s = e->active[i];
		n_moved += s->n_prefill > 0;
		stats->recomputed_tokens += (uint64_t)s->n_prefill;
		s->n_computed += s->n_prefill;
		s->n_prefill = 0;
		struct prefix *p = s->prefix;
		if (p->n_prefill == 0) continue;
		n_moved++;
		p->n_computed += p->n_prefill;
		int32_t fresh = p->n_computed > p->n_reached ? p->n_computed - p->n_reached : 0;
		stats->prompt_tokens += (uint64_t)fresh;
		stats->recomputed_tokens += (uint64_t)(p->n_prefill - fresh);
		p->n_reached += fresh;
		p->n_prefill = 0;
	}
	return n_moved;
}

static void retire_finished(struct engine *e)
{
	struct session_list over = {0};
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
		session_list_append(&over, s);
	}
	e->n_active = kept;
	for (struct session *s; (s = session_list_pop(&over));) {
		engine_rescore(e, s);
		session_list_append(&e->finished, s);
	}
}

static void draft_and_verify(struct engine *e, struct session **sessions, int n)
{
	struct workspace *w = &e->workspace;
	int target_mode = e->options.mode == ROLLOUT_EXPLORE ? ROLLOUT_SPECULATIVE : e->options.mode;
	const struct verify_label label = {
		.rank = e->options.rank, .mode = w->part == PART_TARGET ? target_mode : ROLLOUT_QUANTIZED,
	};

	maximal_begin(w, sessions, n);
	draft_quant.propose(w, sessions, n);
	verify_run(w, sessions, n, label);
	for (int i = 0; i < n; i++)
		if (sessions[i]->twin) draft_settle_twin(sessions[i]);
	w->n_rows = 0;
}

/* Sessions from `first` on whose logits fit into one call.  Who reads the rows of another must be in the same one. */
static int next_batch(const struct engine *e, int first, int n)
{
	int rows = 0, i = first;

	for (; i < n; i++) {
		struct session *s = e->decoding[i];
		if (s->given && s->twin && s->twin->batch != first) s->twin = NULL;
		int own = s->twin ? 0 : 1 + s->n_draft;
		if (rows + own > e->logits_max) break;
		s->batch = first;
		rows += own;
	}
	return i - first;
}

/* What is drawn by one part of the policy; parts share no call. */
static int round_of(struct engine *e, enum policy_part part)
{
	e->workspace.part = part;
	engine_drafts_turn(e);
	int n = plan_round(e);
	double now = workspace_now(&e->workspace);

	for (int i = 0; i < n; i++)
		if (e->decoding[i]->phase == PHASE_PREFILL) session_enter(e->decoding[i], PHASE_DECODE, now);
	int done = 0;
	do { /* once at least: prefill rows may be alone */
		int batch = next_batch(e, done, n);
		draft_and_verify(e, e->decoding + done, batch);
		done += batch;
	} while (done < n);
	engine_drafts_learn(e, n);
	int moved = n + settle_prefill(e);
	retire_finished(e);
	return moved;
}

static bool any_of(const struct engine *e, enum policy_part part)
{
	for (int i = 0; i < e->n_active; i++)
		if (e->active[i]->part == part) return true;
	return false;
}

int engine_round(struct engine *e)
{
	int moved = 0;

	engine_admit(e);
	fork_ready(e);
	if (any_of(e, PART_TARGET)) moved += round_of(e, PART_TARGET);
	if (any_of(e, PART_DRAFT)) moved += round_of(e, PART_DRAFT);
	e->workspace.stats.rounds++;
	return moved;
}
