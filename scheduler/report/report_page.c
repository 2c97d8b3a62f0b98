/* report_page.c - what the parts share. */
#include "scheduler/report/report_page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BINS_MAX = 40, TITLE_RUNS_MAX = 3 };
static const double FLAT = 1e-3; /* a course that differs by less of its size is flat */

void section_open(struct page *page, const char *id, const char *title, const char *format, ...)
{
	va_list args;

	fprintf(page->out, "<section id=\"%s\" aria-labelledby=\"%s-title\">\n<h2 id=\"%s-title\">", id, id, id);
	html_text(page->out, title);
	fputs("</h2>\n<p class=\"lead\">", page->out);
	va_start(args, format);
	html_format_list(page->out, format, args);
	va_end(args);
	fputs("</p>\n", page->out);
}

void section_close(struct page *page)
{
	fputs("</section>\n\n", page->out);
}

void page_lack(struct page *page, const struct report_run *run, const char *format, ...)
{
	va_list args;

	fputs("<p class=\"absent\">", page->out);
	if (run) html_format(page->out, "%s: ", run->label);
	va_start(args, format);
	html_format_list(page->out, format, args);
	va_end(args);
	fputs(".</p>\n", page->out);
}

void figures_open(struct page *page)
{
	fputs("<div class=\"figures\">\n", page->out);
}

void figures_close(struct page *page)
{
	fputs("</div>\n", page->out);
}

bool any_has(const struct page *page, const char *key)
{
	for (int i = 0; i < page->n_runs; i++)
		if (table_has(&page->runs[i].steps, key)) return true;
	return false;
}

static bool is_constant(const struct series *s)
{
	for (int i = 1; i < s->n; i++)
		if (s->y[i] != s->y[0]) return false;
	return true;
}

void plot_title_course(struct plot *p, const char *what, const char *unit, const struct page *page,
                       const struct series *series)
{
	char text[1024] = "", a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX];
	size_t n = 0;

	if (page->n_runs == 1 && series->n > 1 && is_constant(series))
		plot_title(p, "%s: %s%s throughout", what, number_short(a, series->y[0]), unit);
	else if (page->n_runs == 1 && series->n > 1)
		plot_title(p, "%s: %s%s at the start, %s%s at the end", what, number_short(a, series_begin_mean(series)), unit,
		           number_short(b, series_end_mean(series)), unit);
	else if (page->n_runs == 1 && series->n == 1)
		plot_title(p, "%s: %s%s in the only step", what, number_short(a, series->y[0]), unit);
	else if (page->n_runs > 1 && page->n_runs <= TITLE_RUNS_MAX) {
		for (int i = 0; i < page->n_runs && n < sizeof text - 1; i++)
			n += (size_t)snprintf(text + n, sizeof text - n, "%s%s%s", i ? " / " : "",
			                      series[i].n ? number_short(a, series_end_mean(&series[i])) : "none", series[i].n ? unit : "");
		plot_title(p, "%s: %s at the end", what, text);
	} else plot_title(p, "%s by step", what);
	plot_alt(p, "Line plot of %s%s by step for %d run%s. %s", what, *unit ? " in" : "", page->n_runs,
	         page->n_runs > 1 ? "s" : "", p->title);
}

static struct series metric_of(const struct report_run *run, const struct metric_figure *f)
{
	struct series s = {0};

	for (int row = 0; row < run->steps.n_rows; row++) {
		double value = f->factor * table_value(&run->steps, row, f->key);
		bool none = (f->zero_is_none && value == 0) || (f->of_rollouts && table_value(&run->steps, row, "rollout/tokens") == 0);
		if (!none) series_add(&s, table_value(&run->steps, row, "step"), value);
	}
	return s;
}

int page_metric(struct page *page, const struct metric_figure *f)
{
	struct series *series = xcalloc((size_t)page->n_runs, sizeof *series);
	struct plot p;
	double max = 0, least = HUGE_VAL, most = -HUGE_VAL;

	plot_open(&p, page->out, "step", f->y_label);
	for (int i = 0; i < page->n_runs; i++) {
		series[i] = metric_of(&page->runs[i], f);
		max = fmax(max, series_max(&series[i]));
		for (int k = 0; k < series[i].n; k++) {
			least = fmin(least, series[i].y[k]);
			most = fmax(most, series[i].y[k]);
		}
	}
	plot_title_course(&p, f->what, f->unit, page, series);
	double size = fmax(fabs(least), fabs(most));
	bool flat = most > least && most - least < FLAT * size; /* tics would have more digits than they show */
	if (f->most > 0) plot_set(&p, "set yrange [0:%g]", f->most);
	else if (f->from_zero) plot_set(&p, "set yrange [0:%s]", max > 0 ? "*" : "1");
	else if (flat) plot_set(&p, "set yrange [%.9g:%.9g]", (least + most) / 2 - FLAT * size, (least + most) / 2 + FLAT * size);
	if (f->factor == 100) plot_set(&p, "set format y '%%g %%%%'");
	if (f->from_zero && max >= 10000) plot_set(&p, "set format y '%%.0s%%c'");
	for (int i = 0; i < page->n_runs; i++)
		plot_curve(&p, &series[i], curve_color(i), curve_mark(i), page->n_runs > 1 ? page->runs[i].label : NULL);
	for (int i = 0; i < page->n_runs; i++) series_free(&series[i]);
	free(series);
	return plot_close(&p, f->note, page->err);
}

/* ---- histograms ---- */

struct histogram histogram_of(const float *const *values, const int *n, int n_sets, bool whole)
{
	double low = HUGE_VAL, high = -HUGE_VAL;

	for (int s = 0; s < n_sets; s++)
		for (int i = 0; i < n[s]; i++) {
			double value = (double)values[s][i];
			if (!isfinite(value)) continue;
			low = fmin(low, value);
			high = fmax(high, value);
		}
	if (!(low <= high)) return (struct histogram){0};
	if (whole) {
		double width = ceil((high + 1) / BINS_MAX);
		return (struct histogram){ .low = 0, .width = width, .n_bins = (int)(high / width) + 1 };
	}
	double reach = fmax(fabs(low), fabs(high)) > 0 ? fmax(fabs(low), fabs(high)) : 1;
	return (struct histogram){ .low = -reach - reach / BINS_MAX, .width = 2 * reach / BINS_MAX, .n_bins = BINS_MAX + 1 };
}

struct series histogram_outline(const struct histogram *h, const float *values, int n)
{
	double *count = xcalloc((size_t)h->n_bins + 1, sizeof *count);
	struct series s = {0};
	int known = 0;

	for (int i = 0; i < n && h->n_bins > 0; i++) {
		if (!isfinite((double)values[i])) continue;
		int bin = (int)floor(((double)values[i] - h->low) / h->width);
		count[bin < 0 ? 0 : bin >= h->n_bins ? h->n_bins - 1 : bin]++;
		known++;
	}
	for (int b = 0; b < h->n_bins && known; b++) {
		if (b == 0) series_add(&s, h->low, 0);
		series_add(&s, h->low + b * h->width, 100 * count[b] / known);
		series_add(&s, h->low + (b + 1) * h->width, 100 * count[b] / known);
		if (b == h->n_bins - 1) series_add(&s, h->low + (b + 1) * h->width, 0);
	}
	free(count);
	return s;
}

int page_histogram(struct page *page, const float *(*values_of)(const struct report_samples *), bool whole, const char *title,
                   const char *x_label, const char *share_of)
{
	const float **values = xcalloc((size_t)page->n_runs, sizeof *values);
	int *n = xcalloc((size_t)page->n_runs, sizeof *n);
	char y_label[128], width[NUMBER_TEXT_MAX];
	struct plot p;

	for (int i = 0; i < page->n_runs; i++) {
		values[i] = values_of(&page->runs[i].samples);
		n[i] = page->runs[i].samples.n;
	}
	struct histogram h = histogram_of(values, n, page->n_runs, whole);
	snprintf(y_label, sizeof y_label, "%s, %%, in bins of %s", share_of, number_short(width, h.width));
	plot_open(&p, page->out, x_label, y_label);
	plot_title(&p, "%s", title);
	plot_alt(&p, "Histogram: %s, from %g to %g. %s", x_label, h.low, h.low + h.n_bins * h.width, title);
	plot_set(&p, "set yrange [0:*]\nset format y '%%g %%%%'");
	if (whole) plot_set(&p, "set xrange [0:%g]", h.n_bins * h.width);
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
