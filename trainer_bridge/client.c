/* client.c - what a trainer calls: open, pull, acknowledge, close. */
#include "trainer_bridge/client_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer_bridge/address.h"
#include "trainer_bridge/auth.h"
#include "trainer_bridge/codec.h"

enum { RETRY_MS = 50 };

/* ---- opening and closing ---- */

static int connect_once(const struct address *address)
{
	int fd = socket(address->socket.ss_family, SOCK_STREAM, 0), on = 1;

	if (fd < 0)
		return -1;
	if (connect(fd, (const struct sockaddr *)&address->socket, address->socket_bytes) < 0) {
		int why = errno;
		close(fd);
		errno = why;
		return -1;
	}
	if (!address->is_unix) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

static int connect_retrying(const char *text, double seconds, int *fd, struct err *err)
{
	struct address address;
	double deadline = client_clock() + seconds;

	if (address_parse(&address, text, err))
		return err->code;
	while ((*fd = connect_once(&address)) < 0) {
		if (client_clock() >= deadline)
			return err_set_errno(err, ERR_IO,
			                     "cannot connect to the run at %s: is it running, and is this its address?",
			                     text);
		nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
	}
	return 0;
}

static bool is_greeted(const struct client *client)
{
	return client->challenged || client->welcome;
}

static bool is_welcome(const struct client *client)
{
	return client->welcome;
}

static int send_hello(struct client *client, const char *name, struct err *err)
{
	struct message_writer *w = client_begin(client, FRAME_HELLO, 5);

	message_key(w, "protocol_min");
	message_put_int(w, PROTOCOL_VERSION_MIN);
	message_key(w, "protocol_max");
	message_put_int(w, PROTOCOL_VERSION);
	message_key(w, "name");
	message_put_text(w, name);
	message_key(w, "role");
	message_put_text(w, "trainer");
	message_key(w, "nonce");
	message_put_bin(w, client->nonce, NONCE_BYTES);
	return client_send(client, NULL, 0, err);
}

/* Proves the secret, waits for WELCOME, and checks the server's own proof. */
static int answer_challenge(struct client *client, const char *secret, const char *name, struct err *err)
{
	uint8_t mac[MAC_BYTES];

	auth_prove(AUTH_PEER, secret, client->server_nonce, client->nonce, name, mac);
	struct message_writer *w = client_begin(client, FRAME_AUTH, 1);
	message_key(w, "mac");
	message_put_bin(w, mac, MAC_BYTES);
	if (client_send(client, NULL, 0, err) || client_wait(client, is_welcome, client->timeout_seconds, err))
		return err->code;
	auth_prove(AUTH_SERVER, secret, client->server_nonce, client->nonce, name, mac);
	if (!client->has_server_mac || !auth_equal(mac, client->server_mac))
		return err_set(err, ERR_PEER,
		               "what answers does not know the secret: it is not the run that was meant");
	return 0;
}

static int shake_hands(struct client *client, const char *secret, const char *name, struct err *err)
{
	auth_nonce(client->nonce);
	if (send_hello(client, name, err) || client_wait(client, is_greeted, client->timeout_seconds, err))
		return err->code;
	if (client->challenged && !secret)
		return err_set(err, ERR_PEER, "the run asks for a secret and none was given: set bridge.secret_file");
	if (secret && !client->challenged)
		return err_set(err, ERR_PEER,
		               "a secret was given and the run asked for none: it is not the run that was meant, "
		               "or its bridge.secret_file is not set");
	return secret ? answer_challenge(client, secret, name, err) : 0;
}

int client_open(struct client **out, const char *address, const char *secret, const char *name,
                double connect_seconds, double timeout_seconds, struct err *err)
{
	int fd;

	*out = NULL;
	if (connect_retrying(address, connect_seconds, &fd, err))
		return err->code;
	struct client *client = xcalloc(1, sizeof *client);
	client->fd = fd;
	client->timeout_seconds = timeout_seconds;
	client->ok_version = -1;
	client->reader = frame_reader_open(WELCOME_BYTES_MAX);
	client->writer = message_writer_open();
	if (shake_hands(client, secret, name, err)) {
		client->over = true;
		client_close(client);
		return err_context(err, "%s", address);
	}
	*out = client;
	return 0;
}

/* Says BYE and reads until the server has closed, so that what was sent last is not lost with it. */
static void leave(struct client *client)
{
	double deadline = client_clock() + LINGER_SECONDS_MAX;
	struct err err;
	short ready;
	uint8_t unread[4096];

	client_begin(client, FRAME_BYE, 0);
	client->timeout_seconds = LINGER_SECONDS_MAX;
	if (client_send(client, NULL, 0, &err))
		return;
	shutdown(client->fd, SHUT_WR);
	for (;;) {
		ssize_t n = recv(client->fd, unread, sizeof unread, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return;
		if (n < 0 && client_wait_ready(client, POLLIN, deadline, &ready, &err))
			return;
	}
}

void client_close(struct client *client)
{
	if (!client)
		return;
	if (!client->over)
		leave(client);
	close(client->fd);
	frame_reader_close(client->reader);
	message_writer_close(client->writer);
	free(client->assembly.bytes);
	free(client->run_id);
	free(client);
}

const char *client_run_id(const struct client *client)
{
	return client->run_id;
}

int64_t client_version(const struct client *client)
{
	return client->version;
}

/* ---- batches ---- */

/* Trajectory i of the assembled payload, which *at walks. */
static int decode_next(const struct assembly *a, size_t *at, struct trajectory **trajectory, struct err *err)
{
	struct message *message;
	size_t left = a->arrived - *at, length = 0;

	for (int i = 0; i < FRAME_LENGTH_BYTES && left >= FRAME_LENGTH_BYTES; i++)
		length |= (size_t)a->bytes[*at + (size_t)i] << 8 * i;
	if (left < FRAME_LENGTH_BYTES || length > left - FRAME_LENGTH_BYTES)
		return err_set(err, ERR_INCOMPLETE, "its bytes end inside a trajectory");
	if (message_parse(&message, a->bytes + *at + FRAME_LENGTH_BYTES, length, err))
		return err->code;
	int rc = codec_get_trajectory(message_root(message), trajectory, err);
	message_close(message);
	*at += FRAME_LENGTH_BYTES + length;
	return rc;
}

static int decode_batch(const struct assembly *a, struct client_batch *batch, struct err *err)
{
	size_t at = 0;

	if ((uint64_t)a->n > a->n_bytes / FRAME_LENGTH_BYTES)
		return err_set(err, ERR_INVALID,
		               "batch %" PRIu64 " claims %" PRId64 " trajectories in %" PRIu64 " bytes", a->batch_id,
		               a->n, a->n_bytes);
	*batch = (struct client_batch){.batch_id = a->batch_id, .step = a->step, .version = a->version};
	batch->trajectories = xcalloc((size_t)a->n, sizeof(struct trajectory *));
	for (; batch->n < a->n; batch->n++)
		if (decode_next(a, &at, &batch->trajectories[batch->n], err))
			break;
	if (batch->n == a->n && at == a->arrived)
		return 0;
	if (batch->n == a->n)
		err_set(err, ERR_INVALID, "%zu bytes lie behind its last trajectory", a->arrived - at);
	err_context(err, "batch %" PRIu64, a->batch_id);
	client_batch_free(batch);
	return err->code;
}

static bool has_batch_or_bye(const struct client *client)
{
	return client_batch_complete(client) || client->bye;
}

int client_pull(struct client *client, struct client_batch *batch, double timeout_seconds, struct err *err)
{
	*batch = (struct client_batch){0};
	if (!client->pull_pending && !client->bye) {
		struct message_writer *w = client_begin(client, FRAME_PULL, 1);
		message_key(w, "credits");
		message_put_int(w, 1);
		if (client_send(client, NULL, 0, err))
			return err->code;
		client->pull_pending = true; /* also past a timeout: the batch is awaited by the next call */
	}
	if (client_wait(client, has_batch_or_bye, timeout_seconds, err))
		return err->code;
	if (!client_batch_complete(client))
		return 0;
	client->pull_pending = false;
	client->assembly.n_parts = 0;
	return decode_batch(&client->assembly, batch, err);
}

void client_batch_free(struct client_batch *batch)
{
	for (int i = 0; i < batch->n; i++)
		trajectory_free(batch->trajectories[i]);
	free(batch->trajectories);
	*batch = (struct client_batch){0};
}

int client_ack(struct client *client, uint64_t batch_id, struct err *err)
{
	struct message_writer *w = client_begin(client, FRAME_ACK, 1);

	message_key(w, "batch_id");
	message_put_uint(w, batch_id);
	return client_send(client, NULL, 0, err);
}
