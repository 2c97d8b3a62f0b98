/* suffix.h - what samples have said so far, to be looked up by their last words.
 *
 * A ring of nodes, one per token of any sample that was fed: the newest replace the oldest, so memory is
 * bounded and old rollouts fade by themselves.  A sample is a chain of nodes; nodes whose last
 * SUFFIX_KEY tokens hash alike, for the same prompt, are chained by age.  What it returns is only ever a
 * proposal, so a hash collision costs a wrong guess and nothing else.
 *
 * After SuffixDecoding (Oliaro et al. 2024), with a hash of the last tokens in place of its suffix trees:
 * longest match among the SUFFIX_TRIED most recent occurrences, in O(SUFFIX_TRIED * match).
 */
#ifndef ROLLOUT_SPECULATION_SUFFIX_H
#define ROLLOUT_SPECULATION_SUFFIX_H

#include <stddef.h>
#include <stdint.h>

enum {
	SUFFIX_KEY = 3,      /* tokens that must agree for a match */
	SUFFIX_TRIED = 8,    /* occurrences compared */
	SUFFIX_MATCH_MAX = 64 /* longer matches count as this */
};

struct suffix_memory;

/* Where a sample stands; zero before its first token. */
struct suffix_cursor {
	uint64_t node; /* its newest, counted from 1; 0: none */
	int32_t n;     /* tokens fed */
};

/* Remembers the newest n_nodes tokens (rounded up to a power of two; 20 bytes each). */
struct suffix_memory *suffix_open(int64_t n_nodes);
void suffix_close(struct suffix_memory *memory); /* NULL is allowed */
size_t suffix_bytes(const struct suffix_memory *memory);

/* Feed tokens [cursor->n, n) of a sample of the prompt with this key. */
void suffix_feed(struct suffix_memory *memory, struct suffix_cursor *cursor, uint64_t prompt_key,
                 const int32_t *tokens, int32_t n);

/* What followed the longest earlier occurrence of the sample's last tokens: fills draft [0 .. max) and
 * returns how many; *match: tokens that agreed, 0 if none. */
int suffix_propose(const struct suffix_memory *memory, const struct suffix_cursor *cursor, uint64_t prompt_key,
                   int32_t *draft, int max, int *match);

#endif
