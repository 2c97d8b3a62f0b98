/* machine_peaks.c - see machine_peaks.h.  A round of a loop is run by all threads at once and timed from
 * outside; rounds of the loops that compete for one number alternate, and the best median counts. */
#define _DEFAULT_SOURCE /* madvise */

#include "quant/machine_peaks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "quant/machine_peaks_loops.h"

enum { ROUNDS_MAX = 101, HUGE_BYTES = 2 << 20 };

#define ROUND_SECONDS 0.005 /* of a loop on registers: long beside starting the threads */

/* ---- loops for any CPU ---- */

static uint32_t read_any(const char *buffer, size_t bytes)
{
	const uint32_t *x = (const uint32_t *)(const void *)buffer;
	uint32_t sum = 0;
	for (size_t i = 0; i < bytes / sizeof *x; i++) sum += x[i];
	return sum;
}

static float fma_any(long rounds)
{
	float acc[PEAK_CHAINS] = {0};
	for (; rounds > 0; rounds--)
		for (int c = 0; c < PEAK_CHAINS; c++) acc[c] = fmaf(acc[c], 0.5f, (float)c);
	return acc[0] + acc[PEAK_CHAINS - 1];
}

static uint32_t int8_any(long rounds)
{
	volatile int8_t x = 3;
	uint32_t sum = 0;
	for (; rounds > 0; rounds--)
		for (int p = 0; p < PEAK_PRODUCTS; p++) sum += (uint32_t)(x * (int)(rounds & 0xff));
	return sum;
}

static const struct peak_loops peak_loops_any = {read_any, read_any, fma_any, int8_any, PEAK_CHAINS, PEAK_PRODUCTS};

static const struct peak_loops *loops_of(const struct kernels *kernels)
{
#if defined(__x86_64__)
	if (strcmp(kernels->name, "avx512vnni") == 0) return &peak_loops_avx512vnni;
	if (strcmp(kernels->name, "avx512") == 0) return &peak_loops_avx512;
	if (strcmp(kernels->name, "avx2") == 0) return &peak_loops_avx2;
#endif
	(void)kernels;
	return &peak_loops_any;
}

/* ---- rounds ---- */

struct round {
	const struct peak_loops *loops;
	enum { TOUCH, READ, READ_AHEAD, FMA, INT8 } what;
	char *buffer;
	size_t bytes; /* whole PEAK_READ_BYTES per thread */
	long rounds;
};

static void run_thread(int thread, int n_threads, void *arg)
{
	struct round *r = arg;
	size_t share = r->bytes / (size_t)n_threads / PEAK_READ_BYTES * PEAK_READ_BYTES;
	char *own = r->buffer + share * (size_t)thread;
	volatile float sink; /* so that results are wanted */
	switch (r->what) {
	case TOUCH: memset(own, 1, share); break;
	case READ: sink = (float)r->loops->read(own, share); break;
	case READ_AHEAD: sink = (float)r->loops->read_ahead(own, share); break;
	case FMA: sink = r->loops->fma(r->rounds); break;
	case INT8: sink = (float)r->loops->int8(r->rounds); break;
	}
	(void)sink;
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double time_round(struct round *r, int n_threads, machine_peaks_run *run)
{
	double start = seconds();
	run(n_threads, run_thread, r);
	return seconds() - start;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Median seconds of the faster of loops first and last, rounds alternating, for about `budget` seconds. */
static double best_median(struct round *r, int first, int last, int n_threads, double budget, machine_peaks_run *run)
{
	double took[2][ROUNDS_MAX], end = seconds() + budget, best = INFINITY;
	int n = 0;
	for (; n < ROUNDS_MAX && (n < 3 || seconds() < end); n++) {
		for (int what = first; what <= last; what++) {
			r->what = what;
			took[what - first][n] = time_round(r, n_threads, run);
		}
	}
	for (int i = 0; i <= last - first; i++) {
		qsort(took[i], (size_t)n, sizeof *took[i], ascending);
		best = fmin(best, took[i][n / 2]);
	}
	return best;
}

/* Rounds per second of a loop on registers, all threads together. */
static double register_rounds(struct round *r, int what, int n_threads, double budget, machine_peaks_run *run)
{
	r->what = what;
	for (r->rounds = 1000; time_round(r, n_threads, run) < ROUND_SECONDS; r->rounds *= 2) continue;
	return (double)r->rounds * n_threads / best_median(r, what, what, n_threads, budget, run);
}

static double read_peak(struct round *r, int n_threads, size_t bytes, double budget, machine_peaks_run *run)
{
	void *memory = NULL;
	size_t unit = (size_t)n_threads * PEAK_READ_BYTES;
	r->bytes = bytes / unit * unit;
	if (r->bytes == 0 || posix_memalign(&memory, HUGE_BYTES, r->bytes)) return 0.0;
	r->buffer = memory;
#ifdef MADV_HUGEPAGE
	madvise(memory, r->bytes, MADV_HUGEPAGE);
#endif
	r->what = TOUCH;
	time_round(r, n_threads, run);
	double best = best_median(r, READ, READ_AHEAD, n_threads, budget, run);
	free(memory);
	return (double)r->bytes / best;
}

void machine_peaks_measure(struct machine_peaks *peaks, const struct kernels *kernels, int n_threads,
                           size_t buffer_bytes, double seconds_each, machine_peaks_run *run)
{
	struct round r = {.loops = loops_of(kernels)};
	peaks->fma_gflops = 2.0 * r.loops->fma_round * register_rounds(&r, FMA, n_threads, seconds_each, run) * 1e-9;
	peaks->int8_gops = 2.0 * r.loops->int8_round * register_rounds(&r, INT8, n_threads, seconds_each, run) * 1e-9;
	peaks->read_gbps = read_peak(&r, n_threads, buffer_bytes, seconds_each, run) * 1e-9;
}
