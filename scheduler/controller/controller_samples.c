/* controller_samples.c - what the scheduler decides, done: groups opened, samples leased, results
 * taken in, advantages computed, batches put together. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "rollout/allocation.h"
#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"

enum { FAILURES_SHOWN = 3 }; /* per step */
static const size_t KV_HELD_BYTES_MAX = (size_t)256 << 20; /* of samples that are put aside or move; more is dropped */

static struct sampling_options sampling_of(const struct config_rollout *r)
{
	return (struct sampling_options){ .temperature = (float)r->temperature, .top_p = (float)r->top_p,
	                                  .top_k = (int32_t)r->top_k, .min_p = (float)r->min_p };
}

void controller_open_samples(struct controller *c, struct live_group *g, const struct prompt *prompt, int32_t epoch)
{
	const struct config *config = c->config;
	struct sampling_options sampling = sampling_of(&config->rollout);

	for (int i = 0; i < g->n_samples; i++) {
		if (g->samples[i]) continue;
		g->samples[i] = prompts_open_sample(prompt, g->id, i, g->n_samples, epoch, (uint64_t)config->run.seed, &sampling,
		                                    (int32_t)config->rollout.max_tokens);
		g->samples[i]->eval = g->eval;
	}
}

/* For the next prompt of the run's own. */
static int open_own(struct controller *c, struct live_group *g, struct err *err)
{
	const struct config *config = c->config;
	const struct prompts *prompts = g->eval ? c->in->eval_prompts : c->in->prompts;
	uint64_t ordinal = g->eval ? c->next_eval++ : c->next_train++;
	int32_t epoch;

	size_t index = prompts_index(prompts, ordinal, !g->eval && config->data.shuffle, (uint64_t)config->run.seed, &epoch);
	const struct prompt *prompt = &prompts->items[index];
	/* Every evaluation draws with the same noise: what changes between two of them is the policy. */
	if (g->eval) epoch = 0;
	controller_open_samples(c, g, prompt, epoch);
	return store_put_group(c->store, g->id, prompt->id, epoch, g->n_samples, g->eval, ordinal, err);
}

static int open_group(struct controller *c, const struct action *a, struct err *err)
{
	struct live_group *g = group_table_add(c->groups, a->group, a->n_samples, a->eval);
	int rc;

	if (a->offered) rc = controller_open_submitted(c, g, err);
	else rc = a->eval && c->requested ? controller_open_requested(c, g, err) : open_own(c, g, err);
	scheduler_on_sample_expected(c->scheduler, a->group, -1, length_estimate_group(c->lengths, g));
	return rc;
}

static bool has_had_prompt(struct live_group *g, int rank)
{
	for (int i = 0; i < g->n_ranks; i++)
		if (g->ranks[i] == rank) return true;
	g->ranks = xrealloc(g->ranks, (size_t)(g->n_ranks + 1) * sizeof *g->ranks);
	g->ranks[g->n_ranks++] = rank;
	return false;
}

static void kv_drop(struct controller *c, struct kv_parcel *kv)
{
	c->kv_held -= kv->n_bytes;
	kv_parcel_free(kv);
}

static void kv_hold(struct controller *c, struct kv_parcel *kv, const struct kv_parcel *arrived)
{
	kv_drop(c, kv);
	if (!arrived->bytes || arrived->version != c->version || c->kv_held + arrived->n_bytes > KV_HELD_BYTES_MAX) return;
	*kv = kv_parcel_copy(arrived);
	c->kv_held += kv->n_bytes;
}

void controller_drop_kv(struct controller *c)
{
	for (struct live_group *g = group_table_next(c->groups, 0); g; g = group_table_next(c->groups, g->id + 1))
		for (int i = 0; i < g->n_samples; i++) kv_drop(c, &g->kv[i]);
}

void controller_forget_group(struct controller *c, uint64_t id)
{
	struct live_group *g = group_table_find(c->groups, id);

	for (int i = 0; i < g->n_samples; i++) kv_drop(c, &g->kv[i]);
	group_table_remove(c->groups, id);
}

static int lease_sample(struct controller *c, const struct action *a, struct err *err)
{
	struct live_group *g = group_table_find(c->groups, a->group);

	assert(g && a->sample < g->n_samples);
	if (!rank_serves(&c->ranks[a->rank])) return 0; /* lost since: the sample waits again */
	g->leases[a->sample] = a->lease;
	g->holders[a->sample] = a->rank;
	c->ranks[a->rank].holding++;
	if (trajectory_response_length(g->samples[a->sample]) > 0 && !g->moving[a->sample]) {
		c->metrics.resumed++;
		c->summary.partials_resumed++;
	}
	g->moving[a->sample] = false;
	/* Its prompt is computed there but for the last token, which every sample computes itself. */
	if (!has_had_prompt(g, a->rank)) c->metrics.needed_prompt_tokens += (uint64_t)g->samples[a->sample]->n_prompt - 1;
	struct rank_cargo cargo = { .kv = g->kv[a->sample], .unscored = g->unscored };
	controller_explore_cargo(c, g, a->sample, &cargo);
	int rc = rank_message_send_trajectory(c->transport, a->rank, c->writer, RANK_LEASE, a->lease, g->samples[a->sample],
	                                      &cargo, err);
	kv_drop(c, &g->kv[a->sample]);
	return rc;
}

static int recall_samples(struct controller *c, const struct action *a, struct err *err)
{
	if (!rank_serves(&c->ranks[a->rank])) return 0;
	rank_message_begin(c->writer, RANK_RECALL, 2);
	message_key(c->writer, "recall");
	message_put_uint(c->writer, a->lease);
	message_key(c->writer, "keep");
	message_put_int(c->writer, a->n_samples);
	return rank_message_send(c->transport, a->rank, c->writer, err);
}

static void keep_sample(struct controller *c, const struct action *a)
{
	struct rank_state *r = &c->ranks[a->rank];
	if (!rank_serves(r)) return;
	if (r->n_keep == r->keep_capacity) {
		r->keep_capacity = r->keep_capacity ? 2 * r->keep_capacity : 16;
		r->keep = xrealloc(r->keep, (size_t)r->keep_capacity * sizeof *r->keep);
	}
	r->keep[r->n_keep++] = trajectory_id(a->group, a->sample);
}

static int stop_rank(struct controller *c, int rank, struct err *err)
{
	struct rank_state *r = &c->ranks[rank];
	if (c->stop_began == 0) {
		c->stop_began = clock_seconds();
		controller_event(c, "stop", "%s", "");
	}
	if (!rank_serves(r)) return 0;
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

/* Of a group that is given up, or pruned. */
static int cancel_sample(struct controller *c, const struct action *a, struct err *err)
{
	struct live_group *g = group_table_find(c->groups, a->group);

	c->metrics.cancelled += g->samples[a->sample]->finish != FINISH_PRUNED;
	if (!rank_serves(&c->ranks[a->rank]) || g->leases[a->sample] != a->lease) return 0; /* the rank was lost since */
	g->leases[a->sample] = 0;
	controller_orphan_settled(c, g, a->sample);
	c->ranks[a->rank].holding--;
	rank_message_begin(c->writer, RANK_CANCEL, 2);
	message_key(c->writer, "lease");
	message_put_uint(c->writer, a->lease);
	message_key(c->writer, "id");
	message_put_uint(c->writer, trajectory_id(a->group, a->sample));
	return rank_message_send(c->transport, a->rank, c->writer, err);
}

/* Too old, or put aside too often: what is there of it stays on record. */
static int drop_group(struct controller *c, uint64_t id, struct err *err)
{
	struct live_group *g = group_table_find(c->groups, id);
	int rc = 0;

	c->metrics.given_up++;
	for (int i = 0; i < g->n_samples; i++) controller_orphan_settled(c, g, i);
	controller_rewards_forget(c, g);
	for (int i = 0; i < g->n_samples && !rc; i++)
		if (g->unsaved[i] || trajectory_response_length(g->samples[i]) > 0) rc = store_put_trajectory(c->store, g->samples[i], STORE_DROPPED, err);
	if (!rc) rc = store_group_state(c->store, id, STORE_DROPPED, STORE_NO_STEP, err);
	controller_return_prompt(c, g);
	controller_forget_group(c, id);
	return rc;
}

static const char *first_error(const struct live_group *g)
{
	for (int i = 0; i < g->n_samples; i++)
		if (g->samples[i]->error) return g->samples[i]->error;
	return "none was given";
}

/* Whose batch a verdict that comes now counts for: between two steps the next one's. */
static int64_t step_in_making(const struct controller *c)
{
	return c->phase == PHASE_STEP || c->batch_is_held ? c->step : c->step + 1;
}

static bool teaches_nothing(const struct controller *c, const struct live_group *g)
{
	return g->advantage.degenerate || allocation_is_too_easy(c->config, g->samples, g->n_samples);
}

int controller_score_group(struct controller *c, struct live_group *g, struct err *err)
{
	const struct config_advantage *options = &c->config->advantage;
	uint64_t id = g->id;
	bool keep = true, extended = false;

	assert(g);
	int rc = controller_allocate(c, g, &extended, err);
	if (rc || extended) return rc;
	rc = controller_record_allocation(c, g, err);
	if (!rc) rc = controller_record_exploration(c, g, err);
	bool pool = controller_is_pool(c, g);
	struct trajectory **members = g->samples + g->first_shipped;
	int n_members = g->n_samples - g->first_shipped;
	g->completed = ++c->n_completed;
	if (!g->eval && !g->unscored && c->config->reward.kind != REWARD_NONE) {
		if (!controller_prune_score(c, g)) advantage_compute(members, n_members, options, &g->advantage);
		int scored = 0;
		for (int i = 0; i < n_members; i++) scored += members[i]->has_reward;
		double limit = options->drop_limit * (double)c->config->scheduler.groups_per_step;
		int needed = options->min_group < n_members ? (int)options->min_group : n_members;
		if (g->submitted) keep = true; /* who submitted a prompt gets its group */
		else if (scored < needed) {
			keep = g->kept;
			/* Without a limit a verifier that always fails would have groups opened for ever. */
			if (++c->metrics.unscored > limit + (double)c->config->scheduler.groups_per_step)
				rc = err_set(err, ERR_STATE, "%d groups of step %" PRId64 " have fewer than %d samples with a reward "
				             "(advantage.min_group); the last error: %s", c->metrics.unscored, c->step, needed, first_error(g));
		} else if (options->drop_degenerate && teaches_nothing(c, g)) keep = g->kept || c->metrics.dropped + 1 > limit;
		keep = keep && !pool;
		step_metrics_group(&c->metrics, members, n_members, &g->advantage, !keep);
	}
	for (int i = 0; i < g->n_samples && !rc && !keep; i++) rc = controller_save(c, g, i, STORE_DROPPED, err);
	if (!rc && keep && !g->eval) rc = controller_save_group(c, g, err);
	if (!rc) rc = store_group_state(c->store, id, keep ? STORE_DONE : STORE_DROPPED, step_in_making(c), err);
	if (!rc && !keep) controller_forget_group(c, id);
	scheduler_on_group_scored(c->scheduler, id, keep);
	return rc;
}

static int complete_group(struct controller *c, uint64_t id, struct err *err)
{
	struct live_group *g = group_table_find(c->groups, id);

	assert(g);
	return controller_rewards_awaited(c, g) ? 0 : controller_score_group(c, g, err);
}

static void deliver_group(struct controller *c, uint64_t id)
{
	if (c->n_delivered == c->delivered_capacity) {
		c->delivered_capacity = c->delivered_capacity ? 2 * c->delivered_capacity : 64;
		c->delivered = xrealloc(c->delivered, (size_t)c->delivered_capacity * sizeof *c->delivered);
	}
	c->delivered[c->n_delivered++] = id;
	if (c->phase == PHASE_STEP) controller_stream_group(c, id);
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
		case ACTION_RECALL: rc = recall_samples(c, &a, err); break;
		case ACTION_STOP: rc = stop_rank(c, a.rank, err); break;
		case ACTION_GROUP_COMPLETE: rc = complete_group(c, a.group, err); break;
		case ACTION_DELIVER: deliver_group(c, a.group); break;
		case ACTION_CANCEL: rc = cancel_sample(c, &a, err); break;
		case ACTION_DROP_GROUP: rc = drop_group(c, a.group, err); break;
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

/* What is known of one sample tells something of its siblings. */
static void expect_siblings(struct controller *c, const struct live_group *g)
{
	if (c->config->scheduler.order != LEASE_LONGEST) return;
	for (int i = 0; i < g->n_samples; i++)
		if (g->samples[i]->finish == FINISH_NONE)
			scheduler_on_sample_expected(c->scheduler, g->id, i, length_estimate_rest(c->lengths, g, i));
}

/* Async, a step goes on around an evaluation: what that draws is none of its own, and what is put aside for it
 * is not counted as deferred. */
static bool is_around_evaluation(const struct controller *c)
{
	return c->asynchrony == ASYNCHRONY_ASYNC && c->phase == PHASE_EVAL;
}

/* The sample has its new state in g; tell the scheduler, and keep what must not be lost. */
static void result_settled(struct controller *c, struct live_group *g, int sample, uint64_t lease, enum rank_message type)
{
	struct trajectory *t = g->samples[sample];

	if (type == RANK_DONE) {
		if (t->finish != FINISH_ERROR) length_estimate_learn(c->lengths, t);
		controller_rewards_ask(c, g, sample);
		expect_siblings(c, g);
		if (!g->eval) g->unsaved[sample] = UNSAVED_ALL;
		scheduler_on_sample_done(c->scheduler, g->id, sample, lease);
		return;
	}
	g->unsaved[sample] = UNSAVED_ALL;
	bool begun = trajectory_response_length(t) > 0, counts = begun && !is_around_evaluation(c) && !c->draining;
	expect_siblings(c, g);
	if (type == RANK_RETURNED) {
		c->metrics.migrated++;
		g->moving[sample] = true;
		int64_t oldest = begun ? t->versions[t->n_prompt] : SCHEDULER_NO_TOKENS;
		if (!scheduler_on_sample_recalled(c->scheduler, g->id, sample, lease, oldest)) return;
	}
	g->moving[sample] = false;
	if (counts) t->deferrals++;
	step_metrics_put_aside(&c->metrics, t);
	if (type == RANK_PARTIAL) scheduler_on_sample_partial(c->scheduler, g->id, sample, lease, oldest_version(t, c->version));
}

int controller_on_result(struct controller *c, int rank, const struct message_node *root, enum rank_message type,
                         struct err *err)
{
	struct rank_cargo cargo;
	struct trajectory *t;
	uint64_t lease;

	int rc = rank_message_get_cargo(root, &cargo, err);
	if (!rc) rc = rank_message_get_trajectory(root, &lease, &t, err);
	if (rc) return err_context(err, "rank %d", rank);
	c->metrics.prefill_tokens += cargo.prompt_tokens;
	c->metrics.recomputed_tokens += cargo.recomputed_tokens;
	c->metrics.imported_tokens += cargo.imported_tokens;
	struct live_group *g = group_table_find(c->groups, t->group_id);
	if (lease == 0 || !g || t->sample < 0 || t->sample >= g->n_samples || g->leases[t->sample] != lease) {
		trajectory_free(t); /* a late answer under a lease that was taken back (S9) */
		return 0;
	}
	int sample = t->sample;
	if (!is_around_evaluation(c) || !g->eval) step_metrics_returned(&c->metrics, g->samples[sample], t);
	trajectory_free(g->samples[sample]);
	g->samples[sample] = t;
	g->leases[sample] = 0;
	controller_orphan_settled(c, g, sample);
	c->ranks[rank].holding--;
	kv_hold(c, &g->kv[sample], &cargo.kv);
	if (t->finish == FINISH_ERROR && c->metrics.failed <= FAILURES_SHOWN)
		progress_note("sample %d of prompt %s failed: %s", sample, t->prompt_id, t->error ? t->error : "no reason given");
	result_settled(c, g, sample, lease, type);
	return type == RANK_DONE ? controller_prune_settled(c, g, err) : 0;
}

int controller_on_recalled(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	uint64_t recall;
	int rc = message_get_uint(root, "recall", &recall, err);

	if (!rc) scheduler_on_rank_recalled(c->scheduler, rank, recall);
	return rc;
}
