/* group_table.c - a window over ascending ids. */
#include "scheduler/controller/group_table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct group_table {
	struct live_group **window; /* [n]: ids base .. base+n-1; NULL where gone */
	uint64_t base;
	size_t n, capacity;
	size_t gone;                /* of the first so many, none is left */
};

struct group_table *group_table_open(void)
{
	return xcalloc(1, sizeof(struct group_table));
}

static void live_group_free(struct live_group *g)
{
	for (int i = 0; g && i < g->n_samples; i++) {
		trajectory_free(g->samples[i]);
		kv_parcel_free(&g->kv[i]);
	}
	if (g) {
		submitted_prompt_free(g->submitted);
		free(g->kv);
		free(g->pruning);
		free(g->ranks);
		free(g->unsaved);
		free(g->moving);
		free(g->judging);
		free(g->samples);
		free(g->leases);
		free(g->holders);
		free(g->orphans);
	}
	free(g);
}

void group_table_close(struct group_table *table)
{
	for (size_t i = 0; i < table->n; i++) live_group_free(table->window[i]);
	free(table->window);
	free(table);
}

struct live_group *group_table_add(struct group_table *table, uint64_t id, int n_samples, bool eval)
{
	if (table->n == 0) table->base = id;
	assert(id >= table->base + table->n);
	size_t need = (size_t)(id - table->base) + 1;
	if (need > table->capacity) {
		table->capacity = 2 * need;
		table->window = xrealloc(table->window, table->capacity * sizeof *table->window);
	}
	memset(table->window + table->n, 0, (need - table->n) * sizeof *table->window);
	table->n = need;

	struct live_group *g = xcalloc(1, sizeof *g);
	g->id = id;
	g->eval = eval;
	g->n_samples = g->n_first = n_samples;
	g->samples = xcalloc((size_t)n_samples, sizeof *g->samples);
	g->leases = xcalloc((size_t)n_samples, sizeof *g->leases);
	g->holders = xcalloc((size_t)n_samples, sizeof *g->holders);
	g->orphans = xcalloc((size_t)n_samples, sizeof *g->orphans);
	g->unsaved = xcalloc((size_t)n_samples, sizeof *g->unsaved);
	g->moving = xcalloc((size_t)n_samples, sizeof *g->moving);
	g->judging = xcalloc((size_t)n_samples, sizeof *g->judging);
	g->kv = xcalloc((size_t)n_samples, sizeof *g->kv);
	table->window[need - 1] = g;
	return g;
}

static void *extend(void *items, int n, int n_more, size_t size)
{
	char *longer = xrealloc(items, (size_t)(n + n_more) * size);
	memset(longer + (size_t)n * size, 0, (size_t)n_more * size);
	return longer;
}

void group_table_extend(struct live_group *g, int n_more)
{
	g->samples = extend(g->samples, g->n_samples, n_more, sizeof *g->samples);
	g->leases = extend(g->leases, g->n_samples, n_more, sizeof *g->leases);
	g->holders = extend(g->holders, g->n_samples, n_more, sizeof *g->holders);
	g->orphans = extend(g->orphans, g->n_samples, n_more, sizeof *g->orphans);
	g->unsaved = extend(g->unsaved, g->n_samples, n_more, sizeof *g->unsaved);
	g->moving = extend(g->moving, g->n_samples, n_more, sizeof *g->moving);
	g->judging = extend(g->judging, g->n_samples, n_more, sizeof *g->judging);
	g->kv = extend(g->kv, g->n_samples, n_more, sizeof *g->kv);
	g->n_samples += n_more;
}

struct live_group *group_table_find(const struct group_table *table, uint64_t id)
{
	return id >= table->base && id - table->base < table->n ? table->window[id - table->base] : NULL;
}

void group_table_remove(struct group_table *table, uint64_t id)
{
	struct live_group *g = group_table_find(table, id);

	assert(g);
	table->window[id - table->base] = NULL;
	live_group_free(g);
	while (table->gone < table->n && !table->window[table->gone]) table->gone++;
	/* Move the window only when half of it is gone: constant cost per group. */
	if (2 * table->gone < table->n) return;
	memmove(table->window, table->window + table->gone, (table->n - table->gone) * sizeof *table->window);
	table->base += table->gone;
	table->n -= table->gone;
	table->gone = 0;
}

struct live_group *group_table_next(const struct group_table *table, uint64_t from)
{
	for (size_t i = from > table->base ? (size_t)(from - table->base) : 0; i < table->n; i++)
		if (table->window[i]) return table->window[i];
	return NULL;
}
