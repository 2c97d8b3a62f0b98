/* explore.c - which samples of a pool are drawn again, and what came of it.
 *
 * Sol-RL takes the best and the worst of a pool, half each; rewards of verifiers are often tied, so the order behind
 * equal rewards is that of the sample index and a choice never depends on who finished first.  With many ties the
 * lower half is the last of the order, so that both halves never meet and every sample has one rank.
 * Cost: one sort of the pool.
 *
 * Differences from the paper: it draws images again from their initial noise, which 4-bit and BF16 models turn into
 * nearly the same one; text diverges at the first token that differs, so the noise here is one per position, and all
 * tokens before that are kept at the price of a prefill.  The group's size is the trainer's, not twelve and twelve.
 */
#include "rollout/explore.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rollout/advantage/advantage.h"

struct entry {
	double reward;
	int sample, index;
};

static int entry_compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->reward != y->reward) return x->reward > y->reward ? -1 : 1;
	return (x->sample > y->sample) - (x->sample < y->sample);
}

int explore_choose(struct trajectory *const *pool, int n, int keep, struct explore_place *chosen)
{
	struct entry *order = xmalloc((size_t)n * sizeof *order);
	int n_order = 0, n_chosen = 0;

	assert(n >= 1 && keep >= 1);
	for (int i = 0; i < n; i++)
		if (pool[i]->has_reward)
			order[n_order++] = (struct entry){.reward = pool[i]->reward, .sample = pool[i]->sample, .index = i};
	qsort(order, (size_t)n_order, sizeof *order, entry_compare);
	for (int rank = 0; rank < n_order; rank++) {
		bool first = rank < (keep + 1) / 2, last = rank >= n_order - keep / 2;
		if (first || last || n_order <= keep) chosen[n_chosen++] = (struct explore_place){order[rank].index, rank};
	}
	free(order);
	return n_chosen;
}

bool explore_is_flat(struct trajectory *const *pool, int n)
{
	const struct trajectory *first = NULL;

	for (int i = 0; i < n; i++) {
		if (!pool[i]->has_reward) continue;
		if (first && pool[i]->reward != first->reward) return false;
		if (!first) first = pool[i];
	}
	return true;
}

struct trajectory *explore_again(const struct trajectory *from)
{
	struct trajectory *t = trajectory_new(from->tokens, from->n_prompt, from->max_tokens);

	t->id = from->id;
	t->group_id = from->group_id;
	t->sample = from->sample;
	t->group_size = from->group_size;
	t->prompt_id = from->prompt_id ? xstrdup(from->prompt_id) : NULL;
	t->epoch = from->epoch;
	t->seed = from->seed;
	t->answer = from->answer ? xstrdup(from->answer) : NULL;
	t->meta = from->meta ? xstrdup(from->meta) : NULL;
	t->sampling = from->sampling;
	trajectory_propose(t, from->tokens + from->n_prompt, trajectory_response_length(from));
	return t;
}

int32_t explore_agreed(const struct trajectory *explored, const struct trajectory *again)
{
	int32_t a = trajectory_response_length(explored), b = trajectory_response_length(again), n = 0;

	while (n < a && n < b && explored->tokens[explored->n_prompt + n] == again->tokens[again->n_prompt + n]) n++;
	return n;
}

int32_t explore_divergence(const struct trajectory *explored, const struct trajectory *again)
{
	int32_t n = explore_agreed(explored, again);
	return n == trajectory_response_length(explored) && n == trajectory_response_length(again) ? -1 : n;
}

static json_t *reward_or_null(const struct trajectory *t)
{
	return t->has_reward ? json_real(t->reward) : json_null();
}

void explore_note(struct trajectory *again, const struct trajectory *explored, int pool, int rank)
{
	json_t *meta = again->meta ? json_loads(again->meta, 0, NULL) : NULL, *note = json_object();
	int32_t divergence = explore_divergence(explored, again);

	if (!json_is_object(meta)) {
		json_decref(meta);
		meta = json_object();
	}
	json_object_set_new(note, "pool", json_integer(pool));
	json_object_set_new(note, "sample", json_integer(explored->sample));
	json_object_set_new(note, "rank", json_integer(rank + 1));
	json_object_set_new(note, "explored_reward", reward_or_null(explored));
	json_object_set_new(note, "reward", reward_or_null(again));
	json_object_set_new(note, "explored_tokens", json_integer(trajectory_response_length(explored)));
	json_object_set_new(note, "divergence", divergence < 0 ? json_null() : json_integer(divergence));
	json_object_set_new(meta, "explore", note);
	free(again->meta);
	char *text = json_dumps(meta, JSON_COMPACT);
	again->meta = xstrdup(text);
	free(text);
	json_decref(meta);
}

/* ---- rank correlation ---- */

struct ranked_value {
	double value;
	int index;
};

static int value_compare(const void *a, const void *b)
{
	const struct ranked_value *x = a, *y = b;
	return (x->value > y->value) - (x->value < y->value);
}

static void ranks_of(const double *values, int n, double *ranks)
{
	struct ranked_value *order = xmalloc((size_t)n * sizeof *order);

	for (int i = 0; i < n; i++) order[i] = (struct ranked_value){values[i], i};
	qsort(order, (size_t)n, sizeof *order, value_compare);
	for (int i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && order[end].value == order[i].value; end++) {}
		for (int j = i; j < end; j++) ranks[order[j].index] = 0.5 * (i + end - 1);
	}
	free(order);
}

double explore_spearman(const double *x, const double *y, int n)
{
	if (n < 2) return NAN;
	double *ranks = xmalloc(2 * (size_t)n * sizeof *ranks), xx = 0, yy = 0, xy = 0, mean = 0.5 * (n - 1);

	ranks_of(x, n, ranks);
	ranks_of(y, n, ranks + n);
	for (int i = 0; i < n; i++) {
		double a = ranks[i] - mean, b = ranks[n + i] - mean;
		xx += a * a;
		yy += b * b;
		xy += a * b;
	}
	free(ranks);
	return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

/* ---- config ---- */

int explore_check(const struct config *c, struct err *err)
{
	int keep = advantage_samples_to_draw(&c->advantage, (int)c->rollout.group_size);

	if (c->rollout.mode != ROLLOUT_EXPLORE) return 0;
	if (c->explore.pool < keep)
		return err_set(err, ERR_CONFIG, "explore.pool is %lld, but %d samples of each pool are to be drawn again (rollout.group_size, "
		               "and one more for mc_grpo): raise it", (long long)c->explore.pool, keep);
	if (c->explore.pool + keep > TRAJECTORY_SAMPLES_MAX)
		return err_set(err, ERR_TOO_BIG, "explore.pool and what is drawn again of it are %lld samples, at most %d fit into a group",
		               (long long)c->explore.pool + keep, TRAJECTORY_SAMPLES_MAX);
	if (c->reward.kind == REWARD_NONE)
		return err_set(err, ERR_CONFIG, "rollout.mode is explore, but reward.kind is none: samples are chosen by their rewards before the trainer sees any; choose a verifier");
	if (c->speculation.coupling == COUPLING_MAXIMAL)
		return err_set(err, ERR_CONFIG, "rollout.mode is explore, but speculation.coupling is maximal: the target follows the pool's text because it draws with the same noise, which only coupled verification does; set it to coupled");
	if (c->rollout.temperature == 0)
		return err_set(err, ERR_CONFIG, "rollout.mode is explore, but rollout.temperature is 0: all samples of a pool would be the same; raise it");
	if (c->data.source != PROMPTS_FROM_FILE)
		return err_set(err, ERR_CONFIG, "rollout.mode is explore, but data.source has prompts come from a trainer, which says itself how many samples it wants of each: set data.source to file");
	if (c->scheduler.kv == WEIGHTS_KEEP_KV)
		return err_set(err, ERR_CONFIG, "rollout.mode is explore, but scheduler.kv is keep: which samples are chosen would depend on how the rounds fell when weights came, and could not be found again from the record; set it to recompute");
	if (c->allocation.kind != ALLOCATION_UNIFORM)
		return err_set(err, ERR_CONFIG, "rollout.mode is explore, but allocation.kind gives prompts a second stage of its own: what explore draws again is the second stage; set allocation.kind to uniform");
	return 0;
}
