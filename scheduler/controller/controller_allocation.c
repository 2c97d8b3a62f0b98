/* controller_allocation.c - second stages: a group whose samples are judged is asked how many more it gets.
 *
 * The decision is a function of the first samples' rewards and of what the step's budget leaves (scheduler_extend.c), and
 * it is on record before any of the new samples is leased: the group's size and the budget spent are stored in the
 * transaction of its rewards.  A run that is resumed goes on with the group as large as it was decided to be.  Once
 * the group is complete every member's meta says what was decided:
 *
 *     "allocation": {"rule": "dars_et", "first": 8, "accuracy": 0.125, "wanted": 5, "added": 5}
 */
#include <jansson.h>
#include <stdlib.h>

#include "rollout/allocation.h"
#include "scheduler/controller/controller_internal.h"

int controller_samples_max(const struct controller *c)
{
	const struct config *config = c->config;
	if (config->rollout.mode == ROLLOUT_EXPLORE)
		return controller_first_samples(c) + advantage_samples_to_draw(&config->advantage, (int)config->rollout.group_size);
	return config->allocation.kind != ALLOCATION_UNIFORM ? (int)config->allocation.n_max : 0;
}

int controller_store_extra(struct controller *c, struct err *err)
{
	struct scheduler_counts counts;

	if (c->config->allocation.budget == 0) return 0;
	scheduler_counts_read(c->scheduler, &counts);
	return store_put_number(c->store, STATE_EXTRA, counts.extra, err);
}

int controller_extend_group(struct controller *c, struct live_group *g, int n_more, struct err *err)
{
	int first = g->n_samples;

	group_table_extend(g, n_more);
	for (int i = 0; i < first; i++) g->samples[i]->group_size = g->n_samples;
	for (int i = first; i < g->n_samples; i++) g->samples[i] = prompts_open_sibling(g->samples[0], i, (uint64_t)c->config->run.seed);
	g->complete = false;
	c->metrics.extended++;
	c->metrics.added += n_more;
	scheduler_on_group_extended(c->scheduler, g->id, n_more); /* what it says is done after this */
	int rc = store_group_size(c->store, g->id, g->n_samples, err);
	if (!rc) rc = controller_store_extra(c, err);
	if (rc) return rc;
	for (int i = first; i < g->n_samples; i++)
		scheduler_on_sample_expected(c->scheduler, g->id, i, length_estimate_rest(c->lengths, g, i));
	return 0;
}

int controller_allocate(struct controller *c, struct live_group *g, bool *extended, struct err *err)
{
	struct allocation decision;

	*extended = false;
	if (c->config->rollout.mode == ROLLOUT_EXPLORE) return controller_explore(c, g, extended, err);
	if (g->eval || g->submitted || g->unscored || g->kept || g->n_samples > g->n_first) return 0;
	int rc = allocation_decide(c->config, g->samples, g->n_samples, &decision, err);
	int room = scheduler_extension_room(c->scheduler, g->id), n_more = decision.wanted < room ? decision.wanted : room;
	if (rc || decision.wanted == 0) return rc;
	c->metrics.wanted += decision.wanted;
	*extended = n_more > 0;
	return *extended ? controller_extend_group(c, g, n_more, err) : 0;
}

static char *with_decision(const struct controller *c, const struct live_group *g, const struct allocation *decision,
                           const char *meta)
{
	json_t *o = meta ? json_loads(meta, JSON_ALLOW_NUL, NULL) : json_object();

	if (!o) o = json_object();
	json_object_set_new(o, "allocation",
	                    json_pack("{s:s, s:i, s:f, s:i, s:i}", "rule",
	                              allocation_name((int)c->config->allocation.kind), "first", g->n_first, "accuracy", decision->accuracy, "wanted", decision->wanted, "added", g->n_samples - g->n_first));
	char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER);
	json_decref(o);
	return text;
}

int controller_record_allocation(struct controller *c, struct live_group *g, struct err *err)
{
	struct allocation decision;

	if (g->eval || c->config->allocation.kind == ALLOCATION_UNIFORM || g->n_samples == g->n_first) return 0;
	int rc = allocation_decide(c->config, g->samples, g->n_first, &decision, err);
	for (int i = 0; i < g->n_samples && !rc; i++) {
		char *meta = with_decision(c, g, &decision, g->samples[i]->meta);
		free(g->samples[i]->meta);
		g->samples[i]->meta = meta;
		g->unsaved[i] = UNSAVED_ALL; /* the caller saves it */
	}
	return rc;
}

void controller_restore_allocation(struct controller *c, struct live_group *g)
{
	int n_first = controller_first_samples(c);

	if (n_first < g->n_samples) g->n_first = n_first;
	if (g->kept || g->n_first < g->n_samples) scheduler_restore_settled(c->scheduler, g->id);
	if (c->config->rollout.mode == ROLLOUT_EXPLORE) {
		if (g->n_first < g->n_samples) g->first_shipped = g->n_first;
		return;
	}
	for (int i = 0; i < g->n_samples; i++)
		if (g->samples[i]) g->samples[i]->group_size = g->n_samples;
}
