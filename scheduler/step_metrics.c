/* step_metrics.c - sums, and their JSON. */
#include "scheduler/step_metrics.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

void step_metrics_begin(struct step_metrics *m, int64_t step, int64_t version)
{
	int *lengths = m->lengths, capacity = m->lengths_capacity;
	memset(m, 0, sizeof *m);
	m->lengths = lengths;
	m->lengths_capacity = capacity;
	m->step = step;
	m->version = version;
}

void step_metrics_free(struct step_metrics *m)
{
	free(m->lengths);
}

void step_metrics_returned(struct step_metrics *m, const struct trajectory *before, const struct trajectory *now)
{
	m->tokens += (uint64_t)(now->n_tokens - before->n_tokens);
	m->drafted += (uint64_t)(now->drafted - before->drafted);
	m->accepted += (uint64_t)(now->accepted - before->accepted);
	m->verify_calls += (uint64_t)(now->verify_calls - before->verify_calls);
	if (now->finish == FINISH_ERROR) m->failed++;
	if (now->finish == FINISH_NONE) {
		m->put_aside++;
		m->aside_tokens += trajectory_response_length(now);
	}
}

void step_metrics_group(struct step_metrics *m, struct trajectory *const *samples, int n,
                        const struct group_advantage *advantage, bool dropped)
{
	for (int i = 0; i < n; i++) {
		if (!samples[i]->has_reward) continue;
		m->completed++;
		m->reward_sum += samples[i]->reward;
		m->passed += samples[i]->reward_answer >= 1;
	}
	m->groups++;
	m->dropped += dropped;
	m->degenerate += advantage->degenerate;
	m->mad_zero += advantage->mad_zero;
	m->median_tie += advantage->median_tie;
	m->binary += advantage->binary;
}

void step_metrics_delivered(struct step_metrics *m, const struct trajectory *t)
{
	int length = trajectory_response_length(t);

	if (m->trajectories == m->lengths_capacity) {
		m->lengths_capacity = m->lengths_capacity ? 2 * m->lengths_capacity : 256;
		m->lengths = xrealloc(m->lengths, (size_t)m->lengths_capacity * sizeof *m->lengths);
	}
	m->lengths[m->trajectories++] = length;
	m->delivered_tokens += length;
	m->truncated += t->finish == FINISH_LENGTH;
	if (t->has_reward) {
		m->delivered_rewarded++;
		m->delivered_reward_sum += t->reward;
	}
	m->advantage_abs_sum += t->advantage < 0 ? -t->advantage : t->advantage;
	m->staleness_sum += t->staleness_max;
	if (t->staleness_max > m->staleness_max) m->staleness_max = t->staleness_max;
	for (int i = t->n_prompt; i < t->n_tokens; i++) m->off_policy_tokens += t->versions[i] != m->version;
}

static double ratio(double a, double b) { return b > 0 ? a / b : 0; }

double step_metrics_tokens_per_sec(const struct step_metrics *m) { return ratio((double)m->tokens, m->rollout_seconds); }
double step_metrics_acceptance(const struct step_metrics *m) { return ratio((double)m->accepted, (double)m->drafted); }
double step_metrics_reward(const struct step_metrics *m) { return ratio(m->reward_sum, m->completed); }
double step_metrics_pass_rate(const struct step_metrics *m) { return ratio(m->passed, m->completed); }
double step_metrics_length_mean(const struct step_metrics *m) { return ratio(m->delivered_tokens, m->trajectories); }

int step_metrics_length_max(const struct step_metrics *m)
{
	int max = 0;
	for (int i = 0; i < m->trajectories; i++)
		if (m->lengths[i] > max) max = m->lengths[i];
	return max;
}

static int int_compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return (x > y) - (x < y);
}

/* Sorts the lengths: only called when the step is over. */
static int length_quantile(const struct step_metrics *m, double q)
{
	if (m->trajectories == 0) return 0;
	qsort(m->lengths, (size_t)m->trajectories, sizeof *m->lengths, int_compare);
	return m->lengths[(int)(q * (m->trajectories - 1) + 0.5)];
}

static void put(json_t *o, const char *key, double value)
{
	json_object_set_new(o, key, json_real(value));
}

static void put_count(json_t *o, const char *key, int64_t value)
{
	json_object_set_new(o, key, json_integer(value));
}

static void put_report(json_t *o, const struct trainer_report *r)
{
	put(o, "trainer/loss", r->loss);
	put(o, "trainer/grad_norm", r->grad_norm);
	put(o, "trainer/kl", r->kl);
	put(o, "trainer/clip_frac", r->clip_frac);
	put(o, "trainer/entropy", r->entropy);
	put(o, "rollout_corr/rollout_is_mean", r->tis_mean);
	put(o, "trainer/learning_rate", r->learning_rate);
	put(o, "trainer/seconds", r->seconds);
	put_count(o, "trainer/tokens", r->tokens);
}

char *step_metrics_json(const struct step_metrics *m)
{
	json_t *o = json_object();
	put_count(o, "step", m->step);
	put_count(o, "version", m->version);
	put(o, "reward/mean", step_metrics_reward(m));
	put(o, "reward/pass_rate", step_metrics_pass_rate(m));
	put(o, "reward/delivered_mean", ratio(m->delivered_reward_sum, m->delivered_rewarded));
	put(o, "rollout/response_len/mean", step_metrics_length_mean(m));
	put_count(o, "rollout/response_len/median", length_quantile(m, 0.5));
	put_count(o, "rollout/response_len/p90", length_quantile(m, 0.9));
	put_count(o, "rollout/response_len/max", length_quantile(m, 1));
	put(o, "rollout/truncated_ratio", ratio(m->truncated, m->trajectories));
	put_count(o, "rollout/trajectories", m->trajectories);
	put_count(o, "rollout/failed", m->failed);
	put(o, "rollout/sd/acceptance_rate", step_metrics_acceptance(m));
	put_count(o, "rollout/sd/total_draft_tokens", (int64_t)m->drafted);
	put_count(o, "rollout/sd/total_accepted_tokens", (int64_t)m->accepted);
	put(o, "rollout/sd/mean_acceptance_length", m->verify_calls ? 1 + (double)m->accepted / (double)m->verify_calls : 0);
	put_count(o, "partial/resumed", m->resumed);
	put_count(o, "partial/put_aside", m->put_aside);
	put(o, "partial/response_len/mean", ratio(m->aside_tokens, m->put_aside));
	put(o, "staleness/mean", ratio(m->staleness_sum, m->trajectories));
	put_count(o, "staleness/max", m->staleness_max);
	put(o, "off_policy_ratio", ratio(m->off_policy_tokens, m->delivered_tokens));
	put(o, "advantage/abs_mean", ratio(m->advantage_abs_sum, m->trajectories));
	put(o, "advantage/mad_zero_frac", ratio(m->mad_zero, m->groups));
	put(o, "advantage/median_tie_frac", ratio(m->median_tie, m->groups));
	put(o, "advantage/degenerate_frac", ratio(m->degenerate, m->groups));
	put_count(o, "rollout/dynamic_filter/drop_groups", m->dropped);
	put_count(o, "rollout/tokens", (int64_t)m->tokens);
	put(o, "perf/tokens_per_sec", step_metrics_tokens_per_sec(m));
	put(o, "perf/rollout_time", m->rollout_seconds);
	put(o, "timing_s/train", m->train_seconds);
	put(o, "timing_s/update_weights", m->broadcast_seconds);
	if (m->has_report) put_report(o, &m->report);
	char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	json_decref(o);
	return text;
}
