/* client_push.c - a version of the weights, and a step's report, on their way to the run.
 *
 * The tensors go out from where they lie: nothing is copied but the few bytes before each chunk.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <assert.h>
#include <inttypes.h>

#include "trainer_bridge/client_internal.h"

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

static int push_tensor(struct client *client, int64_t version, const struct weights *weights, int i,
                       size_t chunk_bytes, struct err *err)
{
	const struct weight_tensor *tensor = &weights->tensors[i];
	const uint8_t *bytes = (const uint8_t *)(weights->data + tensor->offset);
	size_t n_bytes = (size_t)tensor->rows * (size_t)tensor->cols * sizeof(uint16_t);
	struct message_writer *w = client->writer;

	for (size_t offset = 0; offset < n_bytes; offset += chunk_bytes) {
		size_t n = n_bytes - offset < chunk_bytes ? n_bytes - offset : chunk_bytes;
		begin_weights(client, FRAME_WEIGHTS_CHUNK, 3, version);
		message_key(w, "name");
		message_put_text(w, tensor->name);
		message_key(w, "offset");
		message_put_uint(w, offset);
		message_key(w, "data");
		message_begin_bin(w, n);
		if (send_of_push(client, bytes + offset, n, err))
			return err->code;
	}
	begin_weights(client, FRAME_WEIGHTS_TENSOR, 2, version);
	message_key(w, "name");
	message_put_text(w, tensor->name);
	message_key(w, "xxh3");
	message_put_uint(w, XXH3_64bits(bytes, n_bytes));
	return send_of_push(client, NULL, 0, err);
}

static bool has_weights_ok(const struct client *client)
{
	return client->ok_version >= 0;
}

int client_push_weights(struct client *client, int64_t version, const struct weights *weights,
                        size_t chunk_bytes, struct err *err)
{
	size_t largest = client->frame_bytes_max - CHUNK_HEAD_BYTES_MAX;

	assert(chunk_bytes > 0);
	client->ok_version = -1;
	begin_weights(client, FRAME_WEIGHTS_BEGIN, 1, version);
	message_key(client->writer, "encoding");
	message_put_text(client->writer, "full");
	if (send_of_push(client, NULL, 0, err))
		return err->code;
	for (int i = 0; i < weights->n_tensors; i++)
		if (push_tensor(client, version, weights, i, chunk_bytes < largest ? chunk_bytes : largest, err))
			return err->code;
	begin_weights(client, FRAME_WEIGHTS_COMMIT, 0, version);
	if (send_of_push(client, NULL, 0, err) ||
	    client_wait(client, has_weights_ok, client->timeout_seconds, err))
		return err->code;
	if (client->ok_version != version)
		return err_set(err, ERR_PEER, "version %" PRId64 " was pushed and the run took %" PRId64, version,
		               client->ok_version);
	return 0;
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
