/* part_time.c - where time went: of the ranks' threads by kind of work, and of a step from the trainer's side. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "scheduler/report/report_page.h"

enum { BUCKETS_MAX = 64 };

/* Seconds of all ranks by kind in rows [from, to) of the run's steps; false: metrics do not tell the total. */
static bool step_seconds(const struct report_run *run, int from, int to, double seconds[TIME_COUNT])
{
	static const char *const keys[TIME_COUNT] = {
		[TIME_PREFILL] = "timing_s/prefill", [TIME_DRAFT] = "timing_s/draft", [TIME_VERIFY] = "timing_s/verify",
		[TIME_SAMPLING] = "timing_s/sample", [TIME_RESCORE] = "timing_s/rescore", [TIME_REWARD] = "timing_s/reward",
		[TIME_WEIGHTS] = "timing_s/ranks_weights", [TIME_WAIT] = "timing_s/ranks_wait",
	};
	double total = 0, known = 0;

	for (int k = 0; k < TIME_COUNT; k++) seconds[k] = 0;
	for (int row = from; row < to; row++) {
		double all = table_value(&run->steps, row, "timing_s/ranks_total");
		total += isfinite(all) ? all : 0;
		for (int k = 0; k < TIME_COUNT; k++) {
			double value = keys[k] ? table_value(&run->steps, row, keys[k]) : 0;
			if (!isfinite(value)) continue;
			seconds[k] += value;
			known += value;
		}
	}
	seconds[TIME_OTHER] = fmax(0, total - known);
	return total > 0;
}

/* The whole run: by the timeline, which knows what came after the last step too, or else by the steps. */
static bool run_seconds(const struct report_run *run, double seconds[TIME_COUNT])
{
	double total = 0;

	for (int k = 0; k < TIME_COUNT; k++) seconds[k] = 0;
	for (int r = 0; r < run->timeline.n_ranks; r++)
		for (int k = 0; k < TIME_COUNT; k++) total += seconds[k] += run->timeline.ranks[r].seconds[k];
	return total > 0 || step_seconds(run, 0, run->steps.n_rows, seconds);
}

static double sum_of(const double seconds[TIME_COUNT])
{
	double sum = 0;
	for (int k = 0; k < TIME_COUNT; k++) sum += seconds[k];
	return sum;
}

/* One bar a run, 100 % wide. */
static int figure_shares(struct page *page)
{
	double (*box)[TIME_COUNT][4] = xcalloc((size_t)page->n_runs, sizeof *box), seconds[TIME_COUNT];
	int n = 0;
	char word[16];
	struct plot p;

	plot_open(&p, page->out, "share of the ranks' time, %", "");
	p.full = true;
	p.margin = page->n_runs > 1 ? 22 : 4;
	p.narrow_margin = 4;
	plot_set(&p, "set xrange [0:100]\nunset grid\n%s", page->n_runs > 1 ? "set ytics () scale 0" : "unset ytics");
	for (int i = 0; i < page->n_runs; i++) {
		if (!run_seconds(&page->runs[i], seconds)) continue;
		double at = 0, total = sum_of(seconds);
		for (int k = 0; k < TIME_COUNT; k++) {
			box[n][k][0] = at;
			at += 100 * seconds[k] / total;
			box[n][k][1] = at;
			box[n][k][2] = n + 0.66;
			box[n][k][3] = n + 1.34;
		}
		n++;
		char number[16];
		snprintf(number, sizeof number, "%d", i + 1);
		if (page->n_runs > 1) plot_set(&p, "set ytics add ('%s' %d)", plot_word(&p, page->runs[i].label, 20, number, word), n);
		if (page->n_runs == 1)
			plot_title(&p, "Ranks spend %.0f %% of their time in the target's calls, %.0f %% drafting, %.0f %% waiting",
			           100 * (seconds[TIME_VERIFY] + seconds[TIME_PREFILL]) / total, 100 * seconds[TIME_DRAFT] / total,
			           100 * seconds[TIME_WAIT] / total);
	}
	if (page->n_runs > 1) plot_title(&p, "What the ranks' time went to");
	p.height = 72 + 38 * n;
	plot_set(&p, "set yrange [%g:0.5]", n + 0.5);
	for (int k = 0; k < TIME_COUNT; k++) {
		double (*boxes)[4] = xcalloc((size_t)n + 1, sizeof *boxes);
		int kept = 0;
		for (int i = 0; i < n; i++)
			if (box[i][k][1] - box[i][k][0] > 0.05) {
				for (int c = 0; c < 4; c++) boxes[kept][c] = box[i][k][c];
				kept++;
			}
		plot_boxes(&p, (const double (*)[4])boxes, kept, COLOR_KIND + k, time_kind_name((enum time_kind)k));
		free(boxes);
	}
	free(box);
	return plot_close(&p, page->n_runs > 1 ?
	                  "verify: the target's calls, with drafts or without. other: messages, planning, bookkeeping. On narrow screens runs have "
	                  "numbers, in the order of the list above." :
	                  "verify: the target's calls, with drafts or without. other: messages, planning, bookkeeping.", page->err);
}

/* Stacked shares over the steps of one run. */
static int figure_over_steps(struct page *page, const struct report_run *run)
{
	int n = run->steps.n_rows < BUCKETS_MAX ? run->steps.n_rows : BUCKETS_MAX;
	double (*box)[TIME_COUNT][4] = xcalloc((size_t)n, sizeof *box), (*boxes)[4] = xcalloc((size_t)n, sizeof *boxes), seconds[TIME_COUNT];
	struct plot p;

	plot_open(&p, page->out, "step", "share of the ranks' time while the step was generated, %");
	plot_title(&p, "%s%s of the ranks' time by step", page->n_runs > 1 ? run->label : "Shares", page->n_runs > 1 ? ": shares" : "");
	plot_set(&p, "set yrange [0:100]\nset format y '%%g %%%%'\nunset grid");
	for (int b = 0; b < n; b++) {
		int from = (int)((long)run->steps.n_rows * b / n), to = (int)((long)run->steps.n_rows * (b + 1) / n);
		double at = 0, x0 = table_value(&run->steps, from, "step") - 0.5, x1 = table_value(&run->steps, to - 1, "step") + 0.5;
		double total = step_seconds(run, from, to, seconds) ? sum_of(seconds) : HUGE_VAL;
		for (int k = 0; k < TIME_COUNT; k++) {
			double high = at + 100 * seconds[k] / total;
			box[b][k][0] = x0;
			box[b][k][1] = x1;
			box[b][k][2] = at;
			box[b][k][3] = at = high;
		}
		if (b == 0) plot_set(&p, "set xrange [%g:]", x0);
		if (b == n - 1) plot_set(&p, "set xrange [:%g]", x1);
	}
	for (int k = 0; k < TIME_COUNT; k++) {
		int kept = 0;
		for (int b = 0; b < n; b++)
			if (box[b][k][3] - box[b][k][2] > 0.05) {
				for (int c = 0; c < 4; c++) boxes[kept][c] = box[b][k][c];
				kept++;
			}
		plot_boxes(&p, (const double (*)[4])boxes, kept, COLOR_KIND + k, time_kind_name((enum time_kind)k));
	}
	free(box);
	free(boxes);
	return plot_close(&p, NULL, page->err);
}

static int figure_step(struct page *page, const struct report_run *run)
{
	static const struct { const char *key, *legend; } lines[] = {
		{ "perf/rollout_time", "rollouts" }, { "timing_s/train", "training" }, { "timing_s/update_weights", "weights to the ranks" },
		{ "timing_s/stop", "end of the step, of the rollouts" } };
	struct plot p;

	plot_open(&p, page->out, "step", "seconds");
	plot_set(&p, "set yrange [0:*]");
	for (int k = 0; k < 4; k++) {
		struct series s = table_series(&run->steps, "step", lines[k].key, 1);
		plot_curve(&p, &s, k, (enum plot_mark)(k % 3), lines[k].legend);
		series_free(&s);
	}
	double n = run->steps.n_rows, rollout = table_sum(&run->steps, lines[0].key), train = table_sum(&run->steps, lines[1].key);
	plot_title(&p, "%s: %.2g s of rollouts and %.2g s of training on average", page->n_runs > 1 ? run->label : "A step",
	           rollout / n, train / n);
	return plot_close(&p, NULL, page->err);
}

static void table_shares(struct page *page)
{
	double (*seconds)[TIME_COUNT] = xcalloc((size_t)page->n_runs, sizeof *seconds);
	struct html_table t;

	html_table_open(&t, page->out, "Time of the ranks' threads by kind, sums over ranks");
	html_column(&t, "kind");
	for (int i = 0; i < page->n_runs; i++) {
		run_seconds(&page->runs[i], seconds[i]);
		html_column(&t, "%s: seconds", page->runs[i].label);
		html_column(&t, "share");
	}
	for (int k = 0; k < TIME_COUNT; k++) {
		html_row(&t, "%s", time_kind_name((enum time_kind)k));
		for (int i = 0; i < page->n_runs; i++) {
			double total = sum_of(seconds[i]);
			html_number(&t, total > 0 ? seconds[i][k] : (double)NAN, "");
			if (total > 0) html_cell(&t, "%.1f %%", 100 * seconds[i][k] / total);
			else html_number(&t, (double)NAN, "");
		}
	}
	html_table_close(&t);
	free(seconds);
}

int part_time(struct page *page)
{
	double seconds[TIME_COUNT];
	bool any = false;
	int code = 0;

	section_open(page, "time", "Where time goes", "Of the ranks' threads: prefill of prompts, drafting, verification by the target, sampling, "
	             "rewards, taking in weights, and waiting. Below, a step as the loop with the trainer sees it.");
	for (int i = 0; i < page->n_runs; i++) {
		if (run_seconds(&page->runs[i], seconds)) any = true;
		else page_lack(page, &page->runs[i], "no split of the ranks' time: neither timeline.jsonl nor metrics.jsonl tells how long ranks waited "
		               "(an older run)");
	}
	figures_open(page);
	if (any) code = figure_shares(page);
	for (int i = 0; i < page->n_runs && !code; i++)
		if (page->runs[i].steps.n_rows && step_seconds(&page->runs[i], 0, page->runs[i].steps.n_rows, seconds))
			code = figure_over_steps(page, &page->runs[i]);
	for (int i = 0; i < page->n_runs && !code; i++)
		if (table_has(&page->runs[i].steps, "perf/rollout_time")) code = figure_step(page, &page->runs[i]);
	figures_close(page);
	if (any && !code) table_shares(page);
	section_close(page);
	return code;
}
