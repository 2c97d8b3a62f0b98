/* client_arrivals.c - trajectories that arrive: parts put together, lengths and ends of batches, decoding. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/client/client_internal.h"
#include "trainer_bridge/wire/codec.h"

/* ---- what has arrived ---- */

static void append(struct arrival **list, const struct assembly *assembly)
{
	struct arrival *arrival = xcalloc(1, sizeof *arrival);

	arrival->of = *assembly;
	while (*list)
		list = &(*list)->next;
	*list = arrival;
}

struct arrival *client_arrival_take(struct arrival **list)
{
	struct arrival *first = *list;

	*list = first->next;
	return first;
}

/* Memory that was touched once is faster than fresh one: the larger buffer is kept for the next batch. */
void client_arrival_free(struct client *client, struct arrival *arrival)
{
	if (arrival->of.capacity > client->spare_bytes) {
		free(client->spare);
		client->spare = arrival->of.bytes;
		client->spare_bytes = arrival->of.capacity;
	} else {
		free(arrival->of.bytes);
	}
	free(arrival);
}

/* ---- parts ---- */

static int start(struct client *client, struct assembly *a, const struct message_node *frame, const char *id,
                 struct err *err)
{
	*a = (struct assembly){.bytes = client->spare, .capacity = client->spare_bytes, .micro = -1};
	client->spare = NULL;
	client->spare_bytes = 0;
	if (message_get_uint(frame, id, &a->id, err) || message_get_uint(frame, "bytes", &a->n_bytes, err) ||
	    message_get_int(frame, "version", 0, INT64_MAX, &a->version, err) ||
	    message_get_int(frame, "trajectories", 1, INT32_MAX, &a->n, err) ||
	    (message_field(frame, "step") && message_get_int(frame, "step", INT64_MIN, INT64_MAX, &a->step, err)) ||
	    (message_field(frame, "micro") && message_get_int(frame, "micro", 0, INT32_MAX, &a->micro, err)))
		return err->code;
	return message_get_int(frame, "parts", 1, INT32_MAX, &a->n_parts, err);
}

/* The next part of what is being assembled; once it is whole it goes to the list. */
static int take_part(struct client *client, struct assembly *a, struct arrival **list,
                     const struct message_node *frame, const char *key, struct err *err)
{
	uint64_t id;
	int64_t part;
	const void *data;
	size_t n_bytes;

	if (a->n_parts == 0 && start(client, a, frame, key, err))
		return err->code;
	if (message_get_uint(frame, key, &id, err) || message_get_bin(frame, "data", &data, &n_bytes, err) ||
	    message_get_int(frame, "part", 0, INT32_MAX, &part, err))
		return err->code;
	if (id != a->id || part != a->part || n_bytes > a->n_bytes - a->arrived)
		return err_set(err, ERR_PEER, "expected part %" PRId64 " of %s %" PRIu64 " with at most %" PRIu64
		               " bytes, found part %" PRId64 " of %" PRIu64 " with %zu", a->part, key, a->id,
		               a->n_bytes - a->arrived, part, id, n_bytes);
	if (a->arrived + n_bytes > a->capacity) {
		a->capacity = 2 * (a->arrived + n_bytes);
		a->bytes = xrealloc(a->bytes, a->capacity);
	}
	memcpy(a->bytes + a->arrived, data, n_bytes);
	a->arrived += n_bytes;
	if (++a->part < a->n_parts)
		return 0;
	if (a->arrived != a->n_bytes)
		return err_set(err, ERR_INCOMPLETE, "%s %" PRIu64 " ended after %zu of %" PRIu64 " bytes", key, a->id,
		               a->arrived, a->n_bytes);
	append(list, a);
	*a = (struct assembly){.n_parts = 0};
	return 0;
}

int client_take_batch(struct client *client, const struct message_node *frame, struct err *err)
{
	if (!client->pull_pending || (client->batches && client->batches->of.micro < 0))
		return err_set(err, ERR_PEER, "a batch came that was not pulled");
	return take_part(client, &client->batch, &client->batches, frame, "batch_id", err);
}

int client_take_evaluation(struct client *client, const struct message_node *frame, struct err *err)
{
	return take_part(client, &client->evaluation, &client->evaluations, frame, "id", err);
}

int client_take_batch_end(struct client *client, const struct message_node *frame, struct err *err)
{
	struct assembly end = {.micro = 0};
	int64_t n_sections;

	if (message_get_uint(frame, "batch_id", &end.id, err) ||
	    message_get_int(frame, "step", INT64_MIN, INT64_MAX, &end.step, err) ||
	    message_get_int(frame, "version", 0, INT64_MAX, &end.version, err) ||
	    message_get_int(frame, "micro_batches", 1, INT32_MAX, &n_sections, err))
		return err->code;
	append(&client->batches, &end);
	return 0;
}

/* ---- lengths ---- */

void client_forget_announced(struct client *client)
{
	free(client->announced.groups);
	free(client->announced.prompts);
	free(client->announced.responses);
	client->announced = (struct announcement){.n = 0};
}

static int start_announcement(struct client *client, const struct message_node *frame, struct err *err)
{
	struct announcement *a = &client->announced;

	client_forget_announced(client);
	a->micro = -1;
	if (message_get_uint(frame, "batch_id", &a->batch_id, err) ||
	    (message_field(frame, "micro") && message_get_int(frame, "micro", 0, INT32_MAX, &a->micro, err)) ||
	    message_get_int(frame, "trajectories", 1, INT32_MAX, &a->n, err))
		return err->code;
	return 0;
}

static int grow(void **items, int64_t told, const struct message_node *frame, const char *key, size_t item_bytes,
                int64_t most, int64_t *n, struct err *err)
{
	const void *bytes;
	size_t n_bytes;

	if (message_get_bin(frame, key, &bytes, &n_bytes, err))
		return err->code;
	*n = (int64_t)(n_bytes / item_bytes);
	if (n_bytes % item_bytes || *n > most)
		return err_set(err, ERR_INVALID, "field '%s': %zu bytes of lengths are too many", key, n_bytes);
	*items = xrealloc(*items, (size_t)(told + *n + 1) * item_bytes);
	memcpy((char *)*items + (size_t)told * item_bytes, bytes, n_bytes);
	return 0;
}

int client_take_lengths(struct client *client, const struct message_node *frame, struct err *err)
{
	struct announcement *a = &client->announced;
	int64_t first, n[3];
	void *arrays[3];

	if (message_get_int(frame, "first", 0, INT32_MAX, &first, err) ||
	    (first == 0 && start_announcement(client, frame, err)))
		return err->code;
	if (first != a->told)
		return err_set(err, ERR_PEER, "lengths of trajectory %" PRId64 " came, expected %" PRId64, first, a->told);
	arrays[0] = a->groups;
	arrays[1] = a->prompts;
	arrays[2] = a->responses;
	int rc = grow(&arrays[0], a->told, frame, "groups", sizeof *a->groups, a->n - a->told, &n[0], err);
	if (!rc) rc = grow(&arrays[1], a->told, frame, "prompts", sizeof *a->prompts, a->n - a->told, &n[1], err);
	if (!rc) rc = grow(&arrays[2], a->told, frame, "responses", sizeof *a->responses, a->n - a->told, &n[2], err);
	a->groups = arrays[0];
	a->prompts = arrays[1];
	a->responses = arrays[2];
	if (rc)
		return rc;
	if (n[0] != n[1] || n[0] != n[2])
		return err_set(err, ERR_INVALID, "lengths of %" PRId64 ", %" PRId64 " and %" PRId64 " trajectories in one frame",
		               n[0], n[1], n[2]);
	a->told += n[0];
	return 0;
}

static bool is_announced(const struct client *client)
{
	const struct announcement *a = &client->announced;
	bool ended = client->batches && client->batches->of.n == 0;

	return (a->n > 0 && a->told == a->n) || ended || client->bye;
}

int client_lengths(struct client *client, struct client_lengths *lengths, double timeout_seconds, struct err *err)
{
	const struct announcement *a = &client->announced;

	*lengths = (struct client_lengths){.micro = -1};
	if (client_ask(client, err) || client_wait(client, is_announced, timeout_seconds, err))
		return err->code;
	if (a->n > 0)
		*lengths = (struct client_lengths){a->batch_id, a->micro, (int)a->n, a->groups, a->prompts, a->responses};
	return 0;
}

/* ---- decoding ---- */

/* Trajectory i of the assembled payload, which *at walks. */
static int decode_next(const struct assembly *a, size_t *at, struct trajectory **trajectory, struct err *err)
{
	struct message *message;
	size_t left = a->arrived - *at, length = 0;

	for (int i = 0; i < FRAME_LENGTH_BYTES && left >= FRAME_LENGTH_BYTES; i++)
		length |= (size_t)a->bytes[*at + (size_t)i] << 8 * i;
	if (left < FRAME_LENGTH_BYTES || length > left - FRAME_LENGTH_BYTES)
		return err_set(err, ERR_INCOMPLETE, "its bytes end inside a trajectory");
	if (message_parse(&message, a->bytes + *at + FRAME_LENGTH_BYTES, length, err))
		return err->code;
	int rc = codec_get_trajectory(message_root(message), trajectory, err);
	message_close(message);
	*at += FRAME_LENGTH_BYTES + length;
	return rc;
}

int client_decode(const struct assembly *a, struct client_batch *batch, struct err *err)
{
	size_t at = 0;

	if ((uint64_t)a->n > a->n_bytes / FRAME_LENGTH_BYTES)
		return err_set(err, ERR_INVALID,
		               "batch %" PRIu64 " claims %" PRId64 " trajectories in %" PRIu64 " bytes", a->id, a->n,
		               a->n_bytes);
	*batch = (struct client_batch){.batch_id = a->id, .step = a->step, .version = a->version, .micro = a->micro};
	batch->trajectories = xcalloc((size_t)a->n, sizeof(struct trajectory *));
	for (; batch->n < a->n; batch->n++)
		if (decode_next(a, &at, &batch->trajectories[batch->n], err))
			break;
	if (batch->n == a->n && at == a->arrived)
		return 0;
	if (batch->n == a->n)
		err_set(err, ERR_INVALID, "%zu bytes lie behind its last trajectory", a->arrived - at);
	err_context(err, "batch %" PRIu64, a->id);
	client_batch_free(batch);
	return err->code;
}
