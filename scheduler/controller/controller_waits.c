/* controller_waits.c - nothing has happened for a while: what is waited for, how long, and when it is too long.
 *
 * Something happens when a sample, weights, an acknowledgement or a peer arrives, and when a rank's engine has made
 * rounds.  That a rank or a trainer lives is not enough: it may hang.  But a trainer that is connected and has a
 * batch may take trainer.stall_seconds over it. */
#include <stdio.h>
#include <string.h>

#include "scheduler/controller/controller_internal.h"
#include "scheduler/controller/trainer_process.h"

static const char *phase_name(const struct controller *c)
{
	static const char *const names[] = { "the ranks to load the model", "held-out samples", "samples of this step",
	                                     "the trainer to ask for a batch",
	                                     "new weights from the trainer", "the ranks to take new weights",
	                                     "the trainer's acknowledgement", "nothing" };
	return c->phase == PHASE_WANTED && c->asynchrony != ASYNCHRONY_ASYNC ? "the trainer to submit prompts" : names[c->phase];
}

/* The step goes on when the trainer submits more. */
static bool waits_for_prompts(const struct controller *c)
{
	bool waits = c->phase == PHASE_STEP && c->config->data.source == PROMPTS_FROM_TRAINER && controller_prompts_waiting(c) == 0;

	for (int r = 1; r < c->n_ranks && waits; r++) waits = c->ranks[r].holding == 0;
	return waits;
}

static bool waits_for_trainer(const struct controller *c)
{
	return c->server && !c->broadcasting &&
	       (c->phase == PHASE_WANTED || c->phase == PHASE_TRAIN || c->phase == PHASE_FINISH || waits_for_prompts(c));
}

/* What keeps this rank, or NULL if it keeps nobody. */
static const char *rank_wait(const struct controller *c, const struct rank_state *r)
{
	if (r->life == RANK_IS_ENDED) return NULL;
	if (r->life == RANK_IS_SILENT) return "is given up";
	if (c->phase == PHASE_START) return r->life == RANK_IS_ABSENT ? "has not loaded the model" : NULL;
	if (c->broadcasting && rank_serves(r) && !r->updated) return "has not taken the new weights";
	if (r->life == RANK_IS_CATCHING_UP) return "catches up";
	return r->holding > 0 ? "holds samples" : NULL;
}

static void describe_ranks(const struct controller *c, char *text, size_t size)
{
	enum { SHOWN = 4 };
	int n = 0;

	for (int r = 1; r < c->n_ranks; r++) {
		const char *wait = rank_wait(c, &c->ranks[r]);
		size_t used = strlen(text);
		if (!wait || n++ >= SHOWN) continue;
		snprintf(text + used, size - used, "; rank %d %s (%d), heard %.1f s ago", r, wait, c->ranks[r].holding,
		         c->patience.seconds - c->ranks[r].heard);
	}
	size_t used = strlen(text);
	if (n > SHOWN) snprintf(text + used, size - used, "; and %d ranks more", n - SHOWN);
}

static void describe_trainer(const struct controller *c, char *text, size_t size)
{
	int peers = server_peers(c->server);

	if (peers == 0) snprintf(text, size, "; no trainer is connected to %s", server_address(c->server));
	else snprintf(text, size, "; %d trainer%s connected, %d batches unacknowledged", peers, peers == 1 ? "" : "s",
	              server_unacknowledged(c->server));
	size_t used = strlen(text);
	if (c->trainer && trainer_process_is_stopped(c->trainer))
		snprintf(text + used, size - used, "; the trainer (process %ld) is stopped by a signal", (long)c->trainer);
}

static void describe_keeping(char *text, size_t size)
{
	size_t used = strlen(text);
	snprintf(text + used, size - used, "; the version before is still being written (weights.keep_versions)");
}

static void describe_verifiers(const struct controller *c, char *text, size_t size)
{
	char judged[160] = "";

	verifier_pool_describe(c->verifiers, judged, sizeof judged);
	size_t used = strlen(text);
	if (*judged) snprintf(text + used, size - used, "; %s", judged);
}

int controller_waits_check(struct controller *c, struct err *err)
{
	double now = clock_seconds(), waited = now - c->last_progress;
	bool trainer = waits_for_trainer(c), patient = trainer && server_peers(c->server) > 0;
	double limit = patient ? c->config->trainer.stall_seconds : c->config->run.stall_seconds;
	char text[512] = "";

	if (c->phase == PHASE_START && limit <= c->config->cluster.start_seconds) limit = c->config->cluster.start_seconds + 1;
	if (waited < c->config->run.report_seconds) c->report_after = c->config->run.report_seconds;
	if (waited <= limit && waited <= c->report_after) return 0;
	if (trainer) describe_trainer(c, text, sizeof text);
	else describe_ranks(c, text, sizeof text);
	if (c->broadcasting && controller_scores_keeping(c)) describe_keeping(text, sizeof text);
	if (c->verifiers) describe_verifiers(c, text, sizeof text);
	if (waited > limit)
		return err_set(err, ERR_TIMEOUT, "nothing has happened for %.0f s (%s) while waiting for %s%s", waited,
		               patient ? "trainer.stall_seconds" : "run.stall_seconds", phase_name(c), text);
	progress_note("waiting for %s since %.1f s%s", phase_name(c), waited, text);
	c->report_after = 2 * waited;
	return 0;
}
