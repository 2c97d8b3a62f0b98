/* sweep.h - experiments as a config file: what is varied, and every combination of it.
 *
 * A config may hold two sections more than options.def has; only `drumroll throughput` reads them, to all other
 * commands the file is the config without them:
 *
 *     sweep:                              # axes: lists of values of any option
 *       rollout.mode: [exact, speculative]
 *     variants:                           # one more axis: names for sets of options
 *       april: { scheduler.over_sampling: 2, scheduler.partial_rollouts: true }
 *       sync: { scheduler.over_sampling: 1 }
 *
 * A point is one value of each axis.  Its label names them, as "mode=exact, april".
 */
#ifndef CONFIGS_SWEEP_H
#define CONFIGS_SWEEP_H

#include <stdbool.h>

#include "configs/config.h"

enum { SWEEP_AXES_MAX = 8, SWEEP_VALUES_MAX = 64, SWEEP_SETS_MAX = 64, SWEEP_POINTS_MAX = 1000, SWEEP_LABEL_MAX = 256 };

/* One value of an axis: the options that it sets, "section.key=value". */
struct sweep_value {
	char *name;  /* "mode=exact", or that of the variant */
	char **sets; /* [n_sets], owned */
	int n_sets;
};

struct sweep_axis {
	char *key; /* "rollout.mode"; of the variants "variants" */
	struct sweep_value *values; /* [n] */
	int n;
};

/* The variants come last. */
struct sweep {
	struct sweep_axis axes[SWEEP_AXES_MAX + 1];
	int n_axes; /* 0: nothing is varied */
};

/* The sweep of a file; the rest of it is for config_load.  ERR_CONFIG with "path:line: " for what is no list, unknown
 * keys and values out of bounds, values and names that are given twice, a key that two axes set, and keys that
 * are the sweep's own (run.dir, throughput.* but throughput.ranks).  On error nothing is to be freed. */
int sweep_read(struct sweep *sweep, const char *path, struct err *err);
void sweep_free(struct sweep *sweep);

/* Is it set by an axis?  "section.key" */
bool sweep_varies(const struct sweep *sweep, const char *key);

struct sweep_point {
	char label[SWEEP_LABEL_MAX]; /* "base" where nothing is varied */
	int at[SWEEP_AXES_MAX + 1];  /* the value of each axis */
	int baseline;                /* index of the point that it is compared with, maybe itself */
	const char *sets[SWEEP_SETS_MAX]; /* borrowed from the sweep */
	int n_sets;
};

struct sweep_points {
	struct sweep_point *items; /* [n], the last axis fastest */
	int n;
};

/* All combinations.  baseline: names of values, ", " between them; a point is compared with the one that has these and
 * its own values of all other axes.  "": of every axis the first.  ERR_CONFIG for a name that is no value, ERR_TOO_BIG
 * beyond a limit above. */
int sweep_expand(struct sweep_points *points, const struct sweep *sweep, const char *baseline, struct err *err);
void sweep_points_free(struct sweep_points *points);

#endif
