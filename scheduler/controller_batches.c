/* controller_batches.c - a batch that is complete, on its way out: ages stamped, stored, handed to the socket. */
#include <stdlib.h>

#include "scheduler/clock.h"
#include "scheduler/controller_internal.h"

/* Forget what was delivered. */
void controller_release_delivered(struct controller *c)
{
	for (int i = 0; i < c->n_delivered; i++) group_table_remove(c->groups, c->delivered[i]);
	c->n_delivered = 0;
}

static void stamp_staleness(struct controller *c, struct trajectory *t)
{
	int32_t oldest = (int32_t)c->version, newest = t->n_tokens > t->n_prompt ? -1 : oldest;
	for (int i = t->n_prompt; i < t->n_tokens; i++) {
		if (t->versions[i] < oldest) oldest = t->versions[i];
		if (t->versions[i] > newest) newest = t->versions[i];
	}
	t->staleness_max = (int32_t)c->version - oldest;
	t->staleness_min = (int32_t)c->version - newest;
}

/* scheduler.stale_action mask: the tokens that lag too much, the first of the response, are out of the loss. */
static void mask_stale(const struct controller *c, struct trajectory *t)
{
	bool any = false;

	for (int i = t->n_prompt; i < t->n_tokens; i++) {
		if (c->version - t->versions[i] > c->config->scheduler.max_staleness) t->loss_mask[i] = 0;
		any |= t->loss_mask[i];
	}
	if (!any && t->n_tokens > t->n_prompt) t->loss_weight = 0;
}

/* Another line begins; the one of what was put waits for what the trainer says. */
static void put_metrics_out(struct controller *c)
{
	struct step_metrics spare = c->out;
	c->out = c->metrics;
	c->metrics = spare;
	step_metrics_begin(&c->metrics, c->step + 1, c->version);
	c->step_began = c->batch_put = clock_seconds();
}

/* Store the batch, then hand it to the socket: what a trainer sees can always be found again. */
/* All samples of training that have tokens: what is delivered should be as long as these. */
static void add_lengths(struct controller *c)
{
	for (struct live_group *g = group_table_next(c->groups, 0); g; g = group_table_next(c->groups, g->id + 1))
		for (int i = 0; i < g->n_samples && !g->eval; i++)
			if (trajectory_response_length(g->samples[i]) > 0) step_metrics_known(&c->metrics, g->samples[i]);
}

int controller_put_batch(struct controller *c, struct err *err)
{
	struct trajectory **batch = NULL;
	int n = 0, rc = 0;

	c->metrics.version = c->version;
	for (int i = 0; i < c->n_delivered; i++) {
		struct live_group *g = group_table_find(c->groups, c->delivered[i]);
		batch = xrealloc(batch, (size_t)(n + g->n_samples) * sizeof *batch);
		for (int k = 0; k < g->n_samples; k++) {
			struct trajectory *t = g->samples[k];
			stamp_staleness(c, t);
			if (c->config->scheduler.stale_action == STALE_MASK) mask_stale(c, t);
			step_metrics_delivered(&c->metrics, t);
			if (!rc) rc = store_put_trajectory(c->store, t, STORE_DELIVERED, err);
			batch[n++] = t;
		}
		if (!rc) rc = store_group_state(c->store, g->id, STORE_DELIVERED, c->step, err);
	}
	add_lengths(c);
	uint64_t batch_id = (uint64_t)c->step;
	if (!rc) rc = store_put_delivery(c->store, batch_id, c->step, c->version, n, err);
	if (!rc) rc = store_flush(c->store, err);
	if (!rc && c->server) server_put_batch(c->server, batch_id, c->step, c->version, batch, n);
	free(batch);
	controller_release_delivered(c);
	put_metrics_out(c);
	return rc;
}
