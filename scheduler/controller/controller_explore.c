/* controller_explore.c - rollout.mode explore: a group begins with a pool that the quantized copy draws; once it is
 * rewarded the group is extended (S18) by the chosen samples, which the target draws again; these are what is delivered.
 *
 * The choice is a pure function of the pool's rewards (explore_choose).  It is on record before any of its samples is
 * leased: the group's size, the pool with its rewards, and each chosen sample with a note of where it came from, in one
 * transaction.  A run that is resumed finds either the pool, and chooses again, or the choice.
 *
 * A pool whose rewards are all equal says nothing about which seeds teach: it is dropped like a group of that kind,
 * before the target has spent anything on it; beyond advantage.drop_limit the choice goes by sample index.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "rollout/explore.h"
#include "scheduler/controller/controller_internal.h"

static bool explores(const struct controller *c)
{
	return c->config->rollout.mode == ROLLOUT_EXPLORE;
}

static int samples_to_keep(const struct controller *c)
{
	return advantage_samples_to_draw(&c->config->advantage, (int)c->config->rollout.group_size);
}

int controller_first_samples(const struct controller *c)
{
	return explores(c) ? (int)c->config->explore.pool : samples_to_keep(c);
}

bool controller_is_pool(const struct controller *c, const struct live_group *g)
{
	return explores(c) && !g->eval && g->n_samples == g->n_first;
}

/* The sample of the pool that it is drawn like, and its rank; NULL if its note is lost. */
static const struct trajectory *origin_of(const struct live_group *g, int sample, int *rank)
{
	json_t *meta = g->samples[sample]->meta ? json_loads(g->samples[sample]->meta, JSON_ALLOW_NUL, NULL) : NULL;
	json_t *note = json_object_get(meta, "explore");
	json_int_t index = json_is_object(note) ? json_integer_value(json_object_get(note, "sample")) : -1;

	*rank = (int)json_integer_value(json_object_get(note, "rank")) - 1;
	json_decref(meta);
	return index >= 0 && index < g->n_first ? g->samples[index] : NULL;
}

void controller_explore_cargo(const struct controller *c, const struct live_group *g, int sample, struct rank_cargo *cargo)
{
	int rank;

	if (!explores(c) || g->eval) return;
	cargo->explored = sample < g->n_first;
	const struct trajectory *origin = cargo->explored ? NULL : origin_of(g, sample, &rank);
	int32_t n = origin ? trajectory_response_length(origin) : 0;
	if (n == 0) return;
	cargo->proposal = origin->tokens + origin->n_prompt;
	cargo->proposal_bytes = (size_t)n * sizeof *origin->tokens;
}

/* The chosen ones, fresh, behind the pool. */
static int begin_again(struct controller *c, struct live_group *g, const struct explore_place *chosen, int n, struct err *err)
{
	int rc = 0, pool = g->n_first;

	group_table_extend(g, n);
	g->first_shipped = pool;
	g->complete = false;
	for (int i = 0; i < n && !rc; i++) {
		const struct trajectory *explored = g->samples[chosen[i].index];
		struct trajectory *t = explore_again(explored);
		t->sample = pool + i;
		t->id = trajectory_id(g->id, t->sample);
		t->group_size = pool + n;
		trajectory_propose(t, NULL, 0); /* it goes with each lease */
		explore_note(t, explored, pool, chosen[i].rank);
		g->samples[t->sample] = t;
		rc = store_put_trajectory(c->store, t, STORE_PARTIAL, err);
	}
	bool judged = c->config->reward.kind == REWARD_PROGRAM; /* since it was saved */
	for (int i = 0; i < pool && !rc; i++)
		if (judged || g->unsaved[i]) rc = controller_save(c, g, i, STORE_DONE, err);
	return rc ? rc : store_group_size(c->store, g->id, g->n_samples, err);
}

int controller_explore(struct controller *c, struct live_group *g, bool *extended, struct err *err)
{
	const struct config_advantage *options = &c->config->advantage;
	double limit = options->drop_limit * (double)c->config->scheduler.groups_per_step;

	*extended = false;
	if (!controller_is_pool(c, g) || g->kept) return 0;
	bool flat = explore_is_flat(g->samples, g->n_samples);
	c->metrics.pools++;
	c->metrics.flat_pools += flat;
	int keep = samples_to_keep(c), needed = options->min_group < keep ? (int)options->min_group : keep;
	struct explore_place *chosen = xmalloc((size_t)keep * sizeof *chosen);
	int n = explore_choose(g->samples, g->n_samples, keep, chosen), rc = 0;
	bool dropped = flat && options->drop_degenerate && c->metrics.dropped + 1 <= limit;
	*extended = n >= needed && !dropped && scheduler_extension_room(c->scheduler, g->id) >= n;
	if (*extended) {
		rc = begin_again(c, g, chosen, n, err);
		scheduler_on_group_extended(c->scheduler, g->id, n); /* what it says is done after this */
		for (int i = g->n_first; i < g->n_samples && !rc; i++)
			scheduler_on_sample_expected(c->scheduler, g->id, i, length_estimate_rest(c->lengths, g, i));
	}
	free(chosen);
	return rc;
}

int controller_record_exploration(struct controller *c, struct live_group *g, struct err *err)
{
	int rc = 0, before = c->metrics.n_pairs;

	for (int i = g->first_shipped; i < g->n_samples && g->first_shipped > 0 && !rc; i++) {
		int rank;
		const struct trajectory *explored = origin_of(g, i, &rank);
		if (!explored)
			return err_set(err, ERR_INVALID, "sample %d of group %" PRIu64 " does not say which sample of its pool it was drawn like", i, g->id);
		explore_note(g->samples[i], explored, g->n_first, rank);
		step_metrics_again(&c->metrics, explored, g->samples[i]);
		g->unsaved[i] = UNSAVED_ALL; /* the caller saves it */
	}
	step_metrics_fidelity(&c->metrics, before);
	return rc;
}
