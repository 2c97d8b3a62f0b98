/* part_advantages.c - what the estimators made of the rewards, and how much of it teaches something. */
#include <math.h>
#include <stdlib.h>

#include "scheduler/report/report_page.h"

static int figure_histogram(struct page *page)
{
	const float **values = xcalloc((size_t)page->n_runs, sizeof *values);
	int *n = xcalloc((size_t)page->n_runs, sizeof *n);
	struct plot p;

	plot_open(&p, page->out, "advantage", "delivered samples with an advantage, %");
	for (int i = 0; i < page->n_runs; i++) {
		values[i] = page->runs[i].samples.advantages;
		n[i] = page->runs[i].samples.n;
	}
	struct histogram h = histogram_of(values, n, page->n_runs, false);
	plot_title(&p, "Advantages: their distribution around 0");
	plot_alt(&p, "Histogram of advantages from %g to %g", h.low, h.low + h.n_bins * h.width);
	plot_set(&p, "set yrange [0:*]\nset format y '%%g %%%%'");
	for (int i = 0; i < page->n_runs; i++) {
		struct series s = histogram_outline(&h, values[i], n[i]), zero = {0};
		for (int k = 0; k < s.n; k++) series_add(&zero, s.x[k], 0);
		if (page->n_runs <= 2) plot_band(&p, &zero, &s, curve_color(i));
		plot_curve(&p, &s, curve_color(i), curve_mark(i), page->n_runs > 1 ? page->runs[i].label : NULL);
		series_free(&zero);
		series_free(&s);
	}
	free(values);
	free(n);
	return plot_close(&p, NULL, page->err);
}

static void row_of_run(struct html_table *t, const struct report_run *run)
{
	const struct report_samples *s = &run->samples;
	double sum = 0, squares = 0, above = 0, below = 0, least = (double)NAN, most = (double)NAN;
	int n = 0;

	for (int i = 0; i < s->n; i++) {
		double a = (double)s->advantages[i];
		if (!isfinite(a)) continue;
		n++;
		sum += a;
		squares += a * a;
		above += a > 0;
		below += a < 0;
		least = fmin(least, a);
		most = fmax(most, a);
	}
	html_row(t, "%s", run->label);
	html_number(t, n, "");
	html_number(t, n ? sum / n : (double)NAN, "");
	html_number(t, n ? sqrt(fmax(0, squares / n - sum / n * (sum / n))) : (double)NAN, "");
	html_number(t, least, "");
	html_number(t, most, "");
	html_number(t, n ? 100 * above / n : (double)NAN, " %");
	html_number(t, n ? 100 * below / n : (double)NAN, " %");
	html_number(t, n ? 100 * (n - above - below) / n : (double)NAN, " %");
	html_number(t, s->n ? 100.0 * s->pivots / s->n : (double)NAN, " %");
}

static void table_statistics(struct page *page)
{
	static const char *const columns[] = { "run", "samples", "mean", "standard deviation", "least", "most", "above 0", "below 0",
	                                       "exactly 0", "pivots (out of the loss)" };
	struct html_table t;

	html_table_open(&t, page->out, "Advantages of delivered samples");
	for (size_t k = 0; k < sizeof columns / sizeof *columns; k++) html_column(&t, "%s", columns[k]);
	for (int i = 0; i < page->n_runs; i++) row_of_run(&t, &page->runs[i]);
	html_table_close(&t);
}

int part_advantages(struct page *page)
{
	static const struct metric_figure figures[] = {
		{ .key = "advantage/abs_mean", .factor = 1, .what = "Mean size of advantages", .unit = "", .from_zero = true,
		  .y_label = "mean absolute advantage of delivered samples" },
		{ .key = "advantage/degenerate_frac", .factor = 100, .what = "Groups of one reward", .unit = " %", .from_zero = true,
		  .y_label = "completed groups whose rewards are all equal, %", .note = "They teach nothing; advantage.drop_degenerate replaces them." },
		{ .key = "advantage/mad_zero_frac", .factor = 100, .what = "Groups with MAD 0", .unit = " %", .from_zero = true,
		  .y_label = "completed groups whose median absolute deviation is 0, %",
		  .note = "There advantage.scale: auto divides by the standard deviation." },
	};
	bool any = false;
	int code = 0;

	section_open(page, "advantages", "Advantages", "How far samples were from the baseline of their group, after scaling: the "
	             "weight with which the trainer makes them more or less likely.");
	for (int i = 0; i < page->n_runs; i++) {
		const char *kind = run_setting(&page->runs[i], "advantage.estimator");
		any = any || page->runs[i].samples.n;
		if (page->runs[i].samples.absent[0]) page_lack(page, &page->runs[i], "no distribution: %s", page->runs[i].samples.absent);
		else if (kind) html_element(page->out, "p", "note", "%s: estimator %s, scale %s", page->runs[i].label, kind,
		                            run_setting(&page->runs[i], "advantage.scale") ? run_setting(&page->runs[i], "advantage.scale") : "?");
	}
	figures_open(page);
	if (any) code = figure_histogram(page);
	for (int k = 0; k < 3 && !code; k++)
		if (any_has(page, figures[k].key)) code = page_metric(page, &figures[k]);
	figures_close(page);
	if (any) table_statistics(page);
	section_close(page);
	return code;
}
