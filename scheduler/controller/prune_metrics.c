/* prune_metrics.c - the names under which pruning is reported. */
#include "scheduler/controller/prune_metrics.h"

static void put(json_t *into, const char *key, double value) { json_object_set_new(into, key, json_real(value)); }
static void put_count(json_t *into, const char *key, int64_t value) { json_object_set_new(into, key, json_integer(value)); }
static double ratio(double a, double b) { return b > 0 ? a / b : 0; }

void prune_metrics_put(const struct prune_metrics *m, double tokens, json_t *into)
{
	put_count(into, "prune/groups", m->groups);
	put_count(into, "prune/pruned_samples", m->pruned);
	put_count(into, "prune/pruned_late", m->late);
	put(into, "prune/kept_ratio", m->started ? ratio(m->started - m->pruned, m->started) : 1);
	put(into, "prune/survivor_positive_ratio", ratio(m->survivor_reward, m->survivors));
	put(into, "prune/reward_estimate", ratio(m->baseline, m->scored));
	put(into, "prune/weight_max", m->weight_max);
	put(into, "prune/tokens_saved", m->tokens_saved);
	put(into, "prune/tokens_saved_ratio", ratio(m->tokens_saved, m->tokens_saved + tokens));
	put_count(into, "prune/labels", m->report.n);
	put(into, "prune/positive_ratio", m->report.positive_ratio);
	put(into, "prune/brier", m->report.brier);
	put(into, "prune/ece", m->report.ece);
	put(into, "prune/auc", m->report.auc);
	put_count(into, "prune/head", (int64_t)m->head);
}
