/* peer_handshake.c - HELLO, CHALLENGE, AUTH, WELCOME on the server's side. */
#include <inttypes.h>
#include <string.h>

#include "trainer_bridge/server/auth.h"
#include "trainer_bridge/server/peer_internal.h"

static void put_tensors(struct message_writer *w, const struct weights *layout)
{
	message_key(w, "tensors");
	message_begin_array(w, (uint32_t)layout->n_tensors);
	for (int i = 0; i < layout->n_tensors; i++) {
		const struct weight_tensor *tensor = &layout->tensors[i];
		message_begin_map(w, 3);
		message_key(w, "name");
		message_put_text(w, tensor->name);
		message_key(w, "shape");
		message_begin_array(w, (uint32_t)tensor->n_dims);
		if (tensor->n_dims == 2)
			message_put_int(w, tensor->rows);
		message_put_int(w, tensor->cols);
		message_key(w, "dtype");
		message_put_text(w, "bf16");
	}
}

static void welcome(struct peer *peer)
{
	struct exchange *exchange = peer->exchange;
	const struct request_handlers *handlers = exchange->handlers;
	uint8_t mac[MAC_BYTES];
	struct message_writer *w = peer_answer_begin(peer, FRAME_WELCOME, 10 + (exchange->secret != NULL) +
	                                             (exchange->versions_lost > 0));

	message_key(w, "protocol");
	message_put_int(w, PROTOCOL_VERSION);
	message_key(w, "run_id");
	message_put_text(w, exchange->run_id);
	message_key(w, "version");
	message_put_int(w, exchange->version);
	if (exchange->versions_lost > 0) {
		message_key(w, "weights");
		message_put_int(w, exchange->version - exchange->versions_lost);
	}
	message_key(w, "frame_bytes_max");
	message_put_uint(w, exchange->frame_bytes_max);
	message_key(w, "credits_max");
	message_put_int(w, exchange->credits_max);
	message_key(w, "prompts_max");
	message_put_int(w, handlers ? handlers->prompts_max : 0);
	message_key(w, "prompt_tokens_max");
	message_put_int(w, handlers ? handlers->prompt_tokens_max : 0);
	message_key(w, "max_tokens");
	message_put_int(w, handlers ? handlers->max_tokens : 0);
	message_key(w, "keep_versions");
	message_put_int(w, handlers ? handlers->keep_versions : 0);
	if (exchange->secret) {
		auth_prove(AUTH_SERVER, exchange->secret, peer->server_nonce, peer->peer_nonce, peer->name, mac);
		message_key(w, "mac");
		message_put_bin(w, mac, sizeof mac);
	}
	put_tensors(w, intake_layout(exchange->intake));
	peer_answer_end(peer);
	peer->state = STATE_WELCOME;
	peer->joined = true;
	exchange->n_welcome++;
	exchange->callbacks.peer_joined(exchange->callbacks.context, peer->name);
}

/* A bin of exactly n bytes. */
static int get_fixed_bin(const struct message_node *map, const char *key, uint8_t *out, size_t n,
                         struct err *err)
{
	const void *bytes;
	size_t n_bytes;

	if (message_get_bin(map, key, &bytes, &n_bytes, err))
		return err->code;
	if (n_bytes != n)
		return err_set(err, ERR_INVALID, "field '%s': expected %zu bytes, found %zu", key, n, n_bytes);
	memcpy(out, bytes, n);
	return 0;
}

/* Names go to terminals and logs: no control characters. */
static int get_name(const struct message_node *map, char name[PEER_NAME_BYTES_MAX + 1], struct err *err)
{
	const char *text;

	if (message_get_text(map, "name", &text, err))
		return err->code;
	if (!text || !*text || strlen(text) > PEER_NAME_BYTES_MAX)
		return err_set(err, ERR_INVALID, "field 'name': expected 1 to %d bytes, found %zu",
		               PEER_NAME_BYTES_MAX, text ? strlen(text) : 0);
	for (const char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return err_set(err, ERR_INVALID, "field 'name': control characters are not allowed");
	strcpy(name, text);
	return 0;
}

/* How it wants its batches. */
static int get_delivery(struct peer *peer, const struct message_node *frame, struct err *err)
{
	const char *order = "prompt";
	int64_t groups = 0;

	if ((message_field(frame, "order") && message_get_text(frame, "order", &order, err)) ||
	    (message_field(frame, "micro_batch") && message_get_int(frame, "micro_batch", 0, INT32_MAX, &groups, err)) ||
	    (message_field(frame, "lengths") && message_get_bool(frame, "lengths", &peer->wants_lengths, err)))
		return err->code;
	if (!order || (strcmp(order, "prompt") != 0 && strcmp(order, "completion") != 0))
		return err_set(err, ERR_UNSUPPORTED, "order '%.32s' is unknown: expected 'prompt' or 'completion'",
		               order ? order : "nil");
	peer->order = strcmp(order, "prompt") == 0 ? ORDER_PROMPT : ORDER_COMPLETION;
	peer->micro_groups = (int)groups;
	return 0;
}

int peer_on_hello(struct peer *peer, const struct message_node *frame, struct err *err)
{
	int64_t oldest, newest;
	const char *role;

	if (message_get_int(frame, "protocol_min", 0, INT64_MAX, &oldest, err) ||
	    message_get_int(frame, "protocol_max", 0, INT64_MAX, &newest, err))
		return err->code;
	if (newest < PROTOCOL_VERSION_MIN || oldest > PROTOCOL_VERSION)
		return err_set(err, ERR_UNSUPPORTED, "the peer speaks protocol versions %" PRId64 " to %" PRId64
		               ", this server %d to %d", oldest, newest, PROTOCOL_VERSION_MIN, PROTOCOL_VERSION);
	if (get_name(frame, peer->name, err) || message_get_text(frame, "role", &role, err) ||
	    get_fixed_bin(frame, "nonce", peer->peer_nonce, NONCE_BYTES, err) || get_delivery(peer, frame, err))
		return err->code;
	if (!role || strcmp(role, "trainer") != 0)
		return err_set(err, ERR_UNSUPPORTED, "role '%.32s' is unknown: expected 'trainer'",
		               role ? role : "nil");
	if (!peer->exchange->secret) {
		welcome(peer);
		return 0;
	}
	peer->exchange->nonce(peer->server_nonce);
	struct message_writer *w = peer_answer_begin(peer, FRAME_CHALLENGE, 1);
	message_key(w, "nonce");
	message_put_bin(w, peer->server_nonce, NONCE_BYTES);
	peer_answer_end(peer);
	peer->state = STATE_CHALLENGED;
	return 0;
}

int peer_on_auth(struct peer *peer, const struct message_node *frame, struct err *err)
{
	uint8_t expected[MAC_BYTES], found[MAC_BYTES];

	if (get_fixed_bin(frame, "mac", found, MAC_BYTES, err))
		return err->code;
	auth_prove(AUTH_PEER, peer->exchange->secret, peer->server_nonce, peer->peer_nonce, peer->name, expected);
	if (auth_equal(expected, found))
		welcome(peer);
	else
		peer_answer_error(peer, WIRE_AUTH, true, frame_name(FRAME_AUTH),
		             "the secret is not the one of this run: compare bridge.secret_file on both sides");
	return 0;
}
