/* team.c - one OpenMP region per team and a central barrier by generation counter.
 *
 * OpenMP's own barrier spins for milliseconds by default: right on an idle machine, ruinous beside
 * another busy process, where the spinner holds the core that its descheduled partner needs.  This
 * one spins for as long as balanced phases differ, then gives its core away at every turn.  Entry and
 * exit pass through it too, so the thread sanitizer, which cannot see into libgomp, sees every
 * hand-over between threads.
 */
#include "policy/team.h"

#include <assert.h>
#include <omp.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>

enum { SPINS = 1000 }; /* some 15 microseconds */

struct team_barrier {
	alignas(64) atomic_int arrived;
	alignas(64) atomic_uint generation;
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

void team_wait(const struct team *team)
{
	struct team_barrier *barrier = team->barrier;
	if (team->n_threads == 1) return;
	unsigned generation = atomic_load_explicit(&barrier->generation, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) == team->n_threads - 1) {
		atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
		atomic_store_explicit(&barrier->generation, generation + 1, memory_order_release);
		return;
	}
	for (int i = 0; atomic_load_explicit(&barrier->generation, memory_order_acquire) == generation; i++) {
		if (i < SPINS) cpu_pause();
		else sched_yield();
	}
}

void team_run(int n_threads, void (*run)(const struct team *team, void *arg), void *arg)
{
	assert(n_threads >= 1);
	if (n_threads == 1) {
		run(&(struct team){.thread = 0, .n_threads = 1}, arg);
		return;
	}
	struct team_barrier barrier = {0};
	#pragma omp parallel num_threads(n_threads)
	{
		struct team team = {omp_get_thread_num(), omp_get_num_threads(), &barrier};
		team_wait(&team);
		run(&team, arg);
		team_wait(&team);
	}
}

static int least(int a, int b) { return a < b ? a : b; }

struct range team_share(const struct team *team, int n, int unit)
{
	long units = ((long)n + unit - 1) / unit;
	return (struct range){
		least(n, (int)(units * team->thread / team->n_threads) * unit),
		least(n, (int)(units * (team->thread + 1) / team->n_threads) * unit),
	};
}
