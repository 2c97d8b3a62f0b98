/* client_link.c - frames between a client and its run: a plain socket with poll().
 *
 * Whatever is being sent, arriving frames are taken in meanwhile: two sides that both only write would
 * wait for each other for ever.  Taking a frame in never sends one (a frame may be half out); answers
 * that are due go out before the next wait.  All waits are bounded by seconds without a byte moving.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "trainer_bridge/client/client_internal.h"

double client_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- arriving frames ---- */

static int take_fixed(const struct message_node *frame, const char *key, uint8_t *out, size_t n,
                      struct err *err)
{
	const void *bytes;
	size_t n_bytes;

	if (message_get_bin(frame, key, &bytes, &n_bytes, err))
		return err->code;
	if (n_bytes != n)
		return err_set(err, ERR_INVALID, "field '%s': expected %zu bytes, found %zu", key, n, n_bytes);
	memcpy(out, bytes, n);
	return 0;
}

static int take_challenge(struct client *client, const struct message_node *frame, struct err *err)
{
	client->challenged = true;
	return take_fixed(frame, "nonce", client->server_nonce, NONCE_BYTES, err);
}

static int take_welcome(struct client *client, const struct message_node *frame, struct err *err)
{
	const char *run_id;
	int64_t protocol, frame_bytes_max;

	if (message_get_int(frame, "protocol", PROTOCOL_VERSION_MIN, PROTOCOL_VERSION, &protocol, err) ||
	    message_get_text(frame, "run_id", &run_id, err) ||
	    message_get_int(frame, "version", 0, INT64_MAX, &client->version, err) ||
	    message_get_int(frame, "frame_bytes_max", HANDSHAKE_BYTES_MAX, FRAME_BYTES_LIMIT, &frame_bytes_max,
	                    err))
		return err->code;
	client->weights = client->version;
	if (message_field(frame, "weights") && message_get_int(frame, "weights", 0, INT64_MAX, &client->weights, err))
		return err->code;
	if (message_field(frame, "mac") && take_fixed(frame, "mac", client->server_mac, MAC_BYTES, err))
		return err->code;
	client->has_server_mac = message_field(frame, "mac") != NULL;
	free(client->run_id);
	client->run_id = xstrdup(run_id ? run_id : "");
	client->frame_bytes_max = (size_t)frame_bytes_max;
	frame_reader_limit(client->reader, client->frame_bytes_max);
	struct { const char *key; int64_t *value; } limits[] = {
		{"prompts_max", &client->limits.prompts_max}, {"prompt_tokens_max", &client->limits.prompt_tokens_max},
		{"max_tokens", &client->limits.max_tokens}, {"keep_versions", &client->limits.keep_versions},
	};
	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
		if (message_field(frame, limits[i].key) &&
		    message_get_int(frame, limits[i].key, 0, INT64_MAX, limits[i].value, err))
			return err->code;
	client->welcome = true;
	return 0;
}

static int take_error(struct client *client, const struct message_node *frame, struct err *err)
{
	const char *code, *text, *about = NULL;
	bool fatal = false, may_retry = false;

	if (message_get_text(frame, "code", &code, err) || message_get_text(frame, "text", &text, err) ||
	    (message_field(frame, "about") && message_get_text(frame, "about", &about, err)) ||
	    message_get_bool(frame, "fatal", &fatal, err) ||
	    message_get_bool(frame, "may_retry", &may_retry, err))
		return err->code;
	err_set(&client->refusal, wire_error_parse(code), "the run refused: %.900s (%.32s%s)",
	        text ? text : "no reason given", code ? code : "?", may_retry ? ", may be tried again" : "");
	client->not_new = client->refusal.code == ERR_INVALID && about && strcmp(about, frame_name(FRAME_WEIGHTS_BEGIN)) == 0;
	client->over = client->over || fatal;
	return 0;
}

static int take_weights_ok(struct client *client, const struct message_node *frame, struct err *err)
{
	if (message_get_int(frame, "version", 0, INT64_MAX, &client->ok_version, err))
		return err->code;
	client->version = client->ok_version;
	return 0;
}

static int take_accepted(struct client *client, const struct message_node *frame, struct err *err)
{
	int64_t room;

	if (message_get_int(frame, "room", 0, INT32_MAX, &room, err) ||
	    message_get_int(frame, "id", 0, INT64_MAX, &client->accepted.id, err))
		return err->code;
	client->accepted.room = (int)room;
	return 0;
}

/* Takes the message where it is still needed: *message is NULL then. */
static int take_scores(struct client *client, struct message **message, struct err *err)
{
	if (message_get_int(message_root(*message), "id", 0, INT64_MAX, &client->scores.id, err))
		return err->code;
	message_close(client->scores.message);
	client->scores.message = *message;
	*message = NULL;
	return 0;
}

static int take_frame(struct client *client, struct message **message, struct err *err)
{
	const struct message_node *frame = message_root(*message);
	const char *type;

	if (message_get_text(frame, "type", &type, err))
		return err->code;
	switch (frame_type_parse(type)) {
	case FRAME_CHALLENGE: return take_challenge(client, frame, err);
	case FRAME_WELCOME: return take_welcome(client, frame, err);
	case FRAME_BATCH: return client_take_batch(client, frame, err);
	case FRAME_BATCH_LENGTHS: return client_take_lengths(client, frame, err);
	case FRAME_BATCH_END: return client_take_batch_end(client, frame, err);
	case FRAME_EVALUATION: return client_take_evaluation(client, frame, err);
	case FRAME_ACCEPTED: return take_accepted(client, frame, err);
	case FRAME_SCORES: return take_scores(client, message, err);
	case FRAME_WEIGHTS_OK: return take_weights_ok(client, frame, err);
	case FRAME_ERROR: return take_error(client, frame, err);
	case FRAME_PING: client->pongs_due++; return 0;
	case FRAME_BYE: client->bye = true; return 0;
	default: return 0; /* a newer server may say more: it does not concern us */
	}
}

static int take_frames(struct client *client, struct err *err)
{
	const void *payload;
	size_t n_bytes;
	int rc;

	while ((rc = frame_next(client->reader, &payload, &n_bytes, err)) > 0) {
		struct message *message;
		if (message_parse(&message, payload, n_bytes, err))
			return err->code;
		rc = take_frame(client, &message, err);
		message_close(message);
		if (rc)
			break;
	}
	return rc;
}

int client_refusal(struct client *client, struct err *err)
{
	if (client->refusal.code == 0)
		return 0;
	*err = client->refusal;
	if (!client->over)
		client->refusal.code = 0;
	return err->code;
}

/* Bytes that are there now; after the last ones of a refusing server, its refusal. */
static int receive(struct client *client, struct err *err)
{
	size_t space;
	void *at = frame_reader_space(client->reader, &space);
	ssize_t n = recv(client->fd, at, space, 0);

	if (n > 0) {
		frame_reader_filled(client->reader, (size_t)n);
		return take_frames(client, err) ? err_context(err, "from the run") : 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (client_refusal(client, err))
		return err->code;
	if (n == 0)
		return err_set(err, ERR_PEER, "the run closed the connection");
	return err_set_errno(err, ERR_PEER, "the connection to the run broke");
}

/* ---- sending and waiting ---- */

int client_wait_ready(struct client *client, short events, double deadline, short *ready, struct err *err)
{
	struct pollfd fd = {.fd = client->fd, .events = events};
	double left = deadline - client_clock();
	int rc = left > 0 ? poll(&fd, 1, left > 1e6 ? 1000000000 : (int)(left * 1000) + 1) : 0;

	if (rc == 0)
		return err_set(err, ERR_TIMEOUT, "the run neither took nor sent anything for the time allowed");
	if (rc < 0 && errno != EINTR)
		return err_set_errno(err, ERR_IO, "poll");
	*ready = rc > 0 ? fd.revents : 0;
	return 0;
}

/* Drops the first n bytes, and parts that are empty. */
static void advance(struct iovec **parts, int *n_parts, size_t n)
{
	while (*n_parts > 0 && n >= (*parts)->iov_len) {
		n -= (*parts)->iov_len;
		++*parts;
		--*n_parts;
	}
	if (*n_parts > 0) {
		(*parts)->iov_base = (uint8_t *)(*parts)->iov_base + n;
		(*parts)->iov_len -= n;
	}
}

static int send_parts(struct client *client, struct iovec *parts, int n_parts, struct err *err)
{
	double deadline = client_clock() + client->timeout_seconds;
	short ready;

	advance(&parts, &n_parts, 0);
	while (n_parts > 0) {
		if (client_wait_ready(client, POLLIN | POLLOUT, deadline, &ready, err))
			return err->code;
		if (ready & (POLLIN | POLLHUP | POLLERR) && receive(client, err))
			return err->code;
		if (client->over)
			return client_refusal(client, err);
		struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)n_parts};
		ssize_t n = ready & POLLOUT ? sendmsg(client->fd, &message, MSG_NOSIGNAL) : 0;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return err_set_errno(err, ERR_PEER, "the connection to the run broke");
		if (n > 0) {
			advance(&parts, &n_parts, (size_t)n);
			client->sent_bytes += (uint64_t)n;
			deadline = client_clock() + client->timeout_seconds;
		}
	}
	return 0;
}

int client_send(struct client *client, const void *body, size_t body_bytes, struct err *err)
{
	size_t head_bytes;
	union { const void *from; void *to; } head, tail = {.from = body}; /* iovec knows no const */
	uint8_t length[FRAME_LENGTH_BYTES];

	head.from = message_bytes(client->writer, &head_bytes);
	frame_put_length(length, head_bytes + body_bytes);
	struct iovec parts[] = {{length, sizeof length}, {head.to, head_bytes}, {tail.to, body_bytes}};
	return send_parts(client, parts, 3, err);
}

struct message_writer *client_begin(struct client *client, enum frame_type type, uint32_t n_fields)
{
	message_writer_reset(client->writer);
	frame_begin(client->writer, type, n_fields);
	return client->writer;
}

static int send_pongs(struct client *client, struct err *err)
{
	for (; client->pongs_due > 0; client->pongs_due--) {
		client_begin(client, FRAME_PONG, 0);
		if (client_send(client, NULL, 0, err))
			return err->code;
	}
	return 0;
}

int client_wait(struct client *client, bool (*enough)(const struct client *), double seconds, struct err *err)
{
	double deadline = client_clock() + seconds;
	short ready;

	while (!enough(client)) {
		if (client_refusal(client, err) || send_pongs(client, err) ||
		    client_wait_ready(client, POLLIN, deadline, &ready, err))
			return err->code;
		if (ready && receive(client, err))
			return err->code;
	}
	return 0;
}
