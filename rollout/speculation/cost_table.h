/* cost_table.h - seconds of one forward call by its rows and the positions they attend to, learned
 * from calls as they happen.
 *
 *     seconds(rows, positions) = line(rows) + per_position * positions
 *
 * line() runs through knots at KNOT_LIST rows; a knot is the running mean of what was measured near it.
 * Knots that were not measured twice follow their neighbours, to the low side, since what is thought to be fast is
 * tried and learned: in proportion below the first, with the last slope above the last, and between two the
 * larger of the lower one's seconds and the upper one's per row.
 */
#ifndef ROLLOUT_SPECULATION_COST_TABLE_H
#define ROLLOUT_SPECULATION_COST_TABLE_H

#include <stdbool.h>

#define KNOT_LIST 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256

enum { COST_KNOTS = 23 };
#define COST_HINT 1e-3
enum { COST_CONFIRMED = 2 }; /* weight from which a knot is believed */

struct cost_table {
	double seconds[COST_KNOTS]; /* per call, attention taken out */
	double weight[COST_KNOTS];  /* measurements behind it, at most COST_MEMORY; COST_HINT: a hint */
	double calls, measured[COST_KNOTS]; /* calls seen; when the last was that taught the knot */
	double per_position;        /* seconds per row and attended position */
};

extern const int cost_knot_rows[COST_KNOTS];

/* positions: sum over rows of the positions each attends to. */
void cost_table_observe(struct cost_table *table, int rows, double positions, double seconds);

/* The same where nothing near has been measured; else nothing. */
void cost_table_hint(struct cost_table *table, int rows, double positions, double seconds);

/* 0 if nothing was ever measured. */
double cost_table_seconds(const struct cost_table *table, int rows, double positions);

/* Measurements behind what is said of so many rows: of the lesser known knot at or beside it. */
double cost_table_weight(const struct cost_table *table, int rows);

static inline bool cost_table_known(const struct cost_table *table)
{
	for (int i = 0; i < COST_KNOTS; i++)
		if (table->weight[i] > COST_HINT) return true;
	return false;
}

#endif
