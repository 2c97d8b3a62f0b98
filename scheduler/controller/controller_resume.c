/* controller_resume.c - a run goes on from its directory: what the store has becomes the live state again, by the
 * scheduler's own events.
 *
 * Order: store and config; scheduler, table and server as in any run; then batches that nobody has acknowledged (before
 * the server first turns, so that an acknowledgement finds its batch), groups with their samples, the kept weights.
 * The ranks start as always, get the kept weights by the ordinary broadcast, and the run is where it was. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"
#include "scheduler/controller/step_history.h"

int controller_resume_open(struct controller *c, struct err *err)
{
	const char *dir = c->in->resume_dir;
	size_t n = strlen(dir);

	while (n > 1 && dir[n - 1] == '/') n--;
	if (n >= sizeof c->run_dir) return err_set(err, ERR_TOO_BIG, "--resume: a path of %zu characters, at most %zu are taken", n, sizeof c->run_dir - 1);
	snprintf(c->run_dir, sizeof c->run_dir, "%.*s", (int)n, dir);
	int rc = store_resume(&c->store, c->run_dir, err);
	if (!rc) rc = store_read_progress(c->store, &c->stored, err);
	if (!rc && c->config->run.durability == DURABILITY_OFF)
		rc = err_set(err, ERR_STATE, "%s: the run had run.durability off: nothing of it was stored that could go on", c->run_dir);
	if (rc) return rc;
	snprintf(c->run_id, sizeof c->run_id, "%s", c->stored.run_id);
	char *yaml = run_directory_config_text(c->config);
	rc = run_directory_write(c->run_dir, "config.yaml", yaml, err);
	free(yaml);
	return rc;
}

/* ---- groups ---- */

static int check_prompt(const struct controller *c, const struct stored_group *stored, const struct prompt *prompt,
                        int32_t epoch, struct err *err)
{
	if (strcmp(prompt->id, stored->prompt_id) == 0 && epoch == stored->epoch) return 0;
	return err_set(err, ERR_STATE, "data.prompts: at place %" PRIu64 " of the run's order, expected prompt '%s' in epoch %d, found "
	               "'%s' in epoch %d: %s is not the file that the run began with", stored->ordinal, stored->prompt_id,
	               stored->epoch, prompt->id, epoch, c->config->data.prompts);
}

static int check_sample(const struct controller *c, const struct trajectory *t, const struct prompt *prompt, struct err *err)
{
	if (t->n_prompt == prompt->n_tokens && memcmp(t->tokens, prompt->tokens, (size_t)t->n_prompt * sizeof *t->tokens) == 0) return 0;
	return err_set(err, ERR_STATE, "data.prompts: prompt '%s' of %s has other tokens than when the run began", prompt->id,
	               c->config->data.prompts);
}

/* Tokens may be of versions whose weights are lost: to the scheduler they are as old as what generates now. */
static int64_t oldest_version(const struct controller *c, const struct trajectory *t)
{
	if (trajectory_response_length(t) == 0) return c->version;
	return t->versions[t->n_prompt] < c->version ? t->versions[t->n_prompt] : c->version;
}

static int restore_group(void *context, const struct stored_group *stored, struct err *err)
{
	struct controller *c = context;
	int32_t epoch;

	size_t index = prompts_index(c->in->prompts, stored->ordinal, c->config->data.shuffle, (uint64_t)c->config->run.seed, &epoch);
	const struct prompt *prompt = &c->in->prompts->items[index];
	int rc = check_prompt(c, stored, prompt, epoch, err);
	if (rc) return rc;
	struct live_group *g = group_table_add(c->groups, stored->id, stored->n_samples, false);
	g->kept = stored->kept;
	scheduler_restore_group(c->scheduler, g->id, g->n_samples);
	rc = store_get_group(c->store, g->id, g->samples, g->n_samples, err);
	for (int i = 0; i < g->n_samples && !rc; i++)
		if (g->samples[i]) rc = check_sample(c, g->samples[i], prompt, err);
	controller_restore_allocation(c, g);
	controller_open_samples(c, g, prompt, epoch);
	for (int i = 0; i < g->n_samples && !rc; i++) {
		struct trajectory *t = g->samples[i];
		if (t->finish == FINISH_NONE) rc = store_add_increments(c->store, t, err);
		bool done = t->finish != FINISH_NONE;
		if (rc || (!done && trajectory_response_length(t) == 0)) continue;
		if (done && t->finish != FINISH_ERROR && t->finish != FINISH_PRUNED) length_estimate_learn(c->lengths, t);
		scheduler_restore_sample(c->scheduler, g->id, i, done, t->deferrals, oldest_version(c, t));
	}
	return rc ? rc : controller_prune_restore(c, g, err);
}

/* ---- batches, metrics, weights ---- */

static int restore_batch(void *context, const struct stored_batch *batch, struct err *err)
{
	struct controller *c = context;
	(void)err;
	if (batch->n > 0) server_put_batch(c->server, batch->id, batch->step, batch->version, batch->trajectories, batch->n);
	return 0;
}

struct history {
	struct controller *c;
	FILE *text;
};

static int add_line(void *context, const char *json, struct err *err)
{
	struct history *h = context;
	(void)err;
	fprintf(h->text, "%s\n", json);
	step_history_add(&h->c->summary, json);
	return 0;
}

/* metrics.jsonl as the store has it: a line may have been written there that was not committed, or not wholly. */
static int restore_metrics(struct controller *c, struct err *err)
{
	char *text = NULL;
	size_t n = 0;
	struct history history = { .c = c, .text = open_memstream(&text, &n) };

	if (!history.text) abort(); /* no memory at start */
	int rc = store_each_metrics(c->store, add_line, &history, err);
	fclose(history.text);
	if (!rc) rc = run_directory_write(c->run_dir, "metrics.jsonl", text, err);
	free(text);
	if (rc || c->stored.step == 0 || c->stored.line >= c->stored.step) return rc;
	rc = store_get_delivery_metrics(c->store, c->stored.step, &c->out_line, err);
	if (c->out_line) c->out.step = c->stored.step;
	return rc;
}

static int restore_weights(struct controller *c, struct err *err)
{
	const struct store_progress *s = &c->stored;

	if (c->config->trainer.kind == TRAINER_NONE && s->version == 0) return 0;
	if (s->kept > 0) {
		struct weights kept;
		int rc = weights_keeper_load(&kept, c->run_dir, s->kept, s->kept_xxh3, c->in->model, err);
		if (rc) return rc;
		controller_restore_weights(c, s->kept, &kept);
	}
	c->version = s->kept;
	if (s->kept < s->version)
		progress_note("the weights of version %" PRId64 " were not kept: going on with those of version %" PRId64 " until the trainer "
		              "pushes newer ones", s->version, s->kept);
	return 0;
}

static void say_what_there_is(const struct controller *c)
{
	struct scheduler_counts counts;

	scheduler_counts_read(c->scheduler, &counts);
	progress_note("resumed after step %" PRId64 ", version %" PRId64 ": %d groups complete, %d open with %d samples done, %d begun, %d "
	              "fresh; %d batches unacknowledged", c->step, c->version, counts.groups_complete, counts.groups_open,
	              counts.done, counts.aside, counts.waiting, c->server ? server_unacknowledged(c->server) : 0);
}

int controller_resume(struct controller *c, struct err *err)
{
	const struct store_progress *s = &c->stored;

	c->step = s->step;
	c->next_train = s->next_ordinal;
	int rc = restore_weights(c, err);
	if (!rc && c->server) rc = store_each_unacknowledged(c->store, restore_batch, c, err);
	if (rc) return rc;
	int unacknowledged = c->server ? server_unacknowledged(c->server) : 0;
	/* Weights that came for the last batch and are lost come again, where somebody is bound to push them. */
	bool again = s->kept < s->version && (c->config->trainer.kind == TRAINER_REFERENCE || unacknowledged > 0);
	/* A simulated trainer does not know what it had pushed before: it answers the batches that it is given. */
	bool owed = c->config->trainer.kind != TRAINER_SIMULATED || unacknowledged > 0;
	c->batch_is_out = c->server && s->step > 0 && owed && (s->batch_out > 0 || again);
	scheduler_restore_version(c->scheduler, c->version, unacknowledged > 0 ? unacknowledged : c->batch_is_out);
	step_metrics_begin(&c->metrics, s->step + 1, c->version);
	c->metrics.dropped = s->dropped;
	scheduler_restore_extra(c->scheduler, s->extra);
	rc = store_drop_unresumed(c->store, err);
	if (!rc) rc = store_each_open_group(c->store, restore_group, c, err);
	if (!rc) rc = controller_prune_restore_dropped(c, err);
	if (!rc) rc = restore_metrics(c, err);
	if (rc) return rc;
	scheduler_restore_next_group(c->scheduler, s->next_group);
	if (!scheduler_check(c->scheduler, stderr))
		return err_set(err, ERR_INVALID, "%s: what is stored contradicts itself, as said above; restore a copy of the run "
		               "directory", c->run_dir);
	c->steps_began = c->step_began = c->batch_put = clock_seconds();
	say_what_there_is(c);
	return 0;
}

int controller_write_old_step(struct controller *c, struct err *err)
{
	char *json = step_history_complete(c->out_line, &c->out);
	int rc = json ? controller_write_metrics(c, json, err) : 0;

	if (json) step_history_add(&c->summary, json);
	if (!rc) rc = store_put_number(c->store, STATE_LINE, c->out.step, err);
	free(json);
	free(c->out_line);
	c->out_line = NULL;
	c->out.step = 0;
	c->line_waits = false;
	return rc;
}
