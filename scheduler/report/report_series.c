/* report_series.c - see report_series.h. */
#include "scheduler/report/report_series.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

void series_add(struct series *s, double x, double y)
{
	if (!isfinite(x) || !isfinite(y)) return;
	if (s->n == s->capacity) {
		s->capacity = s->capacity ? 2 * s->capacity : 64;
		s->x = xrealloc(s->x, (size_t)s->capacity * sizeof *s->x);
		s->y = xrealloc(s->y, (size_t)s->capacity * sizeof *s->y);
	}
	s->x[s->n] = x;
	s->y[s->n++] = y;
}

void series_free(struct series *s)
{
	free(s->x);
	free(s->y);
	*s = (struct series){0};
}

void series_thin(struct series *s, int n_max)
{
	int n = s->n;

	if (n <= n_max) return;
	for (int i = 0; i < n_max; i++) {
		int from = (int)((long long)n * i / n_max), to = (int)((long long)n * (i + 1) / n_max);
		double x = 0, y = 0;
		for (int k = from; k < to; k++) {
			x += s->x[k];
			y += s->y[k];
		}
		s->x[i] = x / (to - from);
		s->y[i] = y / (to - from);
	}
	s->n = n_max;
}

double series_last(const struct series *s)
{
	return s->n ? s->y[s->n - 1] : (double)NAN;
}

static double mean_of(const double *values, int n)
{
	double sum = 0;
	for (int i = 0; i < n; i++) sum += values[i];
	return n ? sum / n : (double)NAN;
}

double series_begin_mean(const struct series *s)
{
	return mean_of(s->y, s->n ? (s->n + 9) / 10 : 0);
}

double series_end_mean(const struct series *s)
{
	int tenth = (s->n + 9) / 10;
	return s->n ? mean_of(s->y + s->n - tenth, tenth) : (double)NAN;
}

double series_max(const struct series *s)
{
	double max = (double)NAN;
	for (int i = 0; i < s->n; i++)
		if (!(s->y[i] <= max)) max = s->y[i];
	return max;
}

/* ---- tables ---- */

static int column_find(const struct report_table *t, const char *name)
{
	for (int i = 0; i < t->n_columns; i++)
		if (strcmp(t->names[i], name) == 0) return i;
	return -1;
}

/* Lines mostly have the same keys in the same order: look at the place after the last one first. */
static int column_of(struct report_table *t, const char *name, int guess)
{
	assert(t->n_rows <= t->capacity);
	int i = guess < t->n_columns && strcmp(t->names[guess], name) == 0 ? guess : column_find(t, name);
	if (i >= 0) return i;
	i = t->n_columns++;
	t->names = xrealloc(t->names, (size_t)t->n_columns * sizeof *t->names);
	t->columns = xrealloc(t->columns, (size_t)t->n_columns * sizeof *t->columns);
	t->names[i] = xstrdup(name);
	t->columns[i] = xmalloc((size_t)t->capacity * sizeof **t->columns);
	for (int row = 0; row < t->n_rows; row++) t->columns[i][row] = (double)NAN;
	return i;
}

/* Items of an array as columns "name/0", "name/1", ... */
static void add_items(struct report_table *t, const char *name, const json_t *array, int row)
{
	char item[256];

	for (size_t k = 0; k < json_array_size(array) && k < TABLE_ITEMS_MAX; k++) {
		snprintf(item, sizeof item, "%s/%zu", name, k);
		int i = column_of(t, item, t->n_columns);
		t->columns[i][row] = json_number_value(json_array_get(array, k));
	}
}

void table_add(struct report_table *t, json_t *object)
{
	const char *name;
	json_t *value;
	int guess = 0, row = t->n_rows;

	if (row == t->capacity) {
		t->capacity = t->capacity ? 2 * t->capacity : 64;
		for (int i = 0; i < t->n_columns; i++)
			t->columns[i] = xrealloc(t->columns[i], (size_t)t->capacity * sizeof **t->columns);
	}
	t->n_rows++;
	for (int i = 0; i < t->n_columns; i++) t->columns[i][row] = (double)NAN;
	json_object_foreach(object, name, value) {
		if (json_is_array(value)) add_items(t, name, value, row);
		if (!json_is_number(value)) continue;
		int i = column_of(t, name, guess);
		t->columns[i][row] = json_number_value(value);
		guess = i + 1;
	}
}

void table_cut(struct report_table *t, int row)
{
	if (row < t->n_rows) t->n_rows = row;
}

void table_free(struct report_table *t)
{
	for (int i = 0; i < t->n_columns; i++) {
		free(t->names[i]);
		free(t->columns[i]);
	}
	free(t->names);
	free(t->columns);
	*t = (struct report_table){0};
}

bool table_has(const struct report_table *t, const char *name)
{
	int i = column_find(t, name);
	for (int row = 0; i >= 0 && row < t->n_rows; row++)
		if (isfinite(t->columns[i][row])) return true;
	return false;
}

double table_value(const struct report_table *t, int row, const char *name)
{
	int i = column_find(t, name);
	return i < 0 || row < 0 || row >= t->n_rows ? (double)NAN : t->columns[i][row];
}

double table_sum(const struct report_table *t, const char *name)
{
	int i = column_find(t, name);
	double sum = 0;
	for (int row = 0; i >= 0 && row < t->n_rows; row++)
		if (isfinite(t->columns[i][row])) sum += t->columns[i][row];
	return sum;
}

struct series table_series(const struct report_table *t, const char *over, const char *name, double factor)
{
	struct series s = {0};
	int x = column_find(t, over), y = column_find(t, name);
	for (int row = 0; x >= 0 && y >= 0 && row < t->n_rows; row++)
		series_add(&s, t->columns[x][row], factor * t->columns[y][row]);
	return s;
}

/* ---- statistics ---- */

int double_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double quantile(const double *sorted, int n, double q)
{
	double at = q * (n - 1);
	int i = (int)at;
	return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

/* Student's t at 97.5 % by degrees of freedom. */
static double t_975(int degrees)
{
	static const double table[] = { 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
	                                2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
	                                2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042 };
	return degrees <= 30 ? table[degrees - 1] : 1.96 + 2.5 / degrees;
}

double mean_interval(const double *values, int n, double *mean)
{
	double squares = 0;

	*mean = mean_of(values, n);
	if (n < 2) return (double)NAN;
	for (int i = 0; i < n; i++) squares += (values[i] - *mean) * (values[i] - *mean);
	return t_975(n - 1) * sqrt(squares / (n - 1) / n);
}

double tic_step(double span, int n_max)
{
	static const int steps[] = { 1, 2, 5 };
	double unit = pow(10, floor(log10(span / n_max)));

	for (int k = 0; k < 3; k++)
		if (span / (steps[k] * unit) <= n_max) return steps[k] * unit;
	return 10 * unit;
}

void share_interval(double share, double n, double *low, double *high)
{
	const double z = 1.959964, zz = z * z;
	double centre = (share + zz / (2 * n)) / (1 + zz / n);
	double half = z * sqrt(share * (1 - share) / n + zz / (4 * n * n)) / (1 + zz / n);
	*low = n > 0 ? centre - half : (double)NAN;
	*high = n > 0 ? centre + half : (double)NAN;
}
