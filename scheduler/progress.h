/* progress.h - what a person sees of a run: one line a step, on a terminal and in a log alike. */
#ifndef SCHEDULER_PROGRESS_H
#define SCHEDULER_PROGRESS_H

#include "policy/policy.h"
#include "scheduler/step_metrics.h"

struct progress_banner {
	const char *run_name, *run_dir, *model_path, *cpu, *bridge;
	const struct model_config *model;
	double parameters;
	int workers, threads;
	int mode;             /* enum rollout_mode */
	int64_t draft_length; /* 0: chosen every round */
	int drafter;
	struct draft_options draft;
};

void progress_banner(const struct progress_banner *b);
void progress_eval(int64_t step, double pass_rate, int n, double seconds);
/* now_seconds: since the run began; steps_left for the ETA. */
void progress_step(const struct step_metrics *m, int64_t steps, double step_seconds_mean);
void progress_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct run_summary {
	const char *status;                    /* "finished", "stopped" (by a signal) or "failed" */
	double pass_rate_start, pass_rate_end; /* < 0: not measured */
	int64_t steps;
	double seconds, rollout_seconds, train_seconds, broadcast_seconds;
	uint64_t tokens, drafted, accepted;
	int64_t trajectories, partials_resumed;
	double reward_first, reward_last;
};
void progress_summary(const struct run_summary *s);
char *run_summary_json(const struct run_summary *s); /* owned by the caller */

#endif
