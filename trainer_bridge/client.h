/* client.h - a trainer's side of the protocol, blocking, with timeouts; used by the reference
 * trainer and by tests.  Plain sockets, no libuv. */
#ifndef TRAINER_BRIDGE_CLIENT_H
#define TRAINER_BRIDGE_CLIENT_H

#include "policy/weights.h"
#include "rollout/trajectory.h"
#include "trainer_bridge/server.h"

struct client;

struct client_batch {
	uint64_t batch_id;
	int64_t step, version;
	struct trajectory **trajectories; /* owned by the batch */
	int n;
};

/* Connects (retrying for connect_seconds while nobody listens), shakes hands.  */
int client_open(struct client **client, const char *address, const char *secret, const char *name,
                double connect_seconds, double timeout_seconds, struct err *err);
void client_close(struct client *client);

const char *client_run_id(const struct client *client);
int64_t client_version(const struct client *client);

/* The next batch; 0 and batch->n > 0, or 0 and batch->n == 0 when the run is over (BYE), or an error. */
int client_pull(struct client *client, struct client_batch *batch, double timeout_seconds, struct err *err);
void client_batch_free(struct client_batch *batch);
int client_ack(struct client *client, uint64_t batch_id, struct err *err);

/* Full weights in checksummed chunks; returns once the engine has taken the version, or its refusal. */
int client_push_weights(struct client *client, int64_t version, const struct weights *weights,
                        size_t chunk_bytes, struct err *err);
int client_report(struct client *client, const struct trainer_report *report, struct err *err);

#endif
