/* peer_internal.h - a peer's parts among themselves: peer.c (life, answers, dispatch), peer_handshake.c,
 * peer_batches.c and peer_section.c (trajectories), peer_requests.c (prompts, evaluations, scores), peer_weights.c.
 *
 * A handler takes one frame; an error that it returns is fatal to the connection, what is merely
 * refused it answers itself and returns 0.
 */
#ifndef TRAINER_BRIDGE_SERVER_PEER_INTERNAL_H
#define TRAINER_BRIDGE_SERVER_PEER_INTERNAL_H

#include "trainer_bridge/server/peer.h"

enum state { STATE_STRANGER, STATE_CHALLENGED, STATE_WELCOME, STATE_OVER };
enum push { PUSH_NONE, PUSH_WAITING, PUSH_OPEN, PUSH_REFUSED };

/* Groups that travel as one payload: a batch, a micro-batch or an evaluation. */
struct section {
	struct batch *batch;      /* referenced; NULL: none */
	enum frame_type type;     /* FRAME_BATCH or FRAME_EVALUATION */
	uint64_t id;              /* of the batch or request */
	int micro;                /* -1: no micro-batch */
	const int *order;         /* borrowed indices of the batch's groups, or NULL: as they are */
	int first, end;           /* these of them */
	int n;                    /* trajectories */
	size_t n_bytes;
	uint32_t part, n_parts;
	int at;                   /* group whose bytes are next, */
	size_t offset;            /* and where in it */
	int n_told;               /* trajectories whose lengths were announced; -1: nobody asked */
};

/* A request that was accepted and not answered yet. */
struct request {
	uint64_t ticket;          /* what the run knows it by */
	int64_t id;               /* what the peer does */
	struct batch *result;     /* an evaluation's, waiting to be sent; NULL: none yet */
	struct request *next;
};

struct peer {
	struct exchange *exchange;
	enum state state;
	bool joined, said_bye, told_bye;
	char name[PEER_NAME_BYTES_MAX + 1];
	uint8_t server_nonce[NONCE_BYTES], peer_nonce[NONCE_BYTES];

	enum push push;       /* a push has exactly one answer: after ERROR the rest of it is ignored */
	int64_t push_version;
	struct intake_push asked; /* PUSH_WAITING: begins when there is memory for it */
	size_t body_left;     /* bytes of a chunk's data that are still to come from the socket */

	int credits, held;    /* batches it may get; batches it has not acknowledged */
	enum batch_order order;
	int micro_groups;     /* 0: whole batches */
	bool wants_lengths;
	struct batch *batch;  /* being sent, referenced */
	int *batch_order;     /* of its groups, owned; NULL: as they come */
	int n_sections, groups_sent; /* of it, in micro-batches */
	struct section section; /* that is on its way */
	struct request *requests; /* newest first */
	int n_requests;
	int64_t refused_id;   /* of the request that the next ERROR is about; -1: none */

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
bool peer_on_weights_head(struct peer *peer, const struct message_node *head, size_t body_bytes);
int peer_on_weights_tensor(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_weights_commit(struct peer *peer, const struct message_node *frame, struct err *err);

int peer_on_submit(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_evaluate(struct peer *peer, const struct message_node *frame, struct err *err);
int peer_on_score(struct peer *peer, const struct message_node *frame, struct err *err);

/* The next frame of the section being sent; false where there is none. */
bool peer_section_frame(struct peer *peer, struct peer_frame *frame);
void peer_section_begin(struct peer *peer, const struct section *section);
void peer_section_drop(struct peer *peer);

/* The next part of the batch being sent, or of the next one where there is credit. */
bool peer_next_part(struct peer *peer, struct peer_frame *frame);
void peer_drop_batch(struct peer *peer);
/* The next evaluation that is ready becomes the section; false if none is. */
bool peer_begin_evaluation(struct peer *peer);
void peer_forget_requests(struct peer *peer);
void peer_drop_push(struct peer *peer);

#endif
