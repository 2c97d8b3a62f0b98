/* rank_guard.h - a parent around every rank, so that one that dies does not take the run with it.
 *
 * mpirun ends the whole run when a process of it dies.  So what mpirun starts is a guard, which starts the
 * rank and waits for it.  When a worker is gone, however it went, its guard takes leave of mpirun in its place
 * (PMI's finalize on the connection that both hold) and exits 0: to mpirun the rank has ended as it should,
 * and the controller notices the silence.  When rank 0 dies by a signal its guard has mpirun end everything
 * (PMI's abort).  mpirun's status is that of rank 0.  A guard that dies takes its rank along, and a rank its
 * children.
 *
 * Needs MPICH's mpirun with its PMI-1 connection (Debian's as installed, any launcher, Slurm included), and
 * no option of it.  Signals reach the rank without the guard's help: mpirun and batch systems send them to
 * the whole process group.
 */
#ifndef SCHEDULER_RANKS_RANK_GUARD_H
#define SCHEDULER_RANKS_RANK_GUARD_H

#include <stdbool.h>

/* Before MPI, OpenMP and threads.  Returns in the rank; the guard never returns.  True if the rank is guarded. */
bool rank_guard_enter(void);

/* Of the calling rank: is there a guard, so that the others outlive it? */
bool rank_guard_is_on(void);

/* Rank 0: when this process ends, mpirun is to end whatever is left, for a rank is out of reach and might never end:
 * stopped for good, hung, or behind a link that is cut. */
void rank_guard_end_all(void);

/* A child of ours ends when we do; called in the child, with our process id. */
void rank_guard_follow_parent(long parent_pid);

#endif
