/* peer.c - one connection as the server sees it: its answers, and which frame is due when (PROTOCOL.md). */
#include "trainer_bridge/server/peer_internal.h"

#include <stdlib.h>
#include <string.h>

enum { ANSWERS_BYTES_MARK = 65536 };

struct peer *peer_open(struct exchange *exchange)
{
	struct peer *peer = xcalloc(1, sizeof *peer);

	peer->exchange = exchange;
	peer->refused_id = -1;
	peer->writer = message_writer_open();
	return peer;
}

void peer_close(struct peer *peer, const char *why)
{
	struct exchange *exchange = peer->exchange;

	peer_drop_push(peer);
	batches_give_back(&exchange->batches, peer);
	peer_section_drop(peer);
	peer_drop_batch(peer);
	peer_forget_requests(peer);
	if (peer->joined) {
		exchange->n_welcome--;
		exchange->callbacks.peer_left(exchange->callbacks.context, peer->name, why);
	}
	message_writer_close(peer->writer);
	free(peer->answers);
	free(peer);
}

/* ---- answers ---- */

struct message_writer *peer_answer_begin(struct peer *peer, enum frame_type type, uint32_t n_fields)
{
	message_writer_reset(peer->writer);
	frame_begin(peer->writer, type, n_fields);
	return peer->writer;
}

void peer_answer_end(struct peer *peer)
{
	size_t n_bytes, need;
	const void *bytes = message_bytes(peer->writer, &n_bytes);

	need = peer->answers_bytes + FRAME_LENGTH_BYTES + n_bytes;
	if (need > peer->answers_capacity) {
		peer->answers_capacity = 2 * need;
		peer->answers = xrealloc(peer->answers, peer->answers_capacity);
	}
	frame_put_length(peer->answers + peer->answers_bytes, n_bytes);
	memcpy(peer->answers + peer->answers_bytes + FRAME_LENGTH_BYTES, bytes, n_bytes);
	peer->answers_bytes = need;
}

void peer_answer_error(struct peer *peer, enum wire_error error, bool fatal, const char *about,
                         const char *text)
{
	bool has_id = peer->refused_id >= 0, has_version = peer->push == PUSH_REFUSED && !has_id;
	struct message_writer *w = peer_answer_begin(peer, FRAME_ERROR, has_version || has_id ? 6 : 5);

	message_key(w, "code");
	message_put_text(w, wire_error_name(error));
	message_key(w, "text");
	message_put_text(w, text);
	message_key(w, "may_retry");
	message_put_bool(w, wire_error_may_retry(error));
	message_key(w, "fatal");
	message_put_bool(w, fatal);
	message_key(w, "about");
	message_put_text(w, about);
	if (has_version) {
		message_key(w, "version");
		message_put_int(w, peer->push_version);
	}
	if (has_id) {
		message_key(w, "id");
		message_put_int(w, peer->refused_id);
	}
	peer_answer_end(peer);
	if (fatal)
		peer->state = STATE_OVER;
}

void peer_refuse(struct peer *peer, enum wire_error error, const char *text)
{
	if (peer->state != STATE_OVER)
		peer_answer_error(peer, error, true, NULL, text);
}

static void refuse_frame(struct peer *peer, enum frame_type type, const struct err *err)
{
	peer_answer_error(peer, wire_error_of(err->code), true, frame_name(type), err->text);
}

/* ---- frames out ---- */

static void take_answers(struct peer *peer, struct peer_frame *frame)
{
	*frame = (struct peer_frame){.head = peer->answers, .head_bytes = peer->answers_bytes};
	peer->answers = NULL;
	peer->answers_bytes = peer->answers_capacity = 0;
}

bool peer_next_frame(struct peer *peer, struct peer_frame *frame)
{
	const struct exchange *exchange = peer->exchange;

	if (peer->state == STATE_WELCOME && exchange->finishing && exchange->batches.n == 0 && !peer->told_bye) {
		peer->told_bye = true;
		peer_answer_begin(peer, FRAME_BYE, 0);
		peer_answer_end(peer);
	}
	if (peer->answers_bytes > 0) {
		take_answers(peer, frame);
		return true;
	}
	return peer->state == STATE_WELCOME && peer_next_part(peer, frame);
}

void peer_frame_free(struct peer_frame *frame)
{
	free(frame->head);
	if (frame->batch)
		batch_release(frame->batch);
}

/* ---- frames in ---- */

static int on_report(struct peer *peer, const struct message_node *frame, struct err *err)
{
	struct exchange *exchange = peer->exchange;
	struct trainer_report report = {0};
	const struct { const char *key; double *value; } reals[] = {
		{"loss", &report.loss}, {"grad_norm", &report.grad_norm}, {"kl", &report.kl},
		{"clip_frac", &report.clip_frac}, {"entropy", &report.entropy}, {"tis_mean", &report.tis_mean},
		{"learning_rate", &report.learning_rate}, {"seconds", &report.seconds},
	};

	if (message_get_int(frame, "step", 0, INT64_MAX, &report.step, err))
		return err->code;
	if (message_field(frame, "tokens") && message_get_int(frame, "tokens", 0, INT64_MAX, &report.tokens, err))
		return err->code;
	for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
		if (message_field(frame, reals[i].key) && message_get_real(frame, reals[i].key, reals[i].value, err))
			return err->code;
	exchange->callbacks.report(exchange->callbacks.context, &report);
	return 0;
}

static int on_ping(struct peer *peer, const struct message_node *frame, struct err *err)
{
	(void)frame;
	(void)err;
	peer_answer_begin(peer, FRAME_PONG, 0);
	peer_answer_end(peer);
	return 0;
}

static int on_pong(struct peer *peer, const struct message_node *frame, struct err *err)
{
	(void)peer;
	(void)frame;
	(void)err;
	return 0;
}

static int on_bye(struct peer *peer, const struct message_node *frame, struct err *err)
{
	(void)frame;
	(void)err;
	peer->said_bye = true;
	peer->state = STATE_OVER;
	return 0;
}

/* Frames that a server takes, by the state they are due in; 0 or an error that ends the connection. */
static const struct {
	int (*handle)(struct peer *peer, const struct message_node *frame, struct err *err);
	enum state due;
} handlers[FRAME_TYPES] = {
	[FRAME_HELLO] = {peer_on_hello, STATE_STRANGER},
	[FRAME_AUTH] = {peer_on_auth, STATE_CHALLENGED},
	[FRAME_PULL] = {peer_on_pull, STATE_WELCOME},
	[FRAME_ACK] = {peer_on_ack, STATE_WELCOME},
	[FRAME_WEIGHTS_BEGIN] = {peer_on_weights_begin, STATE_WELCOME},
	[FRAME_WEIGHTS_CHUNK] = {peer_on_weights_chunk, STATE_WELCOME},
	[FRAME_WEIGHTS_TENSOR] = {peer_on_weights_tensor, STATE_WELCOME},
	[FRAME_WEIGHTS_COMMIT] = {peer_on_weights_commit, STATE_WELCOME},
	[FRAME_SUBMIT] = {peer_on_submit, STATE_WELCOME},
	[FRAME_EVALUATE] = {peer_on_evaluate, STATE_WELCOME},
	[FRAME_SCORE] = {peer_on_score, STATE_WELCOME},
	[FRAME_REPORT] = {on_report, STATE_WELCOME},
	[FRAME_PING] = {on_ping, STATE_WELCOME},
	[FRAME_PONG] = {on_pong, STATE_WELCOME},
	[FRAME_BYE] = {on_bye, STATE_WELCOME},
};

static const char *state_hint(enum state state)
{
	switch (state) {
	case STATE_STRANGER: return "expected 'hello' first";
	case STATE_CHALLENGED: return "expected 'auth' as the answer to the challenge";
	default: return "the handshake is over";
	}
}

static void dispatch(struct peer *peer, const struct message_node *frame)
{
	struct err err = {0};
	const char *text = NULL;

	if (message_get_text(frame, "type", &text, &err)) {
		peer_answer_error(peer, wire_error_of(err.code), true, NULL, err.text);
		return;
	}
	int type = frame_type_parse(text);
	if (type < 0 || !handlers[type].handle) {
		err_set(&err, ERR_UNSUPPORTED, "frame type '%.32s' is not one that this server takes",
		        text ? text : "nil");
		peer_answer_error(peer, WIRE_UNSUPPORTED, peer->state != STATE_WELCOME, NULL, err.text);
	} else if (handlers[type].due != peer->state) {
		err_set(&err, ERR_STATE, "frame '%s' at the wrong moment: %s", text, state_hint(peer->state));
		refuse_frame(peer, (enum frame_type)type, &err);
	} else if (handlers[type].handle(peer, frame, &err)) {
		refuse_frame(peer, (enum frame_type)type, &err);
	}
}

void peer_receive(struct peer *peer, const void *payload, size_t n_bytes)
{
	struct message *message;
	struct err err = {0};

	if (peer->state == STATE_OVER)
		return;
	if (message_parse(&message, payload, n_bytes, &err)) {
		peer_answer_error(peer, wire_error_of(err.code), true, NULL, err.text);
		return;
	}
	dispatch(peer, message_root(message));
	message_close(message);
}

/* Only a push's chunks are so long; whatever else it is, it is collected as a whole. */
bool peer_receive_head(struct peer *peer, const void *head, size_t head_bytes, size_t body_bytes)
{
	struct message *message;
	struct err err = {0};
	const char *text = NULL;
	bool taken = false;

	if (peer->state != STATE_WELCOME || message_parse(&message, head, head_bytes, &err))
		return false;
	if (message_get_text(message_root(message), "type", &text, &err) == 0 && text &&
	    frame_type_parse(text) == FRAME_WEIGHTS_CHUNK)
		taken = peer_on_weights_head(peer, message_root(message), body_bytes);
	message_close(message);
	return taken;
}

size_t peer_frame_bytes_max(const struct peer *peer)
{
	return peer->state == STATE_WELCOME ? peer->exchange->frame_bytes_max : HANDSHAKE_BYTES_MAX;
}

bool peer_welcome(const struct peer *peer)
{
	return peer->state == STATE_WELCOME;
}

bool peer_over(const struct peer *peer)
{
	return peer->state == STATE_OVER;
}

bool peer_said_bye(const struct peer *peer)
{
	return peer->said_bye;
}

bool peer_choked(const struct peer *peer)
{
	return peer->answers_bytes > ANSWERS_BYTES_MARK || peer->push == PUSH_WAITING;
}
