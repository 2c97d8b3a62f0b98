/* report_series.h - columns of numbers: what is plotted, and a few statistics of it. */
#ifndef SCHEDULER_REPORT_REPORT_SERIES_H
#define SCHEDULER_REPORT_REPORT_SERIES_H

#include <jansson.h>
#include <stdbool.h>

struct series {
	double *x, *y; /* [n], finite */
	int n, capacity;
};

/* Points that are not finite are left out. */
void series_add(struct series *s, double x, double y);
void series_free(struct series *s);
/* At most n_max points: means over equal counts of neighbours. */
void series_thin(struct series *s, int n_max);
double series_last(const struct series *s);  /* NAN: none */
/* Mean of the first or last tenth of the points, at least one. */
double series_begin_mean(const struct series *s);
double series_end_mean(const struct series *s);
double series_max(const struct series *s);

enum { TABLE_ITEMS_MAX = 32 };

/* Lines of JSON objects as columns: numbers by key of the outermost object, NAN where one has none; items of an array
 * have "key/0", "key/1", ... */
struct report_table {
	char **names;     /* [n_columns] */
	double **columns; /* [n_columns][capacity] */
	int n_columns, n_rows, capacity;
};

void table_add(struct report_table *t, json_t *object);
/* Drop rows from row on. */
void table_cut(struct report_table *t, int row);
void table_free(struct report_table *t);
bool table_has(const struct report_table *t, const char *name);
double table_value(const struct report_table *t, int row, const char *name);
double table_sum(const struct report_table *t, const char *name); /* 0 where there is none */
/* `name` times factor over `over`. */
struct series table_series(const struct report_table *t, const char *over, const char *name, double factor);

int double_compare(const void *a, const void *b);
/* Linear between neighbours; sorted ascending, n >= 1. */
double quantile(const double *sorted, int n, double q);
/* Half the width of the 95 % interval of the mean over n values: Student's t; NAN for n < 2. */
double mean_interval(const double *values, int n, double *mean);
/* The least of 1, 2 and 5 times a power of ten of which `span` > 0 has n_max or fewer. */
double tic_step(double span, int n_max);
/* 95 % interval of a share by Wilson's score. */
void share_interval(double share, double n, double *low, double *high);

#endif
