/* cost_table.c - a piecewise linear function learned from noisy samples. */
#include "rollout/speculation/cost_table.h"

#include <math.h>

/* Old measurements fade: the machine is shared, and contexts grow. */
static const double COST_MEMORY = 32;

/* And so many calls after the last measurement of a knot it counts half, but for FIRST. */
static const double STALE_CALLS = 48;

/* The machine is shared: the first few calls count by their fastest, later ones move the mean by at most
 * this factor each. */
static const double OUTLIER = 1.3, FIRST = 3;

const int cost_knot_rows[COST_KNOTS] = {KNOT_LIST};

/* The last knot at or below so many rows, or the first. */
static int knot_below(int rows)
{
	int i = 0;

	while (i + 1 < COST_KNOTS && cost_knot_rows[i + 1] <= rows) i++;
	return i;
}

/* One measurement may have been held up by anything; until a second one confirms it, neighbours know better. */
static bool confirmed(const struct cost_table *table, int i)
{
	return table->weight[i] >= COST_CONFIRMED || table->weight[i] == COST_HINT;
}

static bool measured_only_once(const struct cost_table *table)
{
	for (int i = 0; i < COST_KNOTS; i++)
		if (confirmed(table, i)) return false;
	return true;
}

static bool counts(const struct cost_table *table, int i, bool all) { return all ? table->weight[i] > 0 : confirmed(table, i); }

static int known_down(const struct cost_table *table, int i, bool all)
{
	while (i >= 0 && !counts(table, i, all)) i--;
	return i;
}

static int known_up(const struct cost_table *table, int i, bool all)
{
	while (i < COST_KNOTS && !counts(table, i, all)) i++;
	return i;
}

static double line(const struct cost_table *table, double rows)
{
	bool all = measured_only_once(table);
	int at = knot_below((int)rows);
	int low = known_down(table, at, all);
	int high = known_up(table, low == at && cost_knot_rows[at] >= rows ? at : at + 1, all);

	if (low == at && cost_knot_rows[at] >= rows) return table->seconds[at];
	if (low < 0 && high >= COST_KNOTS) return 0;
	if (low < 0) return table->seconds[high] * rows / cost_knot_rows[high];
	if (high >= COST_KNOTS) {
		/* Beyond what is known: the slope of the last two knots, or proportional where the call is long. */
		int before = known_down(table, low - 1, all);
		double slope = before < 0 ? 0
		                          : (table->seconds[low] - table->seconds[before]) /
		                                    (cost_knot_rows[low] - cost_knot_rows[before]);
		if (slope < 0) slope = 0;
		return table->seconds[low] + slope * (rows - cost_knot_rows[low]);
	}
	/* Neighbouring knots: a line.  Knots apart: the least that a call between them can cost, as a larger call
	 * costs at least as much, and less per row; a guess too low is tried and learned, one too high is not. */
	if (high == low + 1) {
		double share = (rows - cost_knot_rows[low]) / (double)(cost_knot_rows[high] - cost_knot_rows[low]);
		return table->seconds[low] + share * (table->seconds[high] - table->seconds[low]);
	}
	double least = table->seconds[high] * rows / cost_knot_rows[high];
	return least > table->seconds[low] ? least : table->seconds[low];
}

double cost_table_seconds(const struct cost_table *table, int rows, double positions)
{
	return rows > 0 && cost_table_known(table) ? line(table, rows) + table->per_position * positions : 0;
}

double cost_table_weight(const struct cost_table *table, int rows)
{
	int low = knot_below(rows), high = cost_knot_rows[low] < rows && low + 1 < COST_KNOTS ? low + 1 : low;
	return table->weight[low] < table->weight[high] ? table->weight[low] : table->weight[high];
}

/* Rows between two knots teach both, the nearer more: each is asked to move along with the line. */
void cost_table_observe(struct cost_table *table, int rows, double positions, double seconds)
{
	double measured = seconds - table->per_position * positions;
	int low = knot_below(rows), high = low + 1 < COST_KNOTS ? low + 1 : low;
	double share = high > low ? (double)(rows - cost_knot_rows[low]) / (cost_knot_rows[high] - cost_knot_rows[low]) : 0;

	if (share > 1) share = 1; /* more rows than the last knot */
	if (measured < seconds / 8) measured = seconds / 8;
	double expected = cost_table_known(table) ? line(table, rows) : 0;
	double ratio = expected > 0 ? measured / expected : 1;

	table->calls++;
	for (int side = 0; side < 2; side++) {
		int i = side ? high : low;
		double part = side ? share : 1 - share;
		if (part <= 0) continue;
		double aged = table->weight[i] * exp2(-(table->calls - table->measured[i]) / STALE_CALLS);
		if (table->weight[i] > FIRST) table->weight[i] = aged > FIRST ? aged : FIRST;
		table->measured[i] = table->calls;
		double was = expected > 0 ? line(table, cost_knot_rows[i]) : 0, now = was > 0 ? was * ratio : measured;
		double weight = table->weight[i] + part < COST_MEMORY ? table->weight[i] + part : COST_MEMORY;
		if (table->weight[i] < FIRST) {
			bool before = table->weight[i] > COST_HINT && table->seconds[i] < now;
			table->seconds[i] = before ? table->seconds[i] : now;
		} else {
			if (now > was * OUTLIER) now = was * OUTLIER;
			table->seconds[i] = was + (now - was) * part / weight;
		}
		table->weight[i] = weight;
	}
}

void cost_table_hint(struct cost_table *table, int rows, double positions, double seconds)
{
	int knot = knot_below(rows);

	if (table->weight[knot] > 0) return;
	double alone = seconds - table->per_position * positions;
	table->seconds[knot] = (alone > seconds / 8 ? alone : seconds / 8) * cost_knot_rows[knot] / rows;
	table->weight[knot] = COST_HINT;
}
