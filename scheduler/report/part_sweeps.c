/* part_sweeps.c - a sweep: what it claims, the table of its variants, what else their runs took and brought, figures. */
#include "scheduler/report/part_sweeps.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CURVES_OPEN_MAX = 8 };

/* ---- numbers of summary.json in words ---- */

static const struct { const char *key, *words, *axis; } metrics[] = {
	{ "tokens_per_sec", "Tokens/s while rolling out", "generated tokens per second of rollouts" },
	{ "delivered_tokens_per_sec", "Delivered tokens/s", "response tokens delivered per second" },
	{ "trajectories_per_sec", "Delivered trajectories/s", "trajectories delivered per second" },
	{ "pass_rate_end", "Pass rate at the end", "share of held-out samples that are right" },
	{ "acceptance", "Acceptance of drafts", "share of drafted tokens accepted" },
	{ "rollout_step_seconds", "Seconds of a step's rollouts", "seconds of rollouts, mean of the steps" },
	{ "step_seconds", "Seconds of a step", "seconds of a step, mean of the run" },
	{ "seconds", "Seconds of the run", "seconds of the whole run" },
};
enum { N_METRICS = sizeof metrics / sizeof *metrics };

const char *metric_words(const char *metric)
{
	for (int i = 0; i < N_METRICS; i++)
		if (strcmp(metrics[i].key, metric) == 0) return metrics[i].words;
	return metric;
}

const char *metric_axis(const char *metric)
{
	for (int i = 0; i < N_METRICS; i++)
		if (strcmp(metrics[i].key, metric) == 0) return metrics[i].axis;
	return "value of the sweep's metric";
}

/* ---- tables ---- */

static void ratio_cells(struct html_table *t, const struct sweep_statistics *s)
{
	char a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX];

	html_cell(t, "%.3f", s->ratio);
	html_cell(t, "%.3f to %.3f", s->ratio_min, s->ratio_max);
	if (isfinite(s->ratio_low)) html_cell(t, "%.3f to %.3f", s->ratio_low, s->ratio_high);
	else html_cell(t, "one pair");
	number_short(a, s->difference);
	if (isfinite(s->difference_half)) html_cell(t, "%s \xc2\xb1 %s", a, number_short(b, s->difference_half));
	else html_cell(t, "%s", a);
}

static void table_variants(struct page *page, const struct report_sweep *sweep)
{
	static const char *const columns[] = { "variant", "median", "min to max", "runs", "against", "ratio", "min to max", "95 % interval",
	                                       "difference \xc2\xb1 95 %" };
	struct html_table t;

	html_table_open(&t, page->out, "%s by variant (%s is better)", sweep->metric, sweep->higher_is_better ? "higher" : "lower");
	for (size_t k = 0; k < sizeof columns / sizeof *columns; k++) html_column(&t, "%s", columns[k]);
	for (int i = 0; i < sweep->n; i++) {
		const struct sweep_variant *v = &sweep->variants[i];
		struct sweep_statistics s;
		char a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX];
		sweep_statistics(&s, sweep, i);
		html_row(&t, "%d. %s", i + 1, v->name);
		html_number(&t, s.median, "");
		if (s.n) html_cell(&t, "%s to %s", number_text(a, s.min), number_text(b, s.max));
		else html_number(&t, s.min, "");
		if (s.failed) html_cell(&t, "%d, %d failed", s.n, s.failed);
		else html_number(&t, s.n, "");
		if (v->baseline >= 0 && v->baseline != i) html_cell(&t, "%d", v->baseline + 1);
		else html_cell(&t, "%s", v->baseline == i ? "baseline" : "nothing");
		if (isfinite(s.ratio) && v->baseline != i) ratio_cells(&t, &s);
		else for (int k = 0; k < 4; k++) html_number(&t, (double)NAN, "");
	}
	html_table_close(&t);
	html_element(page->out, "p", "note", "Ratio and difference: geometric and arithmetic mean over pairs, a run and the baseline's of "
	             "the same repetition, with the 95 %% interval of Student's t. A ratio whose interval holds 1 may be chance.");
}

/* What a claim about one number may have been paid for with: medians over the runs, and their ratio to the baseline's. */
static void table_others(struct page *page, const struct report_sweep *sweep)
{
	static const struct { const char *key, *name; } columns[] = {
		{ "pass_rate_end", "pass rate at the end" }, { "tokens", "generated tokens" }, { "trajectories", "delivered samples" },
		{ "rollout_seconds", "rollouts\xc2\xa0s" }, { "train_seconds", "training\xc2\xa0s" }, { "seconds", "whole run\xc2\xa0s" },
		{ "tokens_per_sec", "tokens/s rolling out" }, { "acceptance", "acceptance" } };
	enum { N = sizeof columns / sizeof *columns };
	bool shown[N];
	struct html_table t;

	for (int k = 0; k < N; k++) {
		shown[k] = false;
		for (int i = 0; i < sweep->n && strcmp(columns[k].key, sweep->metric) != 0; i++)
			shown[k] = shown[k] || sweep_median(&sweep->variants[i], columns[k].key) > 0;
	}
	html_table_open(&t, page->out, "What else the runs took and brought: medians, and in brackets the ratio to the baseline's");
	html_column(&t, "variant");
	for (int k = 0; k < N; k++)
		if (shown[k]) html_column(&t, "%s", columns[k].name);
	for (int i = 0; i < sweep->n; i++) {
		const struct sweep_variant *v = &sweep->variants[i];
		html_row(&t, "%d. %s", i + 1, v->name);
		for (int k = 0; k < N; k++) {
			char a[NUMBER_TEXT_MAX];
			double median = sweep_median(v, columns[k].key);
			double base = v->baseline >= 0 ? sweep_median(&sweep->variants[v->baseline], columns[k].key) : (double)NAN;
			if (!shown[k]) continue;
			if (median == 0) median = (double)NAN; /* nothing of it was done */
			if (isfinite(median) && base > 0 && v->baseline != i) html_cell(&t, "%s (%.2f)", number_short(a, median), median / base);
			else if (isfinite(median)) html_cell(&t, "%s", number_short(a, median));
			else html_number(&t, median, "");
		}
	}
	html_table_close(&t);
}

static void table_runs(struct page *page, const struct report_sweep *sweep)
{
	struct html_table t;

	html_table_open(&t, page->out, "Every run");
	html_column(&t, "variant");
	html_column(&t, "repetition");
	html_column(&t, "%s", sweep->metric);
	html_column(&t, "seconds");
	html_column(&t, "exit status");
	html_column(&t, "directory");
	for (int i = 0; i < sweep->n; i++)
		for (int k = 0; k < sweep->variants[i].n; k++) {
			const struct sweep_run *run = &sweep->variants[i].runs[k];
			html_row(&t, "%s", sweep->variants[i].name);
			html_number(&t, run->repetition, "");
			html_number(&t, run->value, "");
			html_number(&t, run->seconds, "");
			html_cell(&t, "%d", run->status);
			html_cell(&t, "%s", run->dir);
		}
	html_table_close(&t);
}

static int figures_learning(struct page *page, const struct report_sweep *sweep)
{
	int code = sweep_figure_learning(page, sweep, true, "eval/pass_rate", 100, "Held-out pass rate",
	                                 "held-out samples with the right answer, %");

	if (!code) code = sweep_figure_learning(page, sweep, false, "reward/mean", 1, "Reward",
	                                        "reward of completed samples, mean of the step");
	if (!code) code = sweep_figure_learning(page, sweep, false, "perf/tokens_per_sec", 1, "Tokens/s while rolling out",
	                                        "generated tokens per second of the step's rollouts");
	return code;
}

/* Curves of many variants are for those who look for one of them. */
static int write_figures(struct page *page, const struct report_sweep *sweep)
{
	bool many = sweep->n > CURVES_OPEN_MAX;

	figures_open(page);
	int code = sweep_figure_points(page, sweep);
	if (!code) code = sweep_figures_axes(page, sweep);
	if (many) {
		figures_close(page);
		fprintf(page->out, "<details><summary>Curves of all %d variants over the steps</summary>\n", sweep->n);
		figures_open(page);
	}
	if (!code) code = figures_learning(page, sweep);
	figures_close(page);
	if (many) fputs("</details>\n", page->out);
	return code;
}

static int write_sweep(struct page *page, const struct report_sweep *sweep, int number)
{
	char id[32];
	int code = 0, runs = 0;

	for (int i = 0; i < sweep->n; i++) runs += sweep->variants[i].n;
	snprintf(id, sizeof id, "sweep-%d", number);
	section_open(page, id, page->n_sweeps + page->n_runs > 1 ? sweep->name : "Variants compared",
	             "%d run%s of %d variant%s in %s, compared by %s.", runs, runs == 1 ? "" : "s", sweep->n, sweep->n == 1 ? "" : "s", sweep->dir, sweep->metric);
	for (int i = 0; i < sweep->n_about; i++) html_element(page->out, "p", "about", "%s", sweep->about[i]);
	if (sweep->command[0]) html_element(page->out, "p", "note", "Command: %s", sweep->command);
	if (sweep->machine[0]) html_element(page->out, "p", "note", "Machine: %s", sweep->machine);
	if (sweep->absent[0]) page_lack(page, NULL, "%s", sweep->absent);
	if (sweep->bad_lines) page_lack(page, NULL, "%d unreadable lines of results.jsonl were left out", sweep->bad_lines);
	if (sweep->n) {
		table_variants(page, sweep);
		code = write_figures(page, sweep);
		table_others(page, sweep);
		fputs("<details><summary>Every run in figures</summary>\n", page->out);
		table_runs(page, sweep);
		fputs("</details>\n", page->out);
	}
	section_close(page);
	return code;
}

int part_sweeps(struct page *page)
{
	int code = 0;
	for (int i = 0; i < page->n_sweeps && !code; i++) code = write_sweep(page, &page->sweeps[i], i + 1);
	return code;
}
