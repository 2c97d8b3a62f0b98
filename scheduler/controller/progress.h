/* progress.h - what a person sees of a run: one line a step, on a terminal and in a log alike; or the same for a machine
 * (`drumroll run --json`): JSON lines, each with an "event": begin, step, evaluation, note, end. */
#ifndef SCHEDULER_CONTROLLER_PROGRESS_H
#define SCHEDULER_CONTROLLER_PROGRESS_H

#include "policy/policy.h"
#include "scheduler/controller/step_metrics.h"

struct progress_banner {
	const char *run_name, *run_dir, *model_path, *cpu, *bridge, *metrics;
	const struct model_config *model;
	double parameters;
	int workers, threads;
	int mode;             /* enum rollout_mode */
	int64_t draft_length; /* 0: chosen every round */
	int drafter;
	struct draft_options draft;
};

void progress_use_json(void); /* before anything else */

void progress_banner(const struct progress_banner *b);
void progress_eval(int64_t step, double pass_rate, int n, double seconds);
/* ETA: as many seconds for each step that is left. */
void progress_step(const struct step_metrics *m, int64_t steps, double step_seconds_mean);
/* Within a long step: groups of it that are complete, samples in flight, tokens/s at the moment. */
void progress_within(int64_t step, int64_t steps, int complete, int wanted, int in_flight, double tokens_per_sec);
double progress_silence(void); /* seconds since anything was said */
void progress_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct run_summary {
	const char *status;                    /* "finished", "stopped" (by a signal) or "failed" */
	double pass_rate_start, pass_rate_end; /* < 0: not measured */
	int64_t steps;
	double seconds, rollout_seconds, train_seconds, broadcast_seconds;
	double steps_seconds, eval_seconds;    /* from the first step to the end but for evaluations; these */
	uint64_t tokens, drafted, accepted;
	int64_t trajectories, partials_resumed;
	int64_t samples;                       /* of all groups that were completed, those that were dropped too */
	double delivered_tokens, staleness_sum; /* response tokens; versions, over trajectories */
	double reward_first, reward_last;
};
void run_summary_add(struct run_summary *s, const struct step_metrics *m); /* a step whose batch was delivered */
void progress_summary(const struct run_summary *s); /* of a run that is finished */
/* The last words; error: with which it ended, NULL: none. */
void progress_end(const struct run_summary *s, const char *run_dir, const char *error);
char *run_summary_json(const struct run_summary *s); /* owned by the caller */

#endif
