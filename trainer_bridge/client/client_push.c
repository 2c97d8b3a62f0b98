/* client_push.c - a version of the weights, and a step's report, on their way to the run.
 *
 * The tensors go out from where they lie: nothing is copied but the few bytes before each chunk.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "trainer_bridge/client/client_internal.h"

static void begin_weights(struct client *client, enum frame_type type, uint32_t n_fields, int64_t version)
{
	client_begin(client, type, n_fields + 1);
	message_key(client->writer, "version");
	message_put_int(client->writer, version);
}

/* A frame of a push; stops at once where the push has been refused meanwhile. */
static int send_of_push(struct client *client, const void *body, size_t body_bytes, struct err *err)
{
	if (client_send(client, body, body_bytes, err))
		return err->code;
	return client_refusal(client, err);
}

/* What is being pushed. */
struct push {
	struct client *client;
	int64_t version;
	size_t chunk_bytes;
};

/* xor_bytes 0: the bytes are the tensor's own. */
static int push_chunk(const struct push *push, const char *name, size_t offset, size_t xor_bytes, const void *bytes,
                      size_t n_bytes, struct err *err)
{
	struct message_writer *w = push->client->writer;

	begin_weights(push->client, FRAME_WEIGHTS_CHUNK, xor_bytes ? 4 : 3, push->version);
	message_key(w, "name");
	message_put_text(w, name);
	message_key(w, "offset");
	message_put_uint(w, offset);
	if (xor_bytes) {
		message_key(w, "xor_bytes");
		message_put_uint(w, xor_bytes);
	}
	message_key(w, "data");
	message_begin_bin(w, n_bytes);
	return send_of_push(push->client, bytes, n_bytes, err);
}

static int push_checksum(const struct push *push, const char *name, uint64_t xxh3, struct err *err)
{
	struct message_writer *w = push->client->writer;

	begin_weights(push->client, FRAME_WEIGHTS_TENSOR, 2, push->version);
	message_key(w, "name");
	message_put_text(w, name);
	message_key(w, "xxh3");
	message_put_uint(w, xxh3);
	return send_of_push(push->client, NULL, 0, err);
}

/* A chunk is summed just before it goes: the socket then reads it from the cache. */
static int push_bytes(const struct push *push, const char *name, const uint8_t *bytes, size_t n_bytes, struct err *err)
{
	struct checksum *sum = push->client->sum;

	checksum_begin(sum);
	for (size_t at = 0; at < n_bytes; at += push->chunk_bytes) {
		size_t n = n_bytes - at < push->chunk_bytes ? n_bytes - at : push->chunk_bytes;
		checksum_add(sum, bytes + at, n);
		if (push_chunk(push, name, at, 0, bytes + at, n, err))
			return err->code;
	}
	return push_checksum(push, name, checksum_end(sum), err);
}

static const uint8_t *tensor_bytes(const struct weights *weights, int i, size_t *n_bytes)
{
	const struct weight_tensor *tensor = &weights->tensors[i];
	*n_bytes = (size_t)tensor->rows * (size_t)tensor->cols * sizeof(uint16_t);
	return (const uint8_t *)(weights->data + tensor->offset);
}

/* Of an unchanged tensor the checksum only; a piece that does not get smaller goes as it is. */
static int push_difference(const struct push *push, const char *name, const uint8_t *new, const uint8_t *base,
                           size_t n_bytes, struct err *err)
{
	struct client *client = push->client;

	checksum_begin(client->sum);
	checksum_add(client->sum, new, n_bytes);
	for (size_t at = 0, n; at < n_bytes && memcmp(new, base, n_bytes) != 0; at += n) {
		size_t packed_bytes;
		n = n_bytes - at < push->chunk_bytes ? n_bytes - at : push->chunk_bytes;
		const void *packed = delta_pack(client->delta, new + at, base + at, n, &packed_bytes);
		int rc = packed_bytes < n ? push_chunk(push, name, at, n, packed, packed_bytes, err)
		                          : push_chunk(push, name, at, 0, new + at, n, err);
		if (rc)
			return rc;
	}
	return push_checksum(push, name, checksum_end(client->sum), err);
}

static bool has_weights_ok(const struct client *client)
{
	return client->ok_version >= 0;
}

/* Begins one with the encoding; n_fields more are written by the caller, who then sends it. */
static struct push begin_push(struct client *client, int64_t version, const char *encoding, uint32_t n_fields,
                              size_t chunk_bytes)
{
	size_t largest = client->frame_bytes_max - CHUNK_HEAD_BYTES_MAX;

	assert(chunk_bytes > 0);
	client->ok_version = -1;
	client->not_new = false;
	begin_weights(client, FRAME_WEIGHTS_BEGIN, 1 + n_fields, version);
	message_key(client->writer, "encoding");
	message_put_text(client->writer, encoding);
	return (struct push){client, version, chunk_bytes < largest ? chunk_bytes : largest};
}

static int commit_push(const struct push *push, struct err *err)
{
	struct client *client = push->client;

	begin_weights(client, FRAME_WEIGHTS_COMMIT, 0, push->version);
	if (send_of_push(client, NULL, 0, err) ||
	    client_wait(client, has_weights_ok, client->timeout_seconds, err))
		return err->code;
	if (client->ok_version != push->version)
		return err_set(err, ERR_PEER, "version %" PRId64 " was pushed and the run took %" PRId64, push->version,
		               client->ok_version);
	return 0;
}

bool client_push_was_not_new(const struct client *client)
{
	return client->not_new;
}

int client_push_weights(struct client *client, int64_t version, const struct weights *weights,
                        size_t chunk_bytes, struct err *err)
{
	struct push push = begin_push(client, version, "full", 0, chunk_bytes);
	size_t n_bytes;

	if (send_of_push(client, NULL, 0, err))
		return err->code;
	for (int i = 0; i < weights->n_tensors; i++) {
		const uint8_t *bytes = tensor_bytes(weights, i, &n_bytes);
		if (push_bytes(&push, weights->tensors[i].name, bytes, n_bytes, err))
			return err->code;
	}
	return commit_push(&push, err);
}

int client_push_delta(struct client *client, int64_t version, const struct weights *weights, int64_t base_version,
                      const struct weights *base, size_t chunk_bytes, struct err *err)
{
	struct push push = begin_push(client, version, "delta", 1, chunk_bytes);
	size_t n_bytes;

	assert(base->n_elements == weights->n_elements);
	message_key(client->writer, "base");
	message_put_int(client->writer, base_version);
	if (send_of_push(client, NULL, 0, err))
		return err->code;
	if (!client->delta)
		client->delta = delta_open();
	if (push.chunk_bytes > DELTA_BYTES_MAX)
		push.chunk_bytes = DELTA_BYTES_MAX;
	push.chunk_bytes = push.chunk_bytes < 2 ? 2 : push.chunk_bytes - push.chunk_bytes % 2;
	for (int i = 0; i < weights->n_tensors; i++) {
		const uint8_t *bytes = tensor_bytes(weights, i, &n_bytes);
		if (push_difference(&push, weights->tensors[i].name, bytes, tensor_bytes(base, i, &n_bytes), n_bytes, err))
			return err->code;
	}
	return commit_push(&push, err);
}

int client_push_lora(struct client *client, int64_t version, int64_t base_version, int rank, double alpha,
                     const struct client_lora *pairs, int n_pairs, size_t chunk_bytes, struct err *err)
{
	struct push push = begin_push(client, version, "lora", 3, chunk_bytes);
	char name[128];

	message_key(client->writer, "base");
	message_put_int(client->writer, base_version);
	message_key(client->writer, "rank");
	message_put_int(client->writer, rank);
	message_key(client->writer, "alpha");
	message_put_real(client->writer, alpha);
	if (send_of_push(client, NULL, 0, err))
		return err->code;
	for (int i = 0; i < n_pairs; i++) {
		const struct client_lora *pair = &pairs[i];
		size_t side = (size_t)rank * sizeof(float);
		snprintf(name, sizeof name, "%.100s.lora_A.weight", pair->matrix);
		if (push_bytes(&push, name, (const uint8_t *)pair->a, side * (size_t)pair->cols, err))
			return err->code;
		snprintf(name, sizeof name, "%.100s.lora_B.weight", pair->matrix);
		if (push_bytes(&push, name, (const uint8_t *)pair->b, side * (size_t)pair->rows, err))
			return err->code;
	}
	return commit_push(&push, err);
}

int client_report(struct client *client, const struct trainer_report *report, struct err *err)
{
	const struct { const char *key; double value; } reals[] = {
		{"loss", report->loss}, {"grad_norm", report->grad_norm}, {"kl", report->kl},
		{"clip_frac", report->clip_frac}, {"entropy", report->entropy}, {"tis_mean", report->tis_mean},
		{"learning_rate", report->learning_rate}, {"seconds", report->seconds},
	};
	enum { N_REALS = sizeof reals / sizeof *reals };
	struct message_writer *w = client_begin(client, FRAME_REPORT, 2 + N_REALS);

	message_key(w, "step");
	message_put_int(w, report->step);
	message_key(w, "tokens");
	message_put_int(w, report->tokens);
	for (int i = 0; i < N_REALS; i++) {
		message_key(w, reals[i].key);
		message_put_real(w, reals[i].value);
	}
	return client_send(client, NULL, 0, err);
}
