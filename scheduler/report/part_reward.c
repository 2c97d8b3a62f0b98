/* part_reward.c - does the policy learn: reward, pass rate in training and on held-out prompts. */
#include <math.h>
#include <stdlib.h>

#include "scheduler/report/report_page.h"

/* Held-out pass rates with the 95 % interval of their samples. */
static int figure_evals(struct page *page)
{
	struct series *series = xcalloc((size_t)page->n_runs, sizeof *series);
	struct plot p;

	plot_open(&p, page->out, "step", "held-out samples with the right answer, %");
	plot_set(&p, "set format y '%%g %%%%'");
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_table *evals = &page->runs[i].evals;
		struct series low = {0}, high = {0};
		series[i] = table_series(evals, "step", "eval/pass_rate", 100);
		for (int row = 0; row < evals->n_rows; row++) {
			double step = table_value(evals, row, "step"), a, b;
			share_interval(table_value(evals, row, "eval/pass_rate"), table_value(evals, row, "eval/samples"), &a, &b);
			series_add(&low, step, 100 * a);
			series_add(&high, step, 100 * b);
		}
		plot_band(&p, &low, &high, curve_color(i));
		plot_curve(&p, &series[i], curve_color(i), curve_mark(i), page->n_runs > 1 ? page->runs[i].label : NULL);
		plot_curve(&p, &series[i], curve_color(i), MARK_POINT, NULL);
		series_free(&low);
		series_free(&high);
	}
	plot_title_course(&p, "Held-out pass rate", " %", page, series);
	for (int i = 0; i < page->n_runs; i++) series_free(&series[i]);
	free(series);
	return plot_close(&p, "Band: 95 % interval (Wilson) for the number of samples drawn.", page->err);
}

static void table_evals(struct page *page)
{
	struct html_table t;

	html_table_open(&t, page->out, "Pass rate on held-out prompts");
	html_column(&t, "run and step");
	html_column(&t, "pass rate");
	html_column(&t, "95 %% interval");
	html_column(&t, "samples");
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_table *evals = &page->runs[i].evals;
		for (int row = 0; row < evals->n_rows; row++) {
			double rate = table_value(evals, row, "eval/pass_rate"), n = table_value(evals, row, "eval/samples"), low, high;
			share_interval(rate, n, &low, &high);
			if (page->n_runs > 1) html_row(&t, "%s, %g", page->runs[i].label, table_value(evals, row, "step"));
			else html_row(&t, "%g", table_value(evals, row, "step"));
			html_cell(&t, "%.1f %%", 100 * rate);
			html_cell(&t, "%.1f to %.1f %%", 100 * low, 100 * high);
			html_number(&t, n, "");
		}
	}
	html_table_close(&t);
}

int part_reward(struct page *page)
{
	static const struct metric_figure figures[] = {
		{ .key = "reward/mean", .factor = 1, .what = "Mean reward", .unit = "", .of_rollouts = true,
		  .y_label = "reward of completed samples, mean" },
		{ .key = "reward/pass_rate", .factor = 100, .what = "Training pass rate", .unit = " %", .most = 100, .of_rollouts = true,
		  .y_label = "completed samples with the right answer, %" },
	};
	int n_evals = 0, code = 0;

	section_open(page, "reward", "Reward and pass rate", "What the verifier said of the groups completed in each step, those "
	             "dropped by the filter included, and of held-out prompts.");
	for (int i = 0; i < page->n_runs; i++) {
		n_evals += page->runs[i].evals.n_rows;
		if (page->runs[i].steps_absent[0]) page_lack(page, &page->runs[i], "%s", page->runs[i].steps_absent);
		else if (page->runs[i].evals.n_rows == 0)
			page_lack(page, &page->runs[i], "no held-out pass rate: no evaluation was made (data.eval_prompts, eval.every)");
	}
	figures_open(page);
	if (n_evals) code = figure_evals(page);
	for (int k = 0; k < 2 && !code; k++)
		if (any_has(page, figures[k].key)) code = page_metric(page, &figures[k]);
	figures_close(page);
	if (n_evals && !code) {
		fputs("<details><summary>Every evaluation in figures</summary>\n", page->out);
		table_evals(page);
		fputs("</details>\n", page->out);
	}
	section_close(page);
	return code;
}
