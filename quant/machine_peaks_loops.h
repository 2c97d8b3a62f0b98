/* machine_peaks_loops.h - inside machine_peaks*.c only: the loops of one instruction set.
 * What they return keeps them from being optimised away. */
#ifndef QUANT_MACHINE_PEAKS_LOOPS_H
#define QUANT_MACHINE_PEAKS_LOOPS_H

#include <stddef.h>
#include <stdint.h>

enum {
	PEAK_READ_BYTES = 4096, /* a buffer is whole units of it, and read_ahead may fetch one beyond */
	PEAK_CHAINS = 12,       /* independent vectors: more than latency times units anywhere */
	PEAK_PRODUCTS = 8       /* vectors of products that a round of int8 adds to each chain */
};

struct peak_loops {
	uint32_t (*read)(const char *buffer, size_t bytes);
	uint32_t (*read_ahead)(const char *buffer, size_t bytes); /* with software prefetch */
	float (*fma)(long rounds);
	uint32_t (*int8)(long rounds);
	int fma_round, int8_round; /* multiply-adds of a round */
};

#if defined(__x86_64__)
extern const struct peak_loops peak_loops_avx2;
extern const struct peak_loops peak_loops_avx512;
extern const struct peak_loops peak_loops_avx512vnni;
#endif

#endif
