/* part_partials.c - samples put aside and resumed, and how old what the trainer gets is. */
#include <math.h>
#include <stdlib.h>

#include "scheduler/report/report_page.h"

static int figure_moves(struct page *page)
{
	static const struct { const char *key, *legend; } lines[] = {
		{ "partial/put_aside", "put aside at the step's end" }, { "partial/resumed", "resumed" },
		{ "partial/migrated", "moved to another rank" }, { "staleness/cancelled_samples", "called back" } };
	static const struct metric_figure aside = { .key = "partial/put_aside", .factor = 1, .what = "Samples put aside", .unit = "",
	                                            .y_label = "unfinished samples at the end of the step", .from_zero = true };
	struct plot p;

	if (page->n_runs > 1) return page_metric(page, &aside);
	plot_open(&p, page->out, "step", "samples");
	plot_set(&p, "set yrange [0:*]");
	for (int k = 0; k < 4; k++) {
		struct series s = table_series(&page->runs[0].steps, "step", lines[k].key, 1);
		if (k == 0) plot_title_course(&p, "Samples put aside", "", page, &s);
		if (k < 2 || series_max(&s) > 0) plot_curve(&p, &s, k, (enum plot_mark)(k % 3), lines[k].legend);
		series_free(&s);
	}
	return plot_close(&p, NULL, page->err);
}

static int figure_staleness(struct page *page)
{
	static const struct metric_figure mean = { .key = "staleness/mean", .factor = 1, .what = "Mean staleness", .unit = "",
	                                           .y_label = "versions between a sample's oldest token and its batch", .from_zero = true };
	struct plot p;

	if (page->n_runs > 1) return page_metric(page, &mean);
	plot_open(&p, page->out, "step", "versions between a sample's oldest token and its batch");
	plot_set(&p, "set yrange [0:*]");
	struct series s = table_series(&page->runs[0].steps, "step", "staleness/mean", 1);
	struct series max = table_series(&page->runs[0].steps, "step", "staleness/max", 1);
	plot_title_course(&p, "Mean staleness", " versions", page, &s);
	if (!(series_max(&max) > 0)) plot_set(&p, "set yrange [0:1]");
	plot_curve(&p, &max, 1, MARK_DOTTED, "oldest of the batch");
	plot_curve(&p, &s, 0, MARK_LINE, "mean");
	series_free(&s);
	series_free(&max);
	return plot_close(&p, NULL, page->err);
}

enum { AGES = 6 };

static void table_ages(struct page *page)
{
	struct html_table t;

	html_table_open(&t, page->out, "Delivered samples by staleness (versions) and by times put aside");
	html_column(&t, "run");
	for (int k = 0; k < AGES; k++) html_column(&t, k == AGES - 1 ? "stale by %d or more" : "stale by %d", k);
	html_column(&t, "never put aside");
	html_column(&t, "once");
	html_column(&t, "more often");
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_samples *s = &page->runs[i].samples;
		double age[AGES] = {0}, times[3] = {0};
		for (int k = 0; k < s->n; k++) {
			int a = s->staleness[k], d = s->deferrals[k];
			age[a < 0 ? 0 : a < AGES ? a : AGES - 1]++;
			times[d < 0 ? 0 : d < 2 ? d : 2]++;
		}
		html_row(&t, "%s", page->runs[i].label);
		for (int k = 0; k < AGES; k++) html_number(&t, s->n ? 100 * age[k] / s->n : (double)NAN, " %");
		for (int k = 0; k < 3; k++) html_number(&t, s->n ? 100 * times[k] / s->n : (double)NAN, " %");
	}
	html_table_close(&t);
}

int part_partials(struct page *page)
{
	static const struct metric_figure figures[] = {
		{ .key = "off_policy_ratio", .factor = 100, .what = "Off-policy tokens", .unit = " %", .from_zero = true,
		  .y_label = "delivered tokens drawn under an older version, %" },
		{ .key = "rollout/length_bias", .factor = 1, .what = "Length bias", .unit = "", .from_zero = true,
		  .y_label = "mean length of what was delivered over that of all known samples",
		  .note = "Below 1 the batch has shorter responses than what is in flight." },
		{ .key = "rollout/recomputed_ratio", .factor = 100, .what = "Tokens computed again", .unit = " %", .from_zero = true,
		  .y_label = "tokens whose keys and values were computed again, % of those needed" },
	};
	bool any = false;
	int code = 0;

	section_open(page, "partials", "Partial rollouts and staleness", "Samples that were not finished when the step had what it "
	             "wanted are put aside and go on later. A sample's staleness is how many versions of the weights came between its oldest "
	             "token and the batch it left with.");
	for (int i = 0; i < page->n_runs; i++) any = any || page->runs[i].samples.n;
	if (!any_has(page, "partial/put_aside")) page_lack(page, NULL, "no step is on record");
	figures_open(page);
	if (any_has(page, "partial/put_aside")) code = figure_moves(page);
	if (!code && any_has(page, "staleness/mean")) code = figure_staleness(page);
	for (int k = 0; k < 3 && !code; k++)
		if (any_has(page, figures[k].key)) code = page_metric(page, &figures[k]);
	figures_close(page);
	if (any) table_ages(page);
	section_close(page);
	return code;
}
