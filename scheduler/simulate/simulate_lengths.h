/* simulate_lengths.h - how long prompts and responses are: a distribution, or what a run stored. */
#ifndef SCHEDULER_SIMULATE_SIMULATE_LENGTHS_H
#define SCHEDULER_SIMULATE_SIMULATE_LENGTHS_H

#include "configs/config.h"

struct simulate_lengths;

/* Borrows config.  ERR_CONFIG where simulate.lengths and simulate.run contradict each other; what store.h says of a
 * run directory; ERR_MISSING if the run finished no sample. */
int simulate_lengths_open(struct simulate_lengths **lengths, const struct config *config, struct err *err);
void simulate_lengths_close(struct simulate_lengths *lengths);

/* Functions of simulate.seed and their arguments: whoever asks, and when, gets the same. */
int32_t simulate_lengths_prompt(const struct simulate_lengths *lengths, uint64_t group);
int32_t simulate_lengths_response(const struct simulate_lengths *lengths, uint64_t group, int sample);

/* Groups of one prompt have it in common: those of a distribution have a prompt each. */
uint64_t simulate_lengths_key(const struct simulate_lengths *lengths, uint64_t group);

/* Uniform in [0, 1), keyed by simulate.seed. */
double simulate_lengths_uniform(const struct simulate_lengths *lengths, uint64_t group, int what);

/* "lognormal, mean 64, ..." */
void simulate_lengths_describe(const struct simulate_lengths *lengths, char *text, size_t size);

#endif
