/* suffix.c - see suffix.h. */
#include "rollout/speculation/suffix.h"

#include <stdbool.h>
#include <stdlib.h>

#include "configs/err.h"

struct node {
	int32_t token;
	uint32_t before, after; /* of the same sample: distance in nodes, 0: none */
	uint32_t alike;         /* distance to the next older node with the same key, 0: none */
};

struct suffix_memory {
	uint64_t n;         /* nodes ever made; node i (from 1) lies at i & mask while i > n - size */
	uint64_t mask;
	struct node *nodes;
	uint32_t *newest;   /* [size] by key: node index modulo 2^32 */
};

struct suffix_memory *suffix_open(int64_t n_nodes)
{
	struct suffix_memory *m = xcalloc(1, sizeof *m);
	uint64_t size = 1024;

	while (size < (uint64_t)n_nodes && size < (UINT64_C(1) << 30)) size *= 2;
	m->mask = size - 1;
	m->nodes = xcalloc(size, sizeof *m->nodes);
	m->newest = xcalloc(size, sizeof *m->newest);
	return m;
}

void suffix_close(struct suffix_memory *m)
{
	if (!m) return;
	free(m->nodes);
	free(m->newest);
	free(m);
}

size_t suffix_bytes(const struct suffix_memory *m)
{
	return (size_t)(m->mask + 1) * (sizeof *m->nodes + sizeof *m->newest);
}

static bool alive(const struct suffix_memory *m, uint64_t node)
{
	return node > 0 && node <= m->n && m->n - node <= m->mask;
}

static struct node *at(const struct suffix_memory *m, uint64_t node) { return &m->nodes[node & m->mask]; }

/* The node so far before another, 0 if that is gone. */
static uint64_t back(const struct suffix_memory *m, uint64_t node, uint32_t distance)
{
	return distance > 0 && distance < node && alive(m, node - distance) ? node - distance : 0;
}

/* Bucket of the SUFFIX_KEY tokens that end at a node; false if it has fewer before it. */
static bool bucket_of(const struct suffix_memory *m, uint64_t node, uint64_t prompt_key, uint64_t *bucket)
{
	uint64_t hash = prompt_key;

	for (int i = 0; i < SUFFIX_KEY; i++) {
		if (node == 0) return false;
		hash = (hash ^ (uint32_t)at(m, node)->token) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 29;
		node = back(m, node, at(m, node)->before);
	}
	*bucket = hash & m->mask;
	return true;
}

/* The newest node of a bucket as it was when only n nodes were there; the 32 bits kept suffice since
 * living nodes are fewer. */
static uint64_t newest_of(const struct suffix_memory *m, uint64_t bucket)
{
	uint32_t low = m->newest[bucket];
	uint64_t node = (m->n & ~UINT64_C(0xffffffff)) | low;

	if (low == 0) return 0;
	if (node > m->n) node -= UINT64_C(1) << 32;
	return alive(m, node) ? node : 0;
}

void suffix_feed(struct suffix_memory *m, struct suffix_cursor *cursor, uint64_t prompt_key, const int32_t *tokens,
                 int32_t n)
{
	for (; cursor->n < n; cursor->n++) {
		uint64_t node = ++m->n, before = alive(m, cursor->node) ? cursor->node : 0, bucket;
		*at(m, node) = (struct node){.token = tokens[cursor->n], .before = before ? (uint32_t)(node - before) : 0};
		if (before) at(m, before)->after = (uint32_t)(node - before);
		cursor->node = node;
		if (!bucket_of(m, node, prompt_key, &bucket)) continue;
		uint64_t alike = newest_of(m, bucket);
		at(m, node)->alike = alike ? (uint32_t)(node - alike) : 0;
		m->newest[bucket] = (uint32_t)node;
	}
}

/* Tokens that agree, going back from two nodes. */
static int match_length(const struct suffix_memory *m, uint64_t a, uint64_t b)
{
	int length = 0;

	while (length < SUFFIX_MATCH_MAX && a && b && at(m, a)->token == at(m, b)->token) {
		length++;
		a = back(m, a, at(m, a)->before);
		b = back(m, b, at(m, b)->before);
	}
	return length;
}

int suffix_propose(const struct suffix_memory *m, const struct suffix_cursor *cursor, uint64_t prompt_key,
                   int32_t *draft, int max, int *match)
{
	uint64_t bucket, best = 0;
	int n = 0;

	*match = 0;
	if (!alive(m, cursor->node) || !bucket_of(m, cursor->node, prompt_key, &bucket)) return 0;
	uint64_t node = newest_of(m, bucket);
	for (int tried = 0; node && tried < SUFFIX_TRIED; node = back(m, node, at(m, node)->alike)) {
		if (node == cursor->node || at(m, node)->after == 0) continue; /* itself, or nothing follows yet */
		tried++;
		int length = match_length(m, cursor->node, node);
		if (length >= SUFFIX_KEY && length > *match) {
			*match = length;
			best = node;
		}
	}
	while (best && n < max && at(m, best)->after) {
		best += at(m, best)->after;
		if (!alive(m, best)) break;
		draft[n++] = at(m, best)->token;
	}
	return n;
}
