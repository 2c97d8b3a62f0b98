/* part_summary.c - the key figures, and for several runs how each differs from the first. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/report/report_page.h"

static double summed(const struct report_run *run, const char *key)
{
	return run->steps.n_rows ? table_sum(&run->steps, key) : (double)NAN;
}

static double ratio_of(double a, double b)
{
	return b > 0 ? a / b : (double)NAN;
}

static double end_mean(const struct report_run *run, const char *key, double factor)
{
	struct series s = table_series(&run->steps, "step", key, factor);
	double mean = series_end_mean(&s);
	series_free(&s);
	return mean;
}

static double weighted(const struct report_run *run, const char *key, const char *weight)
{
	double sum = 0, weights = 0;
	for (int row = 0; row < run->steps.n_rows; row++) {
		double w = table_value(&run->steps, row, weight), value = table_value(&run->steps, row, key);
		if (!isfinite(w) || !isfinite(value)) continue;
		sum += w * value;
		weights += w;
	}
	return ratio_of(sum, weights);
}

static double pass_rate_start(const struct report_run *run) { return run_pass_rate(run, false); }
static double pass_rate_end(const struct report_run *run) { return run_pass_rate(run, true); }
static double reward_end(const struct report_run *run) { return end_mean(run, "reward/mean", 1); }
static double training_pass(const struct report_run *run) { return end_mean(run, "reward/pass_rate", 100); }
static double steps(const struct report_run *run) { return run->steps.n_rows; }
static double trajectories(const struct report_run *run) { return summed(run, "rollout/trajectories"); }
static double tokens(const struct report_run *run) { return summed(run, "rollout/tokens"); }
static double rollout_seconds(const struct report_run *run) { return summed(run, "perf/rollout_time"); }
static double train_seconds(const struct report_run *run) { return summed(run, "timing_s/train"); }
static double weights_seconds(const struct report_run *run) { return summed(run, "timing_s/update_weights"); }
static double tokens_rate(const struct report_run *run) { return ratio_of(tokens(run), rollout_seconds(run)); }
static double trajectory_rate(const struct report_run *run) { return ratio_of(trajectories(run), rollout_seconds(run)); }
static double put_aside(const struct report_run *run) { return ratio_of(summed(run, "partial/put_aside"), run->steps.n_rows); }
static double length_mean(const struct report_run *run) { return weighted(run, "rollout/response_len/mean", "rollout/trajectories"); }
static double staleness(const struct report_run *run) { return weighted(run, "staleness/mean", "rollout/trajectories"); }
static double truncated(const struct report_run *run)
{
	return 100 * weighted(run, "rollout/truncated_ratio", "rollout/trajectories");
}
static double lost(const struct report_run *run) { return summed(run, "cluster/ranks_lost"); }

static double seconds(const struct report_run *run)
{
	double whole = table_value(&run->summary, 0, "seconds");
	return isfinite(whole) ? whole : run->timeline.end > 0 ? run->timeline.end : (double)NAN;
}

static double acceptance(const struct report_run *run)
{
	return 100 * ratio_of(summed(run, "rollout/sd/total_accepted_tokens"), summed(run, "rollout/sd/total_draft_tokens"));
}

static double work_share(const struct report_run *run)
{
	double work = 0, all = 0;
	for (int r = 0; r < run->timeline.n_ranks; r++)
		for (int k = 0; k < run->timeline.ranks[r].n; k++) {
			all += run->timeline.ranks[r].points[k].interval;
			work += run->timeline.ranks[r].points[k].interval * (double)run->timeline.ranks[r].points[k].work;
		}
	return 100 * ratio_of(work, all);
}

static const struct key_figure {
	const char *name, *unit;
	double (*value)(const struct report_run *run);
	bool tile;
} figures[] = {
	{ "Held-out pass rate at the end", " %", pass_rate_end, true },
	{ "Held-out pass rate at the start", " %", pass_rate_start },
	{ "Mean reward, last tenth of the steps", "", reward_end, true },
	{ "Training pass rate, last tenth of the steps", " %", training_pass },
	{ "Tokens/s while rolling out", "", tokens_rate, true },
	{ "Trajectories/s while rolling out", "", trajectory_rate },
	{ "Accepted drafts", " %", acceptance, true },
	{ "Mean response length", " tokens", length_mean, true },
	{ "Responses cut at the limit", " %", truncated },
	{ "Ranks at work", " %", work_share, true },
	{ "Put aside a step", "", put_aside },
	{ "Mean staleness", " versions", staleness },
	{ "Steps", "", steps },
	{ "Delivered trajectories", "", trajectories },
	{ "Generated tokens", "", tokens },
	{ "Whole run", " s", seconds },
	{ "Rollouts", " s", rollout_seconds },
	{ "Training", " s", train_seconds },
	{ "Weights to the ranks", " s", weights_seconds },
	{ "Ranks lost", "", lost },
};
enum { N_FIGURES = sizeof figures / sizeof *figures };

static void write_tiles(struct page *page)
{
	char text[NUMBER_TEXT_MAX];

	fputs("<dl class=\"tiles\">\n", page->out);
	for (int k = 0; k < N_FIGURES; k++) {
		double value = figures[k].value(&page->runs[0]);
		if (!figures[k].tile || !isfinite(value)) continue;
		fputs("<div><dt>", page->out);
		html_text(page->out, figures[k].name);
		fputs("</dt><dd>", page->out);
		html_text(page->out, number_short(text, value));
		if (figures[k].unit[0]) html_element(page->out, "span", NULL, "%s", figures[k].unit);
		fputs("</dd></div>\n", page->out);
	}
	fputs("</dl>\n", page->out);
}

/* Percentages differ by points, all else by a share. */
static void difference_cell(struct html_table *t, const struct key_figure *f, double base, double value)
{
	bool points = f->unit[0] == ' ' && f->unit[1] == '%';

	if (!isfinite(base) || !isfinite(value)) html_number(t, (double)NAN, "");
	else if (points) html_cell(t, "%+.1f points", value - base);
	else if (base == value) html_cell(t, "equal");
	else if (base == 0) html_number(t, (double)NAN, "");
	else html_cell(t, "%+.1f %%", 100 * (value / base - 1));
}

static void table_figures(struct page *page)
{
	struct html_table t;

	if (page->n_runs > 1) html_table_open(&t, page->out, "Key figures, and differences from %s", page->runs[0].label);
	else html_table_open(&t, page->out, "Key figures");
	html_column(&t, "figure");
	for (int i = 0; i < page->n_runs; i++) {
		html_column(&t, "%s", page->runs[i].label);
		if (i) html_column(&t, "difference");
	}
	for (int k = 0; k < N_FIGURES; k++) {
		double base = figures[k].value(&page->runs[0]);
		html_row(&t, "%s", figures[k].name);
		for (int i = 0; i < page->n_runs; i++) {
			double value = figures[k].value(&page->runs[i]);
			html_number(&t, value, figures[k].unit);
			if (i) difference_cell(&t, &figures[k], base, value);
		}
	}
	html_table_close(&t);
}

static const char *state_text(enum run_state state)
{
	switch (state) {
	case RUN_FINISHED: return "finished";
	case RUN_STOPPED: return "stopped by a signal or for want of progress; what it had made is saved";
	case RUN_FAILED: return "ended with an error";
	case RUN_GOES_ON: return "goes on: this is how far it was when the report was made";
	case RUN_ENDED_EARLY: return "no summary.json: it was killed, or another process writes to it; figures are of what it left";
	}
	return "?";
}

static void write_runs(struct page *page)
{
	fputs("<ul class=\"runs\">\n", page->out);
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_run *run = &page->runs[i];
		fprintf(page->out, "<li class=\"%s\">", run->state == RUN_FINISHED ? "well" : "warn");
		html_element(page->out, "strong", NULL, "%s", run->label);
		html_format(page->out, " (%s): %d step%s, %s.", run->name, run->steps.n_rows, run->steps.n_rows == 1 ? "" : "s", state_text(run->state));
		if (run->bad_lines) html_format(page->out, " %d unreadable lines of metrics.jsonl were left out.", run->bad_lines);
		fputs(" In ", page->out);
		html_element(page->out, "code", NULL, "%s", run->dir);
		fputs("</li>\n", page->out);
	}
	fputs("</ul>\n", page->out);
}

static void table_steps(struct page *page, const struct report_run *run)
{
	static const struct { const char *key, *name, *unit; double factor; } columns[] = {
		{ "reward/mean", "reward", "", 1 }, { "reward/pass_rate", "pass rate", " %", 100 },
		{ "perf/tokens_per_sec", "tokens/s", "", 1 }, { "rollout/sd/acceptance_rate", "accepted", " %", 100 },
		{ "rollout/sd/draft_length/mean", "draft length", "", 1 }, { "rollout/response_len/mean", "mean length", "", 1 },
		{ "rollout/response_len/max", "longest", "", 1 }, { "partial/put_aside", "put aside", "", 1 },
		{ "staleness/mean", "staleness", "", 1 }, { "perf/rollout_time", "rollouts s", "", 1 },
		{ "timing_s/train", "training s", "", 1 } };
	enum { N = sizeof columns / sizeof *columns, ROWS_MAX = 100 };
	int n = run->steps.n_rows, shown = n < ROWS_MAX ? n : ROWS_MAX;
	struct html_table t;

	if (shown < n) html_table_open(&t, page->out, "%s: %d of %d steps, evenly chosen", run->label, shown, n);
	else html_table_open(&t, page->out, "%s: every step", run->label);
	html_column(&t, "step");
	for (int k = 0; k < N; k++) html_column(&t, "%s", columns[k].name);
	for (int i = 0; i < shown; i++) {
		int row = shown > 1 ? (int)((long)i * (n - 1) / (shown - 1)) : 0;
		html_row(&t, "%g", table_value(&run->steps, row, "step"));
		for (int k = 0; k < N; k++) html_number(&t, columns[k].factor * table_value(&run->steps, row, columns[k].key), columns[k].unit);
	}
	html_table_close(&t);
}

int part_summary(struct page *page)
{
	section_open(page, "summary", page->n_runs > 1 ? "Runs side by side" : "Key figures", page->n_runs > 1 ?
	             "Differences are from the first run. Rates are ratios of sums over the whole run." :
	             "Rates are ratios of sums over the whole run.");
	write_runs(page);
	if (page->n_runs == 1) write_tiles(page);
	if (page->n_runs > 1) table_figures(page);
	else {
		fputs("<details><summary>All key figures</summary>\n", page->out);
		table_figures(page);
		fputs("</details>\n", page->out);
	}
	for (int i = 0; i < page->n_runs; i++) {
		if (page->runs[i].steps.n_rows == 0) continue;
		fputs("<details><summary>", page->out);
		html_format(page->out, "%s: steps in figures", page->runs[i].label);
		fputs("</summary>\n", page->out);
		table_steps(page, &page->runs[i]);
		fputs("</details>\n", page->out);
	}
	section_close(page);
	return 0;
}
