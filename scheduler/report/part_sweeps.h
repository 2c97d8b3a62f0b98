/* part_sweeps.h - a sweep's section: its tables (part_sweeps.c) and figures (part_sweep_figures.c). */
#ifndef SCHEDULER_REPORT_PART_SWEEPS_H
#define SCHEDULER_REPORT_PART_SWEEPS_H

#include "scheduler/report/report_page.h"

/* A number of summary.json in words, the key itself where there are none for it; and what its axis says, never from a file. */
const char *metric_words(const char *metric);
const char *metric_axis(const char *metric);

/* 0, or err->code.  Nothing is written where the runs have none of it. */
int sweep_figure_points(struct page *page, const struct report_sweep *sweep);
int sweep_figures_axes(struct page *page, const struct report_sweep *sweep);
/* A number of every step (or evaluation), the mean over each variant's runs, times factor. */
int sweep_figure_learning(struct page *page, const struct report_sweep *sweep, bool evals, const char *key, double factor,
                          const char *what, const char *y_label);

#endif
