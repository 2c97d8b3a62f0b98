/* client.c - what a trainer calls: open, pull, acknowledge, close. */
#include "trainer_bridge/client/client_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "trainer_bridge/server/auth.h"
#include "trainer_bridge/wire/address.h"

enum { RETRY_MS = 50, SEND_BUFFER_BYTES = 1 << 20 };

/* ---- opening and closing ---- */

static int connect_once(const struct address *address)
{
	int fd = socket(address->socket.ss_family, SOCK_STREAM, 0), on = 1, bytes = SEND_BUFFER_BYTES;
	int idle = 60, interval = 15, count = 4;

	if (fd < 0)
		return -1;
	if (connect(fd, (const struct sockaddr *)&address->socket, address->socket_bytes) < 0) {
		int why = errno;
		close(fd);
		errno = why;
		return -1;
	}
	if (address->is_unix) { /* TCP finds its own */
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	} else {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on); /* a host that is gone is found out in two minutes */
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

static int connect_retrying(const char *text, double seconds, int *fd, bool *local, struct err *err)
{
	struct address address;
	double deadline = client_clock() + seconds;

	if (address_parse(&address, text, err))
		return err->code;
	*local = address.is_loopback;
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

static int send_hello(struct client *client, const struct client_options *options, struct err *err)
{
	uint32_t n_more = (options->by_completion ? 1u : 0) + (options->micro_groups > 0 ? 1u : 0) + (options->lengths ? 1u : 0);
	struct message_writer *w = client_begin(client, FRAME_HELLO, 5 + n_more);

	message_key(w, "protocol_min");
	message_put_int(w, PROTOCOL_VERSION_MIN);
	message_key(w, "protocol_max");
	message_put_int(w, PROTOCOL_VERSION);
	message_key(w, "name");
	message_put_text(w, options->name);
	if (options->by_completion) {
		message_key(w, "order");
		message_put_text(w, "completion");
	}
	if (options->micro_groups > 0) {
		message_key(w, "micro_batch");
		message_put_int(w, options->micro_groups);
	}
	if (options->lengths) {
		message_key(w, "lengths");
		message_put_bool(w, true);
	}
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

static int shake_hands(struct client *client, const struct client_options *options, struct err *err)
{
	const char *secret = options->secret;

	auth_nonce(client->nonce);
	if (send_hello(client, options, err) || client_wait(client, is_greeted, client->timeout_seconds, err))
		return err->code;
	if (client->challenged && !secret)
		return err_set(err, ERR_PEER, "the run asks for a secret and none was given: set bridge.secret_file");
	if (secret && !client->challenged)
		return err_set(err, ERR_PEER,
		               "a secret was given and the run asked for none: it is not the run that was meant, "
		               "or its bridge.secret_file is not set");
	return secret ? answer_challenge(client, secret, options->name, err) : 0;
}

int client_open_with(struct client **out, const struct client_options *options, struct err *err)
{
	bool local;
	int fd;

	*out = NULL;
	if (connect_retrying(options->address, options->connect_seconds, &fd, &local, err))
		return err->code;
	struct client *client = xcalloc(1, sizeof *client);
	client->fd = fd;
	client->local = local;
	client->sum = checksum_open();
	client->timeout_seconds = options->timeout_seconds;
	client->ok_version = client->accepted.id = client->scores.id = -1;
	client->reader = frame_reader_open(WELCOME_BYTES_MAX);
	client->writer = message_writer_open();
	if (shake_hands(client, options, err)) {
		client->over = true;
		client_close(client);
		return err_context(err, "%s", options->address);
	}
	*out = client;
	return 0;
}

int client_open(struct client **out, const char *address, const char *secret, const char *name,
                double connect_seconds, double timeout_seconds, struct err *err)
{
	return client_open_with(out, &(struct client_options){.address = address, .secret = secret, .name = name,
		.connect_seconds = connect_seconds, .timeout_seconds = timeout_seconds}, err);
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
	while (client->batches)
		client_arrival_free(client, client_arrival_take(&client->batches));
	while (client->evaluations)
		client_arrival_free(client, client_arrival_take(&client->evaluations));
	client_forget_announced(client);
	message_close(client->scores.message);
	free(client->batch.bytes);
	free(client->evaluation.bytes);
	free(client->spare);
	checksum_close(client->sum);
	delta_close(client->delta);
	free(client->run_id);
	free(client);
}

const char *client_run_id(const struct client *client)
{
	return client->run_id;
}

void client_limits(const struct client *client, struct client_limits *limits)
{
	*limits = client->limits;
}

bool client_is_local(const struct client *client)
{
	return client->local;
}

uint64_t client_sent_bytes(const struct client *client)
{
	return client->sent_bytes;
}

int64_t client_weights_version(const struct client *client)
{
	return client->weights;
}

int64_t client_version(const struct client *client)
{
	return client->version;
}

/* ---- batches ---- */

static bool has_batch_or_bye(const struct client *client)
{
	return client->batches || client->bye;
}

int client_ask(struct client *client, struct err *err)
{
	if (client->pull_pending || client->bye)
		return 0;
	struct message_writer *w = client_begin(client, FRAME_PULL, 1);
	message_key(w, "credits");
	message_put_int(w, 1);
	if (client_send(client, NULL, 0, err))
		return err->code;
	client->pull_pending = true; /* also past a timeout: the batch is awaited by the next call */
	return 0;
}

int client_pull(struct client *client, struct client_batch *batch, double timeout_seconds, struct err *err)
{
	*batch = (struct client_batch){.micro = -1};
	if (client_ask(client, err) || client_wait(client, has_batch_or_bye, timeout_seconds, err))
		return err->code;
	if (!client->batches)
		return 0;
	struct arrival *arrival = client_arrival_take(&client->batches);
	bool ended = arrival->of.n == 0;
	int rc = 0;
	if (ended) *batch = (struct client_batch){.batch_id = arrival->of.id, .step = arrival->of.step,
	                                          .version = arrival->of.version, .micro = -1, .ended = true};
	else rc = client_decode(&arrival->of, batch, err);
	client->pull_pending = arrival->of.micro >= 0 && !ended;
	client_arrival_free(client, arrival);
	return rc;
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
