/* admission.c - who decodes now, under a hard KV budget.
 *
 * Admission counts the pages that the active sessions and their prompts are going to hold with one
 * round's growth, plus GROWTH_PAGES for each, so that a newcomer is not put back at once.  Budgets
 * are still overrun, since nobody knows how long a sample gets: then the newest session gives up its
 * KV and goes back to the front of the queue (recompute preemption, as in vLLM, Kwon et al. 2023).
 * The oldest is never put back but for the rescoring of a sample that has ended or leaves (rescore.c), so
 * every sample ends.
 */
#include <assert.h>
#include <string.h>

#include "quant/kernels.h"
#include "rollout/engine_internal.h"

enum { GROWTH_PAGES = 2 };

static int pages_for(int n_positions)
{
	return (n_positions + KV_TILE - 1) / KV_TILE;
}

static bool prefix_held(const struct prefix *prefix)
{
	return prefix->waiting > 0 || prefix->n_computed > 0;
}

/* Pages of a session that it does not share with its prefix. */
static int session_pages(const struct engine *e, const struct session *s)
{
	int pages = pages_for(s->trajectory->n_tokens + 1 + e->draft_length_max);
	return prefix_held(s->prefix) && !s->unshared && !s->parcel.bytes ? pages - prefix_positions(s->prefix) / KV_TILE : pages;
}

static int committed_pages(const struct engine *e)
{
	int pages = 0;

	for (const struct prefix *p = e->prefixes.first; p; p = p->next)
		if (prefix_held(p)) pages += pages_for(prefix_positions(p));
	for (int i = 0; i < e->n_active; i++) pages += session_pages(e, e->active[i]) + GROWTH_PAGES;
	return pages;
}

void engine_admit(struct engine *e)
{
	if (e->queue.n == 0 || e->n_active == e->options.max_active) return;
	int committed = committed_pages(e);

	while (e->queue.n > 0 && e->n_active < e->options.max_active) {
		struct session *s = e->queue.first;
		int pages = session_pages(e, s) + GROWTH_PAGES;
		if (e->n_active > 0 && committed + pages > kv_cache_pages_max(e->cache)) return;
		committed += pages;
		session_list_pop(&e->queue);
		session_enter(s, PHASE_PREFILL, workspace_now(&e->workspace));
		s->prefix->waiting += !engine_parcel_unpack(e, s);
		e->active[e->n_active++] = s;
	}
}

void engine_remove_active(struct engine *e, int index)
{
	struct session *s = e->active[index];

	if (!s->forked) s->prefix->waiting--;
	e->n_active--;
	memmove(e->active + index, e->active + index + 1, (size_t)(e->n_active - index) * sizeof *e->active);
}

static void put_back_newest(struct engine *e)
{
	struct session *s = e->active[e->n_active - 1];

	engine_remove_active(e, e->n_active - 1);
	session_rewind(s);
	session_enter(s, PHASE_QUEUED, workspace_now(&e->workspace));
	session_list_push_front(&e->queue, s);
	e->workspace.stats.preemptions++;
}

bool engine_make_room(struct engine *e, int index)
{
	if (prefix_forget_idle(&e->prefixes)) return true;
	int newest = e->n_active - 1;

	assert(newest > 0 && "one session alone always fits: engine_add refuses others");
	put_back_newest(e);
	return newest != index;
}

void engine_make_room_for_all(struct engine *e)
{
	if (prefix_forget_idle(&e->prefixes)) return;
	assert(e->n_active > 0 && "one sequence alone always fits: engine_add refuses others");
	put_back_newest(e);
}
