/* part_acceptance.c - what became of drafts: by place in the draft, and over time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "scheduler/report/report_page.h"

enum { SHOWN_POSITIONS = 4 };
static const int shown[SHOWN_POSITIONS] = { 0, 1, 3, 7 };

/* Drafted and accepted by position, of metrics.jsonl, as all shares here are, or else of the timeline, which has
 * evaluations too; returns the number of positions. */
static int positions_of(const struct report_run *run, struct position_counts *total)
{
	char name[80];
	int n = 0;

	*total = (struct position_counts){0};
	for (int i = 0; i < TIMELINE_POSITIONS; i++) {
		snprintf(name, sizeof name, "rollout/sd/drafted_by_position/%d", i);
		total->drafted[i] = table_sum(&run->steps, name);
		snprintf(name, sizeof name, "rollout/sd/accepted_by_position/%d", i);
		total->accepted[i] = table_sum(&run->steps, name);
		if (total->drafted[i] > 0) n = i + 1;
	}
	return n ? n : report_timeline_positions(&run->timeline, total);
}

static int figure_positions(struct page *page)
{
	struct position_counts total;
	struct plot p;
	double first = (double)NAN, last = (double)NAN;
	int n_most = 0;

	plot_open(&p, page->out, "position in the draft", "drafted tokens that were accepted, %");
	plot_set(&p, "set yrange [0:100]\nset format y '%%g %%%%'");
	for (int i = 0; i < page->n_runs; i++) {
		struct series s = {0};
		int n = positions_of(&page->runs[i], &total);
		for (int k = 0; k < n; k++) series_add(&s, k + 1, 100 * total.accepted[k] / total.drafted[k]);
		if (n > n_most) n_most = n;
		first = s.n ? s.y[0] : first;
		last = series_last(&s);
		plot_curve(&p, &s, curve_color(i), curve_mark(i), page->n_runs > 1 ? page->runs[i].label : NULL);
		plot_curve(&p, &s, curve_color(i), MARK_POINT, NULL);
		series_free(&s);
	}
	plot_set(&p, "set xrange [0.5:%g]", n_most + 0.5);
	if (page->n_runs == 1)
		plot_title(&p, "By position: %.1f %% of first drafted tokens stand, %.1f %% of those at place %d", first, last, n_most);
	else plot_title(&p, "Acceptance by position in the draft");
	return plot_close(&p, "Of the tokens drafted at a position: one is only reached by verification when all before it stood.", page->err);
}

/* Chosen positions over the steps, for one run. */
static int figure_over_time(struct page *page, const struct report_run *run)
{
	struct plot p;
	char name[80], legend[64];

	plot_open(&p, page->out, "step", "drafted tokens that were accepted, %");
	plot_set(&p, "set yrange [0:100]\nset format y '%%g %%%%'");
	plot_title(&p, "Acceptance by position over the steps");
	for (int k = 0; k < SHOWN_POSITIONS; k++) {
		struct series s = {0};
		for (int row = 0; row < run->steps.n_rows; row++) {
			snprintf(name, sizeof name, "rollout/sd/acceptance_by_position/%d", shown[k]);
			series_add(&s, table_value(&run->steps, row, "step"), 100 * table_value(&run->steps, row, name));
		}
		for (int i = 0; i < run->timeline.n_steps && s.n == 0; i++) {
			const struct position_counts *c = &run->timeline.by_step[i];
			if (c->drafted[shown[k]] > 0) series_add(&s, c->step, 100 * c->accepted[shown[k]] / c->drafted[shown[k]]);
		}
		snprintf(legend, sizeof legend, "position %d", shown[k] + 1);
		plot_curve(&p, &s, k, (enum plot_mark)(k % 3), legend);
		series_free(&s);
	}
	return plot_close(&p, NULL, page->err);
}

static void table_positions(struct page *page)
{
	struct position_counts *totals = xcalloc((size_t)page->n_runs, sizeof *totals);
	struct html_table t;
	int n_most = 0;

	html_table_open(&t, page->out, "Drafted tokens and the share accepted, by position");
	html_column(&t, "position");
	for (int i = 0; i < page->n_runs; i++) {
		int n = positions_of(&page->runs[i], &totals[i]);
		if (n > n_most) n_most = n;
		html_column(&t, "%s: drafted", page->runs[i].label);
		html_column(&t, "accepted");
	}
	for (int k = 0; k < n_most; k++) {
		html_row(&t, "%d", k + 1);
		for (int i = 0; i < page->n_runs; i++) {
			double drafted = totals[i].drafted[k];
			html_number(&t, drafted, "");
			html_number(&t, drafted > 0 ? 100 * totals[i].accepted[k] / drafted : (double)NAN, " %");
		}
	}
	html_table_close(&t);
	free(totals);
}

int part_acceptance(struct page *page)
{
	static const struct metric_figure figures[] = {
		{ .key = "rollout/sd/acceptance_rate", .factor = 100, .what = "Accepted drafts", .unit = " %", .most = 100, .zero_is_none = true,
		  .y_label = "drafted tokens that were accepted, %" },
		{ .key = "rollout/sd/draft_length/mean", .factor = 1, .what = "Draft length", .unit = "", .from_zero = true,
		  .y_label = "drafted tokens per sample and round, mean of the step" },
		{ .key = "rollout/sd/drafting_rounds_ratio", .factor = 100, .what = "Rounds with drafts", .unit = " %", .most = 100,
		  .y_label = "rounds of the engines in which anything was drafted, %",
		  .note = "Drafts are made only where they are expected to pay." },
	};
	struct position_counts total;
	bool drafted = false, positions = false;
	int code = 0;

	section_open(page, "speculation", "Speculation", "A draft is proposed by the quantized copy or by repeated text and verified by the "
	             "target; what is accepted is spared a call of the target. Draft lengths are chosen by what they are expected to gain.");
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_run *run = &page->runs[i];
		bool any = table_sum(&run->steps, "rollout/sd/total_draft_tokens") > 0;
		int n = positions_of(run, &total);
		drafted = drafted || any;
		positions = positions || n;
		if (!any && run->steps.n_rows) page_lack(page, run, "nothing was drafted (rollout.mode %s)",
		                                         run_setting(run, "rollout.mode") ? run_setting(run, "rollout.mode") : "unknown");
		else if (!n && run->steps.n_rows) page_lack(page, run, "no counts by position: neither timeline.jsonl nor metrics.jsonl has them "
		                                            "(an older run)");
		else if (!run->steps.n_rows) page_lack(page, run, "%s", run->steps_absent);
	}
	figures_open(page);
	if (positions) code = figure_positions(page);
	for (int i = 0; i < page->n_runs && positions && !code && page->n_runs == 1; i++) code = figure_over_time(page, &page->runs[i]);
	for (int k = 0; k < 3 && !code && drafted; k++)
		if (any_has(page, figures[k].key)) code = page_metric(page, &figures[k]);
	figures_close(page);
	if (positions && !code) {
		fputs("<details><summary>Every position in figures</summary>\n", page->out);
		table_positions(page);
		fputs("</details>\n", page->out);
	}
	section_close(page);
	return code;
}
