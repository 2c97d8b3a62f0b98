/* peer_batches.c - batches to a peer: credit in, whole batches or micro-batches out, acknowledgements in. */
#include <assert.h>
#include <stdlib.h>

#include "trainer_bridge/server/peer_internal.h"

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

/* Of the batch that comes in micro-batches the end has not been told. */
static bool is_unfinished(const struct peer *peer, uint64_t id)
{
	return peer->micro_groups > 0 && peer->batch && peer->batch->id == id;
}

int peer_on_ack(struct peer *peer, const struct message_node *frame, struct err *err)
{
	struct exchange *exchange = peer->exchange;
	uint64_t id;
	bool known;

	if (message_get_uint(frame, "batch_id", &id, err))
		return err->code;
	if (is_unfinished(peer, id)) {
		peer_answer_error(peer, WIRE_STATE, false, frame_name(FRAME_ACK),
		                  "the batch is not complete: acknowledge it after its batch_end");
		return 0;
	}
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

int peer_credits(const struct peer *peer)
{
	return peer->state == STATE_WELCOME ? peer->credits : 0;
}

bool peer_streams(const struct peer *peer, enum batch_order *order)
{
	*order = peer->order;
	return peer->state == STATE_WELCOME && peer->micro_groups > 0;
}

void peer_drop_batch(struct peer *peer)
{
	if (peer->batch)
		batch_release(peer->batch);
	free(peer->batch_order);
	peer->batch = NULL;
	peer->batch_order = NULL;
	peer->n_sections = peer->groups_sent = 0;
}

/* A complete batch can be put in any order, an open one comes in the order that was asked for. */
static bool start_batch(struct peer *peer)
{
	struct batches *batches = &peer->exchange->batches;
	struct batch *batch =
		peer->credits > 0 ? batches_take(batches, peer, peer->micro_groups > 0, peer->order) : NULL;

	if (!batch)
		return false;
	batch_reference(batch);
	peer->batch = batch;
	peer->batch_order = batch->ended ? batch_in_order(batch, peer->order) : NULL;
	peer->credits--;
	peer->held++;
	return true;
}

/* The rest of the batch, or as many groups of it as make a micro-batch; false where they are not there yet. */
static bool start_section(struct peer *peer)
{
	const struct batch *batch = peer->batch;
	int left = batch->n_groups - peer->groups_sent;
	bool micro = peer->micro_groups > 0;

	if (left == 0 || (!batch->ended && left < peer->micro_groups))
		return false;
	int n = micro && left > peer->micro_groups ? peer->micro_groups : left;
	peer_section_begin(peer, &(struct section){
		.batch = peer->batch, .type = FRAME_BATCH, .id = batch->id, .micro = micro ? peer->n_sections : -1,
		.order = peer->batch_order, .first = peer->groups_sent, .end = peer->groups_sent + n});
	peer->groups_sent += n;
	peer->n_sections++;
	return true;
}

static void tell_end(struct peer *peer)
{
	const struct batch *batch = peer->batch;
	struct message_writer *w = peer_answer_begin(peer, FRAME_BATCH_END, 5);

	message_key(w, "batch_id");
	message_put_uint(w, batch->id);
	message_key(w, "step");
	message_put_int(w, batch->step);
	message_key(w, "version");
	message_put_int(w, batch->version);
	message_key(w, "micro_batches");
	message_put_int(w, peer->n_sections);
	message_key(w, "trajectories");
	message_put_int(w, batch->n);
	peer_answer_end(peer);
}

/* All of the batch is on its way: what is said after its last part. */
static void finish_batch(struct peer *peer)
{
	if (peer->micro_groups > 0)
		tell_end(peer);
	peer_drop_batch(peer);
}

bool peer_next_part(struct peer *peer, struct peer_frame *frame)
{
	while (!peer_section_frame(peer, frame)) {
		if (peer_begin_evaluation(peer))
			continue;
		if (!peer->batch && !start_batch(peer))
			return false;
		if (start_section(peer))
			continue;
		if (!peer->batch->ended)
			return false;
		finish_batch(peer);
		if (peer->answers_bytes > 0)
			return peer_next_frame(peer, frame);
	}
	return true;
}
