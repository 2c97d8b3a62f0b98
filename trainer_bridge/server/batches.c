/* batches.c - the queue between the run and its trainers; delivery is exactly once by acknowledgement. */
#include "trainer_bridge/server/batches.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/wire/codec.h"
#include "trainer_bridge/wire/frame.h"

/* ---- one batch ---- */

static void encode(struct batch_group *group, struct trajectory *const *trajectories, int n)
{
	struct message_writer *writer = message_writer_open();
	size_t capacity = 0;

	for (int i = 0; i < n; i++) {
		size_t n_bytes;
		message_writer_reset(writer);
		codec_put_trajectory(writer, trajectories[i]);
		const void *bytes = message_bytes(writer, &n_bytes);
		size_t need = group->n_bytes + FRAME_LENGTH_BYTES + n_bytes;
		if (need > capacity) {
			capacity = i + 1 < n ? need + need / 8 + need / (size_t)(i + 1) * (size_t)(n - i - 1) : need;
			group->bytes = xrealloc(group->bytes, capacity);
		}
		frame_put_length(group->bytes + group->n_bytes, n_bytes);
		memcpy(group->bytes + group->n_bytes + FRAME_LENGTH_BYTES, bytes, n_bytes);
		group->n_bytes = need;
		group->lengths[i][0] = trajectories[i]->n_prompt;
		group->lengths[i][1] = trajectory_response_length(trajectories[i]);
	}
	message_writer_close(writer);
}

struct batch *batch_new(uint64_t id, int64_t step, int64_t version)
{
	struct batch *batch = xcalloc(1, sizeof *batch);

	*batch = (struct batch){.id = id, .step = step, .version = version, .references = 1};
	return batch;
}

void batch_add(struct batch *batch, int64_t version, uint64_t completed, struct trajectory *const *trajectories, int n)
{
	assert(n > 0);
	if (batch->n_groups == batch->capacity) {
		batch->capacity = batch->capacity ? 2 * batch->capacity : 16;
		batch->groups = xrealloc(batch->groups, (size_t)batch->capacity * sizeof *batch->groups);
	}
	struct batch_group *group = &batch->groups[batch->n_groups++];
	*group = (struct batch_group){.group = trajectories[0]->group_id, .completed = completed, .version = version, .n = n};
	group->lengths = xmalloc((size_t)n * sizeof *group->lengths);
	encode(group, trajectories, n);
	batch->n += n;
}

int batch_group_length(struct trajectory *const *trajectories, int n)
{
	int length = 1;

	while (length < n && trajectories[length]->group_id == trajectories[0]->group_id)
		length++;
	return length;
}

struct place {
	uint64_t key;
	int index;
};

static int place_compare(const void *a, const void *b)
{
	const struct place *left = a, *right = b;
	int order = (left->key > right->key) - (left->key < right->key);

	return order ? order : (left->index > right->index) - (left->index < right->index);
}

int *batch_in_order(const struct batch *batch, enum batch_order order)
{
	struct place *places = xmalloc((size_t)batch->n_groups * sizeof *places);
	int *indices = xmalloc((size_t)batch->n_groups * sizeof *indices);

	for (int i = 0; i < batch->n_groups; i++)
		places[i] = (struct place){order == ORDER_PROMPT ? batch->groups[i].group : batch->groups[i].completed, i};
	qsort(places, (size_t)batch->n_groups, sizeof *places, place_compare);
	for (int i = 0; i < batch->n_groups; i++)
		indices[i] = places[i].index;
	free(places);
	return indices;
}

void batch_reference(struct batch *batch)
{
	batch->references++;
}

void batch_release(struct batch *batch)
{
	if (--batch->references > 0)
		return;
	for (int i = 0; i < batch->n_groups; i++) {
		free(batch->groups[i].bytes);
		free(batch->groups[i].lengths);
	}
	free(batch->groups);
	free(batch);
}

/* ---- the queue ---- */

static struct batch *append(struct batches *batches, uint64_t id, int64_t step, int64_t version)
{
	struct batch **end = &batches->first;

	for (; *end; end = &(*end)->next)
		assert((*end)->id != id && (*end)->ended);
	batches->n++;
	return *end = batch_new(id, step, version);
}

void batches_put(struct batches *batches, uint64_t id, int64_t step, int64_t version,
                 struct trajectory *const *trajectories, int n)
{
	assert(n > 0);
	struct batch *batch = append(batches, id, step, version);

	for (int i = 0, length; i < n; i += length) {
		length = batch_group_length(trajectories + i, n - i);
		batch_add(batch, version, (uint64_t)i, trajectories + i, length);
	}
	batch->ended = true;
}

struct batch *batches_open(const struct batches *batches)
{
	struct batch *last = batches->first;

	while (last && last->next)
		last = last->next;
	return last && !last->ended ? last : NULL;
}

void batches_put_group(struct batches *batches, uint64_t id, int64_t step, int64_t version, enum batch_order order,
                       uint64_t completed, struct trajectory *const *trajectories, int n)
{
	struct batch *batch = batches_open(batches);

	assert(!batch || batch->id == id);
	if (!batch) {
		batch = append(batches, id, step, version);
		batch->order = order;
	}
	batch->version = version;
	batch_add(batch, version, completed, trajectories, n);
}

void batches_end(struct batches *batches, uint64_t id, int64_t version)
{
	struct batch *batch = batches_open(batches);

	assert(batch && batch->id == id && batch->n > 0);
	batch->version = version;
	batch->ended = true;
}

struct batch *batches_take(struct batches *batches, const void *holder, bool open_too, enum batch_order order)
{
	for (struct batch *batch = batches->first; batch; batch = batch->next)
		if (!batch->holder &&
		    (batch->ended || (open_too && order == batch->order))) {
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
	if (!batch->ended)
		return err_set(err, ERR_STATE,
		               "batch %" PRIu64 " is not complete: acknowledge it after its batch_end", id);
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
