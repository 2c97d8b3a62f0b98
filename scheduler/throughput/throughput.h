/* throughput.h - a sweep on its way: checked as a whole, then run by run, each of them `drumroll run` under mpirun.
 *
 * DIR/base.yaml and DIR/sweep.yaml say what is run, DIR/results.jsonl has a line for each run that ended, DIR/runs what they
 * left; so a sweep that stops anywhere goes on from its directory. */
#ifndef SCHEDULER_THROUGHPUT_THROUGHPUT_H
#define SCHEDULER_THROUGHPUT_THROUGHPUT_H

#include "scheduler/store/run_directory.h"
#include "scheduler/throughput/throughput_results.h"

struct throughput {
	char dir[RUN_PATH_MAX]; /* "": not made yet */
	struct config base;     /* what all runs share; throughput.* */
	struct sweep sweep;
	struct sweep_points points;
	int64_t *ranks;         /* [points.n] */
	struct throughput_results results;
	bool quiet;             /* progress goes to standard error */
};

/* The config at base_path with sets [n_sets] on top, and the sweep at sweep_path.  ERR_CONFIG and the like for all that can be
 * refused without reading a model: unknown keys, a key that is both set and swept, combinations that make no run. */
int throughput_open(struct throughput *t, const char *base_path, const char *sweep_path, const char *const *sets, int n_sets,
                    struct err *err);
void throughput_close(struct throughput *t);

/* A new directory: at `out`, or NULL for run.dir, the next free one; the files in it, the grown model.  command: as it was typed. */
int throughput_begin(struct throughput *t, const char *sweep_path, const char *out, const char *command, struct err *err);
/* One that there is; what had failed is to be run again. */
int throughput_resume(struct throughput *t, const char *dir, struct err *err);

/* Every run that has no result yet.  Returns 0, also if runs failed or a signal stopped it (throughput_signals). */
int throughput_go(struct throughput *t, struct err *err);

/* "  3  repetition 1  mode=exact" for each run, in order. */
void throughput_list(const struct throughput *t, FILE *out);

#endif
