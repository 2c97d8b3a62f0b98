/* peer_internal.h - a peer's parts among themselves: peer.c (life, answers, dispatch), peer_handshake.c,
 * peer_batches.c, peer_weights.c.
 *
 * A handler takes one frame; an error that it returns is fatal to the connection, what is merely
 * refused it answers itself and returns 0.
 */
#ifndef TRAINER_BRIDGE_PEER_INTERNAL_H
#define TRAINER_BRIDGE_PEER_INTERNAL_H

#include "trainer_bridge/peer.h"

enum state { STATE_STRANGER, STATE_CHALLENGED, STATE_WELCOME, STATE_OVER };
enum push { PUSH_NONE, PUSH_OPEN, PUSH_REFUSED };

struct peer {
	struct exchange *exchange;
	enum state state;
	bool joined, said_bye, told_bye;
	char name[PEER_NAME_BYTES_MAX + 1];
	uint8_t server_nonce[NONCE_BYTES], peer_nonce[NONCE_BYTES];

	enum push push;       /* a push has exactly one answer: after ERROR the rest of it is ignored */
	int64_t push_version;

	int credits, held;    /* batches it may get; batches it has not acknowledged */
	struct batch *batch;  /* being sent, referenced */
	uint32_t part;        /* the next one of it */

	struct message_writer *writer;
	uint8_t *answers;     /* finished frames that wait to be sent */
	size_t answers_bytes, answers_capacity;
};

/* A frame in answer: begin, put the fields, end. */
struct message_writer *peer_answer_begin(struct peer *peer, enum frame_type type, uint32_t n_fields);
void peer_answer_end(struct peer *peer);
void peer_answer_error(struct peer *peer, enum wire_error error, bool fatal, const char *about, const char *text);

int peer_on_hello(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_auth(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_pull(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_ack(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_weights_begin(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_weights_chunk(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_weights_tensor(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_weights_commit(struct peer *peer, const struct message_node *frame, struct err *err);

/* The next part of the batch being sent, or of the next one where there is credit. */
bool peer_next_part(struct peer *peer, struct peer_frame *frame);
void peer_drop_push(struct peer *peer);

#endif
