/* part_speed.c - tokens per second: by step, over the run, and within a step, where the active sessions tell why. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/report/report_page.h"

enum { PHASES = 20, SLOTS_MAX = 300, STEPS_MAX = 1 << 22 };
enum { MIN_POINTS_PER_STEP = 4 };

/* Sums over ranks by place within the step, 0 to 1, over all steps. */
struct phases {
	double tokens[PHASES], active[PHASES], queued[PHASES], seconds[PHASES], lines[PHASES];
	int n_steps, n_ranks;
	double points_per_step, mean_seconds;
};

static void add_point(struct phases *ph, const struct rank_point *point, const double span[2])
{
	double length = span[1] - span[0], from = (point->t - point->interval - span[0]) / length, to = (point->t - span[0]) / length;
	int last = (int)(to * PHASES);

	for (int b = (int)fmax(0, floor(from * PHASES)); b < PHASES && b <= last; b++) {
		double share = (fmin(to, (b + 1.0) / PHASES) - fmax(from, (double)b / PHASES)) / (to - from);
		if (!(share > 0)) continue;
		ph->tokens[b] += share * point->tokens;
		ph->seconds[b] += share * point->interval;
		ph->active[b] += share * point->interval * point->active;
		ph->queued[b] += share * point->interval * point->queued;
	}
}

static void gather_phases(struct phases *ph, const struct report_timeline *t)
{
	double (*spans)[2] = NULL, seconds = 0;
	int n = 0, points = 0;

	*ph = (struct phases){ .n_ranks = t->n_ranks };
	for (int r = 0; r < t->n_ranks; r++)
		for (int i = 0; i < t->ranks[r].n; i++)
			if (t->ranks[r].points[i].step >= n && t->ranks[r].points[i].step < STEPS_MAX) n = t->ranks[r].points[i].step + 1;
	spans = xcalloc((size_t)(n ? n : 1), sizeof *spans);
	for (int i = 0; i < t->n_events; i++) { /* the generation of a step, by the events */
		const struct timeline_event *e = &t->events[i];
		if (e->step < 0 || e->step >= n) continue;
		if (strcmp(e->text, "step_begin") == 0) spans[e->step][0] = e->t;
		else if (strcmp(e->text, "batch") == 0) spans[e->step][1] = e->t;
	}
	for (int s = 0; s < n; s++)
		if (spans[s][1] > spans[s][0]) {
			ph->n_steps++;
			seconds += spans[s][1] - spans[s][0];
		}
	for (int r = 0; r < t->n_ranks; r++)
		for (int i = 0; i < t->ranks[r].n; i++) {
			const struct rank_point *point = &t->ranks[r].points[i];
			const double *span = spans[point->step < n ? point->step : 0];
			if (point->step >= n || !(span[1] > span[0]) || point->interval <= 0 || point->t <= span[0] || point->t - point->interval >= span[1]) continue;
			add_point(ph, point, span);
			points++;
		}
	ph->points_per_step = ph->n_steps && t->n_ranks ? (double)points / ph->n_steps / t->n_ranks : 0;
	ph->mean_seconds = ph->n_steps ? seconds / ph->n_steps : 0;
	free(spans);
}

static int figure_phases(struct page *page, const struct phases *phases, bool sessions)
{
	struct plot p;
	double first = (double)NAN, last = (double)NAN, max = 0;

	plot_open(&p, page->out, "part of the step's time gone, %", sessions ? "sessions, sum over ranks" : "tokens/s, sum over ranks");
	plot_set(&p, "set yrange [0:*]\nset xrange [0:100]");
	for (int i = 0; i < page->n_runs; i++) {
		const struct phases *ph = &phases[i];
		struct series s = {0}, queued = {0};
		for (int b = 0; b < PHASES && ph->n_steps; b++) {
			double x = 100 * (b + 0.5) / PHASES, per_second = ph->n_ranks / ph->seconds[b];
			series_add(&s, x, (sessions ? ph->active[b] : ph->tokens[b]) * per_second);
			series_add(&queued, x, ph->queued[b] * per_second);
		}
		if (ph->points_per_step < MIN_POINTS_PER_STEP) s.n = queued.n = 0;
		if (s.n) {
			first = s.y[0];
			last = s.y[s.n - 1];
			max = fmax(max, series_max(&s));
		}
		plot_curve(&p, &s, curve_color(i), curve_mark(i), page->n_runs > 1 ? page->runs[i].label : sessions ? "active" : NULL);
		if (sessions && page->n_runs == 1) plot_curve(&p, &queued, 1, MARK_DASHED, "queued on the ranks");
		series_free(&s);
		series_free(&queued);
	}
	char a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX];
	if (max >= 10000) plot_set(&p, "set format y '%%.0s%%c'");
	if (page->n_runs == 1)
		plot_title(&p, "Within a step: %s %s as it begins, %s as it ends", number_short(a, first), sessions ? "active sessions" : "tokens/s",
		           number_short(b, last));
	else plot_title(&p, "Within a step: %s", sessions ? "active sessions" : "tokens/s");
	return plot_close(&p, "Mean over all steps, by how much of the step's time was gone.", page->err);
}

/* Over the run, sums of ranks in slots of equal time. */
static int figure_course(struct page *page, bool sessions)
{
	struct plot p;
	double top = 0;

	plot_open(&p, page->out, "seconds since the run began", sessions ? "active sessions, sum over ranks" : "tokens/s, sum over ranks");
	plot_set(&p, "set yrange [0:*]");
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_timeline *t = &page->runs[i].timeline;
		int slots = t->end < 2 ? 0 : t->end < SLOTS_MAX ? (int)t->end : SLOTS_MAX;
		double *sum = xcalloc((size_t)slots + 1, sizeof *sum), width = slots ? t->end / slots : 1;
		struct series s = {0};
		for (int r = 0; r < t->n_ranks; r++)
			for (int k = 0; k < t->ranks[r].n && slots; k++) {
				const struct rank_point *point = &t->ranks[r].points[k];
				double from = point->t - point->interval;
				for (int b = (int)(from / width); b <= (int)(point->t / width) && b < slots && point->interval > 0; b++) {
					double share = (fmin(point->t, (b + 1) * width) - fmax(from, b * width)) / point->interval;
					if (share > 0) sum[b] += share * (sessions ? point->active * point->interval : point->tokens) / width;
				}
			}
		for (int b = 0; b < slots; b++) series_add(&s, (b + 0.5) * width, sum[b]);
		top = fmax(top, series_max(&s));
		plot_curve(&p, &s, curve_color(i), curve_mark(i), page->n_runs > 1 ? page->runs[i].label : NULL);
		series_free(&s);
		free(sum);
	}
	char a[NUMBER_TEXT_MAX];
	if (top >= 10000) plot_set(&p, "set format y '%%.0s%%c'");
	plot_title(&p, "Over the run: up to %s %s", number_short(a, round(top)), sessions ? "active sessions" : "tokens/s");
	return plot_close(&p, "Training and the time in which weights arrive are included.", page->err);
}

static int figures_timeline(struct page *page)
{
	struct phases *phases = xcalloc((size_t)page->n_runs, sizeof *phases);
	bool phased = false, any = false;
	int code = 0;

	for (int i = 0; i < page->n_runs; i++) {
		const struct report_timeline *t = &page->runs[i].timeline;
		any = any || t->n_ranks;
		if (t->n_ranks) gather_phases(&phases[i], t);
		phased = phased || phases[i].points_per_step >= MIN_POINTS_PER_STEP;
	}
	if (phased) code = figure_phases(page, phases, false);
	if (phased && !code) code = figure_phases(page, phases, true);
	if (any && !code) code = figure_course(page, false);
	if (any && !code) code = figure_course(page, true);
	figures_close(page);
	for (int i = 0; i < page->n_runs && !code; i++)
		if (page->runs[i].timeline.n_ranks && phases[i].points_per_step < MIN_POINTS_PER_STEP)
			page_lack(page, &page->runs[i], "not shown within a step: its steps are too short (%.2g s on average) for a timeline of this "
			          "interval; run.timeline_seconds makes it finer", phases[i].mean_seconds);
	free(phases);
	return code;
}

int part_speed(struct page *page)
{
	static const struct metric_figure figures[] = {
		{ .key = "perf/tokens_per_sec", .factor = 1, .what = "Tokens/s while rolling out", .unit = "", .from_zero = true, .of_rollouts = true,
		  .y_label = "generated tokens per second of the step's rollouts, all ranks" },
		{ .key = "rollout/active_sessions/mean", .factor = 1, .what = "Active sessions", .unit = "", .from_zero = true,
		  .y_label = "sessions decoded at once, mean of the step, all ranks" },
		{ .key = "rollout/tail_ratio", .factor = 100, .what = "Tail of the step", .unit = " %", .from_zero = true,
		  .y_label = "share of the step's time with under a quarter of the slots at work, %" },
	};
	int code = 0;

	section_open(page, "speed", "Speed", "Generated tokens per second, and how many sessions are decoded at once: as a step runs out "
	             "of samples, batches get smaller and the rate falls.");
	for (int i = 0; i < page->n_runs; i++)
		if (page->runs[i].timeline.absent[0])
			page_lack(page, &page->runs[i], "no course within steps: %s", page->runs[i].timeline.absent);
	figures_open(page);
	for (int k = 0; k < 3 && !code; k++)
		if (any_has(page, figures[k].key)) code = page_metric(page, &figures[k]);
	if (!code) code = figures_timeline(page);
	else figures_close(page);
	section_close(page);
	return code;
}
