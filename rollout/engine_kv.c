/* engine_kv.c - samples that bring their KV along, or take it with them (kv_parcel.h). */
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "rollout/engine_internal.h"

/* Queued parcels lie beside the KV budget: this part of it at most. */
enum { PARCELS_PART = 4 };

void kv_parcel_free(struct kv_parcel *parcel)
{
	free(parcel->bytes);
	*parcel = (struct kv_parcel){0};
}

struct kv_parcel kv_parcel_copy(const struct kv_parcel *parcel)
{
	struct kv_parcel copy = *parcel;
	if (parcel->bytes) copy.bytes = memcpy(xmalloc(parcel->n_bytes), parcel->bytes, parcel->n_bytes);
	return copy;
}

/* Exact and speculative make the same bits. */
static int mode_of(const struct session *s)
{
	return s->part == PART_TARGET ? ROLLOUT_SPECULATIVE : ROLLOUT_QUANTIZED;
}

static bool same_part(int a, int b)
{
	return (a == ROLLOUT_QUANTIZED) == (b == ROLLOUT_QUANTIZED);
}

void engine_parcel_accept(struct engine *e, struct session *s, const struct kv_parcel *parcel)
{
	const struct trajectory *t = s->trajectory;
	size_t room = e->options.kv_bytes / PARCELS_PART;

	if (!parcel || !parcel->bytes || parcel->version != e->workspace.policy->version ||
	    !same_part(parcel->mode, mode_of(s))) return;
	if (parcel->n_positions < t->n_prompt || parcel->n_positions > t->n_tokens - 1 ||
	    parcel->n_bytes != kv_seq_export_bytes(&s->kv, parcel->n_positions)) return;
	if (e->parcel_bytes + parcel->n_bytes > room) return;
	s->parcel = kv_parcel_copy(parcel);
	e->parcel_bytes += parcel->n_bytes;
}

void engine_parcel_drop(struct engine *e, struct session *s)
{
	e->parcel_bytes -= s->parcel.n_bytes;
	kv_parcel_free(&s->parcel);
}

bool engine_parcel_unpack(struct engine *e, struct session *s)
{
	if (!s->parcel.bytes) return false;
	bool fits = kv_seq_import(&s->kv, s->parcel.n_positions, s->parcel.bytes) == 0;
	if (fits) {
		s->forked = s->unshared = true;
		s->n_computed = s->parcel.n_positions;
		e->workspace.stats.imported_tokens += (uint64_t)s->parcel.n_positions;
	}
	engine_parcel_drop(e, s);
	return fits;
}

void engine_add_with_kv(struct engine *e, struct trajectory *t, const struct kv_parcel *parcel)
{
	engine_add(e, t);
	struct session *s = e->queue.last;
	if (s && s->trajectory == t) engine_parcel_accept(e, s, parcel);
}

/* More than the prompt, and all of it under the weights of now. */
static bool has_kv_to_give(const struct session *s)
{
	return s->forked && !s->kv_kept && s->n_computed >= s->trajectory->n_prompt;
}

/* The parcel it came with, or what it has computed. */
static struct kv_parcel pack(struct engine *e, struct session *s)
{
	struct kv_parcel parcel = {0};

	if (s->parcel.bytes) {
		parcel = s->parcel;
		e->parcel_bytes -= parcel.n_bytes;
		s->parcel = (struct kv_parcel){0};
	} else if (has_kv_to_give(s)) {
		parcel.n_positions = s->n_computed;
		parcel.version = e->workspace.policy->version;
		parcel.mode = mode_of(s);
		parcel.n_bytes = kv_seq_export_bytes(&s->kv, parcel.n_positions);
		parcel.bytes = xmalloc(parcel.n_bytes);
		kv_seq_export(&s->kv, parcel.n_positions, parcel.bytes);
	}
	return parcel;
}

struct trajectory *engine_withdraw_with_kv(struct engine *e, uint64_t trajectory_id, struct kv_parcel *parcel)
{
	struct session *s = engine_find(e, trajectory_id);

	*parcel = s ? pack(e, s) : (struct kv_parcel){0};
	return engine_withdraw(e, trajectory_id);
}

int32_t engine_kv_positions(const struct engine *e, uint64_t trajectory_id)
{
	const struct session *s = engine_find(e, trajectory_id);

	if (!s) return 0;
	return s->parcel.bytes ? s->parcel.n_positions : has_kv_to_give(s) ? s->n_computed : 0;
}

size_t engine_kv_bytes(const struct engine *e, int32_t n_positions)
{
	return kv_seq_export_bytes(&(struct kv_seq){.cache = e->cache}, n_positions);
}

struct session *engine_find(const struct engine *e, uint64_t trajectory_id)
{
	for (struct session *s = e->queue.first; s; s = s->next)
		if (s->trajectory->id == trajectory_id) return s;
	for (int i = 0; i < e->n_active; i++)
		if (e->active[i]->trajectory->id == trajectory_id) return e->active[i];
	return NULL;
}

uint64_t engine_least_progress(const struct engine *e)
{
	const struct session *least = e->queue.last;

	for (int i = e->n_active - 1; !e->queue.last && i >= 0; i--)
		if (!least || trajectory_response_length(e->active[i]->trajectory) < trajectory_response_length(least->trajectory))
			least = e->active[i];
	return least ? least->trajectory->id : 0;
}
