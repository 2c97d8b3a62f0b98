/* test_server_hostile.c - what misbehaving peers are told over real sockets, and that the server lives on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/bridge_fixture.h"
#include "tests/support/bridge_server.h"
#include "trainer_bridge/client/client.h"
#include "trainer_bridge/wire/frame.h"

static struct bridge_server bridge;

static int set_up(void **state)
{
	(void)state;
	bridge_server_start(&bridge, (struct server_options){.handshake_ms = 300, .frame_ms = 300});
	return 0;
}

/* Whatever happened, a decent peer is served. */
static int tear_down(void **state)
{
	struct client *client;
	struct client_batch batch;
	struct err err;

	(void)state;
	bridge_put_batch(&bridge, 1000, 2, 3);
	if (client_open(&client, bridge.address, NULL, "decent", 1, 5, &err) ||
	    client_pull(client, &batch, 5, &err))
		fail_msg("%s", err.text);
	assert_int_equal(batch.n, 2);
	client_batch_free(&batch);
	client_close(client);
	bridge_server_stop(&bridge);
	return 0;
}

/* A frame of these bytes from a stranger and from a peer after the handshake: a fatal error both times. */
static void refuses(const char *hex, const char *code, const char *said)
{
	static uint8_t payload[8192];
	size_t n_bytes = bridge_unhex(hex, payload, sizeof payload);

	for (int welcome = 0; welcome < 2; welcome++) {
		int fd = bridge_raw_connect(bridge.address);
		if (welcome)
			bridge_raw_hello(fd);
		bridge_raw_frame(fd, payload, n_bytes);
		bridge_raw_expect_error(fd, code, true, said);
		close(fd);
	}
}

static void test_payloads_that_are_no_messages(void **state)
{
	(void)state;
	refuses("", "invalid", "a frame of 0 bytes");
	refuses("c1", "invalid", "0xc1");
	refuses("de ffff", "incomplete", "131070 more bytes");
	refuses("80", "missing", "'type'");
	refuses("93 01 02 03", "invalid", "expected a map");
	refuses("81 a474797065 01", "invalid", "'type': expected a text, found an integer"); /* {"type": 1} */
	refuses("91 91 91 91 91 91 91 91 91 91 91 91 91 91 91 91 91 01", "too_big", "nested deeper than 16");
}

static void test_lengths_beyond_the_limit(void **state)
{
	(void)state;
	int fd = bridge_raw_connect(bridge.address);
	bridge_raw_send(fd, "\xff\xff\xff\xff", 4);
	bridge_raw_expect_error(fd, "too_big", true, "4294967295 bytes: the limit is 4096 here");
	close(fd);
	fd = bridge_raw_connect(bridge.address);
	bridge_raw_hello(fd);
	bridge_raw_send(fd, "\x01\x00\x10\x00", 4);
	bridge_raw_expect_error(fd, "too_big", true, "1048577 bytes: the limit is 1048576 here");
	close(fd);
}

static void test_garbage_is_told_so_however_long(void **state)
{
	static uint8_t garbage[1 << 20];
	uint64_t random = 3;

	(void)state;
	for (size_t i = 0; i < sizeof garbage; i++)
		garbage[i] = (uint8_t)bridge_random(&random);
	int fd = bridge_raw_connect(bridge.address);
	bridge_raw_send(fd, "GET / HTTP/1.1\r\n\r\n", 18);
	bridge_raw_expect_error(fd, "too_big", true, "limit");
	close(fd);
	fd = bridge_raw_connect(bridge.address);
	bridge_raw_send(fd, garbage, sizeof garbage);
	bridge_raw_expect_error(fd, "too_big", true, "limit");
	close(fd);
}

static void test_streams_that_end_inside_a_frame(void **state)
{
	const uint8_t length[] = {100, 0, 0, 0, 0x81};

	(void)state;
	for (size_t n = 0; n <= sizeof length; n++) {
		int fd = bridge_raw_connect(bridge.address);
		bridge_raw_hello(fd);
		bridge_raw_send(fd, length, n);
		close(fd);
	}
	bridge_await(&bridge, &bridge.seen.left, 6);
	assert_string_equal(bridge.seen.last_why, "closed the connection");
}

static void test_slow_peers_are_ended(void **state)
{
	(void)state;
	int silent = bridge_raw_connect(bridge.address), slow = bridge_raw_connect(bridge.address);
	bridge_raw_send(slow, "\x10", 1);
	bridge_raw_expect_error(silent, "timeout", true, "handshake took too long");
	bridge_raw_expect_error(slow, "timeout", true, "handshake took too long");
	close(silent);
	close(slow);
	int half = bridge_raw_connect(bridge.address), idle = bridge_raw_connect(bridge.address);
	bridge_raw_hello(half);
	bridge_raw_hello(idle);
	bridge_raw_send(half, "\x10\x00\x00\x00\x81", 5);
	bridge_raw_expect_error(half, "timeout", true, "begun and not finished");
	close(half);
	bridge_lock(&bridge);
	assert_int_equal(server_peers(bridge.server), 1); /* the idle one trains, which is its right */
	bridge_unlock(&bridge);
	close(idle);
}

/* A byte now and then is no progress: time counts from the beginning of the frame, or of the connection. */
static void test_peers_that_drip_are_ended(void **state)
{
	uint8_t frame[256] = {200, 0, 0, 0, 0x81};

	(void)state;
	for (int welcome = 0; welcome < 2; welcome++) {
		int fd = bridge_raw_connect(bridge.address);
		if (welcome)
			bridge_raw_hello(fd);
		size_t sent = 0;
		while (sent < 204 && send(fd, frame + sent, 1, MSG_NOSIGNAL) == 1) { /* 10 s in all */
			uint8_t answer;
			sent++;
			nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
			if (recv(fd, &answer, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
				break;
		}
		assert_true(sent < 204);
		bridge_raw_expect_error(fd, "timeout", true, welcome ? "begun and not finished" : "handshake took too long");
		close(fd);
	}
}

static struct message_writer *hello(int64_t oldest, int64_t newest, const char *name, const char *role,
                                    size_t nonce)
{
	struct message_writer *w = message_writer_open();
	const uint8_t zeros[64] = {0};

	frame_begin(w, FRAME_HELLO, 6);
	message_key(w, "protocol_min"); message_put_int(w, oldest);
	message_key(w, "protocol_max"); message_put_int(w, newest);
	message_key(w, "name"); message_put_text(w, name);
	message_key(w, "role"); message_put_text(w, role);
	message_key(w, "nonce"); message_put_bin(w, zeros, nonce);
	message_key(w, "colour"); message_put_text(w, "of no concern"); /* unknown fields are ignored */
	return w;
}

static void hello_fails(struct message_writer *w, const char *code, const char *said)
{
	int fd = bridge_raw_connect(bridge.address);

	bridge_raw_message(fd, w);
	message_writer_close(w);
	bridge_raw_expect_error(fd, code, true, said);
	close(fd);
}

static void test_hello_is_checked(void **state)
{
	char name[PEER_NAME_BYTES_MAX + 2];

	(void)state;
	memset(name, 'n', sizeof name);
	name[sizeof name - 1] = 0;
	hello_fails(hello(2, 9, "a", "trainer", NONCE_BYTES), "unsupported",
	            "versions 2 to 9, this server 1 to 1");
	hello_fails(hello(0, 0, "a", "trainer", NONCE_BYTES), "unsupported", "versions 0 to 0");
	hello_fails(hello(1, 1, "a", "tourist", NONCE_BYTES), "unsupported", "'tourist'");
	hello_fails(hello(1, 1, "a", "trainer", 31), "invalid", "expected 32 bytes, found 31");
	hello_fails(hello(1, 1, "", "trainer", NONCE_BYTES), "invalid", "1 to 128 bytes");
	hello_fails(hello(1, 1, name, "trainer", NONCE_BYTES), "invalid", "found 129");
	hello_fails(hello(1, 1, "\x1b[2J", "trainer", NONCE_BYTES), "invalid", "control characters");
	hello_fails(hello(1, 1, NULL, "trainer", NONCE_BYTES), "invalid", "found 0");

	struct message_writer *w = hello(0, 7, "a", "trainer", NONCE_BYTES);
	int fd = bridge_raw_connect(bridge.address);
	bridge_raw_message(fd, w);
	message_writer_close(w);
	message_close(bridge_raw_receive(fd));
	w = hello(1, 1, "a", "trainer", NONCE_BYTES);
	bridge_raw_message(fd, w);
	message_writer_close(w);
	bridge_raw_expect_error(fd, "state", true, "'hello' at the wrong moment: the handshake is over");
	close(fd);
}

static void plain(int fd, enum frame_type type)
{
	struct message_writer *w = message_writer_open();

	frame_begin(w, type, 0);
	bridge_raw_message(fd, w);
	message_writer_close(w);
}

static void expect_type(int fd, enum frame_type type)
{
	struct message *message = bridge_raw_receive(fd);
	const char *text;
	struct err err;

	assert_non_null(message);
	assert_int_equal(message_get_text(message_root(message), "type", &text, &err), 0);
	assert_string_equal(text, frame_name(type));
	message_close(message);
}

static void test_frames_out_of_turn(void **state)
{
	static const char *const senders[] = {
#define X(name, text, sender) sender,
		FRAME_LIST(X)
#undef X
	};

	(void)state;
	for (int type = FRAME_AUTH; type < FRAME_TYPES; type++) {
		int fd = bridge_raw_connect(bridge.address);
		plain(fd, (enum frame_type)type);
		bool taken = strcmp(senders[type], "server") != 0;
		bridge_raw_expect_error(fd, taken ? "state" : "unsupported", true,
		                        taken ? "expected 'hello' first" : "not one");
		close(fd);
	}
}

static void test_unknown_types_are_answered_and_survived(void **state)
{
	struct message_writer *w = message_writer_open();
	int fd = bridge_raw_connect(bridge.address);

	(void)state;
	bridge_raw_hello(fd);
	message_begin_map(w, 1);
	message_key(w, "type"); message_put_text(w, "submit_prompts");
	bridge_raw_message(fd, w);
	bridge_raw_expect_error(fd, "unsupported", false, "'submit_prompts'");
	plain(fd, FRAME_PING);
	expect_type(fd, FRAME_PONG);
	plain(fd, FRAME_PULL); /* a known one without its field is fatal */
	bridge_raw_expect_error(fd, "missing", true, "'credits'");
	close(fd);
	message_writer_close(w);
}

/* Answers pile up in a peer that does not read: the server stops reading it, and loses none. */
static void test_a_peer_that_only_writes_is_held_back(void **state)
{
	enum { N = 200000 };
	struct message_writer *w = message_writer_open();
	size_t n_bytes, sent = 0;

	(void)state;
	frame_begin(w, FRAME_PING, 0);
	const void *ping = message_bytes(w, &n_bytes);
	uint8_t *all = malloc(N * (n_bytes + 4));
	for (size_t i = 0; i < N; i++) {
		frame_put_length(all + i * (n_bytes + 4), n_bytes);
		memcpy(all + i * (n_bytes + 4) + 4, ping, n_bytes);
	}
	int fd = bridge_raw_connect(bridge.address);
	bridge_raw_hello(fd);
	for (int still = 0; sent < N * (n_bytes + 4) && still < 50;) { /* until it takes no more for 100 ms */
		ssize_t n = send(fd, all + sent, N * (n_bytes + 4) - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0)
			sent += (size_t)n;
		still = n > 0 ? 0 : still + 1;
		if (n <= 0)
			nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	assert_true(sent < N * (n_bytes + 4)); /* the sockets' buffers and 64 KiB, not megabytes */
	for (size_t pongs = 0; pongs < sent / (n_bytes + 4); pongs++)
		expect_type(fd, FRAME_PONG);
	close(fd);
	free(all);
	message_writer_close(w);
}

static void test_connections_are_counted(void **state)
{
	int fds[PEERS_MAX];

	(void)state;
	for (int i = 0; i < PEERS_MAX; i++) {
		fds[i] = bridge_raw_connect(bridge.address);
		bridge_raw_hello(fds[i]);
	}
	int extra = bridge_raw_connect(bridge.address);
	bridge_raw_expect_error(extra, "busy", true, "try again later");
	close(extra);
	for (int i = 0; i < PEERS_MAX; i++)
		close(fds[i]);
	bridge_await(&bridge, &bridge.seen.left, PEERS_MAX);
}

/* ---- weights ---- */

static void begin_push(int fd, int64_t version, const char *encoding)
{
	struct message_writer *w = message_writer_open();

	frame_begin(w, FRAME_WEIGHTS_BEGIN, 2);
	message_key(w, "version"); message_put_int(w, version);
	message_key(w, "encoding"); message_put_text(w, encoding);
	bridge_raw_message(fd, w);
	message_writer_close(w);
}

static void chunk(int fd, int64_t version, const char *name, uint64_t offset, const void *bytes,
                  size_t n_bytes)
{
	struct message_writer *w = message_writer_open();

	frame_begin(w, FRAME_WEIGHTS_CHUNK, 4);
	message_key(w, "version"); message_put_int(w, version);
	message_key(w, "name"); message_put_text(w, name);
	message_key(w, "offset"); message_put_uint(w, offset);
	message_key(w, "data"); message_put_bin(w, bytes, n_bytes);
	bridge_raw_message(fd, w);
	message_writer_close(w);
}

static void checksum(int fd, int64_t version, const char *name, uint64_t xxh3)
{
	struct message_writer *w = message_writer_open();

	frame_begin(w, FRAME_WEIGHTS_TENSOR, 3);
	message_key(w, "version"); message_put_int(w, version);
	message_key(w, "name"); message_put_text(w, name);
	message_key(w, "xxh3"); message_put_uint(w, xxh3);
	bridge_raw_message(fd, w);
	message_writer_close(w);
}

static void test_a_push_has_one_answer(void **state)
{
	const char *norm = "model.norm.weight";
	uint8_t bytes[129] = {0};
	int fd = bridge_raw_connect(bridge.address), other = bridge_raw_connect(bridge.address);

	(void)state;
	bridge_raw_hello(fd);
	bridge_raw_hello(other);
	begin_push(fd, 1, "zip");
	bridge_raw_expect_error(fd, "unsupported", false, "expected 'full'");
	begin_push(fd, 1, "full");
	chunk(fd, 1, norm, 0, bytes, 128);
	checksum(fd, 1, norm, 1234);
	chunk(fd, 1, "nonsense", 77, bytes, 1); /* behind the refusal: ignored */
	checksum(fd, 1, "nonsense", 1);
	bridge_raw_expect_error(fd, "invalid", false, "its XXH3 is");
	plain(fd, FRAME_PING);
	expect_type(fd, FRAME_PONG);

	begin_push(fd, 1, "full");
	plain(fd, FRAME_PING);
	expect_type(fd, FRAME_PONG);
	begin_push(other, 1, "full");
	bridge_raw_expect_error(other, "busy", false, "another peer is pushing");
	chunk(fd, 2, norm, 0, bytes, 128);
	bridge_raw_expect_error(fd, "invalid", false, "version 1 is being taken in, found 2");
	begin_push(other, 1, "full"); /* free again */
	chunk(other, 1, norm, 0, bytes, 129);
	bridge_raw_expect_error(other, "too_big", false, "expected 128 bytes");
	chunk(other, 1, NULL, 0, bytes, 1);
	begin_push(other, 1, "full");
	close(other); /* in the middle: dropped with it */
	bridge_await(&bridge, &bridge.seen.left, 1);
	begin_push(fd, 1, "full");
	chunk(fd, 1, NULL, 0, bytes, 1);
	bridge_raw_expect_error(fd, "missing", false, "no tensor ''");
	close(fd);
	assert_int_equal(bridge.seen.versions, 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_payloads_that_are_no_messages),
		CASE(test_lengths_beyond_the_limit),
		CASE(test_garbage_is_told_so_however_long),
		CASE(test_streams_that_end_inside_a_frame),
		CASE(test_slow_peers_are_ended),
		CASE(test_peers_that_drip_are_ended),
		CASE(test_hello_is_checked),
		CASE(test_frames_out_of_turn),
		CASE(test_unknown_types_are_answered_and_survived),
		CASE(test_a_peer_that_only_writes_is_held_back),
		CASE(test_connections_are_counted),
		CASE(test_a_push_has_one_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
