/* team.h - a team of threads for one parallel phase, and where its threads wait for each other.
 *
 * The only OpenMP pragma of the target path is in team.c.  A team of one runs in the caller, without
 * OpenMP.  What a thread computes must not depend on n_threads: a range of outputs, never a partial
 * sum.
 */
#ifndef POLICY_TEAM_H
#define POLICY_TEAM_H

struct team_barrier;

struct team { /* one thread's view */
	int thread, n_threads;
	struct team_barrier *barrier;
};

struct range { int begin, end; };

/* Run run(team, arg) on up to n_threads threads and return when all are done. */
void team_run(int n_threads, void (*run)(const struct team *team, void *arg), void *arg);

/* Returns when every thread of the team is here; what each wrote before is seen by all after. */
void team_wait(const struct team *team);

/* This thread's part of [0, n), cut at multiples of unit. */
struct range team_share(const struct team *team, int n, int unit);

#endif
