/* weights_tree.c - the k-ary heap's arithmetic. */
#include "scheduler/ranks/weights_tree.h"

static int position_of(const int32_t *ranks, int n, int32_t self)
{
	if (self == 0) return 0;
	for (int i = 0; i < n; i++)
		if (ranks[i] == self) return i + 1;
	return -1;
}

int weights_tree_children(const int32_t *ranks, int n, int fanout, int32_t self, int32_t *children)
{
	int position = position_of(ranks, n, self), n_children = 0;

	if (position < 0) return 0;
	int64_t first = (int64_t)fanout * position + 1;
	for (int64_t p = first; p < first + fanout && p <= n; p++) children[n_children++] = ranks[p - 1];
	return n_children;
}
