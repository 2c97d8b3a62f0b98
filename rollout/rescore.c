/* rescore.c - quantized mode: the target's log-probabilities of what the quantized copy drew, so that a
 * trainer can weigh each token by exp(target - behaviour) (truncated importance sampling, as in FlashRL and verl;
 * there the trainer rescores).
 *
 * One sample at a time goes through score.c: a prefill, whose rows run near the bound of the arithmetic, and
 * the same bits as `drumroll score` gives.  Its keys and values are taken from the engine's cache after the
 * sample's own have been released, so at most one sequence is in the way; where that does not fit, newer
 * samples are put back, as in admission.c.  Samples of a group that are rescored one after the other share the
 * target's KV of their prompt until somebody needs the room.
 * Cost: one target row per position of the sample, again for each version and each time it was put aside.
 */
#include <math.h>

#include "configs/config.h"
#include "rollout/engine_internal.h"
#include "rollout/score.h"

static void reserve(struct engine *e, struct kv_seq *seq, int from, int to)
{
	while (kv_seq_reserve(seq, from, to)) engine_make_room_for_all(e);
}

/* Let seq begin with the prompt's KV where others of the group are going to want it, or did; returns the
 * positions that are there. */
static int share_prompt(struct engine *e, const struct score_scratch *scratch, struct prefix *p, struct kv_seq *seq)
{
	struct workspace *w = &e->workspace;
	int n = prefix_positions(p);

	if (n == 0 || (p->users < 2 && p->target.n_pages == 0)) return 0;
	if (p->target.n_pages == 0) {
		reserve(e, &p->target, 0, n);
		score_sequence(scratch, w->policy, &p->target, 0, p->tokens, p->n_tokens, p->n_tokens, NULL, NULL);
		w->stats.rescore_rows += (uint64_t)n;
	}
	kv_seq_fork(seq, &p->target, n);
	return n;
}

/* An overflow in the target's own arithmetic: nothing can be learned from such a sample. */
static void check_finished(struct trajectory *t)
{
	if (t->finish == FINISH_NONE || t->finish == FINISH_ERROR) return;
	for (int32_t i = t->n_prompt; i < t->n_tokens; i++) {
		if (!isnan(t->target_logprobs[i])) continue;
		t->finish = FINISH_ERROR;
		t->error = xstrdup("the target's logits are not finite: its weights have diverged");
		return;
	}
}

void engine_rescore(struct engine *e, struct session *s)
{
	struct workspace *w = &e->workspace;
	struct trajectory *t = s->trajectory;
	const struct score_scratch scratch = {
		.forward = w->forward, .logits = w->logits, .stride = w->stride, .samplers = w->samplers,
		.n_threads = w->n_threads, .rows_max = e->logits_max,
	};
	struct kv_seq seq;

	if (e->options.mode != ROLLOUT_QUANTIZED || !t->target_logprobs || s->n_scored == t->n_tokens) return;
	double start = workspace_now(w);
	kv_seq_open(&seq, e->cache);
	int shared = share_prompt(e, &scratch, s->prefix, &seq);
	reserve(e, &seq, shared, t->n_tokens - 1);
	score_sequence(&scratch, w->policy, &seq, shared, t->tokens, s->n_scored, t->n_tokens, &t->sampling,
	               t->target_logprobs);
	kv_seq_close(&seq);
	w->stats.rescore_rows += (uint64_t)(t->n_tokens - 1 - shared);
	w->stats.rescored_tokens += (uint64_t)(t->n_tokens - s->n_scored);
	w->stats.rescore_seconds += workspace_now(w) - start;
	s->n_scored = t->n_tokens;
	check_finished(t);
}
