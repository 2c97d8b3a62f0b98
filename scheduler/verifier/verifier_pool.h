/* verifier_pool.h - external verifiers: requests in, verdicts out, whatever the processes do.
 *
 * A pool of processes of one command (verifier_process.h), each given at most `in_flight` requests at once.  Every
 * request gets exactly one verdict:
 *   judged    the verifier's reward
 *   bad data  the verifier says that it cannot judge this; never asked again
 *   failed    crash, timeout, nonsense or `retry` more than `retries` times over: the verifier's fault
 * Neither of the latter is ever a reward.  What is nobody's fault costs nothing: a request whose process was killed for
 * another's sake is asked again and not counted.
 *
 * A process that crashes, is silent for too long, or answers what is no reply is killed, with all that it started, and
 * another takes its place after `backoff` seconds, twice as many each time in a row (BACKOFF_DOUBLINGS_MAX times);
 * what it held is asked again after as long, and alone, so that one request that kills cannot take others with it twice.
 * A JSON reply to a request that is not, or no more, with this process (late, twice, invented) is counted and ignored.
 * Whatever else it writes is nonsense, a greeting too: standard error is for that.
 *
 * Nothing here waits.  Time is the caller's: the pool's own clock moves with it, but by at most TURN_SECONDS_MAX from one
 * turn to the next, so that nobody is late because the controller was. */
#ifndef SCHEDULER_VERIFIER_VERIFIER_POOL_H
#define SCHEDULER_VERIFIER_VERIFIER_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"
#include "scheduler/verifier/verifier_lines.h"

enum { BACKOFF_DOUBLINGS_MAX = 3 };
static const double TURN_SECONDS_MAX = 1;

struct verifier_pool;

struct verifier_pool_options {
	const char *command;   /* the shell's; copied */
	const char *log_path;  /* of standard error */
	int processes, in_flight;
	int retries;           /* after the first attempt */
	double backoff;        /* seconds */
	double timeout;        /* seconds from a request to its reply */
	double start_timeout;  /* of a process' first reply, which may have to load something first */
	size_t reply_bytes_max;
};

enum verdict { VERDICT_JUDGED, VERDICT_BAD_DATA, VERDICT_FAILED };

struct verifier_verdict {
	uint64_t trajectory;
	enum verdict verdict;
	double reward, reward_answer, reward_steps;
	double seconds; /* since it was submitted */
	char error[ERR_TEXT_MAX / 2];
};

struct verifier_counts {
	uint64_t asked;    /* attempts begun */
	uint64_t retried;  /* of them, not the first */
	uint64_t judged, bad_data, failed;
	uint64_t strays;   /* replies to nothing */
	uint64_t restarts; /* processes that took another's place */
};

/* Starts the processes: they load while the ranks do. */
int verifier_pool_open(struct verifier_pool **pool, const struct verifier_pool_options *options, struct err *err);
void verifier_pool_close(struct verifier_pool *pool); /* hangs up, then kills; NULL is allowed */

/* body: of verifier_request_body, taken.  Of those that wait the one of the smallest order is asked first, whenever it
 * came; of equal ones the first that came. */
void verifier_pool_submit(struct verifier_pool *pool, uint64_t trajectory, uint64_t order, char *body, size_t n_bytes);
void verifier_pool_cancel(struct verifier_pool *pool, uint64_t trajectory); /* no verdict wanted any more */

/* Do what can be done at `now`, seconds of a clock that does not go back.  ERR_PEER once it is plain that the command
 * cannot be run at all. */
int verifier_pool_turn(struct verifier_pool *pool, double now, struct err *err);
bool verifier_pool_take(struct verifier_pool *pool, struct verifier_verdict *verdict); /* the next, or false */

int verifier_pool_waiting(const struct verifier_pool *pool); /* requests without a verdict */
void verifier_pool_counts(const struct verifier_pool *pool, struct verifier_counts *counts);
/* For a person: "4 samples wait for the verifier (2 are with it, the oldest for 31 s; ...)"; empty if none does. */
void verifier_pool_describe(const struct verifier_pool *pool, char *text, size_t size);

#endif
