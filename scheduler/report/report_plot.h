/* report_plot.h - one figure: a title that says what one sees, a legend, the plot as inline SVG in a wide and a narrow
 * form, drawn by gnuplot.
 *
 * gnuplot sees numbers and words of this program alone: names that come from files are set into the finished SVG
 * (plot_word), for gnuplot runs what stands in backquotes.  Colours are CSS variables, so that one SVG serves light
 * and dark.
 */
#ifndef SCHEDULER_REPORT_REPORT_PLOT_H
#define SCHEDULER_REPORT_REPORT_PLOT_H

#include <stdio.h>

#include "configs/err.h"
#include "scheduler/report/report_series.h"

/* Colours by what they stand for: curves (report_style.c: --s0 ...), and areas of kinds (--k0 ...). */
enum { COLOR_CURVES = 8, COLOR_KIND = 16, COLOR_KINDS = 9, COLOR_TEXT = 32 };
enum plot_mark { MARK_LINE, MARK_DASHED, MARK_DOTTED, MARK_POINT, MARK_AREA };

struct plot_entry {
	char *text;
	int color;
	enum plot_mark mark;
};

struct plot {
	FILE *page, *blocks, *settings, *clauses;
	char *title, *alt, *block_text, *setting_text, *clause_text, **words, **short_words;
	size_t block_n, setting_n, clause_n;
	const char *x_label, *y_label; /* with units; plain words */
	bool full;                     /* as wide as the page, else half of it */
	int height;                    /* of the wide form; 0: usual */
	int margin, narrow_margin;     /* characters left of the axis; 0: as gnuplot needs */
	double x_tics, x_tics_narrow;  /* from one to the next; 0: as gnuplot likes */
	const char *narrow_note;       /* below the narrow form alone; NULL: none */
	struct plot_entry *entries;
	int n_entries, n_words, n_blocks, n_drawn;
	double x_low, x_high;          /* of curves */
};

/* Curve i of several: its colour, and a line style that tells it from those of the same colour. */
int curve_color(int i);
enum plot_mark curve_mark(int i);

void plot_open(struct plot *p, FILE *page, const char *x_label, const char *y_label);
/* The figure's heading, and one sentence for those who do not see the plot (none: the heading). */
void plot_title(struct plot *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void plot_alt(struct plot *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line of gnuplot settings; nothing from files. */
void plot_set(struct plot *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Text that is put in place of the result when all is drawn; for plot_set.  At most n_max characters of it in the wide
 * form, `narrow` in the other. */
const char *plot_word(struct plot *p, const char *text, int n_max, const char *narrow, char word[16]);
void plot_legend(struct plot *p, int color, enum plot_mark mark, const char *text);

/* Adds nothing where s is empty; legend NULL: none. */
void plot_curve(struct plot *p, const struct series *s, int color, enum plot_mark mark, const char *legend);
void plot_steps(struct plot *p, const struct series *s, int color, enum plot_mark mark, const char *legend);
/* Between low and high, which have the same x. */
void plot_band(struct plot *p, const struct series *low, const struct series *high, int color);
/* n rectangles {x0, x1, y0, y1}. */
void plot_boxes(struct plot *p, const double (*box)[4], int n, int color, const char *legend);
/* Draws, writes the figure and frees; nothing was added: says so in the figure's place. */
int plot_close(struct plot *p, const char *note, struct err *err);

/* ERR_MISSING with what to do where gnuplot is not installed. */
int gnuplot_find(struct err *err);
/* What gnuplot writes for the script; owned by the caller.  ERR_UNSUPPORTED: it does not take the script; ERR_IO: it
 * could not be run. */
int gnuplot_run(const char *script, size_t n, char **output, struct err *err);

#endif
