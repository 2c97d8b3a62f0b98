/* simulate_queues.c - what waits in virtual time: messages, wake-ups of ranks, and groups by id.
 *
 * A message costs O(1) while messages are sent in the order in which they arrive, which a constant latency makes the
 * rule, else O(log messages); a wake-up O(log ranks).  Equal times are ordered by sending and by rank, so nothing
 * depends on the layout of a heap.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"
#include "scheduler/simulate/simulate_internal.h"

/* ---- messages ---- */

static bool earlier(const struct sim_message *a, const struct sim_message *b)
{
	return a->time != b->time ? a->time < b->time : a->order < b->order;
}

static struct sim_message *ring_at(const struct sim_messages *q, size_t i)
{
	return &q->ring[(q->first + i) & (q->ring_capacity - 1)];
}

static void ring_push(struct sim_messages *q, const struct sim_message *message)
{
	if (q->n == q->ring_capacity) {
		size_t capacity = q->ring_capacity ? 2 * q->ring_capacity : 1024;
		struct sim_message *ring = xmalloc(capacity * sizeof *ring);
		for (size_t i = 0; i < q->n; i++) ring[i] = *ring_at(q, i);
		free(q->ring);
		q->ring = ring;
		q->ring_capacity = capacity;
		q->first = 0;
	}
	*ring_at(q, q->n++) = *message;
}

static void heap_push(struct sim_messages *q, const struct sim_message *message)
{
	if (q->n_heap == q->heap_capacity) {
		q->heap_capacity = q->heap_capacity ? 2 * q->heap_capacity : 1024;
		q->heap = xrealloc(q->heap, q->heap_capacity * sizeof *q->heap);
	}
	size_t at = q->n_heap++;
	for (; at > 0 && earlier(message, &q->heap[(at - 1) / 2]); at = (at - 1) / 2) q->heap[at] = q->heap[(at - 1) / 2];
	q->heap[at] = *message;
}

static struct sim_message heap_pop(struct sim_messages *q)
{
	struct sim_message first = q->heap[0], last = q->heap[--q->n_heap];
	size_t at = 0;

	for (size_t child; (child = 2 * at + 1) < q->n_heap; at = child) {
		if (child + 1 < q->n_heap && earlier(&q->heap[child + 1], &q->heap[child])) child++;
		if (!earlier(&q->heap[child], &last)) break;
		q->heap[at] = q->heap[child];
	}
	q->heap[at] = last;
	return first;
}

void sim_messages_push(struct sim_messages *q, struct sim_message message)
{
	message.order = q->order++;
	if (q->n > 0 && message.time < ring_at(q, q->n - 1)->time) heap_push(q, &message);
	else ring_push(q, &message);
}

static bool heap_is_first(const struct sim_messages *q)
{
	return q->n == 0 || (q->n_heap > 0 && earlier(&q->heap[0], ring_at(q, 0)));
}

const struct sim_message *sim_messages_first(const struct sim_messages *q)
{
	if (q->n + q->n_heap == 0) return NULL;
	return heap_is_first(q) ? &q->heap[0] : ring_at(q, 0);
}

struct sim_message sim_messages_pop(struct sim_messages *q)
{
	if (heap_is_first(q)) return heap_pop(q);
	struct sim_message first = *ring_at(q, 0);
	q->first = (q->first + 1) & (q->ring_capacity - 1);
	q->n--;
	return first;
}

void sim_messages_free(struct sim_messages *q)
{
	free(q->ring);
	free(q->heap);
}

/* ---- wake-ups ---- */

void sim_wakes_open(struct sim_wakes *w, int n_ranks)
{
	w->heap = xmalloc(((size_t)n_ranks + 1) * sizeof *w->heap);
	w->place = xcalloc((size_t)n_ranks + 1, sizeof *w->place);
	w->n = 0;
}

void sim_wakes_free(struct sim_wakes *w)
{
	free(w->heap);
	free(w->place);
}

static bool wakes_before(struct sim_wake a, struct sim_wake b)
{
	return a.time != b.time ? a.time < b.time : a.rank < b.rank;
}

static void wakes_put(struct sim_wakes *w, int at, struct sim_wake wake)
{
	w->heap[at] = wake;
	w->place[wake.rank] = at;
}

/* Into the hole at `at`, or above or below. */
static void wakes_settle(struct sim_wakes *w, int at, struct sim_wake wake)
{
	for (; at > 1 && wakes_before(wake, w->heap[at / 2]); at /= 2) wakes_put(w, at, w->heap[at / 2]);
	for (int child; (child = 2 * at) <= w->n; at = child) {
		if (child < w->n && wakes_before(w->heap[child + 1], w->heap[child])) child++;
		if (!wakes_before(w->heap[child], wake)) break;
		wakes_put(w, at, w->heap[child]);
	}
	wakes_put(w, at, wake);
}

void sim_wakes_set(struct sim_wakes *w, int rank, double time)
{
	int at = w->place[rank];

	if (time < INFINITY) {
		wakes_settle(w, at ? at : ++w->n, (struct sim_wake){time, rank});
	} else if (at) {
		struct sim_wake last = w->heap[w->n--];
		w->place[rank] = 0;
		if (last.rank != rank) wakes_settle(w, at, last);
	}
}

/* ---- groups ---- */

struct sim_group *sim_groups_find(const struct sim_groups *g, uint64_t id)
{
	return id >= g->base && id - g->base < g->n ? g->window[id - g->base] : NULL;
}

/* Drop what is gone in front, when it is half of the window. */
static void groups_pack(struct sim_groups *g)
{
	size_t gone = 0;

	while (gone < g->n && !g->window[gone]) gone++;
	if (g->n == 0 || 2 * gone < g->n) return;
	memmove(g->window, g->window + gone, (g->n - gone) * sizeof(struct sim_group *));
	g->base += gone;
	g->n -= gone;
}

struct sim_group *sim_groups_add(struct sim_groups *g, uint64_t id, int n_samples)
{
	struct sim_group *group = xcalloc(1, sizeof *group + (size_t)n_samples * sizeof group->samples[0]);

	if (g->n == g->capacity) {
		groups_pack(g);
		if (2 * g->n > g->capacity || g->capacity == 0) {
			g->capacity = g->capacity ? 2 * g->capacity : 256;
			g->window = xrealloc(g->window, g->capacity * sizeof(struct sim_group *));
		}
	}
	if (g->n == 0) g->base = id;
	while (g->base + g->n < id) g->window[g->n++] = NULL; /* ids are given without gaps: none */
	g->window[g->n++] = group;
	group->id = id;
	group->n_samples = n_samples;
	return group;
}

static void group_free(struct sim_group *group)
{
	for (int i = 0; group && i < group->n_samples; i++) free(group->samples[i].marks);
	free(group);
}

void sim_groups_remove(struct sim_groups *g, uint64_t id)
{
	group_free(g->window[id - g->base]);
	g->window[id - g->base] = NULL;
}

void sim_groups_free(struct sim_groups *g)
{
	for (size_t i = 0; i < g->n; i++) group_free(g->window[i]);
	free(g->window);
}
