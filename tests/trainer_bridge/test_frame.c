/* test_frame.c - frames cut from a byte stream, and addresses from text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "tests/support/bridge_fixture.h"
#include "trainer_bridge/wire/address.h"
#include "trainer_bridge/wire/frame.h"

static void feed(struct frame_reader *reader, const uint8_t *bytes, size_t n_bytes)
{
	while (n_bytes > 0) {
		size_t space;
		void *at = frame_reader_space(reader, &space);
		size_t n = n_bytes < space ? n_bytes : space;
		memcpy(at, bytes, n);
		frame_reader_filled(reader, n);
		bytes += n;
		n_bytes -= n;
	}
}

/* Frame i of the stream below: (i * 7919) % 3000 + 1 bytes, all of them i. */
static size_t size_of(int i)
{
	return (size_t)i * 7919 % 3000 + 1;
}

static void test_frames_survive_any_cutting(void **state)
{
	enum { N = 200 };
	static uint8_t stream[N * 3100];
	size_t n_bytes = 0;
	uint64_t random = 5;

	(void)state;
	for (int i = 0; i < N; i++) {
		frame_put_length(stream + n_bytes, size_of(i));
		memset(stream + n_bytes + FRAME_LENGTH_BYTES, i, size_of(i));
		n_bytes += FRAME_LENGTH_BYTES + size_of(i);
	}
	for (size_t largest = 1; largest < 20000; largest = largest * 3 + 1) {
		struct frame_reader *reader = frame_reader_open(3000);
		const void *payload;
		struct err err;
		size_t n, at = 0;
		int i = 0;
		while (at < n_bytes) {
			size_t cut = bridge_random(&random) % largest + 1;
			cut = cut < n_bytes - at ? cut : n_bytes - at;
			feed(reader, stream + at, cut);
			at += cut;
			for (; frame_next(reader, &payload, &n, &err) > 0; i++) {
				assert_int_equal(n, size_of(i));
				assert_int_equal(((const uint8_t *)payload)[0], i);
				assert_int_equal(((const uint8_t *)payload)[n - 1], i);
			}
		}
		assert_int_equal(i, N);
		assert_false(frame_reader_partial(reader));
		frame_reader_close(reader);
	}
}

static void test_lengths_have_limits(void **state)
{
	const struct { uint8_t bytes[4]; int code; } cases[] = {
		{{0, 0, 0, 0}, ERR_INVALID},
		{{0xff, 0xff, 0xff, 0xff}, ERR_TOO_BIG},
		{{0x01, 0x10, 0, 0}, ERR_TOO_BIG},
		{{0x00, 0x10, 0, 0}, 0},
		{{0x01, 0, 0, 0}, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct frame_reader *reader = frame_reader_open(4096);
		const void *payload;
		struct err err;
		size_t n;
		feed(reader, cases[i].bytes, 3);
		assert_int_equal(frame_next(reader, &payload, &n, &err), 0);
		feed(reader, cases[i].bytes + 3, 1);
		assert_int_equal(frame_next(reader, &payload, &n, &err), cases[i].code);
		assert_true(frame_reader_partial(reader));
		frame_reader_close(reader);
	}
}

static void test_memory_follows_what_arrived(void **state)
{
	const uint8_t announced[] = {0, 0, 0, 0x40}; /* 1 GiB */
	struct frame_reader *reader = frame_reader_open(FRAME_BYTES_LIMIT);
	size_t space;

	(void)state;
	feed(reader, announced, sizeof announced);
	frame_reader_space(reader, &space);
	assert_true(space < 1 << 20);
	frame_reader_close(reader);
}

static void test_words_go_both_ways(void **state)
{
	(void)state;
	for (int i = 0; i < FRAME_TYPES; i++)
		assert_int_equal(frame_type_parse(frame_name((enum frame_type)i)), i);
	assert_int_equal(frame_type_parse("helo"), -1);
	assert_int_equal(frame_type_parse(NULL), -1);
	assert_int_equal(wire_error_of(ERR_STATE), WIRE_STATE);
	assert_int_equal(wire_error_of(ERR_PEER), WIRE_INTERNAL);
	assert_int_equal(wire_error_of(-999), WIRE_INTERNAL);
	assert_int_equal(wire_error_parse("busy"), ERR_STATE);
	assert_int_equal(wire_error_parse("from the future"), ERR_PEER);
	assert_true(wire_error_may_retry(WIRE_BUSY));
	assert_false(wire_error_may_retry(WIRE_AUTH));
}

static void address_fails(const char *text, int code, const char *said)
{
	struct address address;
	struct err err = {0};

	assert_int_equal(address_parse(&address, text, &err), code);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
}

static void test_addresses(void **state)
{
	struct address address;
	struct err err;
	char path[200] = "unix:";

	(void)state;
	assert_int_equal(address_parse(&address, "unix:/tmp/x.sock", &err), 0);
	assert_true(address.is_unix && address.is_loopback);
	assert_string_equal(address.path, "/tmp/x.sock");
	assert_int_equal(address_parse(&address, "tcp:127.0.0.1:7000", &err), 0);
	assert_true(!address.is_unix && address.is_loopback);
	assert_int_equal(ntohs(((struct sockaddr_in *)&address.socket)->sin_port), 7000);
	assert_int_equal(address_parse(&address, "tcp:[::1]:0", &err), 0);
	assert_true(address.is_loopback);
	assert_int_equal(address_parse(&address, "tcp:*:7000", &err), 0);
	assert_false(address.is_loopback);
	assert_int_equal(address_parse(&address, "tcp:192.0.2.7:7000", &err), 0);
	assert_false(address.is_loopback);

	memset(path + 5, 'x', 107);
	assert_int_equal(address_parse(&address, path, &err), 0);
	path[112] = 'x';
	address_fails(path, ERR_TOO_BIG, "at most 107");
	address_fails("unix:", ERR_USAGE, "needs a path");
	address_fails("http://x", ERR_USAGE, "unix:PATH or tcp:HOST:PORT");
	address_fails("tcp:localhost", ERR_USAGE, "tcp:HOST:PORT");
	address_fails("tcp::7000", ERR_USAGE, "tcp:HOST:PORT");
	address_fails("tcp:127.0.0.1:", ERR_USAGE, "tcp:HOST:PORT");
	address_fails("tcp:127.0.0.1:65536", ERR_USAGE, "0 to 65535");
	address_fails("tcp:127.0.0.1:-1", ERR_USAGE, "0 to 65535");
	address_fails("tcp:127.0.0.1:80x", ERR_USAGE, "0 to 65535");
	address_fails("tcp:::1:80", ERR_USAGE, "brackets");
}

/* A chunk of weights, with its data last or not. */
static const uint8_t *write_chunk(struct message_writer *w, const uint8_t *data, size_t n_data, bool last, size_t *n_bytes)
{
	message_writer_reset(w);
	frame_begin(w, FRAME_WEIGHTS_CHUNK, 4);
	for (int i = 0; i < 2; i++)
		if (last == (i == 1)) {
			message_key(w, "data");
			message_put_bin(w, data, n_data);
		} else {
			message_key(w, "version");
			message_put_int(w, 70000);
			message_key(w, "name");
			message_put_text(w, "model.embed_tokens.weight, which is long enough for a length of its own");
			message_key(w, "offset");
			message_put_uint(w, 1ull << 40);
		}
	return message_bytes(w, n_bytes);
}

/* However a long frame is cut, its head is found as soon as it is there, and its body behind it. */
static void test_heads_and_bodies(void **state)
{
	static uint8_t data[70000], taken[sizeof data], head[CHUNK_HEAD_BYTES_MAX], length[FRAME_LENGTH_BYTES];
	struct message_writer *w = message_writer_open();
	size_t n_bytes, head_bytes, body_bytes, space;
	struct message *message;
	struct err err;
	int64_t version;

	(void)state;
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + i / 256);
	const uint8_t *payload = write_chunk(w, data, sizeof data, true, &n_bytes);
	size_t before = n_bytes - sizeof data;
	frame_put_length(length, n_bytes);
	for (size_t cut = 0; cut < before + 20; cut++) {
		struct frame_reader *reader = frame_reader_open(1 << 20);
		uint8_t *at = frame_reader_space(reader, &space);
		memcpy(at, length, sizeof length);
		memcpy(at + sizeof length, payload, cut);
		frame_reader_filled(reader, sizeof length + cut);
		assert_int_equal(frame_head(reader, head, &head_bytes, &body_bytes), cut >= before);
		if (cut >= before) {
			assert_int_equal(body_bytes, sizeof data);
			assert_int_equal(message_parse(&message, head, head_bytes, &err), 0);
			assert_int_equal(message_get_int(message_root(message), "version", 0, INT32_MAX, &version, &err), 0);
			assert_int_equal(version, 70000);
			message_close(message);
			frame_take_head(reader);
			assert_int_equal(frame_take_body(reader, taken, sizeof data), cut - before);
			assert_memory_equal(taken, data, cut - before);
			assert_int_equal(frame_take_body(reader, taken, 5), 0);
			assert_false(frame_reader_partial(reader));
		}
		frame_reader_close(reader);
	}
	message_writer_close(w);
}

/* Nothing else is taken for such a head, and damaged ones are read within their bounds. */
static void test_what_is_no_head(void **state)
{
	static uint8_t data[20000];
	struct message_writer *w = message_writer_open();
	size_t n_bytes, body_bytes, bin_at;
	uint64_t random = 1;

	(void)state;
	const uint8_t *payload = write_chunk(w, data, sizeof data, false, &n_bytes);
	assert_int_equal(message_head(payload, 200, n_bytes, &body_bytes, &bin_at), 0); /* fields behind it */
	payload = write_chunk(w, data, sizeof data, true, &n_bytes);
	size_t before = n_bytes - sizeof data;
	assert_int_equal(message_head(payload, before, n_bytes, &body_bytes, &bin_at), before);
	assert_int_equal(message_head(payload, before, n_bytes + 1, &body_bytes, &bin_at), 0); /* more than the bin */
	assert_int_equal(message_head(payload, before, n_bytes - 1, &body_bytes, &bin_at), 0);
	for (int i = 0; i < 200000; i++) {
		size_t n = bridge_random(&random) % (before + 1);
		uint8_t *bytes = malloc(n ? n : 1); /* so that a sanitizer sees what is read beyond */
		memcpy(bytes, payload, n);
		for (uint32_t k = bridge_random(&random) % 4; n && k > 0; k--)
			bytes[bridge_random(&random) % n] = (uint8_t)bridge_random(&random);
		size_t found = message_head(bytes, n, n_bytes, &body_bytes, &bin_at);
		assert_true(found <= n);
		if (found)
			assert_int_equal(body_bytes, n_bytes - found);
		free(bytes);
	}
	message_writer_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_survive_any_cutting),
		cmocka_unit_test(test_lengths_have_limits),
		cmocka_unit_test(test_memory_follows_what_arrived),
		cmocka_unit_test(test_words_go_both_ways),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_heads_and_bodies),
		cmocka_unit_test(test_what_is_no_head),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
