/* step_metrics.c - sums, and their JSON. */
#include "scheduler/controller/step_metrics.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rollout/explore.h"

void step_metrics_begin(struct step_metrics *m, int64_t step, int64_t version)
{
	int *lengths = m->lengths, capacity = m->lengths_capacity, pairs = m->pairs_capacity;
	double *explored = m->explored_rewards, *again = m->again_rewards;
	memset(m, 0, sizeof *m);
	m->explored_rewards = explored;
	m->again_rewards = again;
	m->pairs_capacity = pairs;
	m->lengths = lengths;
	m->lengths_capacity = capacity;
	m->step = step;
	m->version = version;
}

static void keep_groups(struct step_metrics *m, const struct step_metrics *was)
{
	m->completed = was->completed;
	m->passed = was->passed;
	m->reward_sum = was->reward_sum;
	m->groups = was->groups;
	m->dropped = was->dropped;
	m->degenerate = was->degenerate;
	m->mad_zero = was->mad_zero;
	m->median_tie = was->median_tie;
	m->binary = was->binary;
	m->unscored = was->unscored;
	m->solved = was->solved;
	m->extended = was->extended;
	m->added = was->added;
	m->wanted = was->wanted;
	m->prune = was->prune;
}

static void keep_exploration(struct step_metrics *m, const struct step_metrics *was)
{
	m->pools = was->pools;
	m->flat_pools = was->flat_pools;
	m->again = was->again;
	m->same = was->same;
	m->n_pairs = was->n_pairs;
	m->correlated_groups = was->correlated_groups;
	m->again_tokens = was->again_tokens;
	m->agreed_tokens = was->agreed_tokens;
	m->explored_reward_sum = was->explored_reward_sum;
	m->again_reward_sum = was->again_reward_sum;
	m->correlation_sum = was->correlation_sum;
}

static void keep_verdicts(struct step_metrics *m, const struct step_metrics *was)
{
	m->judged = was->judged;
	m->judge_failed = was->judge_failed;
	m->judge_bad_data = was->judge_bad_data;
	m->judge_waiting_max = was->judge_waiting_max;
	m->judge_waiting = was->judge_waiting;
	m->judge_asked = was->judge_asked;
	m->judge_retried = was->judge_retried;
	m->judge_strays = was->judge_strays;
	m->judge_restarts = was->judge_restarts;
	m->judge_seconds = was->judge_seconds;
	m->judges = was->judges;
	m->failed = was->judge_failed + was->judge_bad_data; /* samples, each */
}

void step_metrics_begin_again(struct step_metrics *m, int64_t step, int64_t version)
{
	struct step_metrics was = *m;

	step_metrics_begin(m, step, version);
	keep_groups(m, &was);
	keep_exploration(m, &was);
	keep_verdicts(m, &was);
}

void step_metrics_free(struct step_metrics *m)
{
	free(m->lengths);
	free(m->explored_rewards);
	free(m->again_rewards);
}

void step_metrics_returned(struct step_metrics *m, const struct trajectory *before, const struct trajectory *now)
{
	m->tokens += (uint64_t)(now->n_tokens - before->n_tokens);
	m->drafted += (uint64_t)(now->drafted - before->drafted);
	m->accepted += (uint64_t)(now->accepted - before->accepted);
	m->verify_calls += (uint64_t)(now->verify_calls - before->verify_calls);
	if (now->finish == FINISH_ERROR) m->failed++;
}

void step_metrics_put_aside(struct step_metrics *m, const struct trajectory *t)
{
	m->put_aside++;
	m->aside_tokens += trajectory_response_length(t);
}

void step_metrics_known(struct step_metrics *m, const struct trajectory *t)
{
	m->known++;
	m->known_tokens += trajectory_response_length(t);
}

void step_metrics_group(struct step_metrics *m, struct trajectory *const *samples, int n,
                        const struct group_advantage *advantage, bool dropped)
{
	bool solved = false;
	for (int i = 0; i < n; i++) {
		if (!samples[i]->has_reward) continue;
		solved |= samples[i]->reward_answer >= 1;
		m->completed++;
		m->reward_sum += samples[i]->reward;
		m->passed += samples[i]->reward_answer >= 1;
	}
	m->groups++;
	m->solved += solved;
	m->dropped += dropped;
	m->degenerate += advantage->degenerate;
	m->mad_zero += advantage->mad_zero;
	m->median_tie += advantage->median_tie;
	m->binary += advantage->binary;
}

void step_metrics_again(struct step_metrics *m, const struct trajectory *explored, const struct trajectory *again)
{
	m->again++;
	m->same += explore_divergence(explored, again) < 0;
	m->again_tokens += trajectory_response_length(again);
	m->agreed_tokens += explore_agreed(explored, again);
	if (!again->has_reward) return;
	if (m->n_pairs == m->pairs_capacity) {
		m->pairs_capacity = m->pairs_capacity ? 2 * m->pairs_capacity : 256;
		m->explored_rewards = xrealloc(m->explored_rewards, (size_t)m->pairs_capacity * sizeof *m->explored_rewards);
		m->again_rewards = xrealloc(m->again_rewards, (size_t)m->pairs_capacity * sizeof *m->again_rewards);
	}
	m->explored_rewards[m->n_pairs] = explored->reward;
	m->again_rewards[m->n_pairs++] = again->reward;
	m->explored_reward_sum += explored->reward;
	m->again_reward_sum += again->reward;
}

void step_metrics_fidelity(struct step_metrics *m, int first)
{
	if (m->n_pairs == first) return;
	double rho = explore_spearman(m->explored_rewards + first, m->again_rewards + first, m->n_pairs - first);
	if (!isfinite(rho)) return;
	m->correlated_groups++;
	m->correlation_sum += rho;
}

static void add_mismatch(struct step_metrics *m, const struct trajectory *t)
{
	for (int i = t->n_prompt; i < t->n_tokens; i++) {
		double gap = (double)t->target_logprobs[i] - (double)t->logprobs[i];
		m->rescored_tokens++;
		if (!isfinite(gap)) {
			m->outside_tokens++;
			continue;
		}
		m->kl_sum -= gap;
		m->k3_kl_sum += expm1(gap) - gap;
	}
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
	if (t->target_logprobs) add_mismatch(m, t);
	for (int i = t->n_prompt; i < t->n_tokens; i++) {
		m->off_policy_tokens += t->versions[i] != m->version;
		m->masked_tokens += !t->loss_mask[i];
	}
}

void step_metrics_watched(struct step_metrics *m, double seconds, int serving, int slots, int busy, int sessions)
{
	m->watched_seconds += seconds;
	m->session_seconds += seconds * sessions;
	m->busy_rank_seconds += seconds * busy;
	m->serving_rank_seconds += seconds * serving;
	if (4 * (int64_t)sessions < slots) m->tail_seconds += seconds;
	if (sessions > m->sessions_max) m->sessions_max = sessions;
}

static double ratio(double a, double b) { return b > 0 ? a / b : 0; }

double step_metrics_tokens_per_sec(const struct step_metrics *m) { return ratio((double)m->tokens, m->rollout_seconds); }
double step_metrics_acceptance(const struct step_metrics *m) { return ratio((double)m->accepted, (double)m->drafted); }
double step_metrics_reward(const struct step_metrics *m) { return ratio(m->reward_sum, m->completed); }
double step_metrics_pass_rate(const struct step_metrics *m) { return ratio(m->passed, m->completed); }
double step_metrics_length_mean(const struct step_metrics *m) { return ratio(m->delivered_tokens, m->trajectories); }

double step_metrics_length_bias(const struct step_metrics *m)
{
	return ratio(step_metrics_length_mean(m), ratio(m->known_tokens, m->known));
}

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

/* Of a step in which no sample was completed there is none: null, not 0. */
static void put_mean(json_t *o, const char *key, double value, int n)
{
	json_object_set_new(o, key, n > 0 ? json_real(value) : json_null());
}

static void put_mismatch(json_t *o, const struct step_metrics *m)
{
	put(o, "rollout_corr/kl", ratio(m->kl_sum, m->rescored_tokens - m->outside_tokens));
	put(o, "rollout_corr/k3_kl", ratio(m->k3_kl_sum, m->rescored_tokens - m->outside_tokens));
	put(o, "rollout_corr/outside_frac", ratio(m->outside_tokens, m->rescored_tokens));
}

/* By place in the draft, up to the last that was reached. */
static void put_positions(json_t *o, const struct engine_stats *e)
{
	json_t *drafted = json_array(), *accepted = json_array(), *rate = json_array();

	for (int i = 0; i < ENGINE_POSITIONS && e->drafted_by_position[i] > 0; i++) {
		json_array_append_new(drafted, json_integer((json_int_t)e->drafted_by_position[i]));
		json_array_append_new(accepted, json_integer((json_int_t)e->accepted_by_position[i]));
		json_array_append_new(rate, json_real(ratio((double)e->accepted_by_position[i], (double)e->drafted_by_position[i])));
	}
	json_object_set_new(o, "rollout/sd/drafted_by_position", drafted);
	json_object_set_new(o, "rollout/sd/accepted_by_position", accepted);
	json_object_set_new(o, "rollout/sd/acceptance_by_position", rate);
}

/* Seconds of all ranks' threads outside their engines, and of everything. */
static void put_ranks(json_t *o, const struct step_metrics *m)
{
	put(o, "timing_s/plan", m->engine.plan_seconds);
	put(o, "timing_s/reward", m->ranks_reward_seconds);
	put(o, "timing_s/ranks_weights", m->ranks_weights_seconds);
	put(o, "timing_s/ranks_wait", m->ranks_wait_seconds);
	put(o, "timing_s/ranks_total", m->ranks_seconds);
	put(o, "rollout/active_sessions/mean", ratio(m->session_seconds, m->watched_seconds));
	put_count(o, "rollout/active_sessions/max", m->sessions_max);
	put(o, "rollout/tail_ratio", ratio(m->tail_seconds, m->watched_seconds));
	put(o, "cluster/busy_ratio", ratio(m->busy_rank_seconds, m->serving_rank_seconds));
}

/* What speculation did and what it had promised; where the ranks' time went. */
static void put_engine(json_t *o, const struct engine_stats *e)
{
	double turns = (double)(e->decode_rows + e->verify_rows - e->drafted); /* rounds of single samples */
	double decoding = e->draft_seconds + e->verify_seconds + e->sample_seconds;
	double exact_rate = ratio(turns, e->planned_exact_seconds), planned_rate = ratio(e->planned_tokens, e->planned_seconds);

	put(o, "rollout/sd/draft_length/mean", ratio((double)e->drafted, turns));
	put(o, "rollout/sd/drafting_rounds_ratio", ratio((double)e->drafting_rounds, (double)e->rounds));
	if (e->planned_seconds > 0) {
		put(o, "rollout/sd/predicted_tokens_per_sec", planned_rate);
		put(o, "rollout/sd/observed_tokens_per_sec", ratio((double)e->tokens, decoding));
		put(o, "rollout/sd/predicted_speedup", ratio(planned_rate, exact_rate));
		put(o, "rollout/sd/probing_loss_ratio", ratio(e->probe_seconds, decoding));
		put(o, "rollout/sd/planning_ratio", ratio(e->plan_seconds, decoding));
	}
	put(o, "timing_s/prefill", e->prefill_seconds);
	put(o, "timing_s/draft", e->draft_seconds);
	put(o, "timing_s/verify", e->verify_seconds);
	put(o, "timing_s/sample", e->sample_seconds);
	if (e->rescored_tokens > 0) put(o, "timing_s/rescore", e->rescore_seconds);
	put_count(o, "rollout/prefill_tokens", (int64_t)e->prefill_rows);
	put_count(o, "rollout/prefix_shared_tokens", (int64_t)e->prefix_shared_tokens);
	put_count(o, "rollout/preemptions", (int64_t)e->preemptions);
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

/* Response tokens are computed once; rejected drafts are in rollout/sd. */
static void put_work(json_t *o, const struct step_metrics *m)
{
	double needed = (double)(m->needed_prompt_tokens + m->tokens);

	put_count(o, "rollout/prefill_tokens", (int64_t)m->prefill_tokens);
	put_count(o, "rollout/recomputed_tokens", (int64_t)m->recomputed_tokens);
	put_count(o, "rollout/imported_tokens", (int64_t)m->imported_tokens);
	put(o, "rollout/computed_ratio", ratio((double)(m->prefill_tokens + m->tokens), needed));
	put(o, "rollout/recomputed_ratio", ratio((double)m->recomputed_tokens, needed));
}

static void put_judge(json_t *o, const struct step_metrics *m)
{
	put_count(o, "reward/verifier/judged", m->judged);
	put_count(o, "reward/verifier/failed", m->judge_failed);
	put_count(o, "reward/verifier/bad_data", m->judge_bad_data);
	put_count(o, "reward/verifier/requests", (int64_t)m->judge_asked);
	put_count(o, "reward/verifier/retries", (int64_t)m->judge_retried);
	put_count(o, "reward/verifier/restarts", (int64_t)m->judge_restarts);
	put_count(o, "reward/verifier/stray_replies", (int64_t)m->judge_strays);
	put_count(o, "reward/verifier/waiting", m->judge_waiting);
	put_count(o, "reward/verifier/waiting_max", m->judge_waiting_max);
	put(o, "timing_s/verifier/mean", ratio(m->judge_seconds, m->judged));
}

/* Samples of all groups that were completed, those that are dropped too: what the step's batch took. */
static void put_allocation(json_t *o, const struct step_metrics *m)
{
	put_count(o, "allocation/groups", m->groups);
	put_count(o, "allocation/samples", m->completed);
	put_count(o, "allocation/solved_groups", m->solved);
	if (m->wanted == 0) return;
	put_count(o, "allocation/extended_groups", m->extended);
	put_count(o, "allocation/added_samples", m->added);
	put_count(o, "allocation/wanted_samples", m->wanted);
}

static void put_exploration(json_t *o, const struct step_metrics *m)
{
	put_count(o, "explore/pools", m->pools);
	put(o, "explore/flat_frac", ratio(m->flat_pools, m->pools));
	put_count(o, "explore/explored_tokens", (int64_t)m->engine.explored_tokens);
	put(o, "explore/explored_seconds", m->engine.explored_seconds);
	put_count(o, "explore/proposed_tokens", (int64_t)m->engine.proposed);
	put_count(o, "explore/accepted_tokens", (int64_t)m->engine.proposals_accepted);
	put_count(o, "explore/samples", m->again);
	if (m->again == 0) return;
	put(o, "explore/same_frac", ratio(m->same, m->again));
	put(o, "explore/agreed_frac", ratio(m->agreed_tokens, m->again_tokens));
	put(o, "explore/reward_explored", ratio(m->explored_reward_sum, m->n_pairs));
	put(o, "explore/reward", ratio(m->again_reward_sum, m->n_pairs));
	double rho = m->n_pairs > 0 ? explore_spearman(m->explored_rewards, m->again_rewards, m->n_pairs) : NAN;
	if (isfinite(rho)) put(o, "explore/spearman", rho);
	if (m->correlated_groups > 0) put(o, "explore/spearman_group", m->correlation_sum / m->correlated_groups);
}

char *step_metrics_json(const struct step_metrics *m)
{
	json_t *o = json_object();
	put_count(o, "step", m->step);
	put_count(o, "version", m->version);
	put_mean(o, "reward/mean", step_metrics_reward(m), m->completed);
	put_mean(o, "reward/pass_rate", step_metrics_pass_rate(m), m->completed);
	put_mean(o, "reward/delivered_mean", ratio(m->delivered_reward_sum, m->delivered_rewarded), m->delivered_rewarded);
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
	put_engine(o, &m->engine);
	put_positions(o, &m->engine);
	put_ranks(o, m);
	put_count(o, "partial/resumed", m->resumed);
	put_count(o, "partial/put_aside", m->put_aside);
	put(o, "partial/response_len/mean", ratio(m->aside_tokens, m->put_aside));
	put_count(o, "partial/migrated", m->migrated);
	put(o, "rollout/length_bias", step_metrics_length_bias(m));
	put_work(o, m);
	put(o, "staleness/mean", ratio(m->staleness_sum, m->trajectories));
	put_count(o, "staleness/max", m->staleness_max);
	put_count(o, "staleness/masked_tokens", m->masked_tokens);
	put_count(o, "staleness/dropped_groups", m->given_up);
	put_count(o, "staleness/cancelled_samples", m->cancelled);
	put_count(o, "cluster/ranks_lost", m->ranks_lost);
	put_count(o, "cluster/ranks_returned", m->ranks_returned);
	put_count(o, "cluster/samples_leased_again", m->orphans);
	put_count(o, "cluster/late_answers", m->late_answers);
	put(o, "off_policy_ratio", ratio(m->off_policy_tokens, m->delivered_tokens));
	put(o, "advantage/abs_mean", ratio(m->advantage_abs_sum, m->trajectories));
	put(o, "advantage/mad_zero_frac", ratio(m->mad_zero, m->groups));
	put(o, "advantage/median_tie_frac", ratio(m->median_tie, m->groups));
	put(o, "advantage/degenerate_frac", ratio(m->degenerate, m->groups));
	put_count(o, "rollout/dynamic_filter/drop_groups", m->dropped);
	put_allocation(o, m);
	if (m->pools > 0 || m->again > 0) put_exploration(o, m);
	put_count(o, "rollout/tokens", (int64_t)m->tokens);
	put(o, "perf/tokens_per_sec", step_metrics_tokens_per_sec(m));
	put(o, "perf/rollout_time", m->rollout_seconds);
	put(o, "timing_s/stop", m->stop_seconds);
	put(o, "timing_s/store", m->store_seconds);
	put(o, "timing_s/train", m->train_seconds);
	put(o, "timing_s/update_weights", m->broadcast_seconds);
	put_count(o, "reward/unscored_groups", m->unscored);
	if (m->judges) put_judge(o, m);
	if (m->prune.on) prune_metrics_put(&m->prune, (double)m->tokens, o);
	put(o, "timing_s/weights_receive", m->receive_seconds);
	put(o, "timing_s/weights_requantize", m->requantize_seconds);
	put(o, "timing_s/weights_to_first_token", m->first_token_seconds);
	put(o, "bridge/blocked_seconds", m->blocked_seconds);
	put_count(o, "bridge/unacknowledged", m->unacknowledged);
	put_count(o, "bridge/prompts_waiting", m->prompts_waiting);
	if (m->rescored_tokens > 0) put_mismatch(o, m);
	if (m->has_report) put_report(o, &m->report);
	char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	json_decref(o);
	return text;
}
