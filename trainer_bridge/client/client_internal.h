/* client_internal.h - the client's parts among themselves: client.c (what a trainer calls), client_requests.c,
 * client_push.c (weights and reports), client_arrivals.c (trajectories), client_link.c (frames in and out). */
#ifndef TRAINER_BRIDGE_CLIENT_CLIENT_INTERNAL_H
#define TRAINER_BRIDGE_CLIENT_CLIENT_INTERNAL_H

#include <poll.h>

#include "trainer_bridge/client/client.h"
#include "trainer_bridge/wire/checksum.h"
#include "trainer_bridge/wire/delta.h"
#include "trainer_bridge/wire/frame.h"

enum { WELCOME_BYTES_MAX = 16 << 20 };

/* A batch, micro-batch or evaluation on its way in, part by part. */
struct assembly {
	uint64_t id, n_bytes;     /* batch_id, or the request's */
	int64_t step, version, micro, n, n_parts, part; /* n_parts 0: none has come; part: the next one */
	uint8_t *bytes;
	size_t arrived, capacity;
};

/* One that is whole, or the end of a batch (n 0). */
struct arrival {
	struct assembly of;       /* owns its bytes */
	struct arrival *next;
};

/* Lengths of the section that comes next. */
struct announcement {
	uint64_t batch_id;
	int64_t micro, n, told;   /* n 0: none */
	int64_t *groups;          /* [n] */
	int32_t *prompts, *responses; /* [n] */
};

struct client {
	int fd;
	bool local;
	double timeout_seconds;
	uint64_t sent_bytes;
	struct frame_reader *reader;
	struct message_writer *writer;

	bool challenged, welcome, over, bye, pull_pending;
	int pongs_due;
	uint8_t nonce[NONCE_BYTES], server_nonce[NONCE_BYTES], server_mac[MAC_BYTES];
	bool has_server_mac;
	char *run_id;
	int64_t version;          /* the policy's, as last heard */
	int64_t weights;          /* in use; older than version where a crash lost some */
	int64_t ok_version;       /* of the last weights_ok; -1: none */
	size_t frame_bytes_max;
	struct assembly batch, evaluation;
	struct arrival *batches, *evaluations; /* in order of arrival */
	struct announcement announced;
	uint8_t *spare;           /* of a batch that was decoded, for the next one */
	size_t spare_bytes;
	struct client_limits limits;
	int64_t next_request;
	struct { int64_t id; int room; } accepted; /* id -1: none */
	struct { int64_t id; struct message *message; } scores; /* owned; id -1: none */
	struct checksum *sum;     /* of the tensor that is being pushed */
	struct delta *delta;      /* NULL until a delta is pushed */
	bool not_new;             /* the last push was refused for its number */
	struct err refusal;       /* an ERROR frame that no call has reported yet; code 0: none */
};

/* Empties the writer and begins a frame in it. */
struct message_writer *client_begin(struct client *client, enum frame_type type, uint32_t n_fields);

/* Sends the writer's message, and the bytes of its last bin behind it where message_begin_bin left them out.
 * An ERROR frame that arrives meanwhile ends it only if it is fatal. */
int client_send(struct client *client, const void *body, size_t body_bytes, struct err *err);

/* What an ERROR frame said is told once, by the call that is under way or the next one; 0 if nothing was. */
int client_refusal(struct client *client, struct err *err);

/* Takes frames in until `enough` of them, or a refusal, are there. */
int client_wait(struct client *client, bool (*enough)(const struct client *), double seconds, struct err *err);
int client_wait_ready(struct client *client, short events, double deadline, short *ready, struct err *err);
double client_clock(void); /* seconds, monotonic */

/* client_arrivals.c: frames that bring trajectories. */
int client_take_batch(struct client *client, const struct message_node *frame, struct err *err);
int client_take_lengths(struct client *client, const struct message_node *frame, struct err *err);
int client_take_batch_end(struct client *client, const struct message_node *frame, struct err *err);
int client_take_evaluation(struct client *client, const struct message_node *frame, struct err *err);
struct arrival *client_arrival_take(struct arrival **list); /* the first; owned by the caller */
void client_arrival_free(struct client *client, struct arrival *arrival);
int client_decode(const struct assembly *assembly, struct client_batch *batch, struct err *err);
void client_forget_announced(struct client *client);
int client_ask(struct client *client, struct err *err); /* a credit, unless one is out */

#endif
