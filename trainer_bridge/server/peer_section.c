/* peer_section.c - groups on their way to a peer: their lengths where it asked for them, then their bytes in parts.
 *
 * Parts are cut when the socket can take them, and borrow the group's bytes: a batch on its way costs nothing beside
 * itself.  A part lies within one group.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/server/peer_internal.h"

enum { LENGTHS_HEAD_BYTES_MAX = 256, LENGTHS_ITEM_BYTES = 8 + 4 + 4, LENGTHS_FRAME_ITEMS_MAX = 65536 };

static const struct batch_group *group_at(const struct section *section, int place)
{
	return &section->batch->groups[section->order ? section->order[place] : place];
}

static size_t part_bytes_max(const struct peer *peer)
{
	return peer->exchange->frame_bytes_max - BATCH_HEAD_BYTES_MAX;
}

void peer_section_begin(struct peer *peer, const struct section *section)
{
	struct section *s = &peer->section;
	size_t most = part_bytes_max(peer);

	assert(!s->batch && section->first < section->end);
	*s = *section;
	batch_reference(s->batch);
	s->at = s->first;
	s->n_told = s->type == FRAME_BATCH && peer->wants_lengths ? 0 : -1;
	for (int i = s->first; i < s->end; i++) {
		const struct batch_group *group = group_at(s, i);
		s->n += group->n;
		s->n_bytes += group->n_bytes;
		s->n_parts += (uint32_t)((group->n_bytes + most - 1) / most);
	}
}

void peer_section_drop(struct peer *peer)
{
	if (peer->section.batch)
		batch_release(peer->section.batch);
	peer->section = (struct section){.batch = NULL};
}

/* ---- lengths ---- */

static void put_lengths(struct peer *peer, const int64_t *groups, const int32_t *prompts, const int32_t *responses,
                        int n)
{
	const struct section *s = &peer->section;
	struct message_writer *w = peer_answer_begin(peer, FRAME_BATCH_LENGTHS, s->micro < 0 ? 6 : 7);

	message_key(w, "batch_id");
	message_put_uint(w, s->id);
	if (s->micro >= 0) {
		message_key(w, "micro");
		message_put_int(w, s->micro);
	}
	message_key(w, "trajectories");
	message_put_int(w, s->n);
	message_key(w, "first");
	message_put_int(w, s->n_told);
	message_key(w, "groups");
	message_put_bin(w, groups, (size_t)n * sizeof *groups);
	message_key(w, "prompts");
	message_put_bin(w, prompts, (size_t)n * sizeof *prompts);
	message_key(w, "responses");
	message_put_bin(w, responses, (size_t)n * sizeof *responses);
}

/* As many as a frame holds, from the n_told-th on. */
static void take_lengths(struct peer *peer)
{
	struct section *s = &peer->section;
	size_t room = (peer->exchange->frame_bytes_max - LENGTHS_HEAD_BYTES_MAX) / LENGTHS_ITEM_BYTES;
	int most = room < LENGTHS_FRAME_ITEMS_MAX ? (int)room : LENGTHS_FRAME_ITEMS_MAX, n = 0, before = 0;
	int64_t *groups = xmalloc((size_t)most * sizeof *groups);
	int32_t *prompts = xmalloc((size_t)most * sizeof *prompts), *responses = xmalloc((size_t)most * sizeof *responses);

	for (int i = s->first; i < s->end && n < most; before += group_at(s, i)->n, i++) {
		const struct batch_group *group = group_at(s, i);
		for (int k = s->n_told + n - before; k < group->n && n < most; k++, n++) {
			groups[n] = (int64_t)group->group;
			prompts[n] = group->lengths[k][0];
			responses[n] = group->lengths[k][1];
		}
	}
	put_lengths(peer, groups, prompts, responses, n);
	s->n_told += n;
	if (s->n_told == s->n)
		s->n_told = -1;
	free(groups);
	free(prompts);
	free(responses);
}

/* The answer that was just begun, as a frame with a body that it does not copy. */
static void take_frame(struct peer *peer, const uint8_t *body, size_t body_bytes, struct peer_frame *out)
{
	size_t head_bytes;
	const void *head = message_bytes(peer->writer, &head_bytes);

	*out = (struct peer_frame){.head_bytes = FRAME_LENGTH_BYTES + head_bytes, .body = body, .body_bytes = body_bytes};
	out->head = xmalloc(out->head_bytes);
	frame_put_length(out->head, head_bytes + body_bytes);
	memcpy(out->head + FRAME_LENGTH_BYTES, head, head_bytes);
}

/* ---- bytes ---- */

static void put_head(struct peer *peer, size_t body_bytes)
{
	const struct section *s = &peer->section;
	bool batch = s->type == FRAME_BATCH;
	struct message_writer *w = peer_answer_begin(peer, s->type, batch ? 8 + (s->micro >= 0) : 7);

	message_key(w, batch ? "batch_id" : "id");
	message_put_uint(w, s->id);
	if (batch) {
		message_key(w, "step");
		message_put_int(w, s->batch->step);
	}
	message_key(w, "version");
	message_put_int(w, s->micro >= 0 ? group_at(s, s->end - 1)->version : s->batch->version);
	message_key(w, "trajectories");
	message_put_int(w, s->n);
	message_key(w, "bytes");
	message_put_uint(w, s->n_bytes);
	message_key(w, "part");
	message_put_uint(w, s->part);
	message_key(w, "parts");
	message_put_uint(w, s->n_parts);
	if (s->micro >= 0) {
		message_key(w, "micro");
		message_put_int(w, s->micro);
	}
	message_key(w, "data");
	message_begin_bin(w, body_bytes);
}

static void take_part(struct peer *peer, struct peer_frame *out)
{
	struct section *s = &peer->section;
	const struct batch_group *group = group_at(s, s->at);
	size_t left = group->n_bytes - s->offset, most = part_bytes_max(peer), body_bytes = left < most ? left : most;

	put_head(peer, body_bytes);
	take_frame(peer, group->bytes + s->offset, body_bytes, out);
	assert(out->head_bytes <= FRAME_LENGTH_BYTES + BATCH_HEAD_BYTES_MAX);
	out->batch = s->batch;
	batch_reference(s->batch);
	s->part++;
	s->offset += body_bytes;
	if (s->offset == group->n_bytes) {
		s->offset = 0;
		s->at++;
	}
	if (s->at == s->end)
		peer_section_drop(peer);
}

bool peer_section_frame(struct peer *peer, struct peer_frame *frame)
{
	if (!peer->section.batch)
		return false;
	if (peer->section.n_told >= 0) {
		take_lengths(peer);
		take_frame(peer, NULL, 0, frame);
		return true;
	}
	take_part(peer, frame);
	return true;
}
