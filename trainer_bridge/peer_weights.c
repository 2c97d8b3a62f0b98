/* peer_weights.c - a peer pushes a version: begin, chunks and checksums, commit (intake.c does the work).
 *
 * One peer at a time.  A push has exactly one answer, WEIGHTS_OK or ERROR; after an ERROR what is left
 * of the push is ignored, for the peer sends without waiting.
 */
#include <string.h>

#include "trainer_bridge/peer_internal.h"
#include "trainer_bridge/sha256.h"

void peer_drop_push(struct peer *peer)
{
	if (peer->exchange->pusher != peer)
		return;
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

int peer_on_weights_begin(struct peer *peer, const struct message_node *frame, struct err *err)
{
	struct exchange *exchange = peer->exchange;
	const char *encoding = NULL;
	int64_t version;

	if (message_get_int(frame, "version", 0, INT32_MAX, &version, err) ||
	    message_get_text(frame, "encoding", &encoding, err))
		return err->code;
	peer_drop_push(peer);
	if (exchange->pusher) {
		refuse_push(peer, WIRE_BUSY, FRAME_WEIGHTS_BEGIN, version,
		            "another peer is pushing weights: try again later");
	} else if (!encoding || strcmp(encoding, "full") != 0) {
		refuse_push(peer, WIRE_UNSUPPORTED, FRAME_WEIGHTS_BEGIN, version,
		            "field 'encoding': expected 'full'");
	} else if (intake_begin(exchange->intake, version, exchange->version, err)) {
		refuse_push(peer, wire_error_of(err->code), FRAME_WEIGHTS_BEGIN, version, err->text);
	} else {
		exchange->pusher = peer;
		peer->push = PUSH_OPEN;
		peer->push_version = version;
	}
	return 0;
}

/* False where the frame belongs to no open push; a first stray one is answered. */
static bool push_is_open(struct peer *peer, enum frame_type type, int64_t version)
{
	if (peer->push == PUSH_NONE)
		refuse_push(peer, WIRE_STATE, type, version, "expected weights_begin before it");
	return peer->push == PUSH_OPEN;
}

int peer_on_weights_chunk(struct peer *peer, const struct message_node *frame, struct err *err)
{
	const char *name;
	const void *bytes;
	size_t n_bytes;
	int64_t version;
	uint64_t offset;

	if (message_get_int(frame, "version", 0, INT32_MAX, &version, err) ||
	    message_get_text(frame, "name", &name, err) || message_get_uint(frame, "offset", &offset, err) ||
	    message_get_bin(frame, "data", &bytes, &n_bytes, err))
		return err->code;
	if (push_is_open(peer, FRAME_WEIGHTS_CHUNK, version) &&
	    intake_chunk(peer->exchange->intake, version, name ? name : "", offset, bytes, n_bytes, err))
		refuse_push(peer, wire_error_of(err->code), FRAME_WEIGHTS_CHUNK, peer->push_version, err->text);
	return 0;
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
	struct weights weights;
	int64_t version;

	if (message_get_int(frame, "version", 0, INT32_MAX, &version, err))
		return err->code;
	if (!push_is_open(peer, FRAME_WEIGHTS_COMMIT, version))
		return 0;
	if (intake_commit(exchange->intake, version, &weights, err) ||
	    exchange->callbacks.weights_arrived(exchange->callbacks.context, version, &weights, err)) {
		refuse_push(peer, wire_error_of(err->code), FRAME_WEIGHTS_COMMIT, peer->push_version, err->text);
		return 0;
	}
	exchange->pusher = NULL;
	peer->push = PUSH_NONE;
	struct message_writer *w = peer_answer_begin(peer, FRAME_WEIGHTS_OK, 1);
	message_key(w, "version");
	message_put_int(w, version);
	peer_answer_end(peer);
	return 0;
}
