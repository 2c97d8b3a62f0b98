/* peer.h - what the server knows about one connection, as a pure state machine: payloads in, frames out.
 *
 * Knows no socket and no clock.  Hostile input ends in an ERROR frame: with `fatal` where the stream
 * can no longer be trusted, without where only the request was wrong.
 *
 *     STRANGER --hello--> CHALLENGED --auth--> WELCOME --bye or fatal error--> OVER
 *         `------------- no secret -------------^
 */
#ifndef TRAINER_BRIDGE_SERVER_PEER_H
#define TRAINER_BRIDGE_SERVER_PEER_H

#include "trainer_bridge/server/batches.h"
#include "trainer_bridge/server/intake.h"
#include "trainer_bridge/server/requests.h"
#include "trainer_bridge/server/server.h"
#include "trainer_bridge/wire/frame.h"

struct peer;

/* What all peers of a server share; owned by the server. */
struct exchange {
	const char *run_id, *secret;  /* secret NULL: none asked for */
	size_t frame_bytes_max;
	int credits_max;
	int64_t version, versions_lost;
	struct server_callbacks callbacks;
	struct intake *intake;
	struct peer *pusher;          /* whose weights are being taken in, or NULL */
	struct batches batches;
	bool finishing;               /* no more batches will be put */
	const struct request_handlers *handlers; /* NULL: no requests are taken */
	uint64_t last_ticket;
	int n_welcome;
	void (*nonce)(uint8_t nonce[NONCE_BYTES]);
};

/* Bytes to send: head, then body, which borrows from batch. */
struct peer_frame {
	uint8_t *head;                /* owned */
	size_t head_bytes;
	const uint8_t *body;
	size_t body_bytes;
	struct batch *batch;          /* referenced, or NULL */
};

struct peer *peer_open(struct exchange *exchange);
/* Gives back its batches and drops its unfinished weights; why is told to the peer_left callback. */
void peer_close(struct peer *peer, const char *why);

void peer_receive(struct peer *peer, const void *payload, size_t n_bytes);
/* A long frame whose last field is `data`, of which only the head is here: true if the peer takes the body_bytes
 * of it apart from it, where peer_body says.  head: the payload with that bin empty. */
bool peer_receive_head(struct peer *peer, const void *head, size_t head_bytes, size_t body_bytes);
/* Where the next bytes of such a body go, and how many; NULL: nowhere, count them and throw them away. */
void *peer_body(const struct peer *peer, size_t *n_bytes);
size_t peer_body_left(const struct peer *peer);
void peer_body_filled(struct peer *peer, size_t n_bytes);
/* A push that waited for memory may find it now. */
void peer_resume(struct peer *peer);
void peer_refuse(struct peer *peer, enum wire_error error, const char *text); /* a fatal ERROR */

/* The next bytes to send; false if there are none now. */
bool peer_next_frame(struct peer *peer, struct peer_frame *frame);
void peer_frame_free(struct peer_frame *frame);

size_t peer_frame_bytes_max(const struct peer *peer); /* small until WELCOME */
bool peer_welcome(const struct peer *peer);
bool peer_over(const struct peer *peer);              /* what else arrives is not for us */
int peer_credits(const struct peer *peer);            /* batches that it may get now */
bool peer_streams(const struct peer *peer, enum batch_order *order); /* takes micro-batches, in this order */
/* Answers to a request of this peer; false if the ticket is none of its.  The result is taken if it is true. */
bool peer_answer_evaluation(struct peer *peer, uint64_t ticket, struct batch *result);
/* logprobs: those of all sequences one behind the other, lengths[n] of them. */
bool peer_answer_scores(struct peer *peer, uint64_t ticket, int64_t version, const float *logprobs,
                        const int *lengths, int n);
bool peer_answer_refusal(struct peer *peer, uint64_t ticket, const struct err *err); /* of a score */
bool peer_said_bye(const struct peer *peer);
/* So many answers wait to be sent that no more requests should be read. */
bool peer_choked(const struct peer *peer);

#endif
