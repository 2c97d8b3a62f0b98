/* batches.c - the queue between the run and its trainers; delivery is exactly once by acknowledgement. */
#include "trainer_bridge/batches.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/codec.h"
#include "trainer_bridge/frame.h"

static void encode(struct batch *batch, struct trajectory *const *trajectories, int n)
{
	struct message_writer *writer = message_writer_open();
	size_t capacity = 0;

	for (int i = 0; i < n; i++) {
		size_t n_bytes;
		message_writer_reset(writer);
		codec_put_trajectory(writer, trajectories[i]);
		const void *bytes = message_bytes(writer, &n_bytes);
		size_t need = batch->n_bytes + FRAME_LENGTH_BYTES + n_bytes;
		if (need > capacity) {
			capacity = need + need / 2;
			batch->bytes = xrealloc(batch->bytes, capacity);
		}
		frame_put_length(batch->bytes + batch->n_bytes, n_bytes);
		memcpy(batch->bytes + batch->n_bytes + FRAME_LENGTH_BYTES, bytes, n_bytes);
		batch->n_bytes = need;
	}
	message_writer_close(writer);
}

void batches_put(struct batches *batches, uint64_t id, int64_t step, int64_t version,
                 struct trajectory *const *trajectories, int n)
{
	assert(n > 0);
	struct batch **end = &batches->first, *batch = xcalloc(1, sizeof *batch);

	for (; *end; end = &(*end)->next)
		assert((*end)->id != id);
	*batch = (struct batch){.id = id, .step = step, .version = version, .n = n, .references = 1};
	encode(batch, trajectories, n);
	*end = batch;
	batches->n++;
}

struct batch *batches_take(struct batches *batches, const void *holder)
{
	for (struct batch *batch = batches->first; batch; batch = batch->next)
		if (!batch->holder) {
			batch->holder = holder;
			return batch;
		}
	return NULL;
}

int batches_waiting(const struct batches *batches)
{
	int n = 0;

	for (const struct batch *batch = batches->first; batch; batch = batch->next)
		n += !batch->holder;
	return n;
}

void batches_give_back(struct batches *batches, const void *holder)
{
	for (struct batch *batch = batches->first; batch; batch = batch->next)
		if (batch->holder == holder)
			batch->holder = NULL;
}

int batches_ack(struct batches *batches, uint64_t id, const void *holder, bool *known, struct err *err)
{
	struct batch **at = &batches->first;

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	struct batch *batch = *at;
	*known = batch != NULL;
	if (!batch)
		return 0;
	if (batch->holder && batch->holder != holder)
		return err_set(err, ERR_STATE,
		               "batch %" PRIu64 " was given to another peer, only that one can acknowledge it", id);
	*at = batch->next;
	batches->n--;
	batch_release(batch);
	return 0;
}

void batches_clear(struct batches *batches)
{
	while (batches->first) {
		struct batch *next = batches->first->next;
		batch_release(batches->first);
		batches->first = next;
	}
	batches->n = 0;
}

void batch_reference(struct batch *batch)
{
	batch->references++;
}

void batch_release(struct batch *batch)
{
	if (--batch->references > 0)
		return;
	free(batch->bytes);
	free(batch);
}
