/* prune_metrics.h - what pruning did in a step, and how well the quality head foresaw rewards. */
#ifndef SCHEDULER_CONTROLLER_PRUNE_METRICS_H
#define SCHEDULER_CONTROLLER_PRUNE_METRICS_H

#include <jansson.h>
#include <stdbool.h>

#include "rollout/quality_head.h"

struct prune_metrics {
	bool on;
	int groups, started, pruned;  /* scored groups of which samples were pruned, their samples */
	int survivors;                /* with a reward */
	double survivor_reward;       /* sum of theirs */
	double baseline;              /* sum over all scored groups of the estimated mean reward of what was started */
	int scored;                   /* all scored groups */
	double tokens_saved;          /* that the pruned would still have made, had they been as long as survivors, by weight */
	double weight_max;
	int late;                     /* pruned samples that had come to their end before the group's last had been judged */
	uint64_t head;                /* steps that it has learned from */
	struct quality_report report; /* of this step's rewards, before they were learned from */
};

void prune_metrics_put(const struct prune_metrics *m, double tokens, json_t *into);

#endif
