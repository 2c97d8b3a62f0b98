/* part_ranks.c - who idles when: a row for each rank, filled as far as it was at work. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "scheduler/report/report_page.h"

enum { ROWS_MAX = 48, COLUMNS_MAX = 160, CELLS_MAX = 2000, TABLE_RANKS_MAX = 200 };
enum { FILL_WORK, FILL_WEIGHTS, FILL_LOST, FILL_WAIT, FILLS };
static const struct { const char *name; int color; } fills[FILLS] = {
	{ "at work on samples", COLOR_KIND + 2 }, { "weights", COLOR_KIND + 6 }, { "lost", 6 }, { "waiting", COLOR_KIND + 8 } };

struct boxes {
	double (*box)[4];
	int n, capacity;
};

static void add_box(struct boxes *b, double x0, double x1, double y0, double y1)
{
	if (!(y1 - y0 > 0.004) || !(x1 > x0)) return;
	double (*last)[4] = b->n ? &b->box[b->n - 1] : NULL;
	if (last && (*last)[1] >= x0 - 1e-9 && fabs((*last)[2] - y0) < 1e-3 && fabs((*last)[3] - y1) < 1e-3) {
		(*last)[1] = x1;
		return;
	}
	if (b->n == b->capacity) {
		b->capacity = b->capacity ? 2 * b->capacity : 64;
		b->box = xrealloc(b->box, (size_t)b->capacity * sizeof *b->box);
	}
	double *box = b->box[b->n++];
	box[0] = x0;
	box[1] = x1;
	box[2] = y0;
	box[3] = y1;
}

/* Shares of [n] equal times of the run, by fill; what no line tells of is lost time only where the rank was lost. */
static void cells_of(const struct rank_line *r, double end, int n, double (*share)[FILLS])
{
	double width = end / n;

	for (int k = 0; k < r->n; k++) {
		const struct rank_point *p = &r->points[k];
		double from = p->t - p->interval;
		for (int c = (int)(from / width); c <= (int)(p->t / width) && c < n; c++) {
			double part = (fmin(p->t, (c + 1) * width) - fmax(from, c * width)) / width;
			if (!(part > 0)) continue;
			if (p->state == RANK_LOST) share[c][FILL_LOST] += part;
			else {
				share[c][FILL_WORK] += part * (double)p->work;
				share[c][FILL_WEIGHTS] += part * (double)p->weights;
				share[c][FILL_WAIT] += part * (1 - (double)p->work - (double)p->weights);
			}
		}
	}
}

static void draw_row(struct boxes boxes[FILLS], const struct rank_line *r, double end, int columns, double y)
{
	double (*share)[FILLS] = xcalloc((size_t)columns, sizeof *share);

	cells_of(r, end, columns, share);
	for (int c = 0; c < columns; c++) {
		double low = y - 0.4, x = c * end / columns;
		for (int f = 0; f < FILLS; f++) {
			double high = fmin(y + 0.4, low + 0.8 * share[c][f]);
			add_box(&boxes[f], x, x + end / columns, low, high);
			low = high;
		}
	}
	free(share);
}

static int figure_ranks(struct page *page, const struct report_run *run)
{
	const struct report_timeline *t = &run->timeline;
	int rows = t->n_ranks < ROWS_MAX ? t->n_ranks : ROWS_MAX, columns = CELLS_MAX / rows;
	struct boxes boxes[FILLS] = {{0}};
	double work = 0, all = 0;
	struct plot p;

	columns = columns > COLUMNS_MAX ? COLUMNS_MAX : columns;
	plot_open(&p, page->out, "seconds since the run began", "a row is a rank; filled from below by what its time went to");
	p.full = true;
	p.height = 76 + (rows < 6 ? 34 : rows < 16 ? 24 : 16) * rows;
	plot_set(&p, "set yrange [%g:0.4]\nset xrange [0:%.6g]\nunset grid\nset ytics scale 0", rows + 0.6, t->end);
	plot_set(&p, "set ytics ()");
	for (int i = 0; i < rows; i++) {
		const struct rank_line *r = &t->ranks[(long)i * t->n_ranks / rows];
		plot_set(&p, "set ytics add ('%d' %d)", r->rank, i + 1);
		draw_row(boxes, r, t->end, columns, i + 1);
	}
	/* The axis points down: mirror each box so that it is filled from its lower edge. */
	for (int f = 0; f < FILLS; f++) {
		for (int i = 0; i < boxes[f].n; i++) {
			double *b = boxes[f].box[i], row = floor(b[2] + 0.5), low = b[2];
			b[2] = 2 * row - b[3];
			b[3] = 2 * row - low;
		}
		plot_boxes(&p, (const double (*)[4])boxes[f].box, boxes[f].n, fills[f].color, fills[f].name);
		free(boxes[f].box);
	}
	for (int r = 0; r < t->n_ranks; r++)
		for (int k = 0; k < t->ranks[r].n; k++) {
			work += t->ranks[r].points[k].interval * (double)t->ranks[r].points[k].work;
			all += t->ranks[r].points[k].interval;
		}
	plot_title(&p, "%s: at work %.0f %% of the time", page->n_runs > 1 ? run->label : "Ranks",
	           all > 0 ? 100 * work / all : 0);
	plot_alt(&p, "Timeline of %d ranks over %.0f seconds: at work, taking weights, lost, waiting", t->n_ranks, t->end);
	char note[160];
	snprintf(note, sizeof note, "%d of %d ranks, evenly chosen.", rows, t->n_ranks);
	return plot_close(&p, rows < t->n_ranks ? note : NULL, page->err);
}

static void table_ranks(struct page *page)
{
	static const char *const columns[] = { "rank", "tokens", "tokens/s", "at work", "weights", "waiting", "lost", "mean active sessions",
	                                       "most queued", "KV cache, most used" };
	struct html_table t;

	html_table_open(&t, page->out, "Ranks");
	for (size_t k = 0; k < sizeof columns / sizeof *columns; k++) html_column(&t, "%s", columns[k]);
	for (int i = 0; i < page->n_runs; i++)
		for (int r = 0; r < page->runs[i].timeline.n_ranks && r < TABLE_RANKS_MAX; r++) {
			const struct rank_line *line = &page->runs[i].timeline.ranks[r];
			double work = 0, weights = 0, all = 0, active = 0, queued = 0, kv = 0;
			for (int k = 0; k < line->n; k++) {
				const struct rank_point *p = &line->points[k];
				all += p->interval;
				work += p->interval * (double)p->work;
				weights += p->interval * (double)p->weights;
				active += p->interval * p->active;
				queued = fmax(queued, p->queued);
				kv = fmax(kv, (double)p->kv_used);
			}
			double unit = all > 0 ? 1 / all : (double)NAN;
			if (page->n_runs > 1) html_row(&t, "%s, rank %d", page->runs[i].label, line->rank);
			else html_row(&t, "%d", line->rank);
			html_number(&t, line->tokens, "");
			html_number(&t, line->tokens * unit, "");
			html_cell(&t, "%.1f %%", 100 * work * unit);
			html_cell(&t, "%.1f %%", 100 * weights * unit);
			html_cell(&t, "%.1f %%", 100 * fmax(0, all - work - weights - line->lost) * unit);
			html_cell(&t, "%.1f %%", 100 * line->lost * unit);
			html_number(&t, active * unit, "");
			html_number(&t, queued, "");
			html_cell(&t, "%.1f %%", 100 * kv);
		}
	html_table_close(&t);
}

int part_ranks(struct page *page)
{
	bool any = false;
	int code = 0;

	section_open(page, "ranks", "Ranks over time", "Who idles when. A row shows one rank from the run's begin to its end; gaps are times of "
	             "which it told nothing.");
	figures_open(page);
	for (int i = 0; i < page->n_runs && !code; i++) {
		const struct report_timeline *t = &page->runs[i].timeline;
		if (t->n_ranks == 0 || !(t->end > 0)) continue;
		any = true;
		code = figure_ranks(page, &page->runs[i]);
	}
	figures_close(page);
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_timeline *t = &page->runs[i].timeline;
		if (t->absent[0]) page_lack(page, &page->runs[i], "no timeline of ranks: %s", t->absent);
		else if (t->bad_lines) page_lack(page, &page->runs[i], "%d unreadable lines of timeline.jsonl were left out", t->bad_lines);
	}
	if (any && !code) {
		fputs("<details open=\"open\"><summary>Every rank in figures</summary>\n", page->out);
		table_ranks(page);
		fputs("</details>\n", page->out);
	}
	section_close(page);
	return code;
}
