/* turns.h - what both sides of `make bench-peer` share: made-up tokens and commands.
 *
 * Each side is a program that holds one model, reads a command a line and answers with a line, so that a
 * script lets them work in turns while the other one sleeps.  Commands and answers:
 *
 *     greedy PROMPT STEPS             tokens after the first PROMPT made-up ones, the largest logit each time but of end tokens
 *     prefill N                       seconds of N tokens of one sequence
 *     decode BATCH CONTEXT STEPS      seconds of a call that adds a token to each of BATCH sequences, the median of STEPS
 *     generate BATCH CONTEXT STEPS    tokens and seconds: the same with sampling at temperature 1, after the prompts;
 *                                     ours: also the seconds of rescoring, which are not within
 *     serve FILE SLOTS SHARED         theirs: seconds of each step of requests, so many sequences at a time
 *     peaks, work PHASE BATCH CONTEXT ours: the machine's limits now; what a call reads and computes at least
 */
#ifndef TESTS_BENCH_PEER_TURNS_H
#define TESTS_BENCH_PEER_TURNS_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum {
	LINE_MAX_BYTES = 4096, STEPS_MAX = 4096, SEQUENCES_MAX = 256,
	TOKENS_SKIPPED = 3 /* by `greedy`: end tokens, which a model would repeat for ever */
};

static inline double turn_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Tokens do not change the speed; both sides have the same. */
static inline int32_t turn_token(int vocabulary, int sequence, int position)
{
	uint32_t x = (uint32_t)sequence * 7919u + (uint32_t)position * 104729u + 12345u;
	x = (x ^ (x >> 15)) * 0x2c1b3c6du;
	return (int32_t)((x ^ (x >> 12)) % (uint32_t)vocabulary);
}

static inline int turn_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static inline double turn_median(double *samples, int n)
{
	qsort(samples, (size_t)n, sizeof *samples, turn_compare);
	return n % 2 ? samples[n / 2] : 0.5 * (samples[n / 2 - 1] + samples[n / 2]);
}

#endif
