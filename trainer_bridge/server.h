/* server.h - the socket that a trainer plugs into; its file pair is the only one that knows <uv.h>.
 *
 * One listening socket, peers with a handshake, credits and acknowledgements.  The server moves
 * bytes and checks protocol state; what they mean to the run is decided by the callbacks, which are
 * called from server_poll on the caller's thread.
 */
#ifndef TRAINER_BRIDGE_SERVER_H
#define TRAINER_BRIDGE_SERVER_H

#include "configs/config.h"
#include "policy/weights.h"
#include "rollout/trajectory.h"

struct server;

/* What a trainer reports about its step; shown and stored by the controller. */
struct trainer_report {
	int64_t step;
	double loss, grad_norm, kl, clip_frac, entropy, tis_mean, learning_rate, seconds;
	int64_t tokens;
};

struct server_callbacks {
	void *context;
	void (*peer_joined)(void *context, const char *peer_name);
	void (*peer_left)(void *context, const char *peer_name, const char *why);
	/* The peer has acknowledged batch `batch_id`: it must never be delivered again. */
	void (*batch_acked)(void *context, uint64_t batch_id);
	/* A complete, verified version; takes ownership of the contents in any case.  Return 0, or a code
	 * that is sent back to the peer with err->text. */
	int (*weights_arrived)(void *context, int64_t version, struct weights *weights, struct err *err);
	void (*report)(void *context, const struct trainer_report *report);
};

struct server_options {
	const char *listen;       /* unix:PATH or tcp:HOST:PORT; port 0: any */
	const char *secret;       /* NULL: none; TCP beyond loopback is then refused */
	size_t frame_bytes_max;
	int credits_max;
	const char *run_id;
	const struct model_config *model; /* borrowed for the server's life */
	int64_t version;          /* current policy version, told in the handshake */
	int handshake_ms, frame_ms; /* longest handshake and longest frame; 0: those of protocol.h */
};

/* Binds and listens; "port in use" is an ERR_IO that names address and way out.  Ignores SIGPIPE in the
 * process from then on. */
int server_open(struct server **server, const struct server_options *options,
                const struct server_callbacks *callbacks, struct err *err);
void server_close(struct server *server);

const char *server_address(const struct server *server); /* as bound, port filled in */

/* Move bytes and call callbacks, waiting at most wait_ms (0: not at all). */
void server_poll(struct server *server, int wait_ms);

/* Queue a batch for delivery (copied into frames); it is sent when a peer has credit, and sent again
 * to a peer that reconnects until acknowledged.  batch_id is stable across restarts. */
void server_put_batch(struct server *server, uint64_t batch_id, int64_t step, int64_t version,
                      struct trajectory *const *trajectories, int n);

/* After the last batch: peers are told to finish (BYE) once everything is acknowledged.  Poll on until
 * they have left (server_peers) or for as long as is worth waiting. */
void server_finish(struct server *server);
void server_set_version(struct server *server, int64_t version);
int server_peers(const struct server *server); /* after the handshake */
int server_unacknowledged(const struct server *server);
/* A peer has credit for one batch more than is waiting to be sent. */
bool server_wants_batch(const struct server *server);

#endif
