/* peer_batches.c - batches to a peer: credit in, parts out, acknowledgements in.
 *
 * Parts are cut when the socket can take them, and borrow the batch's bytes: a batch on its way costs
 * nothing beside itself.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/peer_internal.h"

int peer_on_pull(struct peer *peer, const struct message_node *frame, struct err *err)
{
	int64_t credits;

	if (message_get_int(frame, "credits", 0, INT32_MAX, &credits, err))
		return err->code;
	int64_t room = peer->exchange->credits_max - peer->held - peer->credits;
	if (room > 0)
		peer->credits += (int)(credits < room ? credits : room);
	return 0;
}

int peer_on_ack(struct peer *peer, const struct message_node *frame, struct err *err)
{
	struct exchange *exchange = peer->exchange;
	uint64_t id;
	bool known;

	if (message_get_uint(frame, "batch_id", &id, err))
		return err->code;
	bool mine = false;
	for (const struct batch *batch = exchange->batches.first; batch; batch = batch->next)
		mine = mine || (batch->id == id && batch->holder == peer);
	if (batches_ack(&exchange->batches, id, peer, &known, err)) {
		peer_answer_error(peer, WIRE_STATE, false, frame_name(FRAME_ACK), err->text);
		return 0;
	}
	peer->held -= mine;
	if (known)
		exchange->callbacks.batch_acked(exchange->callbacks.context, id);
	return 0;
}

static uint32_t count_parts(const struct peer *peer, const struct batch *batch, size_t *part_bytes)
{
	*part_bytes = peer->exchange->frame_bytes_max - BATCH_HEAD_BYTES_MAX;
	return (uint32_t)((batch->n_bytes + *part_bytes - 1) / *part_bytes);
}

static void take_batch_part(struct peer *peer, struct peer_frame *out)
{
	struct batch *batch = peer->batch;
	size_t part_bytes, head_bytes;
	uint32_t n_parts = count_parts(peer, batch, &part_bytes);
	size_t offset = peer->part * part_bytes, left = batch->n_bytes - offset;
	size_t body_bytes = left < part_bytes ? left : part_bytes;
	struct message_writer *w = peer_answer_begin(peer, FRAME_BATCH, 8);

	message_key(w, "batch_id");
	message_put_uint(w, batch->id);
	message_key(w, "step");
	message_put_int(w, batch->step);
	message_key(w, "version");
	message_put_int(w, batch->version);
	message_key(w, "trajectories");
	message_put_int(w, batch->n);
	message_key(w, "bytes");
	message_put_uint(w, batch->n_bytes);
	message_key(w, "part");
	message_put_uint(w, peer->part);
	message_key(w, "parts");
	message_put_uint(w, n_parts);
	message_key(w, "data");
	message_begin_bin(w, body_bytes);
	const void *head = message_bytes(w, &head_bytes);
	assert(head_bytes <= BATCH_HEAD_BYTES_MAX);

	*out = (struct peer_frame){.head_bytes = FRAME_LENGTH_BYTES + head_bytes, .body = batch->bytes + offset,
	                           .body_bytes = body_bytes, .batch = batch};
	out->head = xmalloc(out->head_bytes);
	frame_put_length(out->head, head_bytes + body_bytes);
	memcpy(out->head + FRAME_LENGTH_BYTES, head, head_bytes);
	batch_reference(batch);
	if (++peer->part == n_parts) {
		batch_release(batch);
		peer->batch = NULL;
	}
}

int peer_credits(const struct peer *peer)
{
	return peer->state == STATE_WELCOME ? peer->credits : 0;
}

static bool start_batch(struct peer *peer)
{
	struct batch *batch = peer->credits > 0 ? batches_take(&peer->exchange->batches, peer) : NULL;

	if (!batch)
		return false;
	batch_reference(batch);
	peer->batch = batch;
	peer->part = 0;
	peer->credits--;
	peer->held++;
	return true;
}

bool peer_next_part(struct peer *peer, struct peer_frame *frame)
{
	if (!peer->batch && !start_batch(peer))
		return false;
	take_batch_part(peer, frame);
	return true;
}
