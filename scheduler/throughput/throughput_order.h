/* throughput_order.h - in which order the combinations of a sweep are run, so that none is favoured by when it ran. */
#ifndef SCHEDULER_THROUGHPUT_THROUGHPUT_ORDER_H
#define SCHEDULER_THROUGHPUT_THROUGHPUT_ORDER_H

#include <stdint.h>

/* order [n]: the indices 0..n-1 as the repetition (from 0) runs them.  Repetitions come in pairs: one shuffled by the seed
 * (Fisher-Yates over SplitMix64), then the same backwards, so that over a pair every index has the same mean place and a
 * machine that drifts steadily adds the same to all.  A pure function of its arguments. */
void throughput_order(int *order, int n, int repetition, uint64_t seed);

#endif
