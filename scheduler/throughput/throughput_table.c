/* throughput_table.c - medians, ranges, paired ratios and intervals of a sweep's results, as a table.
 *
 * Ratios are taken within a repetition, where all points drew the same prompts at about the same time: what changes from
 * one repetition to the next, a busy machine above all, is in both numbers and leaves the quotient. */
#include <math.h>
#include <stdlib.h>

#include "scheduler/bench/bench_report.h"
#include "scheduler/throughput/throughput_results.h"

/* Two-sided 95 % quantile of Student's t with `freedom` degrees: exact to 12, then Cornish-Fisher (Abramowitz and Stegun 26.7.5),
 * within 0.001. */
static double student_t(int freedom)
{
	static const double exact[] = { 12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788 };
	const double x = 1.959964, v = freedom;

	if (freedom <= 12) return exact[freedom - 1];
	return x + (x * x * x + x) / (4 * v) + (5 * pow(x, 5) + 16 * x * x * x + 3 * x) / (96 * v * v);
}

/* Mean of values [n] and half of its 95 % interval, NaN where there is none. */
static void mean_of(const double *values, int n, double *mean, double *interval)
{
	double sum = 0, squares = 0;

	for (int i = 0; i < n; i++) sum += values[i];
	*mean = n > 0 ? sum / n : NAN;
	for (int i = 0; i < n; i++) squares += (values[i] - *mean) * (values[i] - *mean);
	*interval = n > 1 ? student_t(n - 1) * sqrt(squares / (n - 1) / n) : NAN;
}

void throughput_statistics(struct throughput_statistics *s, const struct throughput_results *results,
                           const struct sweep_points *points, int point)
{
	double *values = xcalloc(3 * (unsigned long)(results->n + 1), sizeof *values);
	double *ratios = values + results->n + 1, *differences = ratios + results->n + 1;

	*s = (struct throughput_statistics){ .median = NAN, .min = NAN, .max = NAN, .ratio = NAN, .ratio_min = NAN, .ratio_max = NAN };
	for (int i = 0; i < results->n; i++) {
		const struct throughput_result *r = &results->items[i];
		if (r->point != point) continue;
		if (isnan(r->value)) {
			s->failed++;
			continue;
		}
		values[s->runs++] = r->value;
		const struct throughput_result *base = throughput_results_find(results, points->items[point].baseline, r->repetition);
		if (!base || isnan(base->value)) continue;
		differences[s->pairs] = r->value - base->value;
		ratios[s->pairs++] = r->value / base->value;
	}
	mean_of(values, s->runs, &s->mean, &s->interval);
	mean_of(differences, s->pairs, &s->difference, &s->difference_interval);
	if (s->runs > 0) {
		s->median = bench_median(values, s->runs);
		s->min = values[0];
		s->max = values[s->runs - 1];
	}
	if (s->pairs > 0) {
		s->ratio = bench_median(ratios, s->pairs);
		s->ratio_min = ratios[0];
		s->ratio_max = ratios[s->pairs - 1];
	}
	free(values);
}

/* Four digits that count. */
static void number_cell(struct bench_table *table, double value)
{
	if (isnan(value)) bench_cell(table, "-");
	else if (fabs(value) >= 1000) bench_cell(table, "%.0f", value);
	else bench_cell(table, "%.4g", value);
}

static void range_cell(struct bench_table *table, double from, double to)
{
	if (isnan(from)) bench_cell(table, "-");
	else if (fabs(to) >= 1000) bench_cell(table, "%.0f..%.0f", from, to);
	else bench_cell(table, "%.4g..%.4g", from, to);
}

static void interval_cell(struct bench_table *table, double mean, double interval)
{
	if (isnan(interval)) bench_cell(table, "-");
	else if (fabs(mean) >= 1000 || interval >= 100) bench_cell(table, "%.0f +- %.0f", mean, interval);
	else bench_cell(table, "%.4g +- %.2g", mean, interval);
}

void throughput_print(const struct throughput_results *results, const struct sweep_points *points, const char *metric,
                      bool higher_is_better, FILE *out)
{
	enum { COLUMNS = 8 };
	static const char *const heads[COLUMNS] = { "", "runs", "median", "min..max", "mean +- 95 %", "ratio", "min..max", "difference +- 95 %" };
	struct bench_table *table = bench_table_open(COLUMNS, 1);
	struct throughput_statistics s;
	bool own = points->n > 1; /* something is compared */

	fprintf(out, "%s (%s is better); ratio and difference: against the baseline of the same repetition\n", metric,
	        higher_is_better ? "more" : "less");
	for (int i = 0; i < COLUMNS; i++) bench_cell(table, "%s", heads[i]);
	for (int p = 0; p < points->n; p++) {
		bool base = points->items[p].baseline == p;
		throughput_statistics(&s, results, points, p);
		bench_cell(table, "%s", points->items[p].label);
		if (s.failed) bench_cell(table, "%d, %d failed", s.runs, s.failed);
		else bench_cell(table, "%d", s.runs);
		number_cell(table, s.median);
		range_cell(table, s.min, s.max);
		interval_cell(table, s.mean, s.interval);
		if (base && own) {
			bench_cell(table, "baseline");
		} else if (own) {
			number_cell(table, s.ratio);
			range_cell(table, s.ratio_min, s.ratio_max);
			interval_cell(table, s.difference, s.difference_interval);
		}
		bench_row_end(table);
	}
	bench_table_close(table, out);
}

static void put_number(json_t *record, const char *key, double value)
{
	json_object_set_new(record, key, isnan(value) ? json_null() : json_real(value));
}

void throughput_print_json(const struct throughput_results *results, const struct sweep_points *points, const char *metric)
{
	struct throughput_statistics s;

	for (int p = 0; p < points->n; p++) {
		json_t *record = json_object();
		throughput_statistics(&s, results, points, p);
		json_object_set_new(record, "variant", json_string(points->items[p].label));
		json_object_set_new(record, "baseline", json_string(points->items[points->items[p].baseline].label));
		json_object_set_new(record, "metric", json_string(metric));
		json_object_set_new(record, "runs", json_integer(s.runs));
		json_object_set_new(record, "failed", json_integer(s.failed));
		put_number(record, "median", s.median);
		put_number(record, "min", s.min);
		put_number(record, "max", s.max);
		put_number(record, "mean", s.mean);
		put_number(record, "mean_interval_95", s.interval);
		put_number(record, "ratio", s.ratio);
		put_number(record, "ratio_min", s.ratio_min);
		put_number(record, "ratio_max", s.ratio_max);
		put_number(record, "difference", s.difference);
		put_number(record, "difference_interval_95", s.difference_interval);
		bench_json(record);
	}
}
