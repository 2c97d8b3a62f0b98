/* machine_peaks.h - what this machine can do at best, for the kernels of a table to be compared with.
 *
 * Bounds, measured by loops that do nothing else: reading memory once in order; FP32 multiply-adds and
 * products of 8-bit integers summed in 32 bits, on operands that stay in registers.  Each uses the
 * instructions that the table itself may use, and is the best of a few loops.  Machines are shared and
 * change their clock: compare with what was measured in the same minute only.
 */
#ifndef QUANT_MACHINE_PEAKS_H
#define QUANT_MACHINE_PEAKS_H

#include <stddef.h>

#include "quant/kernels.h"

/* All threads together; a multiply-add counts as 2 operations. */
struct machine_peaks {
	double read_gbps;  /* 10^9 bytes per second */
	double fma_gflops; /* FP32 */
	double int8_gops;  /* u8 x s8 into s32 by the best instructions of the table on this CPU: dpbusd, else
	                    * maddubs with 8 products added in 16 bits, which is exact for 4-bit weights */
};

/* Calls body(thread, n_threads, arg) once for each thread, all at a time, and returns when they are done. */
typedef void machine_peaks_run(int n_threads, void (*body)(int thread, int n_threads, void *arg), void *arg);

/* Medians of rounds that last about seconds_each per quantity.  Takes and gives back a buffer of
 * buffer_bytes (in huge pages where there are any), which should be several times the last-level cache.
 * If the system has no such memory, read_gbps is 0. */
void machine_peaks_measure(struct machine_peaks *peaks, const struct kernels *kernels, int n_threads,
                           size_t buffer_bytes, double seconds_each, machine_peaks_run *run);

#endif
