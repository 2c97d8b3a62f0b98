/* controller_batches.c - a batch that is complete, on its way out: ages stamped, stored, handed to the socket. */
#include <stdlib.h>
#include <string.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"

/* Forget what was delivered. */
void controller_release_delivered(struct controller *c)
{
	for (int i = 0; i < c->n_delivered; i++) controller_forget_group(c, c->delivered[i]);
	c->n_delivered = c->n_streamed = 0;
}

int64_t controller_batch_version(const struct controller *c)
{
	bool next = c->asynchrony == ASYNCHRONY_ONE_STEP_OFF && c->batch_is_out && c->arriving;
	return next ? c->arriving->version : c->version;
}

/* True if they are not what they were. */
static bool stamp_staleness(const struct controller *c, struct trajectory *t)
{
	int32_t before_max = t->staleness_max, before_min = t->staleness_min;
	int32_t version = (int32_t)controller_batch_version(c), oldest = version, newest = t->n_tokens > t->n_prompt ? -1 : oldest;
	for (int i = t->n_prompt; i < t->n_tokens; i++) {
		if (t->versions[i] < oldest) oldest = t->versions[i];
		if (t->versions[i] > newest) newest = t->versions[i];
	}
	if (newest > version) newest = version; /* resumed from weights older than it was drawn with */
	t->staleness_max = version - oldest;
	t->staleness_min = version - newest;
	return t->staleness_max != before_max || t->staleness_min != before_min;
}

/* scheduler.stale_action mask: the tokens that lag too much, the first of the response, are out of the loss.  True if
 * that changed anything. */
static bool mask_stale(const struct controller *c, struct trajectory *t)
{
	bool any = false, masked = false;

	if (c->config->scheduler.stale_action != STALE_MASK) return false;
	for (int i = t->n_prompt; i < t->n_tokens; i++) {
		bool stale = controller_batch_version(c) - t->versions[i] > c->config->scheduler.max_staleness;
		masked |= stale && t->loss_mask[i];
		if (stale) t->loss_mask[i] = 0;
		any |= t->loss_mask[i];
	}
	if (!any && t->n_tokens > t->n_prompt && t->loss_weight != 0) {
		t->loss_weight = 0;
		masked = true;
	}
	return masked;
}

/* Another line begins; the one of what was put waits for what the trainer says. */
static void put_metrics_out(struct controller *c)
{
	struct step_metrics spare = c->out;
	c->out = c->metrics;
	c->metrics = spare;
	step_metrics_begin(&c->metrics, c->step + 1, c->version);
	memset(c->lost[false], 0, sizeof c->lost[false]);
	c->step_began = c->batch_put = clock_seconds();
}

/* All samples of training that have tokens: what is delivered should be as long as these. */
static void add_lengths(struct controller *c)
{
	for (struct live_group *g = group_table_next(c->groups, 0); g; g = group_table_next(c->groups, g->id + 1))
		for (int i = g->first_shipped; i < g->n_samples && !g->eval && !controller_is_pool(c, g); i++)
			if (trajectory_response_length(g->samples[i]) > 0) step_metrics_known(&c->metrics, g->samples[i]);
}

int controller_save_group(struct controller *c, struct live_group *g, struct err *err)
{
	int rc = 0;

	for (int k = g->first_shipped; k < g->n_samples && !rc; k++) {
		stamp_staleness(c, g->samples[k]);
		rc = controller_save(c, g, k, STORE_DONE, err);
	}
	return rc;
}

/* As it goes out: its ages, and what is too old for the loss.  True if it is not what it was. */
static bool stamp(const struct controller *c, struct trajectory *t)
{
	bool aged = stamp_staleness(c, t), masked = mask_stale(c, t);
	return aged || masked;
}

/* streamed: it has gone out already, with stamps that count from now on. */
static int store_group(struct controller *c, struct live_group *g, bool streamed, struct err *err)
{
	int rc = 0;

	for (int k = g->first_shipped; k < g->n_samples && !rc; k++) {
		bool changed = streamed || stamp(c, g->samples[k]);
		step_metrics_delivered(&c->metrics, g->samples[k]);
		if (changed || g->unsaved[k]) rc = controller_save(c, g, k, STORE_DONE, err);
	}
	if (!rc) rc = store_group_state(c->store, g->id, STORE_DELIVERED, c->step, err);
	return rc || g->first_shipped == 0 ? rc : store_drop_samples(c->store, g->id, g->first_shipped, err);
}

static void put_group(struct controller *c, const struct live_group *g)
{
	if (c->server) server_put_group(c->server, (uint64_t)c->step, c->step, controller_batch_version(c), g->completed,
	                                g->samples + g->first_shipped, g->n_samples - g->first_shipped);
}

/* Stores the batch, then hands the socket what it does not have yet: a batch that a trainer can acknowledge can always
 * be found again. */
int controller_put_batch(struct controller *c, struct err *err)
{
	uint64_t batch_id = (uint64_t)c->step;
	int n = 0, rc = 0;

	c->metrics.version = c->version;
	rc = controller_prune_learn(c, err);
	for (int i = 0; i < c->n_delivered && !rc; i++) {
		struct live_group *g = group_table_find(c->groups, c->delivered[i]);
		n += g->n_samples - g->first_shipped;
		rc = store_group(c, g, i < c->n_streamed, err);
	}
	add_lengths(c);
	c->metrics.store_seconds = store_seconds(c->store) - c->store_mark;
	c->store_mark += c->metrics.store_seconds;
	char *line = step_metrics_json(&c->metrics);
	if (!rc) rc = store_put_delivery(c->store, batch_id, c->step, c->version, n, line, err);
	free(line);
	if (!rc) rc = controller_store_extra(c, err);
	if (!rc && !c->server) rc = store_ack_delivery(c->store, batch_id, err); /* nobody will */
	if (!rc && c->server) rc = store_put_number(c->store, STATE_BATCH_OUT, (int64_t)batch_id, err);
	if (!rc && c->server) rc = controller_flush(c, err); /* else it is no news to anybody: committed with what comes next */
	for (int i = c->n_streamed; i < c->n_delivered && !rc; i++) put_group(c, group_table_find(c->groups, c->delivered[i]));
	if (!rc && c->server) server_end_batch(c->server, batch_id, c->version);
	controller_release_delivered(c);
	put_metrics_out(c);
	return rc;
}

/* ---- micro-batches ---- */

/* One step off a batch goes out with the version made of the one before: nothing of it before that is here. */
void controller_watch_streams(struct controller *c)
{
	bool waits = c->asynchrony == ASYNCHRONY_ONE_STEP_OFF && c->batch_is_out && !c->arriving;
	enum server_stream wanted = c->server && c->phase == PHASE_STEP && !waits ? server_streams(c->server) : SERVER_WHOLE;

	c->streams = wanted != SERVER_WHOLE;
	scheduler_on_stream(c->scheduler, wanted == SERVER_WHOLE ? STREAM_OFF
	                                : wanted == SERVER_STREAM_PROMPT ? STREAM_IN_ORDER : STREAM_AS_COMPLETE);
}

/* The batch is not the trainer's before it is complete, so the group is stored as delivered only then. */
void controller_stream_group(struct controller *c, uint64_t id)
{
	struct live_group *g = group_table_find(c->groups, id);

	if (!c->streams || c->n_streamed + 1 != c->n_delivered) return; /* those that have gone are the first */
	for (int k = g->first_shipped; k < g->n_samples; k++) stamp(c, g->samples[k]);
	put_group(c, g);
	c->n_streamed++;
}
