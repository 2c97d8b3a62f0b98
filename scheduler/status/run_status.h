/* run_status.h - a run at one moment, for who looks at it: as JSON (status.json of the run directory, GET /status, what
 * `drumroll top` draws) and as Prometheus text (GET /metrics).
 *
 * Prometheus names are those of metrics.jsonl with `drumroll_` before them and '_' for '/', as gauges of the last step
 * (drumroll_rollout_sd_acceptance_rate), and drumroll_run_*, drumroll_rank_* for what changes within one. */
#ifndef SCHEDULER_STATUS_RUN_STATUS_H
#define SCHEDULER_STATUS_RUN_STATUS_H

#include "scheduler/scheduler.h"
#include "scheduler/status/timeline.h"

struct rank_status {
	int rank;
	enum rank_shown state;
	int holding;             /* samples leased to it */
	int losses;              /* times it was given up */
	double heard_seconds;    /* since it last spoke */
	double tokens_per_sec, acceptance, draft_length; /* lately; acceptance < 0: nothing was drafted */
	struct rank_stats sums;  /* since the run began */
};

struct run_status {
	const char *name, *id, *dir;
	const char *state;       /* "running", "finished", "stopped", "failed" */
	const char *phase;       /* "rollouts", "training", ... */
	const char *mode;        /* "speculative", ... */
	const char *http;        /* where it serves this, NULL: nowhere */
	double time;             /* of day, seconds since 1970 */
	double interval;         /* seconds between two of these */
	double seconds;          /* since the run began */
	double eta_seconds;      /* < 0: not known yet */
	int64_t step, steps, version;
	int groups_wanted;       /* of a step */
	struct scheduler_counts counts;
	const char *trainer;     /* "reference", "external", "none" */
	bool trainer_connected;
	int batches_out;         /* of which the trainer has made no version yet */
	double trainer_seconds;  /* for which generation has been waiting for it */
	double eval_pass_rate;   /* < 0: none yet */
	const char *last_step;   /* its line of metrics.jsonl, NULL: none yet */
	const struct rank_status *ranks; /* [n_ranks] */
	int n_ranks;
};

char *run_status_json(const struct run_status *status);       /* on one line; owned by the caller */
char *run_status_prometheus(const struct run_status *status); /* text format 0.0.4; owned by the caller */

#endif
