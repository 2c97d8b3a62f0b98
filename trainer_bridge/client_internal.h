/* client_internal.h - the client's parts among themselves: client.c (what a trainer calls), client_push.c
 * (weights and reports), client_link.c (frames in and out). */
#ifndef TRAINER_BRIDGE_CLIENT_INTERNAL_H
#define TRAINER_BRIDGE_CLIENT_INTERNAL_H

#include <poll.h>

#include "trainer_bridge/client.h"
#include "trainer_bridge/frame.h"

enum { WELCOME_BYTES_MAX = 16 << 20 };

/* A batch on its way in, part by part. */
struct assembly {
	uint64_t batch_id, n_bytes;
	int64_t step, version, n, n_parts, part; /* n_parts 0: none has come; part: the next one */
	uint8_t *bytes;
	size_t arrived, capacity;
};

struct client {
	int fd;
	double timeout_seconds;
	struct frame_reader *reader;
	struct message_writer *writer;

	bool challenged, welcome, over, bye, pull_pending;
	int pongs_due;
	uint8_t nonce[NONCE_BYTES], server_nonce[NONCE_BYTES], server_mac[MAC_BYTES];
	bool has_server_mac;
	char *run_id;
	int64_t version;          /* the policy's, as last heard */
	int64_t ok_version;       /* of the last weights_ok; -1: none */
	size_t frame_bytes_max;
	struct assembly assembly;
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
bool client_batch_complete(const struct client *client);

#endif
