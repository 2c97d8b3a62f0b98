/* report_page.h - the page and its parts: one file part_*.c each, which writes one section. */
#ifndef SCHEDULER_REPORT_REPORT_PAGE_H
#define SCHEDULER_REPORT_REPORT_PAGE_H

#include <stdio.h>

#include "scheduler/report/report_html.h"
#include "scheduler/report/report_plot.h"
#include "scheduler/report/report_run.h"
#include "scheduler/report/report_sweep.h"

struct page {
	FILE *out;
	const struct report_run *runs;
	int n_runs;
	const struct report_sweep *sweeps;
	int n_sweeps;
	struct err *err;
};

extern const char *const report_style[]; /* report_style.c: the lines of CSS, then NULL */

/* id: of the section, for links to it. */
void section_open(struct page *page, const char *id, const char *title, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void section_close(struct page *page);
/* What is not shown of a run, and why; run NULL: of all. */
void page_lack(struct page *page, const struct report_run *run, const char *format, ...) __attribute__((format(printf, 3, 4)));
void figures_open(struct page *page);
void figures_close(struct page *page);

/* A number of every step, a curve for each run. */
struct metric_figure {
	const char *key;   /* of metrics.jsonl */
	double factor;     /* that it is multiplied by; 100 for percent */
	const char *what, *unit, *y_label; /* "Mean reward", " %", what the axis shows */
	const char *note;  /* or NULL */
	bool from_zero, zero_is_none; /* the axis begins at 0; a 0 means that there was nothing */
	double most;       /* where the axis ends, 0: as the data do */
	bool of_rollouts;  /* a step that generated nothing, as all had been made before, says nothing of it */
};

int page_metric(struct page *page, const struct metric_figure *figure);
bool any_has(const struct page *page, const char *key);
/* The part of the title that tells begin and end. */
void plot_title_course(struct plot *p, const char *what, const char *unit, const struct page *page,
                       const struct series *series /* [n_runs] */);

/* Shares of the samples in bins of equal width, as the outline of a histogram; values that are not finite are left out. */
struct histogram {
	double low, width;
	int n_bins;
};
struct histogram histogram_of(const float *const *values, const int *n, int n_sets, bool whole);
struct series histogram_outline(const struct histogram *h, const float *values, int n);
/* Of a number of the delivered samples, a curve for each run; whole: it counts something.  share_of: whose share a bin has. */
int page_histogram(struct page *page, const float *(*values_of)(const struct report_samples *), bool whole, const char *title,
                   const char *x_label, const char *share_of);

/* 0, or err->code. */
int part_summary(struct page *page);
int part_reward(struct page *page);
int part_speed(struct page *page);
int part_lengths(struct page *page);
int part_acceptance(struct page *page);
int part_partials(struct page *page);
int part_ranks(struct page *page);
int part_time(struct page *page);
int part_advantages(struct page *page);
int part_trainer(struct page *page);
int part_config(struct page *page);
int part_sweeps(struct page *page);

#endif
