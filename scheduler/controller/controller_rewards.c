/* controller_rewards.c - reward.kind program: samples that are done go to external verifiers, verdicts come back as
 * events, and a group is scored when it has them all.
 *
 * A sample without a verdict of its own is marked with the error and has no reward; advantage.min_group says what
 * becomes of its group.  Two budgets per step, as shares of a batch: what verifiers lost by crashing, hanging or
 * talking nonsense (reward.failure_budget), and what they say cannot be judged (reward.bad_data_budget); an evaluation
 * has as much for itself.
 *
 * Evaluations are asked about first, since nothing else goes on beside them, then the oldest group, which the batch in
 * the making needs.  A batch does not wait for the others (S21): what is said of them counts for the step after. */
#include <inttypes.h>
#include <stdlib.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"

enum { VERDICTS_SHOWN = 3 }; /* errors per step and kind */

int controller_rewards_open(struct controller *c, struct err *err)
{
	const struct config_reward *r = &c->config->reward;
	char log[RUN_PATH_MAX + 16];

	if (r->kind != REWARD_PROGRAM) return 0;
	snprintf(log, sizeof log, "%s/verifier.log", c->run_dir);
	struct verifier_pool_options options = {
		.command = r->program, .log_path = log, .processes = (int)r->program_processes,
		.in_flight = (int)r->program_in_flight, .retries = (int)r->program_retries, .backoff = r->program_backoff,
		.timeout = r->program_timeout, .start_timeout = r->program_start, .reply_bytes_max = (size_t)r->program_reply_bytes };
	return verifier_pool_open(&c->verifiers, &options, err);
}

static void mark(struct controller *c, struct trajectory *t, const char *error)
{
	t->has_reward = false;
	t->reward = t->reward_answer = t->reward_steps = 0;
	t->finish = FINISH_ERROR;
	free(t->error);
	t->error = xstrdup(error);
	c->metrics.failed++;
}

static uint64_t order_of(const struct live_group *g, int sample)
{
	return (g->eval ? 0 : UINT64_C(1) << 63) | trajectory_id(g->id, sample);
}

void controller_rewards_ask(struct controller *c, struct live_group *g, int sample)
{
	struct trajectory *t = g->samples[sample];
	size_t n_bytes;
	struct err err;

	if (!c->verifiers || g->unscored || t->has_reward || t->finish == FINISH_ERROR || g->judging[sample]) return;
	char *body = verifier_request_body(t, c->in->tokenizer, &n_bytes, &err);
	if (!body) {
		mark(c, t, err.text);
		return;
	}
	verifier_pool_submit(c->verifiers, trajectory_id(g->id, sample), order_of(g, sample), body, n_bytes);
	g->judging[sample] = true;
	g->n_judging++;
}

bool controller_rewards_awaited(struct controller *c, struct live_group *g)
{
	for (int i = 0; i < g->n_samples; i++) controller_rewards_ask(c, g, i); /* those from before a restart */
	g->complete = true;
	return g->n_judging > 0;
}

void controller_rewards_forget(struct controller *c, const struct live_group *g)
{
	for (int i = 0; i < g->n_samples && g->n_judging > 0; i++)
		if (g->judging[i]) verifier_pool_cancel(c->verifiers, trajectory_id(g->id, i));
}

/* ---- verdicts ---- */

static int over_budget(struct controller *c, int lost, double budget, const char *name, const char *last, struct err *err)
{
	double batch = (double)c->config->scheduler.groups_per_step *
	               (controller_samples_max(c) ? controller_samples_max(c) : controller_first_samples(c));

	if (lost <= budget * batch) return 0;
	return err_set(err, ERR_PEER, "%d samples of step %" PRId64 " have no reward, more than %s allows (%g of a batch of %.0f); "
	               "what the verifier writes is in %s/verifier.log; the last one: %s", lost, c->step, name, budget, batch,
	               c->run_dir, last);
}

/* The sample gets an error instead of a reward. */
static int take_failure(struct controller *c, struct live_group *g, struct trajectory *t, const struct verifier_verdict *v,
                        struct err *err)
{
	const struct config_reward *r = &c->config->reward;
	bool bad = v->verdict == VERDICT_BAD_DATA;
	int n = ++c->lost[t->eval][bad];

	/* Until the group is scored it is on record as not judged: a run that is resumed with another verifier asks that. */
	int rc = g->unsaved[t->sample] ? controller_save(c, g, t->sample, STORE_DONE, err) : 0;
	if (rc) return rc;

	*(bad ? &c->metrics.judge_bad_data : &c->metrics.judge_failed) += 1;
	mark(c, t, v->error);
	if (n <= VERDICTS_SHOWN) progress_note("sample %d of prompt %s has no reward: %s", t->sample, t->prompt_id, v->error);
	return over_budget(c, n, bad ? r->bad_data_budget : r->failure_budget,
	                   bad ? "reward.bad_data_budget" : "reward.failure_budget", v->error, err);
}

static int take_verdict(struct controller *c, const struct verifier_verdict *v, struct err *err)
{
	struct live_group *g = group_table_find(c->groups, v->trajectory / TRAJECTORY_SAMPLES_MAX);
	int sample = (int)(v->trajectory % TRAJECTORY_SAMPLES_MAX), rc = 0;

	if (!g || sample >= g->n_samples || !g->judging[sample]) return 0;
	struct trajectory *t = g->samples[sample];
	g->judging[sample] = false;
	g->n_judging--;
	t->reward_seconds += v->seconds;
	if (v->verdict == VERDICT_JUDGED) {
		t->has_reward = true;
		t->reward = v->reward;
		t->reward_answer = v->reward_answer;
		t->reward_steps = v->reward_steps;
		c->metrics.judged++;
		c->metrics.judge_seconds += v->seconds;
	} else rc = take_failure(c, g, t, v, err);
	if (!rc && g->complete && g->n_judging == 0) rc = controller_score_group(c, g, err);
	return rc;
}

static void count(struct controller *c, const struct verifier_counts *before)
{
	struct step_metrics *m = &c->metrics;
	struct verifier_counts now;

	verifier_pool_counts(c->verifiers, &now);
	m->judges = true;
	m->judge_asked += now.asked - before->asked;
	m->judge_retried += now.retried - before->retried;
	m->judge_strays += now.strays - before->strays;
	m->judge_restarts += now.restarts - before->restarts;
	m->judge_waiting = verifier_pool_waiting(c->verifiers);
	if (m->judge_waiting > m->judge_waiting_max) m->judge_waiting_max = m->judge_waiting;
	if (now.asked != before->asked || now.judged != before->judged) c->last_progress = clock_seconds();
}

int controller_rewards_turn(struct controller *c, struct err *err)
{
	struct verifier_counts before;
	struct verifier_verdict verdict;

	if (!c->verifiers) return 0;
	verifier_pool_counts(c->verifiers, &before);
	int rc = verifier_pool_turn(c->verifiers, clock_seconds(), err);
	count(c, &before);
	while (!rc && verifier_pool_take(c->verifiers, &verdict)) rc = take_verdict(c, &verdict, err);
	return rc;
}
