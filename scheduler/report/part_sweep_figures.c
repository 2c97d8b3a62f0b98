/* part_sweep_figures.c - what a sweep looks like: a point for every run, curves over what is numeric, learning curves with
 * their spread over the runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/report/part_sweeps.h"

enum { NAME_SHOWN = 46, BANDS_MAX = 8 /* more would hide each other */, INTERVAL_RUNS = 5, NAME_IN_TITLE = 24, AXIS_VALUES_MAX = 10 };
enum { TICS_WIDE = 10, TICS_NARROW = 4 };

/* What the best median is, and how far from its baseline. */
static void title_of_points(struct plot *p, const struct report_sweep *sweep, int winner)
{
	const struct sweep_variant *v = winner >= 0 ? &sweep->variants[winner] : NULL;
	const char *what = metric_words(sweep->metric);
	struct sweep_statistics s;
	char text[NUMBER_TEXT_MAX];

	if (!v) {
		plot_title(p, "%s: no run has a value", what);
		return;
	}
	sweep_statistics(&s, sweep, winner);
	number_short(text, s.median);
	const char *base = v->baseline >= 0 ? sweep->variants[v->baseline].name : "";
	if (strlen(base) > NAME_IN_TITLE) base = "its baseline";
	if (v->baseline < 0 || !isfinite(s.ratio)) plot_title(p, "%s: %s has the best median, %s", what, v->name, text);
	else if (v->baseline == winner) plot_title(p, "%s: the baseline, %s, has the best median, %s", what, v->name, text);
	else if (isfinite(s.ratio_low))
		plot_title(p, "%s: %s has the best median, %s; %.3g times %s (95 %% interval %.3g to %.3g)", what, v->name, text, s.ratio,
		           base, s.ratio_low, s.ratio_high);
	else plot_title(p, "%s: %s has the best median, %s; %.3g times %s (one pair)", what, v->name, text, s.ratio, base);
}

/* From 0 where that does not hide what differs; tics that fit the width and have as many decimals each. */
static double axis_of_points(struct plot *p, double low, double high)
{
	bool from_zero = low >= 0 && low < 0.5 * high;
	double span = from_zero ? high : high - low > 0 ? high - low : fmax(fabs(high), 1);
	double from = from_zero ? 0 : low - 0.06 * span, to = high + 0.06 * span, step = tic_step(to - from, TICS_WIDE);
	int decimals = (int)fmax(0, -floor(log10(step) + 1e-9));

	plot_set(p, "set xrange [%.6g:%.6g]", from, to);
	p->x_tics = step;
	p->x_tics_narrow = tic_step(to - from, TICS_NARROW);
	if (high >= 10000) plot_set(p, "set format x '%%.0s%%c'");
	else plot_set(p, "set format x '%%.%df'", decimals < 9 ? decimals : 9);
	return to - from;
}

/* A row a variant, a point a run, a bar at the median. */
int sweep_figure_points(struct page *page, const struct report_sweep *sweep)
{
	double (*bars)[4] = xcalloc((size_t)sweep->n, sizeof *bars), low = HUGE_VAL, high = -HUGE_VAL, best = (double)NAN;
	struct series points = {0};
	int n_bars = 0, winner = -1, longest = 4;
	struct sweep_statistics s;
	char word[16], text[NUMBER_TEXT_MAX];
	struct plot p;

	plot_open(&p, page->out, metric_axis(sweep->metric), "a point is one run, the bar the median of its variant");
	p.full = true;
	p.height = 72 + 30 * sweep->n;
	plot_set(&p, "set yrange [%g:0.5]\nset grid xtics noytics\nset ytics () scale 0", sweep->n + 0.5);
	for (int i = 0; i < sweep->n; i++) {
		const struct sweep_variant *v = &sweep->variants[i];
		sweep_statistics(&s, sweep, i);
		for (int k = 0; k < v->n; k++) series_add(&points, v->runs[k].value, i + 1);
		snprintf(text, sizeof text, "%d", i + 1);
		plot_set(&p, "set ytics add ('%s' %d)", plot_word(&p, v->name, NAME_SHOWN, text, word), i + 1);
		if ((int)strlen(v->name) > longest) longest = (int)strlen(v->name);
		if (!s.n) continue;
		low = fmin(low, s.min);
		high = fmax(high, s.max);
		if (!isfinite(best) || (sweep->higher_is_better ? s.median > best : s.median < best)) {
			best = s.median;
			winner = i;
		}
		bars[n_bars][0] = bars[n_bars][1] = s.median;
		bars[n_bars][2] = i + 0.68;
		bars[n_bars++][3] = i + 1.32;
	}
	double span = points.n ? axis_of_points(&p, low, high) : 1;
	for (int i = 0; i < n_bars; i++) {
		bars[i][0] -= 0.003 * span;
		bars[i][1] += 0.003 * span;
	}
	p.margin = (longest < NAME_SHOWN ? longest : NAME_SHOWN) + 3;
	p.narrow_margin = 4;
	p.narrow_note = "Rows have the numbers of the table.";
	plot_boxes(&p, (const double (*)[4])bars, n_bars, 1, "median");
	plot_curve(&p, &points, 0, MARK_POINT, "one run");
	title_of_points(&p, sweep, winner);
	series_free(&points);
	free(bars);
	return plot_close(&p, NULL, page->err);
}

/* ---- over a numeric key ---- */

static double set_number(const struct sweep_variant *v, const char *key)
{
	const json_t *value = json_object_get(v->set, key);
	const char *text = json_string_value(value);
	char *end;

	if (json_is_number(value)) return json_number_value(value);
	double number = text ? strtod(text, &end) : (double)NAN;
	return text && *text && *end == '\0' ? number : (double)NAN;
}

/* A key that every variant sets to a finite number, of which there are at least three. */
static bool is_axis(const struct report_sweep *sweep, const char *key)
{
	double seen[3];
	int n = 0;

	for (int i = 0; i < sweep->n; i++) {
		double x = set_number(&sweep->variants[i], key);
		bool known = false;
		if (!isfinite(x)) return false;
		for (int k = 0; k < n; k++) known = known || seen[k] == x;
		if (!known && n < 3) seen[n++] = x;
	}
	return n == 3;
}

/* What a variant sets beside the key, as text: variants of one text make one curve. */
static char *rest_of(const struct sweep_variant *v, const char *key)
{
	json_t *rest = json_copy(v->set), *value;
	const char *name;
	char *text = NULL;
	size_t n = 0;
	FILE *memory = open_memstream(&text, &n);

	if (!memory) abort();
	json_object_del(rest, key);
	json_object_foreach(rest, name, value) {
		char *item = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
		const char *dot = strrchr(name, '.');
		fprintf(memory, "%s%s=%s", ftell(memory) ? ", " : "", dot ? dot + 1 : name, item ? item : json_string_value(value));
		free(item);
	}
	fclose(memory);
	json_decref(rest);
	return text;
}

static int compare_x(const void *a, const void *b)
{
	return double_compare(a, b);
}

/* One curve: medians of the variants whose rest is this, with min and max. */
static void draw_axis_curve(struct plot *p, const struct report_sweep *sweep, const char *key, const char *rest, int curve)
{
	double (*points)[4] = xcalloc((size_t)sweep->n, sizeof *points);
	struct series median = {0}, low = {0}, high = {0};
	int n = 0;

	for (int i = 0; i < sweep->n; i++) {
		char *own = rest_of(&sweep->variants[i], key);
		struct sweep_statistics s;
		sweep_statistics(&s, sweep, i);
		if (strcmp(own, rest) == 0 && s.n) {
			double point[4] = { set_number(&sweep->variants[i], key), s.median, s.min, s.max };
			memcpy(points[n++], point, sizeof point);
		}
		free(own);
	}
	qsort(points, (size_t)n, sizeof *points, compare_x);
	for (int i = 0; i < n; i++) {
		series_add(&median, points[i][0], points[i][1]);
		series_add(&low, points[i][0], points[i][2]);
		series_add(&high, points[i][0], points[i][3]);
	}
	plot_band(p, &low, &high, curve_color(curve));
	plot_curve(p, &median, curve_color(curve), curve_mark(curve), *rest ? rest : NULL);
	plot_curve(p, &median, curve_color(curve), MARK_POINT, NULL);
	series_free(&median);
	series_free(&low);
	series_free(&high);
	free(points);
}

static int figure_axis(struct page *page, const struct report_sweep *sweep, const char *key)
{
	char **rests = xcalloc((size_t)sweep->n, sizeof *rests);
	int n_rests = 0;
	double low = HUGE_VAL, high = 0, top = 0, bottom = HUGE_VAL;
	struct sweep_statistics s;
	char word[16];
	struct plot p;

	plot_open(&p, page->out, NULL, "median, band from least to most");
	p.x_label = plot_word(&p, key, NAME_SHOWN, key, word);
	plot_title(&p, "%s over %s", metric_words(sweep->metric), key);
	for (int i = 0; i < sweep->n; i++) {
		char *rest = rest_of(&sweep->variants[i], key);
		int known = 0;
		while (known < n_rests && strcmp(rests[known], rest) != 0) known++;
		if (known < n_rests) free(rest);
		else rests[n_rests++] = rest;
		double x = set_number(&sweep->variants[i], key);
		low = fmin(low, x);
		high = fmax(high, x);
		sweep_statistics(&s, sweep, i);
		top = fmax(top, s.max);
		bottom = fmin(bottom, s.min);
	}
	if (low > 0 && high / low >= 8) plot_set(&p, "set logscale x 2");
	if (top >= 10000) plot_set(&p, "set format y '%%.0s%%c'");
	if (bottom >= 0 && bottom < 0.5 * top) plot_set(&p, "set yrange [0:*]");
	for (int i = 0; i < sweep->n && sweep->n <= AXIS_VALUES_MAX * n_rests; i++)
		plot_set(&p, i ? "set xtics add (%.6g)" : "set xtics (%.6g)", set_number(&sweep->variants[i], key));
	for (int r = 0; r < n_rests; r++) {
		draw_axis_curve(&p, sweep, key, rests[r], r);
		free(rests[r]);
	}
	free(rests);
	return plot_close(&p, NULL, page->err);
}

int sweep_figures_axes(struct page *page, const struct report_sweep *sweep)
{
	const char *key;
	json_t *value;
	int code = 0;

	json_object_foreach(sweep->variants[0].set, key, value)
		if (!code && is_axis(sweep, key)) code = figure_axis(page, sweep, key);
	return code;
}

/* ---- learning curves ---- */

/* A step of which all had been made before: what rollouts say is 0 there and means nothing. */
static bool tells_nothing(const struct report_table *t, int row)
{
	return table_value(t, row, "rollout/tokens") == 0;
}

/* How far from the mean runs are: the 95 % interval of the mean where there are enough of them, else least and most. */
static void spread_of(const double *values, int n, double *centre, double *low, double *high)
{
	double half = mean_interval(values, n, centre);

	*low = *high = *centre;
	if (n >= INTERVAL_RUNS) {
		*low = *centre - half;
		*high = *centre + half;
		return;
	}
	for (int i = 0; i < n; i++) {
		*low = fmin(*low, values[i]);
		*high = fmax(*high, values[i]);
	}
}

/* Mean over the variant's runs at each step, and their spread. */
static void mean_curve(const struct sweep_variant *v, bool evals, const char *key, double factor, struct series *mean,
                       struct series *low, struct series *high)
{
	double *values = xcalloc((size_t)v->n + 1, sizeof *values);
	const struct report_table *first = NULL;

	for (int i = 0; i < v->n; i++) {
		const struct report_table *t = evals ? &v->runs[i].evals : &v->runs[i].steps;
		if (!first || t->n_rows > first->n_rows) first = t;
	}
	for (int row = 0; first && row < first->n_rows; row++) {
		double step = table_value(first, row, "step"), centre, least, most;
		int n = 0;
		for (int i = 0; i < v->n; i++) {
			const struct report_table *t = evals ? &v->runs[i].evals : &v->runs[i].steps;
			int at = row < t->n_rows && table_value(t, row, "step") == step ? row : 0;
			while (at < t->n_rows && table_value(t, at, "step") != step) at++;
			double value = factor * table_value(t, at, key);
			if (isfinite(value) && !tells_nothing(t, at)) values[n++] = value;
		}
		if (n == 0) continue;
		spread_of(values, n, &centre, &least, &most);
		series_add(mean, step, centre);
		series_add(low, step, least);
		series_add(high, step, most);
	}
	free(values);
}

/* Points of one step would be the figure above again. */
static bool has_curves(const struct report_sweep *sweep, bool evals, const char *key)
{
	for (int i = 0; i < sweep->n; i++)
		for (int k = 0; k < sweep->variants[i].n; k++) {
			const struct sweep_run *run = &sweep->variants[i].runs[k];
			const struct report_table *t = evals ? &run->evals : &run->steps;
			if (t->n_rows > 1 && table_has(t, key)) return true;
		}
	return false;
}

static const char *note_of_bands(int fewest, int most)
{
	if (most < 2) return NULL;
	if (fewest >= INTERVAL_RUNS) return "Band: 95 % interval of the mean (Student's t) over the runs.";
	if (most < INTERVAL_RUNS) return "Band: from the least to the most of the runs.";
	return "Band: 95 % interval of the mean (Student's t) over the runs; of fewer than five runs from the least to the most.";
}

int sweep_figure_learning(struct page *page, const struct report_sweep *sweep, bool evals, const char *key, double factor,
                          const char *what, const char *y_label)
{
	struct plot p;
	int fewest = 0, most = 0;
	double top = 0;

	if (!has_curves(sweep, evals, key)) return 0;
	plot_open(&p, page->out, "step", y_label);
	plot_title(&p, "%s, mean over each variant's runs", what);
	if (factor == 100) plot_set(&p, "set format y '%%g %%%%'");
	for (int i = 0; i < sweep->n; i++) {
		const struct sweep_variant *v = &sweep->variants[i];
		struct series mean = {0}, low = {0}, high = {0};
		mean_curve(v, evals, key, factor, &mean, &low, &high);
		series_thin(&mean, 200);
		series_thin(&low, 200);
		series_thin(&high, 200);
		top = fmax(top, series_max(&high));
		if (v->n > 1 && sweep->n <= BANDS_MAX) {
			plot_band(&p, &low, &high, curve_color(i));
			fewest = fewest && fewest < v->n ? fewest : v->n;
			most = most > v->n ? most : v->n;
		}
		plot_curve(&p, &mean, curve_color(i), curve_mark(i), v->name);
		series_free(&mean);
		series_free(&low);
		series_free(&high);
	}
	if (top >= 10000) plot_set(&p, "set format y '%%.0s%%c'");
	return plot_close(&p, note_of_bands(fewest, most), page->err);
}
