/* controller_samples.c - what the scheduler decides, done: groups opened, samples leased, results
 * taken in, advantages computed, batches put together. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "scheduler/controller_internal.h"

enum { FAILURES_SHOWN = 3 }; /* per step */

static struct sampling_options sampling_of(const struct config_rollout *r)
{
	return (struct sampling_options){ .temperature = (float)r->temperature, .top_p = (float)r->top_p,
	                                  .top_k = (int32_t)r->top_k };
}

static int open_group(struct controller *c, const struct action *a, struct err *err)
{
	const struct config *config = c->config;
	const struct prompts *prompts = a->eval ? c->in->eval_prompts : c->in->prompts;
	uint64_t ordinal = a->eval ? c->next_eval++ : c->next_train++;
	struct sampling_options sampling = sampling_of(&config->rollout);
	int32_t epoch;

	size_t index = prompts_index(prompts, ordinal, !a->eval && config->data.shuffle, (uint64_t)config->run.seed, &epoch);
	const struct prompt *prompt = &prompts->items[index];
	/* Every evaluation draws with the same noise: what changes between two of them is the policy. */
	if (a->eval) epoch = 0;
	struct live_group *g = group_table_add(c->groups, a->group, a->n_samples, a->eval);
	for (int i = 0; i < a->n_samples; i++) {
		g->samples[i] = prompts_open_sample(prompt, a->group, i, a->n_samples, epoch, (uint64_t)config->run.seed,
		                                    &sampling, (int32_t)config->rollout.max_tokens);
		g->samples[i]->eval = a->eval;
	}
	return store_put_group(c->store, a->group, prompt->id, epoch, a->n_samples, a->eval, err);
}

static int lease_sample(struct controller *c, const struct action *a, struct err *err)
{
	struct live_group *g = group_table_find(c->groups, a->group);

	assert(g && a->sample < g->n_samples);
	g->leases[a->sample] = a->lease;
	c->ranks[a->rank].holding++;
	if (trajectory_response_length(g->samples[a->sample]) > 0) {
		c->metrics.resumed++;
		c->summary.partials_resumed++;
	}
	return rank_message_send_trajectory(c->transport, a->rank, c->writer, RANK_LEASE, a->lease, g->samples[a->sample], err);
}

static void keep_sample(struct controller *c, const struct action *a)
{
	struct rank_state *r = &c->ranks[a->rank];
	if (r->n_keep == r->keep_capacity) {
		r->keep_capacity = r->keep_capacity ? 2 * r->keep_capacity : 16;
		r->keep = xrealloc(r->keep, (size_t)r->keep_capacity * sizeof *r->keep);
	}
	r->keep[r->n_keep++] = trajectory_id(a->group, a->sample);
}

static int stop_rank(struct controller *c, int rank, struct err *err)
{
	struct rank_state *r = &c->ranks[rank];
	rank_message_begin(c->writer, RANK_STOP, 1);
	message_key(c->writer, "keep");
	message_begin_array(c->writer, (uint32_t)r->n_keep);
	for (int i = 0; i < r->n_keep; i++) {
		message_begin_map(c->writer, 1);
		message_key(c->writer, "id");
		message_put_uint(c->writer, r->keep[i]);
	}
	r->n_keep = 0;
	return rank_message_send(c->transport, rank, c->writer, err);
}

static const char *first_error(const struct live_group *g)
{
	for (int i = 0; i < g->n_samples; i++)
		if (g->samples[i]->error) return g->samples[i]->error;
	return "none was given";
}

/* Advantages, and whether the group is worth sending. */
static int complete_group(struct controller *c, uint64_t id, struct err *err)
{
	const struct config_advantage *options = &c->config->advantage;
	struct live_group *g = group_table_find(c->groups, id);
	bool keep = true;
	int rc = 0;

	assert(g);
	if (!g->eval && c->config->reward.kind != REWARD_NONE) {
		advantage_compute(g->samples, g->n_samples, options, &g->advantage);
		int scored = 0;
		for (int i = 0; i < g->n_samples; i++) scored += g->samples[i]->has_reward;
		double limit = options->drop_limit * (double)c->config->scheduler.groups_per_step;
		if (scored < 2 && g->n_samples > 1) {
			keep = false;
			/* Without a limit a verifier that always fails would have groups opened for ever. */
			if (++c->metrics.unscored > limit + (double)c->config->scheduler.groups_per_step)
				rc = err_set(err, ERR_STATE, "%d groups of step %" PRId64 " have no two samples with a reward to compare; "
				             "the last error: %s", c->metrics.unscored, c->step, first_error(g));
		} else if (options->drop_degenerate && g->advantage.degenerate) keep = c->metrics.dropped + 1 > limit;
		step_metrics_group(&c->metrics, g->samples, g->n_samples, &g->advantage, !keep);
	}
	for (int i = 0; i < g->n_samples && !rc; i++)
		rc = store_put_trajectory(c->store, g->samples[i], keep ? STORE_DONE : STORE_DROPPED, err);
	if (!rc && !keep) {
		rc = store_group_state(c->store, id, STORE_DROPPED, c->step, err);
		group_table_remove(c->groups, id);
	}
	scheduler_on_group_scored(c->scheduler, id, keep);
	return rc;
}

static void deliver_group(struct controller *c, uint64_t id)
{
	if (c->n_delivered == c->delivered_capacity) {
		c->delivered_capacity = c->delivered_capacity ? 2 * c->delivered_capacity : 64;
		c->delivered = xrealloc(c->delivered, (size_t)c->delivered_capacity * sizeof *c->delivered);
	}
	c->delivered[c->n_delivered++] = id;
}

int controller_do_actions(struct controller *c, struct err *err)
{
	struct action a;
	int rc = 0;

	while (!rc && scheduler_next_action(c->scheduler, &a)) {
		switch (a.type) {
		case ACTION_OPEN_GROUP: rc = open_group(c, &a, err); break;
		case ACTION_LEASE: rc = lease_sample(c, &a, err); break;
		case ACTION_KEEP: keep_sample(c, &a); break;
		case ACTION_STOP: rc = stop_rank(c, a.rank, err); break;
		case ACTION_GROUP_COMPLETE: rc = complete_group(c, a.group, err); break;
		case ACTION_DELIVER: deliver_group(c, a.group); break;
		case ACTION_STEP_READY: rc = controller_step_ready(c, a.eval, err); break;
		case ACTION_NONE: break;
		}
	}
	return rc;
}

static int64_t oldest_version(const struct trajectory *t, int64_t current)
{
	return t->n_tokens > t->n_prompt ? t->versions[t->n_prompt] : current;
}

int controller_on_result(struct controller *c, int rank, const struct message_node *root, bool finished, struct err *err)
{
	struct trajectory *t;
	uint64_t lease;

	int rc = rank_message_get_trajectory(root, &lease, &t, err);
	if (rc) return err_context(err, "rank %d", rank);
	struct live_group *g = group_table_find(c->groups, t->group_id);
	if (!g || t->sample < 0 || t->sample >= g->n_samples || g->leases[t->sample] != lease) {
		trajectory_free(t); /* a late answer under a lease that was taken back (S9) */
		return 0;
	}
	uint64_t group = t->group_id;
	int sample = t->sample;
	step_metrics_returned(&c->metrics, g->samples[sample], t);
	if (!finished && trajectory_response_length(t) > 0) t->deferrals++;
	trajectory_free(g->samples[sample]);
	g->samples[sample] = t;
	g->leases[sample] = 0;
	c->ranks[rank].holding--;
	if (t->finish == FINISH_ERROR && c->metrics.failed <= FAILURES_SHOWN)
		progress_note("sample %d of prompt %s failed: %s", sample, t->prompt_id, t->error ? t->error : "no reason given");
	if (!finished) rc = store_put_trajectory(c->store, t, STORE_PARTIAL, err);
	if (finished) scheduler_on_sample_done(c->scheduler, group, sample, lease);
	else scheduler_on_sample_partial(c->scheduler, group, sample, lease, oldest_version(t, c->version));
	return rc;
}
