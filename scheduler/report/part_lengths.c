/* part_lengths.c - how long responses are, and above all how long the longest: the tail is what a step waits for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "scheduler/report/report_page.h"

static double *sorted_lengths(const struct report_samples *s)
{
	double *sorted = xmalloc((size_t)(s->n ? s->n : 1) * sizeof *sorted);
	for (int i = 0; i < s->n; i++) sorted[i] = (double)s->lengths[i];
	qsort(sorted, (size_t)s->n, sizeof *sorted, double_compare);
	return sorted;
}

static const float *lengths_of(const struct report_samples *s)
{
	return s->lengths;
}

static int figure_histogram(struct page *page)
{
	const struct report_samples *s = &page->runs[0].samples;
	char title[96] = "Lengths of responses";

	if (page->n_runs == 1 && s->n) {
		double *sorted = sorted_lengths(s);
		snprintf(title, sizeof title, "Lengths of responses: half have up to %.0f tokens", floor(quantile(sorted, s->n, 0.5)));
		free(sorted);
	}
	return page_histogram(page, lengths_of, true, title, "tokens of the response", "delivered samples");
}

/* Share of samples of at least x tokens. */
static struct series tail_of(const double *sorted, int n)
{
	struct series s = {0};
	int rank = n; /* samples from here to the longest */

	while (rank > 0) {
		series_add(&s, sorted[n - rank], 100.0 * rank / n);
		int next = (int)(rank * 0.96);
		while (next > 0 && next < rank && sorted[n - next] == sorted[n - rank]) next--;
		rank = next < rank ? next : rank - 1;
	}
	return s;
}

static int figure_tail(struct page *page)
{
	struct plot p;

	plot_open(&p, page->out, "tokens of the response, at least", "delivered samples, %, logarithmic");
	plot_set(&p, "set logscale y\nset format y '%%g %%%%'\nset xrange [0:*]");
	plot_title(&p, "The tail: how many responses are at least so long");
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_samples *samples = &page->runs[i].samples;
		double *sorted = sorted_lengths(samples);
		struct series s = tail_of(sorted, samples->n);
		if (samples->n && page->n_runs == 1)
			plot_title(&p, "The tail: 1 %% of the responses have %.0f tokens or more, the longest %.0f",
			           quantile(sorted, samples->n, 0.99), sorted[samples->n - 1]);
		plot_curve(&p, &s, curve_color(i), curve_mark(i), page->n_runs > 1 ? page->runs[i].label : NULL);
		series_free(&s);
		free(sorted);
	}
	return plot_close(&p, NULL, page->err);
}

/* One run: median, 90th percentile and longest of each step; several: the means. */
static int figure_course(struct page *page)
{
	static const struct metric_figure mean = { .key = "rollout/response_len/mean", .factor = 1, .what = "Mean length", .unit = "",
	                                           .y_label = "tokens of a delivered response, mean of the step", .from_zero = true };
	static const struct { const char *key, *legend; } lines[] = {
		{ "rollout/response_len/max", "longest" }, { "rollout/response_len/p90", "90th percentile" },
		{ "rollout/response_len/mean", "mean" }, { "rollout/response_len/median", "median" },
	};
	struct plot p;

	if (page->n_runs > 1) return page_metric(page, &mean);
	plot_open(&p, page->out, "step", "tokens of a delivered response");
	plot_set(&p, "set yrange [0:*]");
	for (int k = 0; k < 4; k++) {
		struct series s = table_series(&page->runs[0].steps, "step", lines[k].key, 1);
		if (k == 2) plot_title_course(&p, "Mean length", " tokens", page, &s);
		plot_curve(&p, &s, k, k == 0 ? MARK_DOTTED : k == 1 ? MARK_DASHED : MARK_LINE, lines[k].legend);
		series_free(&s);
	}
	return plot_close(&p, NULL, page->err);
}

static void table_quantiles(struct page *page)
{
	static const struct { double q; const char *name; } columns[] = {
		{ 0.5, "median" }, { 0.9, "90 %" }, { 0.99, "99 %" }, { 0.999, "99.9 %" }, { 1, "longest" } };
	struct html_table t;

	html_table_open(&t, page->out, "Lengths of delivered responses, in tokens");
	html_column(&t, "run");
	html_column(&t, "samples");
	html_column(&t, "mean");
	for (int k = 0; k < 5; k++) html_column(&t, "%s", columns[k].name);
	html_column(&t, "cut at the limit");
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_samples *s = &page->runs[i].samples;
		double *sorted = sorted_lengths(s), sum = 0;
		for (int k = 0; k < s->n; k++) sum += sorted[k];
		html_row(&t, "%s", page->runs[i].label);
		html_number(&t, s->n, "");
		html_number(&t, s->n ? sum / s->n : (double)NAN, "");
		for (int k = 0; k < 5; k++) html_number(&t, s->n ? round(quantile(sorted, s->n, columns[k].q)) : (double)NAN, "");
		html_number(&t, s->n ? 100.0 * s->truncated / s->n : (double)NAN, " %");
		free(sorted);
	}
	html_table_close(&t);
}

int part_lengths(struct page *page)
{
	bool any = false;
	int code = 0;

	section_open(page, "lengths", "Response lengths", "Of the samples that were delivered to the trainer. A synchronous step "
	             "waits for its longest response; the further the tail is from the median, the longer ranks idle.");
	for (int i = 0; i < page->n_runs; i++) {
		any = any || page->runs[i].samples.n;
		if (page->runs[i].samples.absent[0]) page_lack(page, &page->runs[i], "no histogram: %s", page->runs[i].samples.absent);
	}
	figures_open(page);
	if (any) code = figure_histogram(page);
	if (any && !code) code = figure_tail(page);
	if (!code && any_has(page, "rollout/response_len/mean")) code = figure_course(page);
	figures_close(page);
	if (any) table_quantiles(page);
	section_close(page);
	return code;
}
