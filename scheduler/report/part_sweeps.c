/* part_sweeps.c - a sweep: the table of its variants, a point for every run, curves over what is numeric, and learning
 * curves with their interval over seeds. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/report/report_page.h"

enum { NAME_SHOWN = 46, BANDS_MAX = 8 /* more would hide each other */ };

static void table_variants(struct page *page, const struct report_sweep *sweep)
{
	struct html_table t;

	html_table_open(&t, page->out, "%s by variant (%s is better)", sweep->metric, sweep->higher_is_better ? "higher" : "lower");
	html_column(&t, "variant");
	html_column(&t, "median");
	html_column(&t, "min to max");
	html_column(&t, "runs");
	html_column(&t, "failed");
	html_column(&t, "against");
	html_column(&t, "ratio");
	html_column(&t, "95 %% interval");
	html_column(&t, "difference");
	html_column(&t, "95 %% interval");
	for (int i = 0; i < sweep->n; i++) {
		const struct sweep_variant *v = &sweep->variants[i];
		struct sweep_statistics s;
		char a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX];
		sweep_statistics(&s, sweep, i);
		html_row(&t, "%d. %s", i + 1, v->name);
		html_number(&t, s.median, "");
		if (s.n) html_cell(&t, "%s to %s", number_text(a, s.min), number_text(b, s.max));
		else html_number(&t, s.min, "");
		html_number(&t, s.n, "");
		html_number(&t, s.failed, "");
		if (v->baseline >= 0 && v->baseline != i) html_cell(&t, "%d", v->baseline + 1);
		else html_cell(&t, "%s", v->baseline == i ? "baseline" : "nothing");
		if (isfinite(s.ratio) && v->baseline != i) {
			html_cell(&t, "%.3f", s.ratio);
			if (isfinite(s.ratio_low)) html_cell(&t, "%.3f to %.3f", s.ratio_low, s.ratio_high);
			else html_cell(&t, "one pair");
			html_cell(&t, "%s", number_short(a, s.difference));
			if (isfinite(s.difference_half))
				html_cell(&t, "%s to %s", number_short(a, s.difference - s.difference_half),
				          number_short(b, s.difference + s.difference_half));
			else html_cell(&t, "one pair");
		} else for (int k = 0; k < 4; k++) html_number(&t, (double)NAN, "");
	}
	html_table_close(&t);
	html_element(page->out, "p", "note", "Ratio and difference: geometric and arithmetic mean over pairs, a run and the baseline's of "
	             "the same repetition, with the 95 %% interval of Student's t. A ratio whose interval holds 1 may be chance.");
}

/* A row a variant, a point a run, a bar at the median. */
static int figure_points(struct page *page, const struct report_sweep *sweep)
{
	double (*bars)[4] = xcalloc((size_t)sweep->n, sizeof *bars), low = HUGE_VAL, high = -HUGE_VAL, best = (double)NAN;
	struct series points = {0};
	int n_bars = 0, winner = -1, longest = 4;
	struct sweep_statistics s;
	char word[16], text[NUMBER_TEXT_MAX];
	struct plot p;

	plot_open(&p, page->out, "", "a point is one run, the bar the median of its variant");
	p.x_label = "value of the sweep's metric";
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
	bool from_zero = low >= 0 && low < 0.5 * high;
	double span = from_zero ? high : high - low > 0 ? high - low : fmax(fabs(high), 1);
	if (points.n) plot_set(&p, "set xrange [%.6g:%.6g]", from_zero ? 0 : low - 0.06 * span, high + 0.06 * span);
	if (high >= 10000) plot_set(&p, "set format x '%%.0s%%c'");
	for (int i = 0; i < n_bars; i++) {
		bars[i][0] -= 0.002 * span;
		bars[i][1] += 0.002 * span;
	}
	p.margin = (longest < NAME_SHOWN ? longest : NAME_SHOWN) + 3;
	p.narrow_margin = 4;
	plot_boxes(&p, (const double (*)[4])bars, n_bars, 1, "median");
	plot_curve(&p, &points, 0, MARK_POINT, "one run");
	if (winner >= 0) plot_title(&p, "%s: best is %s with a median of %s", sweep->metric, sweep->variants[winner].name, number_short(text, best));
	else plot_title(&p, "%s", sweep->metric);
	series_free(&points);
	free(bars);
	return plot_close(&p, "On narrow screens variants have the numbers of the table.", page->err);
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
	struct plot p;

	plot_open(&p, page->out, "value of the option", "median, band from least to most");
	plot_title(&p, "%s over %s", sweep->metric, key);
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
	for (int r = 0; r < n_rests; r++) {
		draw_axis_curve(&p, sweep, key, rests[r], r);
		free(rests[r]);
	}
	free(rests);
	return plot_close(&p, NULL, page->err);
}

static int figures_axes(struct page *page, const struct report_sweep *sweep)
{
	const char *key;
	json_t *value;
	int code = 0;

	json_object_foreach(sweep->variants[0].set, key, value)
		if (!code && is_axis(sweep, key)) code = figure_axis(page, sweep, key);
	return code;
}

/* ---- learning curves ---- */

/* Mean over the variant's runs at each step, and the 95 % interval. */
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
		double step = table_value(first, row, "step"), centre;
		int n = 0;
		for (int i = 0; i < v->n; i++) {
			const struct report_table *t = evals ? &v->runs[i].evals : &v->runs[i].steps;
			int at = row < t->n_rows && table_value(t, row, "step") == step ? row : 0;
			while (at < t->n_rows && table_value(t, at, "step") != step) at++;
			double value = factor * table_value(t, at, key);
			if (isfinite(value)) values[n++] = value;
		}
		double half = mean_interval(values, n, &centre);
		series_add(mean, step, centre);
		series_add(low, step, isfinite(half) ? centre - half : centre);
		series_add(high, step, isfinite(half) ? centre + half : centre);
	}
	free(values);
}

static int figure_learning(struct page *page, const struct report_sweep *sweep, bool evals, const char *key, double factor,
                           const char *what, const char *y_label)
{
	struct plot p;
	bool bands = false;
	double top = 0;

	plot_open(&p, page->out, "step", y_label);
	plot_title(&p, "%s, mean over each variant's runs", what);
	if (factor == 100) plot_set(&p, "set format y '%%g %%%%'");
	for (int i = 0; i < sweep->n; i++) {
		struct series mean = {0}, low = {0}, high = {0};
		mean_curve(&sweep->variants[i], evals, key, factor, &mean, &low, &high);
		series_thin(&mean, 200);
		series_thin(&low, 200);
		series_thin(&high, 200);
		top = fmax(top, series_max(&mean));
		if (sweep->variants[i].n > 1 && sweep->n <= BANDS_MAX) {
			plot_band(&p, &low, &high, curve_color(i));
			bands = true;
		}
		plot_curve(&p, &mean, curve_color(i), curve_mark(i), sweep->variants[i].name);
		series_free(&mean);
		series_free(&low);
		series_free(&high);
	}
	if (top >= 10000) plot_set(&p, "set format y '%%.0s%%c'");
	return plot_close(&p, bands ? "Band: 95 % interval of the mean (Student's t) over the runs, where there are several." : NULL,
	                  page->err);
}

static bool has_curves(const struct report_sweep *sweep, bool evals, const char *key)
{
	for (int i = 0; i < sweep->n; i++)
		for (int k = 0; k < sweep->variants[i].n; k++) {
			const struct sweep_run *run = &sweep->variants[i].runs[k];
			if (table_has(evals ? &run->evals : &run->steps, key)) return true;
		}
	return false;
}

static void table_runs(struct page *page, const struct report_sweep *sweep)
{
	struct html_table t;

	html_table_open(&t, page->out, "Every run");
	html_column(&t, "variant");
	html_column(&t, "repetition");
	html_column(&t, "%s", sweep->metric);
	html_column(&t, "seconds");
	html_column(&t, "exit status");
	html_column(&t, "directory");
	for (int i = 0; i < sweep->n; i++)
		for (int k = 0; k < sweep->variants[i].n; k++) {
			const struct sweep_run *run = &sweep->variants[i].runs[k];
			html_row(&t, "%s", sweep->variants[i].name);
			html_number(&t, run->repetition, "");
			html_number(&t, run->value, "");
			html_number(&t, run->seconds, "");
			html_cell(&t, "%d", run->status);
			html_cell(&t, "%s", run->dir);
		}
	html_table_close(&t);
}

static int write_sweep(struct page *page, const struct report_sweep *sweep, int number)
{
	char id[32];
	int code = 0;

	snprintf(id, sizeof id, "sweep-%d", number);
	section_open(page, id, sweep->name, "A sweep of %d variants in %s, compared by %s.", sweep->n, sweep->dir, sweep->metric);
	if (sweep->command[0]) html_element(page->out, "p", "note", "Command: %s", sweep->command);
	if (sweep->machine[0]) html_element(page->out, "p", "note", "Machine: %s", sweep->machine);
	if (sweep->absent[0]) page_lack(page, NULL, "%s", sweep->absent);
	if (sweep->bad_lines) page_lack(page, NULL, "%d unreadable lines of results.jsonl were left out", sweep->bad_lines);
	if (sweep->n) {
		table_variants(page, sweep);
		figures_open(page);
		code = figure_points(page, sweep);
		if (!code) code = figures_axes(page, sweep);
		if (!code && has_curves(sweep, true, "eval/pass_rate"))
			code = figure_learning(page, sweep, true, "eval/pass_rate", 100, "Held-out pass rate", "held-out samples with the right answer, %");
		if (!code && has_curves(sweep, false, "reward/mean"))
			code = figure_learning(page, sweep, false, "reward/mean", 1, "Reward", "reward of completed samples, mean of the step");
		if (!code && has_curves(sweep, false, "perf/tokens_per_sec"))
			code = figure_learning(page, sweep, false, "perf/tokens_per_sec", 1, "Tokens/s while rolling out",
			                       "generated tokens per second of the step's rollouts");
		figures_close(page);
		fputs("<details><summary>Every run in figures</summary>\n", page->out);
		table_runs(page, sweep);
		fputs("</details>\n", page->out);
	}
	section_close(page);
	return code;
}

int part_sweeps(struct page *page)
{
	int code = 0;
	for (int i = 0; i < page->n_sweeps && !code; i++) code = write_sweep(page, &page->sweeps[i], i + 1);
	return code;
}
