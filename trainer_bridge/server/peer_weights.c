/* peer_weights.c - a peer pushes a version: begin, chunks and checksums, commit (intake.c does the work).
 *
 * One peer at a time.  A push has exactly one answer, WEIGHTS_OK or ERROR; after an ERROR what is left
 * of the push is ignored, for the peer sends without waiting.
 */
#include <string.h>

#include "trainer_bridge/server/peer_internal.h"
#include "trainer_bridge/wire/sha256.h"

void peer_drop_push(struct peer *peer)
{
	if (peer->exchange->pusher != peer)
		return;
	if (peer->push == PUSH_OPEN)
		intake_abandon(peer->exchange->intake);
	peer->exchange->pusher = NULL;
}

/* The one answer to a push: it is refused, what is left of it will be ignored. */
static void refuse_push(struct peer *peer, enum wire_error error, enum frame_type about, int64_t version,
                        const char *text)
{
	peer_drop_push(peer);
	peer->push = PUSH_REFUSED;
	peer->push_version = version;
	peer_answer_error(peer, error, false, frame_name(about), text);
}

static int get_push(const struct message_node *frame, struct intake_push *push, bool *known, struct err *err)
{
	static const char *const encodings[] = {"full", "delta", "lora"};
	const char *encoding = NULL;

	*push = (struct intake_push){0};
	*known = false;
	if (message_get_int(frame, "version", 0, INT32_MAX, &push->version, err) ||
	    message_get_text(frame, "encoding", &encoding, err))
		return err->code;
	for (int i = 0; encoding && i < (int)(sizeof encodings / sizeof *encodings); i++)
		if (strcmp(encoding, encodings[i]) == 0) {
			*known = true;
			push->encoding = (enum intake_encoding)i;
		}
	if (push->encoding != INTAKE_FULL && message_get_int(frame, "base", 0, INT32_MAX, &push->base, err))
		return err->code;
	if (push->encoding == INTAKE_LORA && (message_get_int(frame, "rank", 0, INT32_MAX, &push->rank, err) ||
	                                      message_get_real(frame, "alpha", &push->alpha, err)))
		return err->code;
	return 0;
}

static void begin_push(struct peer *peer, const struct intake_push *push)
{
	struct exchange *exchange = peer->exchange;
	struct err err = {0};

	if (intake_begin_push(exchange->intake, push, exchange->version, &err)) {
		refuse_push(peer, wire_error_of(err.code), FRAME_WEIGHTS_BEGIN, push->version, err.text);
		return;
	}
	exchange->pusher = peer;
	peer->push = PUSH_OPEN;
	peer->push_version = push->version;
}

int peer_on_weights_begin(struct peer *peer, const struct message_node *frame, struct err *err)
{
	struct exchange *exchange = peer->exchange;
	struct intake_push push;
	bool known;

	if (get_push(frame, &push, &known, err))
		return err->code;
	peer_drop_push(peer);
	peer->push = PUSH_NONE;
	if (exchange->pusher || intake_busy(exchange->intake)) {
		refuse_push(peer, WIRE_BUSY, FRAME_WEIGHTS_BEGIN, push.version,
		            "another peer is pushing weights: try again later");
	} else if (!known) {
		refuse_push(peer, WIRE_UNSUPPORTED, FRAME_WEIGHTS_BEGIN, push.version,
		            "field 'encoding': expected 'full', 'delta' or 'lora'");
	} else if (!intake_ready(exchange->intake)) {
		peer->push = PUSH_WAITING;
		peer->asked = push;
		exchange->pusher = peer;
	} else {
		begin_push(peer, &push);
	}
	return 0;
}

void peer_resume(struct peer *peer)
{
	if (peer->push == PUSH_WAITING && intake_ready(peer->exchange->intake)) {
		peer->exchange->pusher = NULL;
		begin_push(peer, &peer->asked);
	}
}

/* False where the frame belongs to no open push; a first stray one is answered. */
static bool push_is_open(struct peer *peer, enum frame_type type, int64_t version)
{
	if (peer->push == PUSH_NONE)
		refuse_push(peer, WIRE_STATE, type, version, "expected weights_begin before it");
	return peer->push == PUSH_OPEN;
}

/* The fields of a chunk but its data; xor_bytes -1: there is none. */
struct chunk {
	int64_t version, xor_bytes;
	const char *name;
	uint64_t offset;
};

static int get_chunk(const struct message_node *frame, struct chunk *chunk, struct err *err)
{
	if (message_get_int(frame, "version", 0, INT32_MAX, &chunk->version, err) ||
	    message_get_text(frame, "name", &chunk->name, err) ||
	    message_get_uint(frame, "offset", &chunk->offset, err))
		return err->code;
	if (!chunk->name)
		chunk->name = "";
	chunk->xor_bytes = -1;
	return !message_field(frame, "xor_bytes")
	               ? 0
	               : message_get_int(frame, "xor_bytes", 0, DELTA_BYTES_MAX, &chunk->xor_bytes, err);
}

int peer_on_weights_chunk(struct peer *peer, const struct message_node *frame, struct err *err)
{
	struct intake *intake = peer->exchange->intake;
	struct chunk chunk;
	const void *bytes;
	size_t n_bytes;

	if (get_chunk(frame, &chunk, err) || message_get_bin(frame, "data", &bytes, &n_bytes, err))
		return err->code;
	if (!push_is_open(peer, FRAME_WEIGHTS_CHUNK, chunk.version))
		return 0;
	int rc = chunk.xor_bytes < 0
	                 ? intake_chunk(intake, chunk.version, chunk.name, chunk.offset, bytes, n_bytes, err)
	                 : intake_delta(intake, chunk.version, chunk.name, chunk.offset, chunk.xor_bytes, bytes,
	                                n_bytes, err);
	if (rc)
		refuse_push(peer, wire_error_of(err->code), FRAME_WEIGHTS_CHUNK, peer->push_version, err->text);
	return 0;
}

/* ---- chunks whose data goes straight to its place ---- */

bool peer_on_weights_head(struct peer *peer, const struct message_node *head, size_t body_bytes)
{
	struct chunk chunk;
	struct err err = {0};

	if (get_chunk(head, &chunk, &err) || chunk.xor_bytes >= 0)
		return false; /* it will be told why, or is unpacked, when all of it is here */
	peer->body_left = body_bytes;
	if (push_is_open(peer, FRAME_WEIGHTS_CHUNK, chunk.version) &&
	    intake_place(peer->exchange->intake, chunk.version, chunk.name, chunk.offset, body_bytes, &err))
		refuse_push(peer, wire_error_of(err.code), FRAME_WEIGHTS_CHUNK, peer->push_version, err.text);
	return true;
}

size_t peer_body_left(const struct peer *peer)
{
	return peer->body_left;
}

void *peer_body(const struct peer *peer, size_t *n_bytes)
{
	*n_bytes = peer->body_left;
	return peer->body_left > 0 && peer->push == PUSH_OPEN ? intake_at(peer->exchange->intake, n_bytes) : NULL;
}

void peer_body_filled(struct peer *peer, size_t n_bytes)
{
	if (peer->push == PUSH_OPEN)
		intake_filled(peer->exchange->intake, n_bytes);
	peer->body_left -= n_bytes;
}

/* Checks the tensor by the one checksum that the frame brings. */
static int check_tensor(struct intake *intake, const struct message_node *frame, int64_t version,
                        const char *name, struct err *err)
{
	const void *digest;
	size_t n_bytes;
	uint64_t xxh3;

	if (!message_field(frame, "sha256")) {
		if (message_get_uint(frame, "xxh3", &xxh3, err))
			return err->code;
		return intake_checksum(intake, version, name, xxh3, err);
	}
	if (message_get_bin(frame, "sha256", &digest, &n_bytes, err))
		return err->code;
	if (n_bytes != SHA256_BYTES)
		return err_set(err, ERR_INVALID, "field 'sha256': expected %d bytes, found %zu", SHA256_BYTES,
		               n_bytes);
	return intake_checksum_sha256(intake, version, name, digest, err);
}

int peer_on_weights_tensor(struct peer *peer, const struct message_node *frame, struct err *err)
{
	const char *name;
	int64_t version;

	if (message_get_int(frame, "version", 0, INT32_MAX, &version, err) ||
	    message_get_text(frame, "name", &name, err))
		return err->code;
	if (push_is_open(peer, FRAME_WEIGHTS_TENSOR, version) &&
	    check_tensor(peer->exchange->intake, frame, version, name ? name : "", err))
		refuse_push(peer, wire_error_of(err->code), FRAME_WEIGHTS_TENSOR, peer->push_version, err->text);
	return 0;
}

int peer_on_weights_commit(struct peer *peer, const struct message_node *frame, struct err *err)
{
	struct exchange *exchange = peer->exchange;
	const struct weights *weights;
	int64_t version;

	if (message_get_int(frame, "version", 0, INT32_MAX, &version, err))
		return err->code;
	if (!push_is_open(peer, FRAME_WEIGHTS_COMMIT, version))
		return 0;
	if (intake_commit(exchange->intake, version, &weights, err) ||
	    exchange->callbacks.weights_arrived(exchange->callbacks.context, version, weights, err)) {
		refuse_push(peer, wire_error_of(err->code), FRAME_WEIGHTS_COMMIT, peer->push_version, err->text);
		return 0;
	}
	intake_adopt(exchange->intake);
	exchange->pusher = NULL;
	peer->push = PUSH_NONE;
	struct message_writer *w = peer_answer_begin(peer, FRAME_WEIGHTS_OK, 1);
	message_key(w, "version");
	message_put_int(w, version);
	peer_answer_end(peer);
	return 0;
}
