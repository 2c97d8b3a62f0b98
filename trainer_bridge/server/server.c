/* server.c - moves bytes between sockets and peers (peer.c) with libuv, on the caller's thread.
 *
 * Bounds: PEERS_MAX connections; a connection's input follows the bytes that arrived and never passes
 * one frame; output is at most WRITE_BYTES_MARK of batch parts in flight, taken from the peer as the
 * socket drains; a peer with too many answers waiting is not read until they are gone.
 */
#include "trainer_bridge/server/server.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "trainer_bridge/server/auth.h"
#include "trainer_bridge/server/peer.h"
#include "trainer_bridge/server/server_internal.h"
#include "trainer_bridge/server/server_listen.h"
#include "trainer_bridge/server/watch.h"
#include "trainer_bridge/wire/address.h"

enum {
	WRITE_BYTES_MARK = 1 << 20,
	FRAME_BYTES_LEAST = 4096,
	KEEPALIVE_SECONDS = 60,
	POLL_MS_EXTRA = 50,
	PIECE_BYTES = 1 << 18,    /* of a body per read: it is summed while it is in the cache */
	HEAD_BYTES = 1024
};

struct connection {
	struct server *server;
	struct connection *next;
	union stream socket;
	struct frame_reader *reader;
	struct peer *peer;
	size_t in_flight;         /* bytes given to libuv and not yet written */
	bool reading, ending;     /* ending: all is said, what else arrives is thrown away */
	bool in_place, was_body;  /* the next bytes go to a peer's body; the last ones did */
	bool held;                /* frames lie here unread, for the peer was choked */
	bool closed;
	uint64_t opened_ms;
	uint64_t frame_ms;        /* a frame is half here since; 0: none */
	uint64_t over_ms;         /* nothing is taken any more since; 0: all is well */
	uv_shutdown_t shutdown;
};

struct server {
	uv_loop_t loop;
	union stream listener;
	bool listening;
	uv_timer_t wake;
	uint64_t handshake_ms_max, frame_ms_max;
	uint64_t clock_ms, polled_ms; /* what peers' patience is measured by; when it was last moved */
	struct exchange exchange;
	struct watch *watch; /* NULL: no directory is watched */
	struct connection *connections;
	int n_connections;
	struct address address;
	char address_text[ERR_TEXT_MAX];
};

struct write {
	uv_write_t request; /* first */
	struct connection *connection;
	struct peer_frame frame;
};

static void pump(struct connection *connection);
static void set_reading(struct connection *connection, bool reading);

/* ---- ending a connection ---- */

static void on_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;
	struct connection **at = &connection->server->connections;

	while (*at != connection)
		at = &(*at)->next;
	*at = connection->next;
	connection->server->n_connections--;
	free(connection);
}

static void drop(struct connection *connection, const char *why)
{
	if (connection->closed)
		return;
	connection->closed = true;
	peer_close(connection->peer, peer_said_bye(connection->peer) ? "said goodbye" : why);
	connection->peer = NULL;
	frame_reader_close(connection->reader);
	connection->reader = NULL;
	uv_close(&connection->socket.handle, on_closed);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
	struct connection *connection = request->data;

	if (status < 0)
		drop(connection, "the connection broke");
}

/* A close with unread bytes would make the system discard what we sent last, the ERROR that explains:
 * send the end of the stream, then read into nowhere until the peer closes or LINGER_SECONDS_MAX. */
static void end(struct connection *connection)
{
	connection->ending = true;
	set_reading(connection, true);
	if (connection->closed)
		return;
	connection->shutdown.data = connection;
	if (uv_shutdown(&connection->shutdown, &connection->socket.stream, on_shutdown))
		drop(connection, "the connection broke");
}

/* ---- reading ---- */

/* What lies here of a body that the peer takes as it comes; false where more of it must be read. */
static bool take_body(struct connection *connection)
{
	size_t room, n;

	while (peer_body_left(connection->peer) > 0) {
		void *to = peer_body(connection->peer, &room);
		n = frame_take_body(connection->reader, to, room);
		if (n == 0)
			return false;
		peer_body_filled(connection->peer, n);
	}
	return true;
}

/* The head of a long frame, whose body need not pass through the reader. */
static void take_head(struct connection *connection)
{
	uint8_t head[CHUNK_HEAD_BYTES_MAX];
	size_t head_bytes, body_bytes;

	if (frame_head(connection->reader, head, &head_bytes, &body_bytes) &&
	    peer_receive_head(connection->peer, head, head_bytes, body_bytes))
		frame_take_head(connection->reader);
}

static void process(struct connection *connection)
{
	const void *payload;
	size_t n_bytes;
	struct err err;
	int rc = 0;

	while (!peer_over(connection->peer) && !peer_choked(connection->peer)) {
		frame_reader_limit(connection->reader, peer_frame_bytes_max(connection->peer));
		if (peer_body_left(connection->peer) == 0)
			take_head(connection);
		if (peer_body_left(connection->peer) > 0) {
			if (!take_body(connection))
				break;
			connection->frame_ms = 0;
			continue;
		}
		rc = frame_next(connection->reader, &payload, &n_bytes, &err);
		if (rc <= 0)
			break;
		connection->frame_ms = 0;
		peer_receive(connection->peer, payload, n_bytes);
	}
	connection->held = peer_choked(connection->peer);
	if (rc < 0)
		peer_refuse(connection->peer, wire_error_of(err.code), err.text);
	if (!frame_reader_partial(connection->reader) && peer_body_left(connection->peer) == 0)
		connection->frame_ms = 0;
	else if (connection->frame_ms == 0)
		connection->frame_ms = connection->server->clock_ms;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct connection *connection = handle->data;
	size_t n_bytes;

	(void)suggested;
	connection->in_place = false;
	if (!connection->ending && peer_body_left(connection->peer) > 0) {
		buffer->base = peer_body(connection->peer, &n_bytes);
		buffer->len = n_bytes < PIECE_BYTES ? n_bytes : PIECE_BYTES;
		connection->in_place = buffer->base != NULL;
		connection->was_body = true;
		if (connection->in_place)
			return;
	}
	buffer->base = frame_reader_space(connection->reader, &n_bytes);
	/* Behind a body comes another one's head: what is read with it of its body would have to be copied. */
	buffer->len = connection->was_body && n_bytes > HEAD_BYTES ? HEAD_BYTES : n_bytes;
	connection->was_body = false;
}

static void on_read(uv_stream_t *stream, ssize_t n_bytes, const uv_buf_t *buffer)
{
	struct connection *connection = stream->data;

	(void)buffer;
	if (n_bytes < 0)
		drop(connection, n_bytes == UV_EOF ? "closed the connection" : uv_strerror((int)n_bytes));
	else if (n_bytes > 0 && !peer_over(connection->peer)) {
		if (connection->in_place)
			peer_body_filled(connection->peer, (size_t)n_bytes);
		else
			frame_reader_filled(connection->reader, (size_t)n_bytes);
		process(connection);
		pump(connection);
	}
}

static void set_reading(struct connection *connection, bool reading)
{
	if (reading == connection->reading)
		return;
	connection->reading = reading;
	if (connection->frame_ms) /* its time begins anew: we kept it waiting */
		connection->frame_ms = connection->server->clock_ms;
	if (!reading)
		uv_read_stop(&connection->socket.stream);
	else if (uv_read_start(&connection->socket.stream, on_alloc, on_read))
		drop(connection, "the connection broke");
}

/* ---- writing ---- */

static void on_written(uv_write_t *request, int status)
{
	struct write *write = (struct write *)request;
	struct connection *connection = write->connection;

	connection->in_flight -= write->frame.head_bytes + write->frame.body_bytes;
	peer_frame_free(&write->frame);
	free(write);
	if (connection->closed)
		return;
	if (status < 0) {
		drop(connection, uv_strerror(status));
		return;
	}
	pump(connection);
}

static void write_frame(struct connection *connection, struct peer_frame *frame)
{
	struct write *write = xmalloc(sizeof *write);
	union { const uint8_t *from; char *to; } body = {.from = frame->body};
	uv_buf_t parts[2] = {uv_buf_init((char *)frame->head, (unsigned)frame->head_bytes),
	                     uv_buf_init(body.to, (unsigned)frame->body_bytes)};

	write->connection = connection;
	write->frame = *frame;
	if (uv_write(&write->request, &connection->socket.stream, parts, frame->body ? 2 : 1, on_written)) {
		peer_frame_free(frame);
		free(write);
		drop(connection, "the connection broke");
		return;
	}
	connection->in_flight += frame->head_bytes + frame->body_bytes;
}

/* Hands frames to the socket up to the mark; where that has made room for answers, takes in the frames
 * that waited for it. */
static void flush(struct connection *connection)
{
	struct peer_frame frame;

	peer_resume(connection->peer);
	for (;;) {
		while (!connection->closed && connection->in_flight < WRITE_BYTES_MARK &&
		       peer_next_frame(connection->peer, &frame))
			write_frame(connection, &frame);
		if (connection->closed || !connection->held || peer_choked(connection->peer))
			return;
		process(connection);
	}
}

/* What can be done now: write, then read on or stop reading, or end. */
static void pump(struct connection *connection)
{
	if (connection->closed || connection->ending)
		return;
	flush(connection);
	if (connection->closed)
		return;
	if (!peer_over(connection->peer)) {
		set_reading(connection, !peer_choked(connection->peer));
		return;
	}
	if (connection->over_ms == 0)
		connection->over_ms = connection->server->clock_ms;
	if (connection->in_flight < WRITE_BYTES_MARK)
		end(connection);
}

/* ---- accepting ---- */

static void on_connection(uv_stream_t *listener, int status)
{
	struct server *server = listener->data;
	struct connection *connection;

	if (status < 0)
		return;
	connection = xcalloc(1, sizeof *connection);
	connection->server = server;
	connection->next = server->connections;
	connection->opened_ms = server->clock_ms;
	connection->peer = peer_open(&server->exchange);
	connection->reader = frame_reader_open(HANDSHAKE_BYTES_MAX);
	server->connections = connection;
	server->n_connections++;
	int rc = server_stream_init(&server->loop, &server->address, &connection->socket);
	assert(rc == 0); /* memory only; the socket is made by accept */
	connection->socket.handle.data = connection;
	if (uv_accept(listener, &connection->socket.stream)) {
		drop(connection, "the connection broke");
		return;
	}
	if (!server->address.is_unix) {
		uv_tcp_nodelay(&connection->socket.tcp, 1);
		uv_tcp_keepalive(&connection->socket.tcp, 1, KEEPALIVE_SECONDS);
	}
	if (server->n_connections > PEERS_MAX)
		peer_refuse(connection->peer, WIRE_BUSY, "too many connections: try again later");
	set_reading(connection, true);
	pump(connection);
}

/* ---- opening ---- */

static int check_options(const struct server_options *options, const struct address *address, struct err *err)
{
	if (!address->is_loopback && !options->secret)
		return err_set(err, ERR_CONFIG, "%s can be reached from other machines and there is no secret: set "
		               "bridge.secret_file, or listen on 127.0.0.1 or a unix: path", options->listen);
	if (options->secret && strlen(options->secret) < SECRET_BYTES_MIN)
		return err_set(err, ERR_CONFIG, "the secret has %zu bytes, expected %d or more: make one with "
		               "'head -c 24 /dev/urandom | base64'", strlen(options->secret), SECRET_BYTES_MIN);
	if (options->frame_bytes_max < FRAME_BYTES_LEAST || options->frame_bytes_max > FRAME_BYTES_LIMIT)
		return err_set(err, ERR_CONFIG, "bridge.frame_bytes_max is %zu: expected %d to %d",
		               options->frame_bytes_max, FRAME_BYTES_LEAST, FRAME_BYTES_LIMIT);
	return 0;
}

int server_open(struct server **out, const struct server_options *options,
                const struct server_callbacks *callbacks, struct err *err)
{
	struct address address;

	*out = NULL;
	if (address_parse(&address, options->listen, err) || check_options(options, &address, err))
		return err_context(err, "bridge");
	struct server *server = xcalloc(1, sizeof *server);
	server->address = address;
	server->exchange = (struct exchange){
		.run_id = xstrdup(options->run_id), .secret = options->secret ? xstrdup(options->secret) : NULL,
		.frame_bytes_max = options->frame_bytes_max, .credits_max = options->credits_max,
		.version = options->version, .versions_lost = options->versions_lost, .callbacks = *callbacks, .intake = intake_open(options->model),
		.nonce = auth_nonce,
	};
	intake_observe(server->exchange.intake, &callbacks->weights);
	if (options->model_dir)
		intake_set_model(server->exchange.intake, options->model_dir);
	server->handshake_ms_max =
		options->handshake_ms ? (uint64_t)options->handshake_ms : HANDSHAKE_SECONDS_MAX * 1000;
	server->frame_ms_max = options->frame_ms ? (uint64_t)options->frame_ms : FRAME_SECONDS_MAX * 1000;
	if (options->watch_dir)
		server->watch = watch_open(options->watch_dir, &server->exchange);
	signal(SIGPIPE, SIG_IGN); /* a peer that went away is an error of the write, not a death */
	int rc = uv_loop_init(&server->loop);
	assert(rc == 0);
	uv_timer_init(&server->loop, &server->wake);
	server->clock_ms = 1; /* 0 is "never" */
	server->polled_ms = uv_now(&server->loop);
	server->listener.handle.data = server;
	if (server_listen(&server->loop, &server->listener, &server->listening, &server->address, options->listen,
	                  "bridge.listen", on_connection, err)) {
		server_close(server);
		return err_context(err, "bridge");
	}
	server_describe_address(&server->listener, &server->address, server->address_text, sizeof server->address_text);
	*out = server;
	return 0;
}

static void free_text(const char *text)
{
	union { const char *from; char *to; } owned = {.from = text};
	free(owned.to);
}

void server_close(struct server *server)
{
	if (!server)
		return;
	for (struct connection *connection = server->connections; connection; connection = connection->next)
		drop(connection, "the server closed");
	if (server->listening)
		uv_close(&server->listener.handle, NULL);
	uv_close((uv_handle_t *)&server->wake, NULL);
	uv_run(&server->loop, UV_RUN_DEFAULT);
	int rc = uv_loop_close(&server->loop);
	assert(rc == 0);
	batches_clear(&server->exchange.batches);
	watch_close(server->watch);
	intake_close(server->exchange.intake);
	free_text(server->exchange.run_id);
	free_text(server->exchange.secret);
	free(server);
}

const char *server_address(const struct server *server)
{
	return server->address_text;
}

/* ---- turning ---- */

/* Those who take too long over a handshake, a frame or a goodbye. */
static void end_late(struct connection *connection)
{
	const struct server *server = connection->server;
	uint64_t now_ms = server->clock_ms;

	if (connection->closed)
		return;
	if (connection->over_ms) {
		if (now_ms - connection->over_ms > LINGER_SECONDS_MAX * 1000)
			drop(connection, "was refused");
	} else if (!peer_welcome(connection->peer) && now_ms - connection->opened_ms > server->handshake_ms_max) {
		peer_refuse(connection->peer, WIRE_TIMEOUT, "the handshake took too long");
	} else if (connection->reading && connection->frame_ms &&
	           now_ms - connection->frame_ms > server->frame_ms_max) {
		peer_refuse(connection->peer, WIRE_TIMEOUT, "a frame was begun and not finished in time");
	}
}

static void on_wake(uv_timer_t *timer)
{
	(void)timer;
}

static void pump_all(struct server *server)
{
	for (struct connection *connection = server->connections; connection; connection = connection->next)
		pump(connection);
}

/* Peers are not to blame for time in which nobody polled, or in which there was much to take in: one poll
 * moves their clock by its wait and a little more. */
static void move_clock(struct server *server, int wait_ms)
{
	uv_update_time(&server->loop);
	uint64_t now_ms = uv_now(&server->loop), passed = now_ms - server->polled_ms;
	uint64_t most = (uint64_t)wait_ms + POLL_MS_EXTRA;

	server->clock_ms += passed < most ? passed : most;
	server->polled_ms = now_ms;
}

void server_poll(struct server *server, int wait_ms)
{
	if (server->watch && watch_turn(server->watch, server->clock_ms))
		wait_ms = 0;
	if (wait_ms > 0) {
		uv_update_time(&server->loop); /* the caller may have worked for long since the last turn */
		/* Repeating: uv_run fires what is due before it waits, and with a timer that fired once (this
		 * thread lost its core for wait_ms just here) it would then wait without end. */
		uv_timer_start(&server->wake, on_wake, (uint64_t)wait_ms, (uint64_t)wait_ms);
		uv_run(&server->loop, UV_RUN_ONCE);
		uv_timer_stop(&server->wake);
	} else {
		uv_run(&server->loop, UV_RUN_NOWAIT);
	}
	move_clock(server, wait_ms);
	for (struct connection *connection = server->connections; connection; connection = connection->next)
		end_late(connection);
	pump_all(server);
}

const struct weights *server_restore_weights(struct server *server, int64_t version, struct weights *weights)
{
	return intake_restore(server->exchange.intake, version, weights);
}

void server_finish(struct server *server)
{
	server->exchange.finishing = true;
	pump_all(server);
}

void server_set_version(struct server *server, int64_t version)
{
	server->exchange.version = version;
	server->exchange.versions_lost = 0;
}

int server_peers(const struct server *server)
{
	return server->exchange.n_welcome;
}

int server_unacknowledged(const struct server *server)
{
	return server->exchange.batches.n;
}

/* ---- for server_batches.c ---- */

struct exchange *server_exchange(struct server *server)
{
	return &server->exchange;
}

struct peer *server_peer(const struct server *server, int index)
{
	for (const struct connection *connection = server->connections; connection; connection = connection->next)
		if (!connection->closed && index-- == 0)
			return connection->peer;
	return NULL;
}

void server_pump(struct server *server)
{
	pump_all(server);
}
