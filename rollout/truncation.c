/* truncation.c - partial selection by binary heaps: the vocabulary is never sorted.
 *
 * top-k (Fan et al. 2018): a heap of the k best so far, worst on top; nearly every entry fails one
 * comparison with the top.  top-p (Holtzman et al. 2020): entries so unlikely that all of them
 * together cannot make up 1 - top_p are left out first; the rest becomes a heap, best on top, and
 * is taken off until the mass is reached.  The order is total, so the result does not depend on how
 * the heaps are arranged; masses are added in that order in double precision.
 */
#include "rollout/truncation.h"

#include "quant/exact_math.h"

typedef bool above_fn(struct ranked a, struct ranked b);

static bool best_on_top(struct ranked a, struct ranked b) { return ranked_before(a, b); }
static bool worst_on_top(struct ranked a, struct ranked b) { return ranked_before(b, a); }

/* Let the entry at i sink to its place below the entries that belong above it. */
static inline void heap_sink(struct ranked *heap, int32_t n, int32_t i, above_fn *above)
{
	struct ranked entry = heap[i];

	for (int64_t child = 2 * (int64_t)i + 1; child < n; child = 2 * (int64_t)i + 1) {
		if (child + 1 < n && above(heap[child + 1], heap[child])) child++;
		if (!above(heap[child], entry)) break;
		heap[i] = heap[child];
		i = (int32_t)child;
	}
	heap[i] = entry;
}

static inline void heap_build(struct ranked *heap, int32_t n, above_fn *above)
{
	for (int32_t i = n / 2 - 1; i >= 0; i--) heap_sink(heap, n, i, above);
}

struct ranked truncate_top_k(struct ranked *heap, const float *logits, int32_t n, int32_t k)
{
	for (int32_t i = 0; i < k; i++) heap[i] = (struct ranked){logits[i], i};
	heap_build(heap, k, worst_on_top);
	for (int32_t i = k; i < n; i++) {
		if (!(logits[i] > heap[0].logit)) continue; /* of equals the earlier id is already there */
		heap[0] = (struct ranked){logits[i], i};
		heap_sink(heap, k, 0, worst_on_top);
	}
	return heap[0];
}

struct ranked truncate_top_p(struct ranked *heap, const float *logits, int32_t n, struct ranked cut,
                             float max, float inv_t, float total, float top_p)
{
	double wanted = (double)top_p * (double)total, mass = 0.0;
	float negligible = exact_log(0.5f * (1.0f - top_p) * total / (float)n);
	int32_t c = 0;

	for (int32_t i = 0; i < n; i++)
		if ((logits[i] - max) * inv_t >= negligible && cut_keeps(cut, logits[i], i))
			heap[c++] = (struct ranked){logits[i], i};
	heap_build(heap, c, best_on_top);
	for (; c > 0; c--) {
		cut = heap[0];
		mass += (double)exact_exp((cut.logit - max) * inv_t);
		if (mass >= wanted) break;
		heap[0] = heap[c - 1];
		heap_sink(heap, c - 1, 0, best_on_top);
	}
	return cut;
}
