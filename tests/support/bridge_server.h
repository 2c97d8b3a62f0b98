/* bridge_server.h - a live server in its own thread, which records what it was told, and raw sockets
 * to misbehave with. */
#ifndef TESTS_SUPPORT_BRIDGE_SERVER_H
#define TESTS_SUPPORT_BRIDGE_SERVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "trainer_bridge/server/server.h"
#include "trainer_bridge/wire/message.h"

enum { BRIDGE_ACKS_MAX = 64 };

/* Guarded by mutex, as every call to the server is. */
struct bridge_seen {
	int joined, left, reports, versions;
	char last_why[128], last_name[160];
	uint64_t acked[BRIDGE_ACKS_MAX];
	int n_acked;
	struct trainer_report report;
	struct weights weights; /* of the last version */
	int64_t version;
};

struct bridge_server {
	struct server *server;
	struct model_config config;
	char address[256], dir[64];
	pthread_mutex_t mutex;
	pthread_t thread;
	atomic_int wanted; /* callers that want the mutex: the thread steps back */
	atomic_bool stop;
	struct bridge_seen seen;
	int refuse_weights; /* code that weights_arrived returns, 0: none */
};

/* options: listen NULL means unix: in a fresh folder; run_id, model and what is 0 get defaults.  Fails the test. */
void bridge_server_start(struct bridge_server *bridge, struct server_options options);
void bridge_server_stop(struct bridge_server *bridge);

/* For calls to bridge->server and looks at bridge->seen. */
void bridge_lock(struct bridge_server *bridge);
void bridge_unlock(struct bridge_server *bridge);

/* A batch of n trajectories of groups batch_id * 10 + i with n_response tokens each. */
void bridge_put_batch(struct bridge_server *bridge, uint64_t batch_id, int n, int32_t n_response);
struct trajectory *bridge_batch_item(uint64_t batch_id, int i, int32_t n_response); /* owned by the caller */

/* Waits up to 5 s for *counter (in bridge->seen) to be value, or fails the test. */
void bridge_await(struct bridge_server *bridge, const int *counter, int value);

int bridge_raw_connect(const char *address);
void bridge_raw_send(int fd, const void *bytes, size_t n_bytes);
void bridge_raw_frame(int fd, const void *payload, size_t n_bytes);
void bridge_raw_message(int fd, struct message_writer *writer); /* sends it as a frame and resets it */
/* The next frame, or NULL at the end of the stream; fails the test after 5 s. */
struct message *bridge_raw_receive(int fd);
/* HELLO without a secret, and WELCOME read. */
void bridge_raw_hello(int fd);
/* The next frame must be an ERROR with this code; if fatal the stream must end behind it. */
void bridge_raw_expect_error(int fd, const char *code, bool fatal, const char *said);

#endif
