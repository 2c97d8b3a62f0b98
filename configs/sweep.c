/* sweep.c - every combination of what is varied, and what each is compared with. */
#include "configs/sweep.h"

#include <stdlib.h>
#include <string.h>

static int count_points(const struct sweep *sweep, int *n, struct err *err)
{
	*n = 1;
	for (int a = 0; a < sweep->n_axes; a++) {
		*n *= sweep->axes[a].n;
		if (*n > SWEEP_POINTS_MAX) return err_set(err, ERR_TOO_BIG, "the sweep has more than %d combinations: vary less at a time", SWEEP_POINTS_MAX);
	}
	return 0;
}

/* The i-th combination, without what it is compared with. */
static int make_point(struct sweep_point *point, const struct sweep *sweep, int i, struct err *err)
{
	size_t n = 0;

	for (int a = sweep->n_axes - 1; a >= 0; a--) {
		point->at[a] = i % sweep->axes[a].n;
		i /= sweep->axes[a].n;
	}
	snprintf(point->label, sizeof point->label, "base");
	for (int a = 0; a < sweep->n_axes; a++) {
		const struct sweep_value *value = &sweep->axes[a].values[point->at[a]];
		if (n < sizeof point->label) n += (size_t)snprintf(point->label + n, sizeof point->label - n, "%s%s", a ? ", " : "", value->name);
		if (n >= sizeof point->label || point->n_sets + value->n_sets > SWEEP_SETS_MAX)
			return err_set(err, ERR_TOO_BIG, "the sweep sets more than %d keys at once, or their names take more than %d characters",
			               SWEEP_SETS_MAX, SWEEP_LABEL_MAX - 1);
		for (int s = 0; s < value->n_sets; s++) point->sets[point->n_sets++] = value->sets[s];
	}
	return 0;
}

/* "mode=exact, april" to a value of each axis that is named, -1 for the others. */
static int read_baseline(int *at, const struct sweep *sweep, const char *baseline, struct err *err)
{
	for (int a = 0; a < sweep->n_axes; a++) at[a] = *baseline ? -1 : 0;
	if (sweep->n_axes == 0 && strcmp(baseline, "base") == 0) return 0;
	while (*baseline) {
		size_t n = strcspn(baseline, ",");
		bool found = false;
		for (int a = 0; a < sweep->n_axes; a++)
			for (int i = 0; i < sweep->axes[a].n; i++) {
				const char *name = sweep->axes[a].values[i].name;
				if (strlen(name) != n || strncmp(name, baseline, n) != 0) continue;
				at[a] = i;
				found = true;
			}
		if (!found)
			return err_set(err, ERR_CONFIG, "throughput.baseline: \"%.*s\" is no value of the sweep: expected one such as \"%s\"", (int)n,
			               baseline, sweep->n_axes ? sweep->axes[sweep->n_axes - 1].values[0].name : "base");
		baseline += n;
		baseline += strspn(baseline, ", ");
	}
	return 0;
}

int sweep_expand(struct sweep_points *points, const struct sweep *sweep, const char *baseline, struct err *err)
{
	int fixed[SWEEP_AXES_MAX + 1];

	*points = (struct sweep_points){ 0 };
	int rc = count_points(sweep, &points->n, err);
	if (!rc) rc = read_baseline(fixed, sweep, baseline, err);
	if (rc) return rc;
	points->items = xcalloc((unsigned long)points->n, sizeof *points->items);
	for (int i = 0; i < points->n && !rc; i++) {
		struct sweep_point *point = &points->items[i];
		rc = make_point(point, sweep, i, err);
		for (int a = 0; a < sweep->n_axes; a++)
			point->baseline = point->baseline * sweep->axes[a].n + (fixed[a] >= 0 ? fixed[a] : point->at[a]);
	}
	if (rc) sweep_points_free(points);
	return rc;
}

void sweep_points_free(struct sweep_points *points)
{
	free(points->items);
	*points = (struct sweep_points){ 0 };
}
