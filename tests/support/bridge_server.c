/* bridge_server.c - see bridge_server.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/bridge_fixture.h"
#include "tests/support/bridge_server.h"
#include "tests/support/random_model.h"
#include "trainer_bridge/wire/address.h"
#include "trainer_bridge/wire/frame.h"

static void pause_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

/* ---- callbacks, on the server's thread with the mutex held ---- */

static void on_joined(void *context, const char *name)
{
	struct bridge_server *bridge = context;

	bridge->seen.joined++;
	snprintf(bridge->seen.last_name, sizeof bridge->seen.last_name, "%s", name);
}

static void on_left(void *context, const char *name, const char *why)
{
	struct bridge_server *bridge = context;

	(void)name;
	bridge->seen.left++;
	snprintf(bridge->seen.last_why, sizeof bridge->seen.last_why, "%s", why);
}

static void on_acked(void *context, uint64_t batch_id)
{
	struct bridge_server *bridge = context;

	assert_true(bridge->seen.n_acked < BRIDGE_ACKS_MAX);
	bridge->seen.acked[bridge->seen.n_acked++] = batch_id;
}

static int on_weights(void *context, int64_t version, const struct weights *weights, struct err *err)
{
	struct bridge_server *bridge = context;

	if (bridge->refuse_weights)
		return err_set(err, bridge->refuse_weights, "the engine does not want it");
	if (!bridge->seen.weights.data)
		weights_alloc(&bridge->seen.weights, &weights->config);
	memcpy(bridge->seen.weights.data, weights->data, 2 * weights->n_elements);
	bridge->seen.version = version;
	bridge->seen.versions++;
	server_set_version(bridge->server, version);
	return 0;
}

static void on_report(void *context, const struct trainer_report *report)
{
	struct bridge_server *bridge = context;

	bridge->seen.report = *report;
	bridge->seen.reports++;
}

/* ---- the thread ---- */

static void *turn(void *context)
{
	struct bridge_server *bridge = context;

	while (!atomic_load(&bridge->stop)) {
		while (atomic_load(&bridge->wanted))
			sched_yield();
		pthread_mutex_lock(&bridge->mutex);
		server_poll(bridge->server, 2);
		pthread_mutex_unlock(&bridge->mutex);
	}
	return NULL;
}

void bridge_server_start(struct bridge_server *bridge, struct server_options options)
{
	struct server_callbacks callbacks = {bridge, on_joined, on_left, on_acked, on_weights, on_report};
	char listen[128];
	struct err err;

	memset(bridge, 0, sizeof *bridge);
	strcpy(bridge->dir, "/tmp/bridge-XXXXXX");
	assert_non_null(mkdtemp(bridge->dir));
	snprintf(listen, sizeof listen, "unix:%s/sock", bridge->dir);
	bridge->config = random_model_small();
	options.listen = options.listen ? options.listen : listen;
	options.run_id = "run-1";
	options.model = &bridge->config;
	options.frame_bytes_max = options.frame_bytes_max ? options.frame_bytes_max : 1 << 20;
	options.credits_max = options.credits_max ? options.credits_max : 2;
	if (server_open(&bridge->server, &options, &callbacks, &err))
		fail_msg("%s", err.text);
	snprintf(bridge->address, sizeof bridge->address, "%s", server_address(bridge->server));
	pthread_mutex_init(&bridge->mutex, NULL);
	assert_int_equal(pthread_create(&bridge->thread, NULL, turn, bridge), 0);
}

void bridge_server_stop(struct bridge_server *bridge)
{
	atomic_store(&bridge->stop, true);
	pthread_join(bridge->thread, NULL);
	server_close(bridge->server);
	pthread_mutex_destroy(&bridge->mutex);
	weights_free(&bridge->seen.weights);
	assert_int_equal(rmdir(bridge->dir), 0); /* the socket's file is gone with the server */
}

void bridge_lock(struct bridge_server *bridge)
{
	atomic_fetch_add(&bridge->wanted, 1);
	pthread_mutex_lock(&bridge->mutex);
}

void bridge_unlock(struct bridge_server *bridge)
{
	pthread_mutex_unlock(&bridge->mutex);
	atomic_fetch_sub(&bridge->wanted, 1);
}

void bridge_await(struct bridge_server *bridge, const int *counter, int value)
{
	int now = -1;

	for (int i = 0; i < 1000; i++) {
		bridge_lock(bridge);
		now = *counter;
		bridge_unlock(bridge);
		if (now == value)
			return;
		pause_ms(5);
	}
	fail_msg("expected %d, still %d after 5 s", value, now);
}

struct trajectory *bridge_batch_item(uint64_t batch_id, int i, int32_t n_response)
{
	return bridge_trajectory(batch_id * 10 + (uint64_t)i, i % 3, n_response);
}

void bridge_put_batch(struct bridge_server *bridge, uint64_t batch_id, int n, int32_t n_response)
{
	struct trajectory **items = calloc((size_t)n, sizeof *items);

	for (int i = 0; i < n; i++)
		items[i] = bridge_batch_item(batch_id, i, n_response);
	bridge_lock(bridge);
	server_put_batch(bridge->server, batch_id, (int64_t)batch_id, 7, items, n);
	bridge_unlock(bridge);
	for (int i = 0; i < n; i++)
		trajectory_free(items[i]);
	free(items);
}

/* ---- raw sockets ---- */

int bridge_raw_connect(const char *text)
{
	struct address address;
	struct err err;

	assert_int_equal(address_parse(&address, text, &err), 0);
	int fd = socket(address.socket.ss_family, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address.socket, address.socket_bytes), 0);
	return fd;
}

void bridge_raw_send(int fd, const void *bytes, size_t n_bytes)
{
	const uint8_t *at = bytes;

	while (n_bytes > 0) {
		ssize_t n = send(fd, at, n_bytes, MSG_NOSIGNAL);
		if (n < 0)
			return; /* refused already: what it says will be read */
		at += n;
		n_bytes -= (size_t)n;
	}
}

void bridge_raw_frame(int fd, const void *payload, size_t n_bytes)
{
	uint8_t length[FRAME_LENGTH_BYTES];

	frame_put_length(length, n_bytes);
	bridge_raw_send(fd, length, sizeof length);
	bridge_raw_send(fd, payload, n_bytes);
}

void bridge_raw_message(int fd, struct message_writer *writer)
{
	size_t n_bytes;
	const void *bytes = message_bytes(writer, &n_bytes);

	bridge_raw_frame(fd, bytes, n_bytes);
	message_writer_reset(writer);
}

static bool receive_all(int fd, uint8_t *out, size_t n_bytes)
{
	for (size_t at = 0; at < n_bytes;) {
		struct pollfd ready = {.fd = fd, .events = POLLIN};
		if (poll(&ready, 1, 5000) != 1)
			fail_msg("nothing came for 5 s");
		ssize_t n = recv(fd, out + at, n_bytes - at, 0);
		if (n <= 0)
			return false;
		at += (size_t)n;
	}
	return true;
}

struct message *bridge_raw_receive(int fd)
{
	uint8_t length[FRAME_LENGTH_BYTES];
	struct message *message;
	struct err err;

	if (!receive_all(fd, length, sizeof length))
		return NULL;
	size_t n_bytes =
		(size_t)length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
	uint8_t *payload = malloc(n_bytes);
	assert_true(receive_all(fd, payload, n_bytes));
	if (message_parse(&message, payload, n_bytes, &err))
		fail_msg("%s", err.text);
	free(payload);
	return message;
}

static const char *text_of(const struct message *message, const char *key)
{
	const char *text = NULL;
	struct err err;

	message_get_text(message_root(message), key, &text, &err);
	return text ? text : "";
}

void bridge_raw_hello(int fd)
{
	struct message_writer *w = message_writer_open();
	const uint8_t nonce[NONCE_BYTES] = {0};

	frame_begin(w, FRAME_HELLO, 5);
	message_key(w, "protocol_min"); message_put_int(w, 1);
	message_key(w, "protocol_max"); message_put_int(w, 1);
	message_key(w, "name"); message_put_text(w, "raw");
	message_key(w, "role"); message_put_text(w, "trainer");
	message_key(w, "nonce"); message_put_bin(w, nonce, sizeof nonce);
	bridge_raw_message(fd, w);
	message_writer_close(w);
	struct message *welcome = bridge_raw_receive(fd);
	assert_non_null(welcome);
	assert_string_equal(text_of(welcome, "type"), "welcome");
	message_close(welcome);
}

void bridge_raw_expect_error(int fd, const char *code, bool fatal, const char *said)
{
	struct message *message = bridge_raw_receive(fd);
	bool told_fatal;
	struct err err;

	if (!message)
		fail_msg("the connection ended without an error frame");
	assert_string_equal(text_of(message, "type"), "error");
	if (strcmp(text_of(message, "code"), code) != 0 || !strstr(text_of(message, "text"), said))
		fail_msg("expected %s '%s', found %s '%s'", code, said, text_of(message, "code"),
		         text_of(message, "text"));
	assert_int_equal(message_get_bool(message_root(message), "fatal", &told_fatal, &err), 0);
	assert_int_equal(told_fatal, fatal);
	message_close(message);
	if (fatal)
		assert_null(bridge_raw_receive(fd));
}
