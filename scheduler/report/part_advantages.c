/* part_advantages.c - what the estimators made of the rewards, and how much of it teaches something. */
#include <math.h>
#include <stdio.h>

#include "scheduler/report/report_page.h"

static const double ROUNDING = 1e-6; /* of a sum of floats */

static const float *advantages_of(const struct report_samples *s)
{
	return s->advantages;
}

static int figure_histogram(struct page *page)
{
	const struct report_samples *s = &page->runs[0].samples;
	double n = 0, above = 0, below = 0;
	char title[96] = "Advantages: their distribution around 0";

	for (int i = 0; i < s->n; i++) {
		n += isfinite(s->advantages[i]) != 0;
		above += s->advantages[i] > 0;
		below += s->advantages[i] < 0;
	}
	if (page->n_runs == 1 && n > 0)
		snprintf(title, sizeof title, "Advantages: %.0f %% above 0, %.0f %% below", 100 * above / n, 100 * below / n);
	return page_histogram(page, advantages_of, false, title, "advantage", "delivered samples with an advantage");
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
	double mean = n ? sum / n : (double)NAN, deviation = sqrt(fmax(0, squares / n - mean * mean));
	html_number(t, fabs(mean) < ROUNDING * deviation ? 0 : mean, "");
	html_number(t, n ? deviation : (double)NAN, "");
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
