/* weights_tree.h - who passes new weights on to whom: a pure function of the ranks that take part.
 *
 * Rank 0 is the root.  Position 0 is the root's, position i > 0 that of ranks[i - 1]; position p sends to positions
 * fanout p + 1 .. fanout p + fanout.  A rank that dies is left out of the next list, and everybody's place follows.
 * Cost: each rank sends at most fanout times the weights, and the last one is log_fanout(n) hops away. */
#ifndef SCHEDULER_RANKS_WEIGHTS_TREE_H
#define SCHEDULER_RANKS_WEIGHTS_TREE_H

#include <stdint.h>

/* The children of `self` (0, or one of ranks [n]) into children [fanout]; returns how many.  A rank that is not
 * there has none. */
int weights_tree_children(const int32_t *ranks, int n, int fanout, int32_t self, int32_t *children);

#endif
