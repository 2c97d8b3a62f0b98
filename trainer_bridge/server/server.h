/* server.h - the socket that a trainer plugs into; its files (server*.c) alone know <uv.h>.
 *
 * One listening socket, peers with a handshake, credits and acknowledgements.  The server moves
 * bytes and checks protocol state; what they mean to the run is decided by the callbacks, which are
 * called from server_poll on the caller's thread.
 */
#ifndef TRAINER_BRIDGE_SERVER_SERVER_H
#define TRAINER_BRIDGE_SERVER_SERVER_H

#include "configs/config.h"
#include "policy/weights.h"
#include "rollout/trajectory.h"
#include "trainer_bridge/server/intake.h"

struct server;
struct request_handlers; /* requests.h */

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
	/* A complete, verified version, borrowed until weights.ready has allowed its memory to be written again (at
	 * once where that is NULL).  Return 0, or a code that is sent back to the peer with err->text. */
	int (*weights_arrived)(void *context, int64_t version, const struct weights *weights, struct err *err);
	void (*report)(void *context, const struct trainer_report *report);
	struct intake_observer weights; /* who watches a version grow; all NULL: nobody */
};

struct server_options {
	const char *listen;       /* unix:PATH or tcp:HOST:PORT; port 0: any */
	const char *secret;       /* NULL: none; TCP beyond loopback is then refused */
	size_t frame_bytes_max;
	int credits_max;
	const char *run_id;
	const struct model_config *model; /* borrowed for the server's life */
	const char *model_dir;    /* of version 0, against which deltas may come first; NULL: none.  Borrowed for the call */
	const char *watch_dir;    /* where versions may come as files (watch.h); NULL: nowhere */
	int64_t version;          /* current policy version, told in the handshake */
	int64_t versions_lost;    /* after a crash: the weights in use are so many versions older */
	int handshake_ms, frame_ms; /* longest handshake and longest frame; 0: those of protocol.h */
};

/* Binds and listens; "port in use" is an ERR_IO that names address and way out.  Ignores SIGPIPE in the
 * process from then on. */
int server_open(struct server **server, const struct server_options *options,
                const struct server_callbacks *callbacks, struct err *err);
void server_close(struct server *server);

const char *server_address(const struct server *server); /* as bound, port filled in */

/* Weights of a version from before a restart, against which deltas come next; takes them.  Returns them, borrowed until
 * weights.ready has allowed their memory to be written again.  Before the first poll. */
const struct weights *server_restore_weights(struct server *server, int64_t version, struct weights *weights);

/* Move bytes and call callbacks, waiting at most wait_ms (0: not at all). */
void server_poll(struct server *server, int wait_ms);

/* Queue a batch for delivery (copied into frames); it is sent when a peer has credit, and sent again
 * to a peer that reconnects until acknowledged.  batch_id is stable across restarts. */
void server_put_batch(struct server *server, uint64_t batch_id, int64_t step, int64_t version,
                      struct trajectory *const *trajectories, int n);

/* The same group by group, while the step goes on: a peer that takes micro-batches gets each with the next poll.  Only the last
 * batch is open; its groups come in the order that server_streams named, `completed` ascends with time. */
enum server_stream { SERVER_WHOLE, SERVER_STREAM_PROMPT, SERVER_STREAM_COMPLETION };
enum server_stream server_streams(struct server *server); /* what groups are wanted as they come */
void server_put_group(struct server *server, uint64_t batch_id, int64_t step, int64_t version, uint64_t completed,
                      struct trajectory *const *trajectories, int n);
void server_end_batch(struct server *server, uint64_t batch_id, int64_t version);

/* Take requests from now on; the handlers are borrowed for the server's life. */
void server_serve(struct server *server, const struct request_handlers *handlers);
/* Answers; nothing happens where the peer has gone.  Samples of a group stand together. */
void server_answer_evaluation(struct server *server, uint64_t ticket, int64_t version,
                              struct trajectory *const *trajectories, int n);
/* logprobs: those of n sequences one behind the other, lengths[i] of the i-th. */
void server_answer_scores(struct server *server, uint64_t ticket, int64_t version, const float *logprobs,
                          const int *lengths, int n);
void server_refuse_scores(struct server *server, uint64_t ticket, const struct err *why);

/* After the last batch: peers are told to finish (BYE) once everything is acknowledged.  Poll on until
 * they have left (server_peers) or for as long as is worth waiting. */
void server_finish(struct server *server);
void server_set_version(struct server *server, int64_t version); /* its weights are in use */
int server_peers(const struct server *server); /* after the handshake */
int server_unacknowledged(const struct server *server);
/* A peer has credit for one batch more than is waiting to be sent. */
bool server_wants_batch(struct server *server);

#endif
